"""A login that a reload overtakes goes on with the configuration that it began with, and nobody is ever
led to a database by a pool that was made for another one."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import signal
import threading

import pytest
from conftest import own_cluster, redis_section

from stand import proc, tokens, wire


class Held(wire.Client):
    """Stops before it sends what the stage is about, until it may go on."""

    def __init__(self, login, address, **more):
        self.login_thread = login
        login.hold("accepted")
        super().__init__(address, **more)

    def start_tls(self, *args):
        self.login_thread.hold("tls")
        super().start_tls(*args)
        self.login_thread.hold("startup")

    def send(self, *parts):
        if parts[0][:1] == b"p":
            self.login_thread.hold("proof")
            if b",p=" in parts[0]:
                self.login_thread.hold("scram final")
        super().send(*parts)


class Login(threading.Thread):
    """One login in a thread of its own, held at a stage."""

    def __init__(self, stand, gate, stage, user, database, secret, **parameters):
        super().__init__(daemon=True)
        self.stand, self.gate, self.stage = stand, gate, stage
        self.words, self.parameters = (user, database, secret), parameters
        self.reached, self.go = threading.Event(), threading.Event()
        self.client = self.error = None

    def hold(self, stage):
        if stage == self.stage:
            if stage == "accepted": # the connection is there, and nothing else
                return
            self.reached.set()
            assert self.go.wait(60 * proc.PATIENCE)

    def run(self):
        c = None
        try:
            address = ("127.0.0.1", self.gate.port())
            if self.stage == "accepted":
                c = Held(self, address, tls=None)
                self.reached.set()
                assert self.go.wait(60 * proc.PATIENCE)
                c.socket.sendall(wire.SSL_REQUEST)
                assert c.socket.recv(1) == b"S"
                c.start_tls(self.stand.authority.crt)
            else:
                c = Held(self, address, ca=self.stand.authority.crt)
            self.client = c.login(*self.words, **self.parameters)
        except Exception as e: # noqa: BLE001 (told where it is joined)
            self.error = e
            if c: # the gate would wait for that when it ends
                c.close()

    def held(self, console=None):
        self.start()
        proc.wait_for(f"the stage {self.stage}", 20, lambda: self.reached.is_set() or self.error)
        assert not self.error, self.error
        if self.stage == "accepted":
            proc.wait_for("the gate to have it", 20, lambda: [
                r for r in console.query("SHOW CLIENTS") if r[1] == "greeting"])
        return self

    def outcome(self):
        """The client, or the error."""
        self.go.set()
        self.join(60 * proc.PATIENCE)
        assert not self.is_alive()
        return self.client or self.error


@pytest.fixture
def begin(stand):
    """begin(gate, stage, user, database, secret, ...): a login; its connection is closed at the end."""
    made = []

    def get(gate, stage, user, database, secret, **parameters):
        made.append(Login(stand, gate, stage, user, database, secret, **parameters))
        return made[-1]
    yield get
    for it in made:
        it.go.set()
        if it.ident:
            it.join(20)
        if it.client:
            it.client.close()


STAGES = ["accepted", "tls", "startup", "proof"]


def own_keys(stand, *keys):
    path = stand.path("keys", f"jwks-{os.urandom(4).hex()}.json")
    tokens.write_jwks(path, keys)
    return path


@pytest.mark.parametrize("stage", STAGES)
def test_login_under_way_keeps_its_keys_and_rules(make_gate, stand, login, console, token, begin, stage):
    jwks = own_keys(stand, stand.signing_key)
    gate = make_gate({"issuer stand": {"jwks_file": jwks}})
    c = console(gate)
    it = begin(gate, stage, "acme_rw", "acme", token()).held(c)
    fresh = tokens.Key(stand.path("keys", f"fresh-{os.urandom(4).hex()}.pem"), "fresh", "ES256")
    tokens.write_jwks(jwks, [fresh])
    gate.write({"tenant acme": {"roles": "ro", "databases": "acme_session"}})
    c.query("RELOAD")
    with pytest.raises(wire.ServerError) as e:
        login(gate)
    assert e.value.code == "28P01"
    assert is_let_in_and_ended(it.outcome())


@pytest.mark.parametrize("stage", [*STAGES, "scram final"])
def test_login_under_way_keeps_its_users(make_gate, stand, login, console, begin, stage):
    users = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")

    def write(*rows):
        with open(users, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.writelines(rows)
    admin = f'"{stand.admin_user}" "{stand.scram(stand.admin_password)}" - -\n'
    write(admin, f'"late" "{stand.scram("secret")}" acme rw\n')
    gate = make_gate({"postern": {"users_file": users}, "listener main": {"scram_users": "late"}})
    c = console(gate)
    it = begin(gate, stage, "late", "acme", "secret").held(c)
    write(admin)
    c.query("RELOAD")
    with pytest.raises(wire.ServerError) as e:
        login(gate, user="late", secret="secret")
    assert e.value.code == "28P01"
    assert is_let_in_and_ended(it.outcome())


def is_told_to_come_again(error):
    assert isinstance(error, wire.ServerError), error
    assert error.code == "57P01" and "configuration" in error.message and error.hint, error
    return True


def is_let_in_and_ended(client):
    """By the rules that it began with, and then by those that are in force."""
    assert isinstance(client, wire.Client), client
    fields = client.refusal()
    return fields["C"] == "57P01" and "taken away" in fields["M"]


def is_ended(client):
    """It is told the same between two requests."""
    fields = client.refusal()
    return fields["C"] == "57P01" and "configuration" in fields["M"]


@pytest.mark.parametrize("stage", STAGES)
def test_login_under_way_to_a_database_that_moved(make_gate, stand, login, console, token, elsewhere,
                                                  begin, database, stage):
    """Neither the old one through a pool of the new, nor the new one by the rules of the old."""
    gate = make_gate()
    c = console(gate)
    login(gate, database).close() # an idle connection is there
    it = begin(gate, stage, "acme_rw", database, token()).held(c)
    gate.write({f"database {database}": {"dbname": elsewhere}})
    c.query("RELOAD")
    assert login(gate, database).query("SELECT current_database()") == [[elsewhere]]
    assert is_told_to_come_again(it.outcome())
    gate.write({f"database {database}": {"dbname": "acme"}})
    c.query("RELOAD")
    assert login(gate, database).query("SELECT current_database()") == [["acme"]]


@pytest.mark.parametrize("stage", STAGES)
def test_login_under_way_to_a_database_that_moved_and_came_back(make_gate, stand, login, console, token,
                                                                 elsewhere, begin, stage):
    gate = make_gate()
    c = console(gate)
    it = begin(gate, stage, "acme_rw", "acme", token()).held(c)
    for dbname in (elsewhere, "acme"):
        gate.write({"database acme": {"dbname": dbname}})
        c.query("RELOAD")
    assert is_told_to_come_again(it.outcome())
    assert login(gate).query("SELECT current_database()") == [["acme"]]


@pytest.mark.parametrize("stage", STAGES)
def test_login_under_way_to_a_database_with_another_mode(make_gate, stand, console, token, begin, stage):
    gate = make_gate()
    c = console(gate)
    it = begin(gate, stage, "acme_rw", "acme", token()).held(c)
    gate.write({"database acme": {"pool_mode": "session"}})
    c.query("RELOAD")
    assert is_told_to_come_again(it.outcome())


@pytest.mark.parametrize("stage", STAGES)
def test_login_under_way_to_a_database_that_is_gone(make_gate, stand, console, token, begin, stage):
    gate = make_gate()
    c = console(gate)
    it = begin(gate, stage, "acme_rw", "acme", token()).held(c)
    gate.write({"database acme": None, "tenant acme": {"databases": "*"}})
    c.query("RELOAD")
    assert is_told_to_come_again(it.outcome())


def test_login_that_waits_for_its_limits(make_gate, stand, login, console, token, elsewhere, begin, own_redis):
    """Held inside the gate: Redis does not answer yet."""
    gate = make_gate({"redis": redis_section(own_redis, timeout="10s"), "postern": {"workers": 1}})
    c = console(gate)
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        stays = begin(gate, "none", "acme_rw", "acme_session", token())
        goes = begin(gate, "none", "acme_rw", "acme", token())
        stays.start()
        goes.start()
        proc.wait_for("both to wait", 20, lambda: [r[1] for r in c.query("SHOW CLIENTS")].count("admitting") == 2)
        gate.write({"database acme": {"dbname": elsewhere}, "tenant acme": {"roles": "ro"}})
        c.query("RELOAD")
        assert [r[1] for r in c.query("SHOW CLIENTS")].count("admitting") == 2
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    assert is_let_in_and_ended(stays.outcome())
    assert is_told_to_come_again(goes.outcome())


def test_login_that_waits_for_a_connection(make_gate, stand, login, console, token, elsewhere, begin):
    """Held inside the gate: the pool is full. In session mode a login is lent its connection."""
    gate = make_gate({"database acme_session": {"pool_size": 1}, "postern": {"workers": 1}})
    c = console(gate)
    holder = login(gate, "acme_session")
    it = begin(gate, "none", "acme_rw", "acme_session", token())
    it.start()
    proc.wait_for("it to wait", 20, lambda: "admitting" in [r[1] for r in c.query("SHOW CLIENTS")])
    gate.write({"plan metered": {"queries_per_second": 4711}, "tenant acme": {"roles": "ro"}})
    c.query("RELOAD")
    assert is_let_in_and_ended(holder)
    assert is_let_in_and_ended(it.outcome())
    gate.write({"tenant acme": {"roles": "ro, rw"}})
    c.query("RELOAD")
    holder = login(gate, "acme_session")
    it = begin(gate, "none", "acme_rw", "acme_session", token())
    it.start()
    proc.wait_for("it to wait", 20, lambda: "admitting" in [r[1] for r in c.query("SHOW CLIENTS")])
    gate.write({"database acme_session": {"dbname": elsewhere}})
    c.query("RELOAD")
    assert is_told_to_come_again(it.outcome()), "at once, while the holder still has the only connection"


def test_login_under_way_does_not_bring_old_limits_back(make_gate, stand, login, console, token, begin):
    gate = make_gate({"postern": {"workers": 1}})
    c = console(gate)
    it = begin(gate, "proof", "acme_rw", "acme", token()).held(c)
    gate.write({"plan standard": {"queries_per_second": 4711}, "plan other": {"queries_per_second": 7654321},
                "tenant acme": {"plan": "other"}})
    c.query("RELOAD")

    def limits():
        return [(r[1], r[5]) for r in c.query("SHOW LIMITS") if r[0] == "acme"]
    login(gate).query("SELECT 1")
    assert limits() == [("other", "7654321")]
    it.outcome().query("SELECT 1")
    assert limits() == [("other", "7654321")]


# ---- databases that move ----

def test_idle_connection_of_before_is_never_lent(make_gate, login, console, elsewhere, database):
    """Nobody is logged in when it moves: the old pool has idle connections and no session."""
    gate = make_gate({"postern": {"workers": 1}, "database acme_session": {"session_reuse": "on"}})
    c = console(gate)
    for dbname in (elsewhere, "acme") * 5:
        gate.write({f"database {database}": {"dbname": dbname}})
        c.query("RELOAD")
        client = login(gate, database)
        assert client.query("SELECT current_database()") == [[dbname]]
        client.close()


def test_waiting_session_is_told_when_its_database_moves(make_gate, login, console, elsewhere):
    gate = make_gate({"database acme_pool1": {"wait_limit": "10min"}})
    c = console(gate)
    holder, waiting = login(gate, "acme_pool1"), login(gate, "acme_pool1")
    holder.query("BEGIN")
    waiting.send(wire.query("SELECT current_database()"))
    proc.wait_for("it to wait", 20, lambda: "queued" in [r[1] for r in c.query("SHOW CLIENTS")])
    gate.write({"database acme_pool1": {"dbname": elsewhere}})
    c.query("RELOAD")
    with pytest.raises(wire.ServerError) as e:
        waiting.until_ready()
    assert is_told_to_come_again(e.value)
    assert login(gate, "acme_pool1").query("SELECT current_database()") == [[elsewhere]]
    assert holder.query("SELECT current_database()") == [["acme"]], "a transaction may finish where it began"
    holder.query("COMMIT")
    assert is_ended(holder)


class Visitor(threading.Thread):
    """Logs in, asks where it is a few times, in and out of transactions, and comes again when it is told
    to. One session is always in one place."""

    def __init__(self, stop, open_client):
        super().__init__(daemon=True)
        self.stop, self.open = stop, open_client
        self.wrong, self.visits = [], 0

    def run(self):
        while not self.stop.is_set():
            try:
                with self.open() as c:
                    places = set()
                    for n in range(4):
                        if n % 2:
                            c.query("BEGIN")
                        places |= {r[0] for r in c.query("SELECT current_database()")}
                        if n % 2:
                            c.query("COMMIT")
                    self.visits += 1
                    if len(places) != 1:
                        self.wrong.append(places)
            except wire.ServerError as e:
                if e.code != "57P01":
                    self.wrong.append(str(e))
            except (wire.Closed, ConnectionError):
                pass # told while it was between two requests
            except Exception as e: # noqa: BLE001
                self.wrong.append(repr(e))


@pytest.mark.parametrize("was", ["transaction", "session"])
def test_session_that_is_never_idle_ends_when_its_mode_changes(make_gate, login, console, was):
    """With its next transaction, and not when it happens to be seen between two."""
    gate = make_gate({"database acme": {"pool_mode": was}})
    c, admin = login(gate), console(gate)
    c.query("BEGIN")
    gate.write({"database acme": {"pool_mode": {"session": "transaction", "transaction": "session"}[was]}})
    admin.query("RELOAD")
    c.query("SELECT 'goes on'")
    c.query("COMMIT")
    with contextlib.suppress(ConnectionError):
        c.send(wire.query("SELECT 'next'"))
    assert [f["C"] for f in wire.errors(c.until_closed())] == ["57P01"]


def test_database_moves_back_and_forth_under_load(make_gate, stand, login, console, token, elsewhere):
    """No login that is made after a reload sees the database of before, whatever else is there."""
    gate = make_gate({"database acme": {"pool_size": 3}, "database acme_session": {"pool_size": 9}})
    c, stop = console(gate), threading.Event()

    def visit(database):
        address, ca = ("127.0.0.1", gate.port()), stand.authority.crt
        return lambda: wire.Client(address, ca=ca).login("acme_rw", database, token())
    visitors = [Visitor(stop, visit(name)) for name in ("acme", "acme_session") for _ in range(3)]
    for it in visitors:
        it.start()
    try:
        for n in range(30):
            there = (elsewhere, "acme")[n % 2]
            gate.write({"database acme": {"dbname": there}, "database acme_session": {"dbname": there}})
            c.query("RELOAD")
            for database in ("acme", "acme_session"):
                with visit(database)() as fresh:
                    assert fresh.query("SELECT current_database()") == [[there]], n
    finally:
        stop.set()
        for it in visitors:
            it.join(60 * proc.PATIENCE)
    assert not [it.wrong for it in visitors if it.wrong]
    assert all(it.visits for it in visitors)


def test_cluster_that_moved_is_never_reached_again(make_gate, login, console, nodes):
    """The same name, other nodes: what is idle leads to the old ones, which hang."""
    gate = make_gate(own_cluster(nodes[:1], connect_timeout="10s"))
    c = console(gate)
    login(gate).query("SELECT 1")
    held = login(gate)
    nodes[0].freeze()
    try:
        gate.write(own_cluster(nodes[1:2]))
        c.query("RELOAD")
        proc.wait_for("the new node", 20, lambda: gate.is_ready() and not [
            r for r in c.query("SHOW NODES") if r[1].endswith(f":{nodes[0].port}")])
        for database in ("acme", "acme_session"):
            assert login(gate, database).query("SELECT 1") == [["1"]]
        assert is_ended(held)
        proc.wait_for("no connection to the old node", 20, lambda: {
            r[0].rpartition(":")[2] for r in c.query("SHOW SERVERS")} == {str(nodes[1].port)})
    finally:
        nodes[0].thaw()


def test_cluster_that_gains_and_loses_nodes_stays_what_it_is(make_gate, login, console, nodes):
    gate = make_gate(own_cluster(nodes[:2]))
    c = console(gate)
    client = login(gate)
    client.query("SELECT 1")
    gate.write(own_cluster(nodes[1:]))
    c.query("RELOAD")
    assert client.query("SELECT 1") == [["1"]]
    assert "gone" not in [r[3] for r in c.query("SHOW POOLS")]


def test_database_that_gets_a_section_of_its_own_stays_where_it_is(make_gate, login, console, elsewhere):
    """[database *] has served it so far, and leads to the same place."""
    gate = make_gate({"database acme": None, "database *": {"cluster": "main"}})
    c = console(gate)
    client = login(gate)
    assert client.query("SELECT current_database()") == [["acme"]]
    gate.write({"database acme": {"cluster": "main", "pool_size": 3}})
    c.query("RELOAD")
    assert client.query("SELECT current_database()") == [["acme"]]
    for row, there in (({"cluster": "main", "dbname": elsewhere}, elsewhere), (None, "acme"),
                       ({"cluster": "main", "dbname": elsewhere}, elsewhere), (None, "acme")):
        gate.write({"database acme": row})
        c.query("RELOAD")
        with pytest.raises((wire.ServerError, wire.Closed)):
            client.query("SELECT current_database()")
        client = login(gate)
        assert client.query("SELECT current_database()") == [[there]]


def test_session_keeps_the_sizes_it_began_with(make_gate, login, console):
    """A buffer does not grow with a reload: what is larger than it streams, as before."""
    gate = make_gate({"postern": {"max_message": "64kB", "write_buffer": "16kB"}})
    c, client = console(gate), login(gate)
    gate.write({"postern": {"max_message": "64MB", "write_buffer": "64MB"}})
    c.query("RELOAD")
    text = "x" * 600000
    assert client.extended(f"SELECT length('{text}')") == [["600000"]]
    assert client.extended(f"SELECT '{text}', repeat('y', 20000000)")[0][0] == text
    assert login(gate).extended(f"SELECT length('{text}')", name="named") == [["600000"]]
