"""What clients make the gateway hold is bounded by memory_limit, whatever they do: output that they do not
read makes servers wait, a request that has to be held and finds no room is refused in step, and when
everybody has left nothing is held."""
# SPDX-License-Identifier: Apache-2.0
import hashlib
import random
import threading

import pytest

from conftest import own_cluster
from stand import proc, wire

KB, MB = 1 << 10, 1 << 20
# What a process has beside that: its own beginnings, TLS, what its allocator does not give back at once.
BESIDE = 24 * MB
WIDE = "SELECT i, repeat(md5({0} || i::text), 250) FROM generate_series(1, {1}) i"


def codes(messages):
    return [fields["C"] for fields in wire.errors(messages)]


def limited(make_gate, of_all=32, of_each=8, **more):
    """A gate with these limits in MB, and more settings by section."""
    own = {"memory_limit": f"{of_all}MB", "tenant_memory_limit": f"{of_each}MB", **more.pop("postern", {})}
    return make_gate({"postern": own, "database acme": {"pool_size": 60, "shards": 1}, **more})


class Peak:
    """How far the process's resident memory has risen since."""

    def __init__(self, gate):
        self.pid = gate.pid
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as f:
            f.write("5")  # the peak so far is forgotten
        self.before = self.kilobytes("VmRSS")

    def kilobytes(self, name):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith(name + ":"))

    def risen(self):
        return (self.kilobytes("VmHWM") - self.before) * KB


def memory(gate, tenant=None, what="client_memory_bytes"):
    name = f'postern_tenant_memory_bytes{{tenant="{tenant}"}}' if tenant else f"postern_{what}"
    return int(float(gate.metrics().get(name, 0)))


def all_given_back(gate):
    proc.wait_for("the memory to be given back", 20, lambda: memory(gate) == 0)
    # What is kept on connections is their tenants', and a part of each one's.
    metrics = gate.metrics()
    kept = int(float(metrics["postern_kept_memory_bytes"]))
    of_each = [int(float(v)) for k, v in metrics.items() if k.startswith("postern_tenant_memory_bytes")]
    assert sum(of_each) == kept
    most = int(float(metrics["postern_client_memory_limit_bytes"])) / 4
    proc.wait_for("no more than a quarter to be kept", 10, lambda: memory(gate, what="kept_memory_bytes") <= most)


def check_wide(messages, mark, count):
    rows = wire.rows(messages)
    assert codes(messages) == [] and [r[0] for r in rows] == [str(i + 1) for i in range(count)]
    for i, row in enumerate(rows, 1):
        assert row[1] == hashlib.md5(f"{mark}{i}".encode()).hexdigest() * 250, "another's row, or a torn one"


def in_crowd(count, do):
    """do(n) for each, at once; what they return."""
    out = [None] * count
    errors = []

    def run(n):
        try:
            out[n] = do(n)
        except Exception as e:  # told below
            errors.append(e)
    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return out


# ---- output that is not read ----

@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_output_that_nobody_reads_makes_the_servers_wait(make_gate, login, console, database):
    gate = limited(make_gate, postern={"write_buffer": "16MB"})
    count, rows = 40, 800
    crowd = [login(gate, database) for _ in range(count)]
    login(gate, "globex").query("SELECT 1")
    peak = Peak(gate)
    for n, c in enumerate(crowd):
        c.send(wire.query(WIDE.format(n, rows)))
    proc.wait_for("their answers to be held", 20, lambda: memory(gate, "acme") > 5 * MB)
    other = login(gate, "globex")
    for _ in range(20):
        assert other.query("SELECT 'not kept waiting'") == [["not kept waiting"]]
    assert codes(other.ask(wire.parse("SELECT '" + "x" * MB + "'"), wire.sync())) == []
    if database == "acme":
        # Nor is a request of the same tenant refused because others do not read.
        mine = login(gate)
        assert codes(mine.ask(wire.parse("SELECT '" + "x" * 300 * KB + "'"), wire.sync())) == []
        mine.close()
    mine = [int(r[-1]) for r in console(gate).query("SHOW CLIENTS")]
    assert sum(mine) > 4 * MB and max(mine) < 8 * MB, "each session's part is shown"
    limits = next(r for r in console(gate).query("SHOW LIMITS") if r[0] == "acme")
    assert int(limits[-3]) > 4 * MB and limits[-1] == str(8 * MB)
    for n, c in enumerate(crowd):
        check_wide(c.until("Z"), n, rows)
    risen = peak.risen()
    assert risen < 8 * MB + count * 64 * KB + BESIDE, f"{risen / MB:.0f} MB more"
    assert int(float(gate.metrics()["postern_memory_refused_total"])) == 0
    for c in (*crowd, other):
        c.close()
    all_given_back(gate)


def test_server_that_does_not_read_makes_its_clients_wait(make_gate, login, nodes):
    gate = limited(make_gate, postern={"write_buffer": "16MB"}, **own_cluster(nodes[:1], probe_interval="30s"))
    count = 8
    crowd = [login(gate) for _ in range(count)]
    for c in crowd:
        c.query("BEGIN")
    peak = Peak(gate)
    nodes[0].freeze()
    text = wire.query("SELECT length('" + "x" * 12 * MB + "')")

    def send(n):
        crowd[n].send_and_read(text)
    senders = [threading.Thread(target=send, args=(n,)) for n in range(count)]
    for t in senders:
        t.start()
    proc.wait_for("their requests to be held", 20, lambda: memory(gate, "acme") > 5 * MB)
    nodes[0].thaw()
    for t in senders:
        t.join()
    for c in crowd:
        assert wire.rows(c.until("Z")) == [[str(12 * MB)]]
    risen = peak.risen()
    assert risen < 8 * MB + count * 64 * KB + BESIDE, f"{risen / MB:.0f} MB more"
    for c in crowd:
        c.close()
    all_given_back(gate)


# ---- requests that are held ----

def test_large_parses_of_many_clients(make_gate, login):
    gate = limited(make_gate, 24, 16, postern={"max_message": "4MB"})
    count = 28
    crowd = [login(gate) for _ in range(count)]
    peak = Peak(gate)
    begun = [wire.parse(f"SELECT '{n} " + "x" * (4 * MB - 1024) + "'") for n in range(count)]
    in_crowd(count, lambda n: crowd[n].send_and_read(begun[n][:-1]))
    told = in_crowd(count, lambda n: codes(crowd[n].ask(begun[n][-1:], wire.sync())))
    assert {t[0] for t in told if t} <= {"53200"} and ["53200"] in told
    for c in crowd:
        assert c.query("SELECT 'in step'") == [["in step"]]  # which ends the unnamed statement
    # One after another: what a client has parsed is held until it parses something else.
    told = [codes(c.ask(begun[n], wire.bind(), wire.execute(), wire.sync())) for n, c in enumerate(crowd)]
    assert told.count([]) in range(1, 5) and {t[0] for t in told if t} == {"53200"}
    for c in crowd:
        assert c.status == "I" and c.query("SELECT 'in step'") == [["in step"]]
    risen = peak.risen()
    assert risen < 24 * MB + 2 * 3 * 4 * MB + BESIDE, f"{risen / MB:.0f} MB more"
    assert int(float(gate.metrics()['postern_limit_refused_total{tenant="acme",reason="memory"}'])) > 20
    for c in crowd:
        c.close()
    all_given_back(gate)
    c = login(gate)
    assert codes(c.ask(begun[0], wire.sync())) == []


def test_unnamed_statements_in_one_batch(make_gate, login):
    """Each ends the one before, but is held until the server has answered it, which it does when it likes."""
    gate = limited(make_gate, 24, 8)
    c = login(gate)
    peak = Peak(gate)
    for n in range(60):
        c.send_and_read(wire.parse(f"SELECT {n}, '" + "x" * MB + "'"))
    assert codes(c.ask(wire.sync())) in ([], ["53200"])
    assert c.query("SELECT 'in step'") == [["in step"]]
    risen = peak.risen()
    assert risen < 8 * MB + BESIDE, f"{risen / MB:.0f} MB more"


def test_statements_of_many_clients_are_summed(make_gate, login):
    gate = limited(make_gate, 24, 8)
    count, each = 20, 12
    crowd = [login(gate) for _ in range(count)]
    peak = Peak(gate)
    held = {}
    for n in range(each):
        for k, c in enumerate(crowd):
            told = codes(c.ask(wire.parse(f"SELECT '{k} {n}' -- " + "x" * 100 * KB, f"s{n}"), wire.sync()))
            assert told in ([], ["53200"])
            if not told:
                held.setdefault(k, []).append(n)
    kept = sum(len(names) for names in held.values())
    assert 60 <= kept <= 8 * MB // (100 * KB), "as many as fit, of all clients together"
    for k, names in held.items():
        for n in names:
            messages = crowd[k].ask(wire.bind(f"s{n}"), wire.execute(), wire.sync())
            assert wire.rows(messages) == [[f"{k} {n}"]]
    for k, c in enumerate(crowd):
        c.ask(*[wire.close("S", f"s{n}") for n in held.get(k, [])], wire.sync())
    assert codes(crowd[-1].ask(wire.parse("SELECT 1 -- " + "x" * MB, "again"), wire.sync())) == []
    risen = peak.risen()
    assert risen < 24 * MB + BESIDE, f"{risen / MB:.0f} MB more"
    for c in crowd:
        c.close()
    all_given_back(gate)


def test_statements_that_stay_behind_on_connections(make_gate, login):
    """Clients come, prepare and leave: connections keep what they have prepared, but not all of it."""
    gate = limited(make_gate, 32, 16)
    peak = Peak(gate)
    for turn in range(8):
        crowd = [login(gate) for _ in range(10)]
        for c in crowd:
            c.query("BEGIN")  # each on a connection of its own
        for n, c in enumerate(crowd):
            for k in range(3):
                sql = f"SELECT '{turn} {n} {k}' -- " + "x" * 300 * KB
                told = codes(c.ask(wire.one(sql, (), f"s{k}"), wire.sync()))
                assert told in ([], ["53200"])
                if told:
                    break
        for c in crowd:
            c.query("ROLLBACK")
            c.close()
        all_given_back(gate)
    risen = peak.risen()
    assert risen < 32 * MB + BESIDE, f"{risen / MB:.0f} MB more"


def test_statements_for_which_nothing_is_kept_work(make_gate, login):
    gate = limited(make_gate, 16, 4)
    crowd = [login(gate) for _ in range(3)]
    for n, c in enumerate(crowd):
        for k in range(3):
            assert codes(c.ask(wire.parse(f"SELECT '{n} {k}' -- " + "x" * 200 * KB, f"s{k}"), wire.sync())) == []
    for turn in range(6):
        for n, c in enumerate(crowd):
            messages = c.ask(wire.bind(f"s{turn % 3}"), wire.execute(), wire.sync())
            assert wire.rows(messages) == [[f"{n} {turn % 3}"]]
    assert memory(gate, what="kept_memory_bytes") <= MB


def test_variables_of_many_clients_are_summed(make_gate, login):
    gate = limited(make_gate, 32, 8)
    count = 30
    crowd = [login(gate) for _ in range(count)]
    peak = Peak(gate)
    for n, c in enumerate(crowd):
        c.query(f"SET app.x = '{n} " + "x" * 700 * KB + "'")
    for _ in range(2):
        for n, c in enumerate(crowd):
            assert c.query("SELECT left(current_setting('app.x'), 4), length(current_setting('app.x'))") \
                == [[f"{n} xxx"[:4], str(len(f"{n} ") + 700 * KB)]]
    assert memory(gate, "acme") <= 8 * MB
    risen = peak.risen()
    assert risen < 32 * MB + BESIDE, f"{risen / MB:.0f} MB more"
    for c in crowd:
        c.close()
    all_given_back(gate)


def test_small_requests_go_on_without_any_room(make_gate, login):
    gate = limited(make_gate)
    holder, c = login(gate), login(gate)
    statements(holder)
    gate.reload({"postern": {"tenant_memory_limit": "64kB"}})
    proc.wait_for("the new limit", 10, lambda: int(float(
        gate.metrics()['postern_tenant_memory_limit_bytes{tenant="acme"}'])) == 64 * KB < memory(gate, "acme"))
    assert codes(c.ask(wire.parse("SELECT 1 -- " + "x" * 20 * KB), wire.sync())) == ["53200"]
    for n in range(100):
        # The second arrives while the gateway asks the server what the first has set.
        c.send(wire.query(f"SET app.x = '{n}'"))
        c.send(wire.query("SELECT current_setting('app.x')"))
        assert codes(c.until("Z")) == [] and wire.rows(c.until("Z")) == [[f"{n}"]]
        assert c.extended("SELECT $1", [str(n)]) == [[str(n)]]
    size = 300 * KB  # it streams
    assert c.query("SELECT length('" + "x" * size + "')") == [[str(size)]]
    assert holder.extended("SELECT 'in step'") == [["in step"]]


# ---- what is given back ----

def half(c):
    c.send(wire.parse("SELECT '" + "x" * 300 * KB + "'")[:-10])


def statements(c):
    for n in range(3):
        c.ask(wire.parse(f"SELECT {n} -- " + "x" * 100 * KB, f"s{n}"), wire.sync())
    c.ask(wire.parse("SELECT 1 -- " + "x" * 100 * KB), wire.sync())


def unread(c):
    c.send(wire.query(WIDE.format("'u'", 5000)))


def variables(c):
    c.query("SET app.x = '" + "x" * 300 * KB + "'")


def closed_later(c):
    """Batches whose statements are gone by name, and not answered yet."""
    c.send(*[wire.parse(f"SELECT {n} -- " + "x" * 100 * KB, "s") + wire.close("S", "s") for n in range(5)], wire.flush())


HOLD = {f.__name__: f for f in (half, statements, unread, variables, closed_later)}


def killed(gate, console, crowd, nodes):
    admin = console(gate)
    for row in admin.query("SHOW CLIENTS"):
        if row[2] == "acme":
            admin.query(f"KILL {row[0]}")


def node_lost(gate, console, crowd, nodes):
    nodes[0].kill()
    for c in crowd:
        c.close()


def limits_lowered(gate, console, crowd, nodes):
    gate.reload({"postern": {"memory_limit": "1MB", "tenant_memory_limit": "64kB"}})
    proc.wait_for("the new limits", 10, lambda: memory(gate, what="client_memory_limit_bytes") == MB)
    for c in crowd:
        c.close()


def limits_raised(gate, console, crowd, nodes):
    gate.reload({"postern": {"memory_limit": "64MB", "tenant_memory_limit": "0B"}})
    proc.wait_for("the new limits", 10, lambda: memory(gate, what="client_memory_limit_bytes") == 64 * MB)
    for c in crowd:
        c.reset()


def left(gate, console, crowd, nodes):
    for n, c in enumerate(crowd):
        c.close() if n % 2 else c.reset()


ENDS = {f.__name__: f for f in (killed, node_lost, limits_lowered, limits_raised, left)}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("hold", HOLD)
def test_everything_is_given_back(make_gate, login, console, nodes, hold, end):
    gate = limited(make_gate, postern={"write_buffer": "4MB"},
                   **own_cluster(nodes[:1] if end == "node_lost" else nodes))
    crowd = [login(gate) for _ in range(4)]
    for c in crowd:
        HOLD[hold](c)
    proc.wait_for("something to be held", 20, lambda: memory(gate) > 100 * KB)
    ENDS[end](gate, console, crowd, nodes)
    all_given_back(gate)
    if end == "node_lost":
        nodes[0].start()
    assert login(gate).query("SELECT 'goes on'") == [["goes on"]]


# ---- all of it ----

class Player:
    """A client that does something at random, and knows what must come of it."""

    def __init__(self, dice, connect):
        self.dice = dice
        self.connect = connect
        self.refused = self.done = 0
        self.begin()

    def begin(self):
        self.c = self.connect()
        self.statements = {}
        self.variable = None
        self.unread = None

    def read(self):
        if self.unread:
            mark, count = self.unread
            self.unread = None
            check_wide(self.c.until("Z"), mark, count)

    def told(self, messages):
        told = codes(messages)
        assert told in ([], ["53200"]), told
        self.refused += bool(told)
        self.done += not told
        return not told

    def do(self):
        # One that waits for its answer is left waiting for a while.
        if self.unread and self.dice.random() < 0.6:
            return
        self.read()
        self.dice.choice((self.large, self.named, self.use, self.close, self.wide, self.wide, self.set, self.begins,
                          self.leaves))()

    def large(self):
        size = self.dice.choice((20, 200, 900)) * KB
        messages = self.c.ask(wire.one(f"SELECT {size} -- " + "x" * size), wire.sync())
        assert not self.told(messages) or wire.rows(messages) == [[str(size)]]

    def named(self):
        name, mark = f"s{self.dice.randrange(6)}", self.dice.randrange(10 ** 6)
        if name in self.statements:
            self.close(name)
        if self.told(self.c.ask(wire.parse(f"SELECT {mark} -- " + "x" * self.dice.choice((1, 50, 300)) * KB, name), wire.sync())):
            self.statements[name] = mark

    def use(self):
        for name, mark in self.statements.items():
            messages = self.c.ask(wire.bind(name), wire.execute(), wire.sync())
            assert wire.rows(messages) == [[str(mark)]] and codes(messages) == []

    def close(self, name=None):
        name = name or self.dice.choice([*self.statements, "none"])
        self.statements.pop(name, None)
        assert codes(self.c.ask(wire.close("S", name), wire.sync())) == []

    def wide(self):
        self.unread = (self.dice.randrange(10 ** 6), self.dice.choice((100, 600)))
        self.c.send(wire.query(WIDE.format(*self.unread)))

    def set(self):
        self.variable = f"{self.dice.randrange(10 ** 6)}"
        self.c.query(f"SET app.x = '{self.variable} " + "x" * self.dice.choice((1, 200)) * KB + "'")
        assert self.c.query("SELECT split_part(current_setting('app.x'), ' ', 1)") == [[self.variable]]

    def begins(self):
        """Half of a message, then the rest of it; in a block."""
        self.c.query("BEGIN")
        whole = wire.one("SELECT 'half' -- " + "x" * self.dice.choice((10, 400)) * KB)
        cut = self.dice.randrange(1, len(whole))
        self.c.send(whole[:cut])
        messages = self.c.ask(whole[cut:], wire.sync())
        ok = self.told(messages)
        assert self.c.status == ("T" if ok else "E") and (not ok or wire.rows(messages) == [["half"]])
        self.c.query("ROLLBACK")
        if self.variable:
            assert self.c.query("SELECT split_part(current_setting('app.x'), ' ', 1)") == [[self.variable]]

    def leaves(self):
        if self.dice.random() < 0.5:
            self.c.send(wire.parse("SELECT '" + "x" * 100 * KB)[:50 * KB])
        self.c.reset() if self.dice.random() < 0.5 else self.c.close()
        self.begin()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_histories(make_gate, login, seed):
    gate = limited(make_gate, 12, 3, postern={"write_buffer": "2MB"})
    dice = random.Random(seed)
    players = [Player(random.Random(seed * 100 + n), lambda: login(gate)) for n in range(12)]
    peak = Peak(gate)
    for turn in range(600):
        dice.choice(players).do()
        if turn % 100 == 99:
            gate.reload({"postern": {"tenant_memory_limit": dice.choice(("1MB", "2MB", "4MB"))}})
    for p in players:
        p.read()
        p.use()
        p.c.close()
    assert sum(p.refused for p in players) > 0 and sum(p.done for p in players) > 50
    risen = peak.risen()
    assert risen < 12 * MB + 12 * 64 * KB + BESIDE, f"{risen / MB:.0f} MB more"
    all_given_back(gate)
