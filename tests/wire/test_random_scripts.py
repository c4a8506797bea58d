"""Random scripts of the extended protocol: two sessions take turns on a small pool, and what they
are told must be what the database itself tells them. POSTERN_SCRIPTS=first-last runs more."""
# SPDX-License-Identifier: Apache-2.0
import os
import random

import pytest

from stand import wire

TABLES = """
DROP TABLE IF EXISTS public.t, public.u, public.v;
DROP SCHEMA IF EXISTS random_a CASCADE; DROP SCHEMA IF EXISTS random_b CASCADE;
CREATE SCHEMA random_a AUTHORIZATION acme_rw; CREATE SCHEMA random_b AUTHORIZATION acme_rw;
CREATE TABLE random_a.t (a int, b text); CREATE TABLE random_b.t (a int, b text);
CREATE TABLE random_a.u (a int, b text); CREATE TABLE random_b.u (x numeric, y date, z int);
CREATE TABLE random_a.v (a int); CREATE TABLE random_b.v (a int);
INSERT INTO random_a.t VALUES (1, 'one'), (2, 'two'); INSERT INTO random_b.t VALUES (3, 'three');
INSERT INTO random_a.u VALUES (4, 'four'); INSERT INTO random_b.u VALUES (5.5, '2005-05-05', 5);
INSERT INTO random_a.v VALUES (6); INSERT INTO random_b.v VALUES (7);
ALTER TABLE random_a.t OWNER TO acme_rw; ALTER TABLE random_b.t OWNER TO acme_rw;
ALTER TABLE random_a.u OWNER TO acme_rw; ALTER TABLE random_b.u OWNER TO acme_rw;
ALTER TABLE random_a.v OWNER TO acme_rw; ALTER TABLE random_b.v OWNER TO acme_rw;
"""
NAMES = ["", "", "one", "two", "three"]
PORTALS = ["", "", "", "p"]
READS = ["SELECT * FROM t", "SELECT a FROM t", "SELECT * FROM u", "SELECT * FROM v WHERE a > $1",
         "SELECT $1::int + 1", "SELECT b FROM t WHERE a = $1", "SELECT 1", "SELECT 'x' WHERE $1 = 2",
         "SELECT * FROM random_a.u", "VALUES (1), (2), (3)", "SHOW search_path", "",
         "SELECT to_char('2024-06-01 12:00'::timestamptz, 'HH24:MI')", "SELECT name FROM pg_prepared_statements WHERE false"]
WRITES = ["INSERT INTO t VALUES ($1)", "INSERT INTO v VALUES ($1) RETURNING *",
          "UPDATE u SET a = a + 1 RETURNING *", "DELETE FROM t WHERE a = $1"]
BAD = ["SELECT 1/0", "SELEKT", "SELECT * FROM there_is_none", "SELECT 1/a FROM v WHERE a = 6 AND 0 = 1/(a - 6)"]
ENDS = ["COMMIT", "ROLLBACK", "ROLLBACK", "COMMIT"]
MANAGES = ["DEALLOCATE one", "DEALLOCATE two", "DEALLOCATE ALL", "DEALLOCATE PREPARE three"]
EXECUTES = ["EXECUTE one", "EXECUTE two(1)", "EXECUTE three"]
SETS = ["SET search_path = random_b", "SET search_path = random_a", "SET LOCAL search_path = random_b",
        "RESET search_path"]
CHANGES = ["ALTER TABLE t ADD c int", "ALTER TABLE t DROP COLUMN IF EXISTS c", "ALTER TABLE t DROP COLUMN IF EXISTS b",
           "ALTER TABLE v ALTER a TYPE bigint", "ALTER TABLE v ALTER a TYPE int", "ALTER TABLE v RENAME a TO aa",
           "ALTER TABLE v RENAME aa TO a", "DROP TABLE v; CREATE TABLE v (a int)", "DROP TABLE IF EXISTS u",
           "CREATE TABLE IF NOT EXISTS u (a text)", "ALTER TABLE t ALTER a TYPE text", "DISCARD ALL", "DISCARD PLANS"]


class Script:
    """Steps that are thought up while they run against the database."""

    def __init__(self, seed, pool):
        self.random = random.Random(seed)
        self.pool = pool
        self.steps = []
        self.changer = None

    def text(self, alone):
        r = self.random.random()
        pick = self.random.choice
        if r < .5:
            return pick(READS)
        if r < .65:
            return pick(WRITES) if alone else pick(READS)
        if r < .72:
            return pick(BAD)
        if r < .80:
            return "BEGIN"
        if r < .88:
            return pick(ENDS)
        if r < .93:
            return pick(MANAGES)
        return pick(SETS)

    def values(self, text=""):
        return [self.random.choice([1, 2, 6])] if "$1" in text or self.random.random() < .05 else []

    def batch(self, alone, known):
        """One extended batch: its parts, as words and as bytes."""
        out, r = [], self.random
        for _ in range(r.choice([1, 1, 2, 2, 3, 5])):
            kind = r.random()
            name, portal = r.choice(NAMES), r.choice(PORTALS)
            if kind < .3:
                text = self.text(alone)
                types = r.choice([(), (), (), (23,)]) if "$1" in text else ()
                known[name] = text
                out.append((f"parse {name!r} {text!r} {types}", wire.parse(text, name, types)))
                # An unnamed one that nobody has described is not known well enough to tell, on
                # another server connection, that it gives other rows now.
                if not name or r.random() < .4:
                    out.append((f"describe {name!r}", wire.describe("S", name)))
                if r.random() < .5:
                    out += self.use(name, portal, known)
            elif kind < .75:
                out += self.use(name, portal, known)
            elif kind < .88:
                out.append((f"describe {name!r}", wire.describe("S", name)))
            elif kind < .95:
                out.append((f"close {name!r}", wire.close("S", name)))
            else:
                what = r.choice(["close P", "describe P", "flush"])
                out.append((f"{what} {portal!r}", {"close P": wire.close("P", portal), "flush": wire.flush(),
                                                  "describe P": wire.describe("P", portal)}[what]))
        return out + [("sync", wire.sync())]

    def use(self, name, portal, known):
        values = self.values(known.get(name, ""))
        rows = self.random.choice([0, 0, 0, 1])
        out = [(f"bind {name!r} to {portal!r} with {values}", wire.bind(name, portal, values))]
        if self.random.random() < .2:
            out.append((f"describe portal {portal!r}", wire.describe("P", portal)))
        return out + [(f"execute {portal!r} {rows}", wire.execute(portal, rows))]

    def step(self, clients, known):
        """The next step for these clients in their states: (index, parts)."""
        r = self.random
        busy = [i for i, c in enumerate(clients) if c.status != "I"]
        if self.changer not in busy:
            self.changer = None
        may = range(len(clients))
        if self.changer is not None:
            may = [self.changer]
        elif len(busy) >= self.pool:
            may = busy
        i = r.choice(list(may))
        others = [k for k in busy if k != i]
        kind = r.random()
        if kind < .12 and not others:
            text = r.choice(CHANGES)
            if clients[i].status == "T":
                self.changer = i
            return i, [(f"query {text!r}", wire.query(text))]
        if kind < .3:
            text = self.text(not others) if others or r.random() < .7 else r.choice(EXECUTES)
            if any(w in text for w in ("INSERT", "UPDATE", "DELETE", "EXECUTE")) and clients[i].status == "T":
                self.changer = i
            return i, [(f"query {text!r}", wire.query(text.replace("$1", "1")))]
        parts = []
        for _ in range(r.choice([1, 1, 1, 2, 3])):
            parts += self.batch(not others, known[i])
        if not others and any(w in said for said, _ in parts for w in ("INSERT", "UPDATE", "DELETE")):
            self.changer = i
        return i, parts

    def think(self, clients, count):
        known = [{} for _ in clients]
        told = []
        for _ in range(count):
            i, parts = self.step(clients, known)
            self.steps.append((i, parts))
            told.append(answer(clients[i], parts))
        return told


def answer(client, parts):
    client.send(*(part for _, part in parts))
    ends = sum(part[:1] in (b"S", b"Q") for _, part in parts)
    return [shown(m) for _ in range(ends) for m in client.until("Z")]


def shown(message):
    kind, body = message
    if kind in "EN":
        fields = wire.error_fields(body)
        return kind + " " + " ".join(fields.get(k, "-") for k in "CMDHP")
    if kind == "T":
        return "T " + " ".join(columns(body))
    if kind == "D":
        return f"D {wire.row_values(body)}"
    return f"{kind} {body!r}"


def columns(body):
    """Names, types, sizes, modifiers and formats; the table's id differs from run to run."""
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        yield f"{body[at:end].decode()}:{body[end + 7:end + 19].hex()}"
        at = end + 19


@pytest.fixture(scope="module")
def gates(module_gate):
    return {n: module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": n, "shards": 1}})
            for n in (1, 2, 3)}


def seeds():
    first, _, last = os.environ.get("POSTERN_SCRIPTS", "1-8").partition("-")
    return range(int(first), int(last or first) + 1)


def log_in(connect, port, secret):
    client = wire.Client(("127.0.0.1", port), timeout=20)
    connect.append(client)
    client.login("acme_rw", "acme", secret)
    client.query("SET search_path = random_a")
    return client


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_random_scripts_are_answered_as_by_the_database(gates, stand, token, pool):
    opened = []
    password = stand.postgres.passwords["acme_rw"]
    admin = wire.Client(("127.0.0.1", stand.postgres.port)).login(
        "postgres", "acme", stand.postgres.passwords["postgres"])
    try:
        for seed in seeds():
            admin.query(TABLES)
            script = Script(seed * 10 + pool, pool)
            direct = [log_in(opened, stand.postgres.port, password) for _ in range(2)]
            told = script.think(direct, 40)
            while opened:
                opened[-1].send(wire.terminate())
                assert opened.pop().is_closed()
            admin.query(TABLES)
            through = [log_in(opened, gates[pool].port(), token("acme")) for _ in range(2)]
            for n, (i, parts) in enumerate(script.steps):
                try:
                    got = answer(through[i], parts)
                except (TimeoutError, wire.Closed) as e:
                    got = [repr(e), repr(bytes(through[i].buffer))]
                assert same(told[n], got), story(script, seed, pool, n, told[n], got)
            while opened:
                opened[-1].send(wire.terminate())
                assert opened.pop().is_closed()
    finally:
        for client in [*opened, admin]:
            client.close()


def same(told, got):
    """What is wrong in two ways may be told the other one."""
    return len(told) == len(got) and all(
        a == b or a.startswith(("E 08P01 bind message supplies", "E 42601 wrong number of", "E 42P03 cursor")) and b.startswith("E ")
        for a, b in zip(told, got))


def story(script, seed, pool, n, told, got):
    lines = [f"seed {seed}, pool of {pool}, step {n}"]
    for k, (i, parts) in enumerate(script.steps[:n + 1]):
        lines += [f"{k}: session {i}: {said}" for said, _ in parts]
    return "\n".join([*lines, "the database:", *map(str, told), "the gate:", *map(str, got)])
