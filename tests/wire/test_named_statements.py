"""Prepared statements that are named in SQL: DEALLOCATE, EXECUTE, EXPLAIN EXECUTE, CREATE TABLE AS
EXECUTE, PREPARE and DISCARD in texts of several statements, in DO, behind comments, by each spelling
of a name, in each state of a transaction, by simple Query and by the extended protocol.

The same random script runs directly and through the gateway (transaction mode, one server connection,
another session stirring on it): the replies must be the same. POSTERN_SCRIPTS=first-last runs more."""
# SPDX-License-Identifier: Apache-2.0
import os
import random
import threading

import pytest

from stand import wire

# A statement's name in the protocol, and how SQL may spell it.
NAMES = {"a": ["a", "A", '"a"', 'U&"\\0061"'],
         "bee": ["bee", "BeE", '"bee"', 'U&"b\\0065e"', 'U&"b!0065e" UESCAPE \'!\''],
         "Mixed": ['"Mixed"', 'U&"Mi\\0078ed"'],
         'q"x ü': ['"q""x ü"'],
         '_PLAN0x55d0c1a2b3c0': ['"_PLAN0x55d0c1a2b3c0"']}
SPACES = [" ", " ", " ", "\n", " /* DEALLOCATE a; */ ", " -- EXECUTE a;\n", "\t/* /* x */ y */ "]
PREPARED = ["SELECT 1", "SELECT 2 AS two", "SELECT $1::int", "VALUES (3), (4)", "SELECT 1/0",
            "UPDATE named_t SET v = v + 1", "SELECT v FROM named_t"]
PLAIN = ["SELECT 7", "SELECT 1/0", "SELECT 'DEALLOCATE a'", "", "SELECT * FROM there_is_none", "SET LOCAL work_mem = '5MB'"]
BLOCKS = ["BEGIN", "BEGIN", "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]
SETUP = "DROP TABLE IF EXISTS named_t, named_out; CREATE TABLE named_t AS SELECT 8 AS v"


class Script:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.steps = []

    def spelled(self):
        name = self.random.choice(list(NAMES))
        return self.random.choice(NAMES[name])

    def naming(self):
        r, space, name = self.random, self.random.choice(SPACES), self.spelled()
        args = r.choice(["", "", "(1)"])
        return r.choices([f"DEALLOCATE{space}{name}", f"deallocate PREPARE{space}{name}", f"EXECUTE{space}{name}{args}",
                          f"EXPLAIN (COSTS off){space}EXECUTE {name}{args}", f"CREATE TABLE named_out AS{space}EXECUTE {name}{args}",
                          f"PREPARE{space}{name} AS SELECT 9 AS nine", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DISCARD PLANS"],
                         [12, 3, 6, 2, 2, 3, 1, 1, 1])[0]

    def statement(self):
        k = self.random.random()
        if k < .55:
            return self.naming()
        if k < .75:
            return self.random.choice(BLOCKS)
        return self.random.choice(PLAIN)

    def text(self):
        k = self.random.random()
        if k < .06:
            name = next(n for n in self.random.sample(list(NAMES), 5) if "'" not in n)
            what = self.random.choice(["DEALLOCATE", "EXECUTE"])
            quoted = '"' + name.replace('"', '""') + '"'
            ends = self.random.choice(["", " RAISE EXCEPTION 'enough';"])
            return f"DO $do$ BEGIN EXECUTE '{what} {quoted}';{ends} END $do$"
        if k < .09:
            return "DISCARD ALL"
        if k < .14:
            return "DROP TABLE IF EXISTS named_out"
        count = self.random.choice([1, 1, 2, 2, 3, 3, 4])
        space = self.random.choice(["", "", " ", "/* ; */"])
        return (";" + space).join(self.statement() for _ in range(count)) + self.random.choice(["", ";"])

    def batch(self):
        r, out = self.random, []
        for _ in range(r.choice([1, 1, 2, 3])):
            name, k = r.choice(["", *NAMES]), r.random()
            if k < .45:
                text = r.choice(PREPARED) if r.random() < .7 else self.naming() if r.random() < .7 else r.choice(BLOCKS)
                if "EXECUTE" in text:
                    name = ""  # a statement that executes itself ends the server
                out.append((f"parse {name!r} {text!r}", wire.parse(text, name)))
                if r.random() < .4:
                    out.append((f"describe {name!r}", wire.describe("S", name)))
                if r.random() < .6:
                    out += self.use(name, "$1" in text)
            elif k < .75:
                out += self.use(name, r.random() < .3)
            elif k < .87:
                out.append((f"close {name!r}", wire.close("S", name)))
            else:
                out.append((f"describe {name!r}", wire.describe("S", name)))
        return [*out, ("sync", wire.sync())]

    def use(self, name, with_value):
        values = [5] if with_value else []
        return [(f"bind {name!r} with {values}", wire.bind(name, "", values)), ("execute", wire.execute())]

    def step(self):
        if self.random.random() < .5:
            text = self.text()
            return [(f"query {text!r}", wire.query(text))]
        return self.batch()


def answer(client, parts):
    client.send(*(part for _, part in parts))
    return [shown(m) for m in client.until("Z")]


def shown(message):
    kind, body = message
    if kind in "EN":
        fields = wire.error_fields(body)
        return kind + " " + " ".join(fields.get(k, "-") for k in "SCMDHP")
    if kind == "T":
        return "T " + body[2:].split(b"\0")[0].decode()
    return f"{kind} {wire.row_values(body)}" if kind == "D" else f"{kind} {body!r}"


class Stirrer:
    """Another session on the same server connection: uses it between any two steps if it can have it,
    with the same names for texts of its own, and looks at what it is told."""

    def __init__(self, client):
        self.client, self.n, self.wrong = client, 0, None
        self.wanted, self.idle = threading.Event(), threading.Event()
        self.idle.set()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def stir(self):
        if self.idle.is_set() and self.thread.is_alive():
            self.idle.clear()
            self.wanted.set()
            self.idle.wait(.02)  # it may have to wait for a connection that the other keeps

    def _work(self):
        while self.wanted.wait() and self.client:
            self.wanted.clear()
            name = list(NAMES)[self.n % len(NAMES)]
            self.n += 1
            try:
                got = self.client.ask(wire.close("S", name), wire.parse(f"SELECT 'stirred {self.n}'", name), wire.bind(name),
                                      wire.execute(), wire.sync())
                if wire.kinds(got) != "312DCZ" or wire.rows(got) != [[f"stirred {self.n}"]]:
                    self.wrong = got
            except (OSError, wire.Closed) as e:
                self.wrong = e
            self.idle.set()

    def collect(self):
        assert self.idle.wait(60)
        assert not self.wrong, self.wrong


def seeds():
    first, _, last = os.environ.get("POSTERN_SCRIPTS", "1-60").partition("-")
    return range(int(first), int(last or first) + 1)


@pytest.fixture(scope="module")
def one(module_gate):
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "shards": 1}})


@pytest.fixture
def pairs(one, stand, token):
    """Makes (direct client, client through the gateway, stirrer), all closed at the end."""
    opened = []

    def log_in(port, secret, timeout=20):
        client = wire.Client(("127.0.0.1", port), timeout=timeout)
        opened.append(client)
        return client.login("acme_rw", "acme", secret)

    def make():
        close()
        direct = log_in(stand.postgres.port, stand.postgres.passwords["acme_rw"])
        direct.ask(wire.query(SETUP))
        return direct, log_in(one.port(), token("acme")), Stirrer(log_in(one.port(), token("acme"), 60))

    def close():
        while opened:
            opened[-1].send(wire.terminate())
            opened.pop().close()
    yield make
    close()


def play(script, count, clients):
    """Both sides step by step, each in a database of the same state."""
    direct, through, stirrer = clients
    direct_told = []
    for _ in range(count):
        parts = script.step()
        script.steps.append(parts)
        direct_told.append(answer(direct, parts))
    answer(direct, [("", wire.query("ROLLBACK"))])
    answer(direct, [("", wire.query("DISCARD ALL"))])
    direct.ask(wire.query(SETUP))
    for n, parts in enumerate(script.steps):
        stirrer.stir()
        try:
            got = answer(through, parts)
        except (TimeoutError, wire.Closed) as e:
            got = [repr(e), repr(bytes(through.buffer))]
        if executes_behind_a_failure(parts, got) and not same(direct_told[n], got):
            break  # the one thing that differs, and is told: the statement cannot be prepared there
        assert same(direct_told[n], got), story(script, n, direct_told[n], got)
    answer(through, [("", wire.query("ROLLBACK"))])
    answer(through, [("", wire.query("DISCARD ALL"))])
    stirrer.collect()


def executes_behind_a_failure(parts, got):
    """ROLLBACK and EXECUTE in one text, in a failed transaction."""
    said = " ".join(said for said, _ in parts).upper()
    return "ROLLBACK" in said and "EXECUTE" in said and any(m.startswith("E ERROR 26000") for m in got)


def same(told, got):
    """What is wrong in two ways may be told the other one."""
    return len(told) == len(got) and all(
        a == b or (a.startswith("E ERROR 08P01 bind message supplies") and b.startswith("E "))
        for a, b in zip(told, got))


def story(script, n, told, got):
    lines = [f"step {n}"]
    for k, parts in enumerate(script.steps[:n + 1]):
        lines += [f"{k}: {said}" for said, _ in parts]
    return "\n".join([*lines, "the database:", *map(str, told), "the gate:", *map(str, got)])


@pytest.mark.parametrize("seed", seeds())
def test_random_texts_that_name_statements_are_answered_as_by_the_database(pairs, seed):
    script = Script(seed)
    try:
        play(script, 30, pairs())
    except AssertionError as e:
        raise AssertionError(f"seed {seed}, {e}") from None


def replay(pairs, *steps):
    script = Script(0)
    rest = list(steps)
    script.step = lambda: [(repr(p), p) for p in rest.pop(0)]
    play(script, len(steps), pairs())


def prepare(text, name):
    return [wire.parse(text, name), wire.sync()]


def run(name, *values):
    return [wire.bind(name, "", list(values)), wire.execute(), wire.sync()]


def test_psqlodbc_outside_autocommit_prepares_the_same_name_again(pairs):
    """A new statement object for each execute(): the driver gives it the freed one's address as its name."""
    plan = "_PLAN0x55d0c1a2b3c0"
    steps = [[wire.query("BEGIN")]]
    for n in range(4):
        steps += [[wire.query("SAVEPOINT _EXEC_SVP_0x55")], [*prepare("SELECT $1::int", plan)], run(plan, n),
                  [wire.query(f'SAVEPOINT _EXEC_SVP_0x55;DEALLOCATE "{plan}";RELEASE _EXEC_SVP_0x55')]]
    replay(pairs, *steps, [wire.query("COMMIT")])


@pytest.mark.parametrize("spelling", ["s", "S", '"s"', 'U&"\\0073"', 'U&"+0073" UESCAPE \'+\'', "PREPARE s", "/* x */ s -- y"])
@pytest.mark.parametrize("around", ["{}", "SELECT 1; {}", "{}; SELECT 1", "BEGIN; {}; ROLLBACK", "{}; SELECT 1/0", "SELECT 1/0; {}"])
def test_deallocate_in_a_text_by_each_spelling(pairs, spelling, around):
    replay(pairs, prepare("SELECT 5", "s"), run("s"), [wire.query(around.format(f"DEALLOCATE {spelling}"))], run("s"),
           prepare("SELECT 6", "s"), run("s"))


@pytest.mark.parametrize("text", ["EXECUTE s; SELECT 1", "SELECT 1; EXECUTE s; EXECUTE s", "EXPLAIN EXECUTE s", "EXPLAIN (COSTS off) EXECUTE s",
                                  "CREATE TABLE named_out AS EXECUTE s; TABLE named_out", "BEGIN; EXECUTE s; ROLLBACK; EXECUTE s",
                                  "EXECUTE s; DEALLOCATE s; EXECUTE s", "PREPARE s AS SELECT 2", "SELECT 1; PREPARE s AS SELECT 2",
                                  "DEALLOCATE s; PREPARE s AS SELECT 2; EXECUTE s", "DISCARD PLANS; EXECUTE s", "DEALLOCATE ALL; EXECUTE s",
                                  "DO $$ BEGIN EXECUTE 'DEALLOCATE s'; END $$", "DO $$ BEGIN EXECUTE 'EXECUTE s'; END $$; SELECT 1",
                                  "DO $$ BEGIN EXECUTE 'DEALLOCATE s'; RAISE 'no'; END $$", "BEGIN; DO $$ BEGIN EXECUTE 'DEALLOCATE s'; END $$",
                                  "EXECUTE s(nothing)", "SELECT 1; EXECUTE s(nothing)"])
@pytest.mark.parametrize("how", ["query", "extended", "in a block", "in a failed block"])
def test_texts_that_name_a_statement_of_the_protocol(pairs, text, how):
    steps = [prepare("SELECT 5 AS five", "s"), run("s")]
    if "block" in how:
        steps.append([wire.query("BEGIN")])
    if "failed" in how:
        steps.append([wire.query("SELECT 1/0")])
    if how == "extended":
        steps += [[wire.parse(text), wire.describe("S"), wire.bind(), wire.describe("P"), wire.execute(), wire.sync()]]
    else:
        steps += [[wire.query(text)]]
    replay(pairs, *steps, run("s"), prepare("SELECT 7", "s"), [wire.query("ROLLBACK")], run("s"), prepare("SELECT 6", "s"),
           [wire.describe("S", "s"), wire.sync()], run("s"), [wire.close("S", "s"), wire.sync()], [wire.query("EXECUTE s")])


@pytest.mark.parametrize("text", ["EXECUTE e", "EXECUTE e; SELECT 1", "EXECUTE d; SELECT 1", "EXECUTE d; DEALLOCATE e", "EXECUTE p",
                                  "DO $$ BEGIN EXECUTE 'EXECUTE e'; END $$", "DO $$ BEGIN EXECUTE 'EXECUTE d'; END $$"])
def test_statement_about_a_statement(pairs, text):
    replay(pairs, prepare("SELECT 5", "s"), prepare("EXECUTE s", "e"), prepare("DEALLOCATE s", "d"), prepare("PREPARE s AS SELECT 1", "p"),
           [wire.describe("S", "e"), wire.sync()], run("e"), [wire.query(text)], run("e"), run("s"), run("d"), run("p"), run("s"), run("e"))


@pytest.mark.parametrize("closing", [[wire.close("S", "s"), wire.sync()], [wire.query("DEALLOCATE s")], [wire.query("SELECT 1; DEALLOCATE s")]])
def test_statement_of_sql_and_one_of_the_protocol_share_their_names(pairs, closing):
    replay(pairs, [wire.query("PREPARE s AS SELECT 1")], prepare("SELECT 2", "s"), run("s"), [wire.query("EXECUTE s")], closing,
           run("s"), prepare("SELECT 2", "s"), run("s"), [wire.query("PREPARE s AS SELECT 3")], run("s"))
