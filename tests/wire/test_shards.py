"""A pool over several workers is one pool: `pool_size` counts for the whole process, and nobody waits
where it has room, whichever worker a session is on."""
# SPDX-License-Identifier: Apache-2.0
import random
import threading
import time

import psycopg2
import pytest

from stand import proc, wire

WORKERS = [2, 4]
ROLE = "acme_rw"


def backends(stand):
    rows = stand.postgres.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                              f"AND usename = '{ROLE}' AND pid <> pg_backend_pid()")
    return {row[0] for row in rows}


def make(make_gate, workers, size=20, database="acme", postern=None, **more):
    return make_gate({"postern": {"workers": workers, **(postern or {})},
                      f"database {database}": {"pool_size": size, "shards": workers, "wait_limit": "20s", **more}})


COLUMNS = ("tenant database role mode cl_active cl_waiting sv_active sv_idle sv_login sv_cleaning sv_ending size sessions "
           "maxwait_us waited_us lent worker").split()


def pools(admin, database="acme"):
    """SHOW POOLS: the rows of a database as dictionaries."""
    rows = [dict(zip(COLUMNS, row)) for row in admin.query("SHOW POOLS")]
    return [row for row in rows if row["database"] == database]


class Watch(threading.Thread):
    """The most server connections that the server itself has counted, some hundred times a second."""

    def __init__(self, stand):
        super().__init__(daemon=True)
        self.before, self.most = backends(stand), 0
        self.over = threading.Event()
        env = stand.postgres.environment("postgres", "postgres")
        self.own = psycopg2.connect(host=env["PGHOST"], hostaddr=env["PGHOSTADDR"], port=env["PGPORT"], user="postgres",
                                    dbname="postgres", password=env["PGPASSWORD"], sslmode="verify-full",
                                    sslrootcert=env["PGSSLROOTCERT"])
        self.own.autocommit = True

    def run(self):
        with self.own.cursor() as c:
            while not self.over.is_set():
                c.execute("SELECT pg_sleep(0.002)")
                c.execute("SELECT pid::text FROM pg_stat_activity WHERE usename = %s", (ROLE,))
                self.most = max(self.most, len({pid for pid, in c.fetchall()} - self.before))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.own.close()


@pytest.mark.parametrize("workers", WORKERS)
def test_ten_programs_that_listen_and_query(make_gate, login, stand, console, workers):
    """Each has one connection that LISTENs and one that queries: logins take turns over the workers,
    so with two of them all pins are on one."""
    gate = make(make_gate, workers)
    with Watch(stand) as watch:
        programs = [(login(gate), login(gate)) for _ in range(10)]
        for n, (listener, _) in enumerate(programs):
            listener.query(f"LISTEN channel_{n}")
        began = time.monotonic()
        for _, worker in programs:
            worker.query("BEGIN")  # all at once: half of the pool is pinned, this is the other half
        for n, (_, worker) in enumerate(programs):
            assert worker.query(f"SELECT {n}") == [[str(n)]]
            worker.query("COMMIT")
        # New clients of every worker, too.
        late = [login(gate) for _ in range(2 * workers)]
        for n, c in enumerate(late):
            assert c.query(f"SELECT {n}") == [[str(n)]]
        assert time.monotonic() - began < 15 * proc.PATIENCE, "nobody waits for its limit"
        for n, (listener, worker) in enumerate(programs):
            worker.query(f"NOTIFY channel_{n}, 'hello'")
            assert listener.until("A")[-1][0] == "A"
    assert 10 < watch.most <= 20
    (row,) = pools(console(gate))
    assert row["size"] == "20" and int(row["sv_active"]) == 10


@pytest.mark.parametrize("workers", WORKERS)
def test_nobody_waits_while_the_pool_has_room(make_gate, login, stand, console, workers):
    """Sessions pin and unpin their connections, on whatever worker they are, long enough for others to
    reach their limit; as many hold one at a time as the pool has. Whoever takes a permit gets one."""
    size, seconds = 10, 12
    gate = make(make_gate, workers, size, wait_limit="2s")
    permits, over, wrong = threading.Semaphore(size), threading.Event(), []

    def work(n, c):
        chance = random.Random(n)
        try:
            while not over.is_set():
                with permits:
                    if n % 3 == 0:
                        c.query("LISTEN everything")
                        over.wait(chance.uniform(0.5, 4))
                        c.query("UNLISTEN *")
                        continue
                    for _ in range(chance.randrange(1, 20)):
                        if n % 3 == 1:
                            assert c.query(f"SELECT {n}") == [[str(n)]]
                        else:
                            c.query("BEGIN")
                            assert c.query(f"SELECT {n} FROM pg_sleep(0.003)") == [[str(n)]]
                            c.query("ROLLBACK")
        except Exception as e:  # noqa: BLE001 - told by the test
            wrong.append((n, e))

    with Watch(stand) as watch:
        clients = [login(gate) for _ in range(3 * size)]
        threads = [threading.Thread(target=work, args=(n, c)) for n, c in enumerate(clients)]
        for t in threads:
            t.start()
        over.wait(seconds)
        over.set()
        for t in threads:
            t.join()
    assert not wrong, wrong
    assert size // 2 < watch.most <= size
    proc.wait_for("the pool to be whole and idle", 15, lambda: [
        r for r in pools(console(gate)) if r["sv_active"] == r["sv_cleaning"] == r["cl_waiting"] == "0"
        and int(r["sv_idle"]) <= size])


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("reuse", ["off", "on"])
def test_session_mode_never_has_more_than_pool_size(make_gate, login, stand, workers, reuse):
    """Each client's connection is closed when it leaves: the next one waits until the server has done so."""
    size = 4
    gate = make(make_gate, workers, size, "acme_session", session_reuse=reuse)
    served, wrong = [], []

    def work(n):
        try:
            for k in range(8):
                with login(gate, "acme_session", application_name=f"{n}-{k}") as c:
                    assert c.query("SHOW application_name") == [[f"{n}-{k}"]]
                    served.append(n)
        except Exception as e:  # noqa: BLE001 - told by the test
            wrong.append(e)

    with Watch(stand) as watch:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not wrong and len(served) == 96, wrong
    assert 1 <= watch.most <= size


def test_all_are_pinned(make_gate, login, stand):
    """Then waiting ends at the limit, with the right error, and what is free again serves everybody."""
    gate = make(make_gate, 2, 4, wait_limit="1s")
    pinned = [login(gate) for _ in range(4)]
    for c in pinned:
        c.query("LISTEN something")
    late = [login(gate) for _ in range(6)]
    for c in late:
        c.send(wire.query("SELECT 1"))
    for c in late:
        (fields,) = wire.errors(c.until("Z"))
        assert fields["C"] == "53300" and fields["H"]
    pinned[0].query("UNLISTEN *")
    for c in late:
        assert c.query("SELECT 2") == [["2"]]
    assert len(backends(stand)) >= 4


def test_both_shards_wait_and_both_are_served(make_gate, login):
    """Pins leave one connection for many clients of two workers: it goes to and fro."""
    gate = make(make_gate, 2, 4)
    pinned = [login(gate) for _ in range(3)]
    for c in pinned:
        c.query("LISTEN something")
    clients, answers, wrong = [login(gate) for _ in range(8)], [0] * 8, []

    def work(n):
        try:
            for _ in range(100):
                assert clients[n].query(f"SELECT {n}") == [[str(n)]]
                answers[n] += 1
        except Exception as e:  # noqa: BLE001 - told by the test
            wrong.append(e)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and answers == [100] * 8


def test_connection_kept_for_currval_goes_to_the_other_worker(make_gate, login, table):
    """A session keeps its connection from nextval() to currval(), unless others wait, wherever they are."""
    gate = make(make_gate, 2, 1, wait_limit="5s")
    a, b = login(gate), login(gate)
    a.query(f"CREATE SEQUENCE {table}_numbers")
    try:
        for _ in range(3):
            first = a.query(f"SELECT nextval('{table}_numbers')")
            assert a.query(f"SELECT currval('{table}_numbers')") == first
            assert b.query("SELECT 1") == [["1"]]
    finally:
        a.query(f"DROP SEQUENCE {table}_numbers")


def test_what_moves_is_as_new(make_gate, login):
    """A connection that served sessions of one worker serves those of the other: nothing is left of them,
    and their statements and variables are theirs again when they come back."""
    gate = make(make_gate, 2, 1)
    a, b = login(gate), login(gate)
    a.query("SET search_path = pg_catalog")
    assert a.extended("SELECT 'a', $1::text", ("x",), "mine") == [["a", "x"]]
    for n in range(20):
        assert b.query("SHOW search_path") == [['"$user", public']]
        assert b.extended("SELECT 'b', $1::text", (str(n),)) == [["b", str(n)]]
        assert a.query("SHOW search_path") == [["pg_catalog"]]
        messages = a.ask(wire.bind("mine", values=(str(n),)), wire.execute(), wire.sync())
        assert wire.rows(messages) == [["a", str(n)]]
    pids = {c.query("SELECT pg_backend_pid()")[0][0] for c in (a, b, a, b)}
    assert len(pids) == 1, "the one connection went to and fro"


def test_reload_changes_size_and_shards(make_gate, login, stand, console):
    gate = make(make_gate, 2, 2, wait_limit="20s")
    with Watch(stand) as watch:
        clients = [login(gate) for _ in range(6)]
        for c in clients[:2]:
            c.query("BEGIN")
        for c in clients[2:]:
            c.send(wire.query("BEGIN"))
        gate.reload({"database acme": {"pool_size": 6}})
        for c in clients[2:]:
            assert not wire.errors(c.until("Z"))
        assert watch.most <= 6
        gate.reload({"database acme": {"pool_size": 3, "shards": 1}})
        for c in clients:
            c.query("COMMIT")
        admin = console(gate)
        proc.wait_for("what is too much to be closed", 15,
                      lambda: len(backends(stand) - watch.before) == 3 and pools(admin)[0]["sv_idle"] == "3")
        for c in clients:
            assert c.query("SELECT 1") == [["1"]]
    assert watch.most <= 6


@pytest.mark.parametrize("kept", [0, 3])
def test_pool_min_counts_once(make_gate, login, stand, console, kept):
    gate = make(make_gate, 2, 10, pool_min=kept, idle_timeout="1s")
    before = backends(stand)
    clients = [login(gate) for _ in range(8)]
    for c in clients:
        c.query("BEGIN")
    for c in clients:
        c.query("COMMIT")
    admin = console(gate)
    proc.wait_for("all but pool_min to be closed", 20,
                  lambda: sum(int(r["sv_idle"]) for r in pools(admin)) == kept
                  and len(backends(stand) - before) == kept)
