"""What clients say, in every type of message and every state: the conversations that cuts.py cuts.

A conversation is made for a number, which its rows carry: many can be held in one table at once.
The table `t (id int PRIMARY KEY, words text)` holds a row 1 before any of them."""
# SPDX-License-Identifier: Apache-2.0
import struct

from stand import wire

BASE = 1_000_000
WIDTH = 100  # how many rows a conversation may have: its ids are number * WIDTH + 0..99


class Conversation:
    """parts: its messages. groups: [(ids, unit)], the rows that one transaction writes and the
    ReadyForQuery (from 0) that tells of its end."""

    def __init__(self, name, number):
        self.name = name
        self.number = number
        self.parts = []
        self.groups = []
        self.units = 0       # ReadyForQuery that are due for what has been said so far
        self.pins = False    # the session keeps its server connection: a loss ends it
        self.breaks = False  # ends by a violation of the protocol, or with Terminate
        self.in_step = True  # one ReadyForQuery for each Query, FunctionCall and Sync
        self.without = ()    # events that make another number of ReadyForQuery due: a COPY that fails before its Syncs
        self.first = 0       # where cutting begins: the first message is too long to be cut everywhere
        self.open = []

    def id(self, n):
        self.open.append(n)
        return self.number * WIDTH + n

    def row(self, n, words="x"):
        """An INSERT of a row, which belongs to the transaction that `commits` names next."""
        return f"INSERT INTO t VALUES ({self.id(n)}, '{words}')"

    def copy_row(self, n, words="x"):
        return f"{self.id(n)}\t{words}\n".encode()

    def commits(self):
        """What was written since belongs to one transaction, whose end the last unit is."""
        self.groups.append((tuple(self.open), self.units - 1))
        self.open = []

    def say(self, *parts):
        self.parts += parts
        return self

    def q(self, sql):
        self.units += 1
        return self.say(wire.query(sql))

    def one(self, sql, values=(), name=""):
        return self.say(wire.parse(sql, name), wire.bind(name, values=values), wire.execute())

    def sync(self):
        self.units += 1
        return self.say(wire.sync())

    def function(self, oid, *values):
        body = struct.pack("!ihh", oid, 0, len(values))
        for value in values:
            body += struct.pack("!i", len(value)) + value.encode()
        self.units += 1
        return self.say(wire.message("F", body + struct.pack("!h", 0)))

    def data(self, body):
        return self.say(wire.message("d", body))

    def done(self):
        return self.say(wire.message("c"))

    def fail(self):
        return self.say(wire.message("f", wire.text("so")))


ALL = {}


def conversation(make):
    ALL[make.__name__] = make
    return make


def make(name, number=BASE):
    c = Conversation(name, number)
    ALL[name](c)
    return c


# ---- simple queries ----

@conversation
def simple(c):
    c.q("SELECT 1 AS one")
    c.q(c.row(1)).commits()
    c.q("")
    c.q("SELECT 'x' WHERE false")
    c.q(c.row(2)).commits()


@conversation
def several_statements(c):
    c.q(f"{c.row(1)}; SELECT 2; {c.row(2)};").commits()
    c.q(f"{c.row(3)}; SELECT 1/0; {c.row(4)}").commits()
    c.q(";;")
    c.q(f"{c.row(5)} -- so").commits()


@conversation
def errors(c):
    c.q("SELEKT")
    c.q("SELECT 1/0")
    c.q("INSERT INTO t VALUES (1)")
    c.q(c.row(1)).commits()


@conversation
def block(c):
    c.q("BEGIN").q(c.row(1)).q("SELECT 5").q(c.row(2)).q("COMMIT").commits()
    c.q(c.row(3)).commits()


@conversation
def failed_block(c):
    c.q("BEGIN").q(c.row(1)).q("SELECT 1/0").q(c.row(2)).q("COMMIT").commits()
    c.q(c.row(3)).commits()


@conversation
def rolled_back_block(c):
    c.q("begin work").q(c.row(1)).q("ROLLBACK").commits()
    c.q(c.row(2)).commits()


@conversation
def blocks_in_one_text(c):
    c.q(f"BEGIN; {c.row(1)}; {c.row(2)}; COMMIT").commits()
    c.q(f"BEGIN; {c.row(3)}").q(f"{c.row(4)}; COMMIT; SELECT 6").commits()
    c.q(f"BEGIN; {c.row(5)}; ROLLBACK; SELECT 7").commits()


@conversation
def savepoints(c):
    c.q("BEGIN").q(c.row(1)).q("SAVEPOINT a").q("INSERT INTO t VALUES (1)").q("SELECT 1").q("ROLLBACK TO a")
    c.q(c.row(2)).q("RELEASE a").q("COMMIT").commits()


@conversation
def chain(c):
    c.q("BEGIN").q(c.row(1)).q("COMMIT AND CHAIN").commits()
    c.q(c.row(2)).q("COMMIT").commits()


@conversation
def cursor(c):
    c.q("BEGIN").q(c.row(1)).q("DECLARE k CURSOR FOR SELECT generate_series(1, 5)").q("FETCH 2 FROM k").q("CLOSE k")
    c.q("COMMIT").commits()


# ---- the extended protocol ----

@conversation
def unnamed(c):
    c.say(wire.parse("INSERT INTO t VALUES ($1, $2)"), wire.describe("S"),
          wire.bind(values=(c.id(1), "x")), wire.describe("P"), wire.execute()).sync().commits()
    c.say(wire.bind(values=(c.id(2), "y")), wire.execute()).sync().commits()
    c.one("SELECT $1::int + 1", ("4",)).sync()


@conversation
def named(c):
    c.say(wire.parse("INSERT INTO t VALUES ($1, $2) RETURNING words", "s"), wire.describe("S", "s")).sync()
    c.say(wire.bind("s", "p", (c.id(1), "x")), wire.describe("P", "p"), wire.execute("p"),
          wire.close("P", "p")).sync().commits()
    c.say(wire.bind("s", values=(c.id(2), "y")), wire.execute(), wire.close("S", "s")).sync().commits()
    c.say(wire.parse("SELECT 3", "s"), wire.bind("s"), wire.execute()).sync()


@conversation
def pipeline(c):
    for n in range(1, 5):
        c.one(c.row(n)).sync().commits()
    c.one("SELECT 1/0").sync()
    c.one(c.row(5)).one(c.row(6)).sync().commits()


@conversation
def batch_that_fails(c):
    c.one(c.row(1)).one("INSERT INTO t VALUES (1)").one(c.row(2)).sync().commits()
    c.one(c.row(3)).say(wire.parse("SELEKT"), wire.bind(), wire.execute()).one(c.row(4)).sync().commits()
    c.one(c.row(5)).say(wire.bind("", values=("1", "2"))).one(c.row(6)).sync().commits()
    c.one(c.row(7)).say(wire.describe("S", "none"), wire.execute()).sync().commits()
    c.one(c.row(8)).sync().commits()


@conversation
def flushes(c):
    c.say(wire.parse(c.row(1)), wire.flush(), wire.bind(), wire.flush(), wire.execute(), wire.flush()).sync().commits()
    c.say(wire.flush()).one("SELECT 1/0").say(wire.flush()).one(c.row(2)).sync().commits()
    c.sync()


@conversation
def extended_block(c):
    c.one("BEGIN").sync().one(c.row(1)).sync().one(c.row(2)).one("SELECT 1").sync().one("COMMIT").sync().commits()
    c.one("BEGIN").one(c.row(3)).sync().one(c.row(4)).one("COMMIT").sync().commits()
    c.one("BEGIN").one(c.row(5)).one("ROLLBACK").sync().commits()


@conversation
def block_in_a_batch(c):
    c.one("BEGIN").one(c.row(1)).one(c.row(2)).one("COMMIT").sync().commits()
    c.one(c.row(3)).sync().commits()


@conversation
def block_of_both_kinds(c):
    c.q("BEGIN").one(c.row(1)).sync().q(c.row(2)).one("SELECT 1/0").sync().one(c.row(3)).sync().one("COMMIT").sync().commits()
    c.q("BEGIN").one(c.row(4)).sync().one("COMMIT").sync().commits()


@conversation
def autosave(c):
    """As JDBC with autosave=always."""
    c.one("BEGIN").one(c.row(1)).sync()
    c.one("SAVEPOINT s", name="a").one("INSERT INTO t VALUES (1)").sync().one("ROLLBACK TO SAVEPOINT s").sync()
    c.one("SAVEPOINT s").one(c.row(2)).sync().one("RELEASE SAVEPOINT s").sync().one("COMMIT").sync().commits()


@conversation
def part_of_the_rows(c):
    c.q("BEGIN").say(wire.parse("SELECT generate_series(1, 5)"), wire.bind("", "p"), wire.execute("p", 2)).sync()
    c.say(wire.execute("p", 2), wire.describe("P", "p"), wire.execute("p", 9), wire.close("P", "p")).sync()
    c.q(c.row(1)).q("COMMIT").commits()


@conversation
def query_behind_an_open_batch(c):
    c.one(c.row(1)).q("SELECT 1").commits()
    c.one(c.row(2)).q("SELECT 1/0").commits()
    c.one("SELECT 2").sync()
    c.in_step = False # behind an error in the batch the Query is skipped


@conversation
def describe_and_close_of_nothing(c):
    c.say(wire.describe("S", "none")).sync().say(wire.describe("P", "none")).sync()
    c.say(wire.close("S", "none"), wire.close("P", "none"), wire.close("S", ""), wire.close("P", "")).sync()
    c.say(wire.execute("none")).sync().one(c.row(1)).sync().commits()


@conversation
def failed_block_extended(c):
    c.q("BEGIN").q("SELECT 1/0").one(c.row(1)).sync().say(wire.parse("SELECT 1", "s")).sync()
    c.say(wire.describe("S", "s"), wire.close("S", "s")).sync().one("ROLLBACK").sync().commits()
    c.one(c.row(2)).sync().commits()


# ---- COPY ----

def copies(c, how):
    if how == "simple":
        c.q("COPY t FROM STDIN")
    else:
        c.one("COPY t FROM STDIN")
        if how == "flushed":
            c.say(wire.flush())


def copy_ends(c, how):
    if how != "simple":
        c.sync()
    c.commits()


def _copies(how):
    def good(c):
        copies(c, how)
        rows = c.copy_row(1) + c.copy_row(2) + c.copy_row(3)
        c.data(rows[:20]).data(rows[20:]).data(b"")
        c.done()
        copy_ends(c, how)
        c.q(c.row(4)).commits()

    def duplicate(c):
        copies(c, how)
        c.data(c.copy_row(1)).data(b"1\tagain\n").data(c.copy_row(2)).done()
        copy_ends(c, how)
        c.q(c.row(3)).commits()

    def failed(c):
        copies(c, how)
        c.data(c.copy_row(1)).fail()
        copy_ends(c, how)
        c.q(c.row(2)).commits()

    def in_block(c):
        c.q("BEGIN").q(c.row(1))
        copies(c, how)
        c.data(c.copy_row(2)).done()
        if how != "simple":
            c.sync()
        c.q(c.row(3)).q("COMMIT").commits()
        c.q("BEGIN").q(c.row(4))
        copies(c, how)
        c.data(b"1\tagain\n").done()
        if how != "simple":
            c.sync()
        c.q(c.row(5)).q("COMMIT").commits()

    def fails_under_way(c):
        """The rows violate the key long before the client has ended."""
        copies(c, how)
        c.data(b"1\tagain\n" * 9000)
        c.first = sum(map(len, c.parts)) - 1
        for _ in range(3):
            c.data(b"1\tmore\n" * 2)
        c.done()
        copy_ends(c, how)
        c.q(c.row(1)).commits()

    def fails_under_way_in_block(c):
        c.q("BEGIN").q(c.row(1))
        copies(c, how)
        c.data(b"1\tagain\n" * 9000)
        c.first = sum(map(len, c.parts)) - 1
        for _ in range(2):
            c.data(b"1\tmore\n" * 2)
        c.fail() if how == "flushed" else c.done()
        if how != "simple":
            c.sync()
        c.q(c.row(2)).q("COMMIT").commits()
        c.q(c.row(3)).commits()

    for kind in (good, duplicate, failed, in_block, fails_under_way, fails_under_way_in_block):
        name = f"copy_{how}_{kind.__name__}"
        ALL[name] = kind


for _how in ("simple", "extended", "flushed"):
    _copies(_how)


@conversation
def copy_in_a_text(c):
    c.q(f"{c.row(1)}; COPY t FROM STDIN; {c.row(2)}")
    c.data(c.copy_row(3)).done()
    c.commits()
    c.q(c.row(4)).commits()


@conversation
def sync_in_a_copy(c):
    """Drivers that send Sync at once with Execute: the server reads it as part of the COPY."""
    c.one("COPY t FROM STDIN").say(wire.sync()).data(c.copy_row(1)).done().sync().commits()
    c.q(c.row(2)).commits()
    c.in_step = False


@conversation
def syncs_in_a_copy(c):
    """None of them counts but the last."""
    c.one("COPY t FROM STDIN").say(wire.flush()).data(c.copy_row(1)).say(wire.sync())
    c.data(c.copy_row(2)).say(wire.sync(), wire.flush(), wire.sync()).done().one(c.row(3)).sync().commits()
    c.q(c.row(4)).commits()
    c.in_step = False
    c.without = ("cancel", "terminate", "node")


@conversation
def sync_behind_a_copy_that_has_failed(c):
    """Straight behind the row that fails, before anybody has heard of it: the server answers it."""
    c.one("COPY t FROM STDIN").say(wire.flush()).data(b"bad\n").sync().one(c.row(1)).sync().commits()
    c.q(c.row(2)).commits()
    c.q("BEGIN").q(c.row(3)).one("COPY t FROM STDIN").say(wire.flush()).data(b"bad\n").sync().q(c.row(4))
    c.q("COMMIT").commits()
    c.q(c.row(5)).commits()


@conversation
def sync_before_the_row_that_fails(c):
    """It is swallowed, and the request behind the failure is skipped."""
    c.one("COPY t FROM STDIN").say(wire.flush()).data(c.copy_row(1)).say(wire.sync()).data(b"bad\n").done()
    c.one(c.row(2)).sync().commits()
    c.q(c.row(3)).commits()
    c.in_step = False
    c.without = ("cancel", "terminate", "node")


@conversation
def copy_out(c):
    c.q("COPY (SELECT generate_series(1, 9)) TO STDOUT")
    c.one("COPY (SELECT generate_series(1, 3)) TO STDOUT").sync()
    c.q("COPY (SELECT 1/(3 - n) FROM generate_series(1, 9) n) TO STDOUT")
    c.q(c.row(1)).commits()


@conversation
def stray_copy_messages(c):
    c.data(b"stray").done().fail().q(c.row(1)).commits()
    c.one("SELECT 1").data(b"stray").sync().data(b"").done().one(c.row(2)).sync().commits()


# ---- functions ----

@conversation
def functions(c):
    c.function(177, "3", "4").function(177, "3", "four")
    c.q("BEGIN").q(c.row(1)).function(177, "5", "6").q("COMMIT").commits()
    c.q("BEGIN").q("SELECT 1/0").function(177, "5", "6").q("ROLLBACK").function(99999, "1")
    c.pins = True # until the server has been asked what they have set


# ---- what stays with the session ----

@conversation
def listens(c):
    c.q("LISTEN news").q(c.row(1)).commits()
    c.q("NOTIFY news, 'x'").q("BEGIN").q(c.row(2)).q("COMMIT").commits()
    c.q("UNLISTEN *").q(c.row(3)).commits()
    c.pins = True


@conversation
def temporary_table(c):
    c.q("CREATE TEMP TABLE own (a int)").q("BEGIN").q("INSERT INTO own VALUES (1)").q(c.row(1)).q("COMMIT").commits()
    c.q("SELECT * FROM own").q("DROP TABLE own").q(c.row(2)).commits()
    c.pins = True


@conversation
def advisory_lock(c):
    c.q(f"SELECT pg_advisory_lock({c.number})").q(c.row(1)).commits()
    c.q(f"SELECT pg_advisory_unlock({c.number})").q(c.row(2)).commits()
    c.pins = True


@conversation
def settings(c):
    c.q("SET application_name = 'cuts'").q("SHOW application_name").q("BEGIN").q("SET LOCAL work_mem = '1234kB'")
    c.q("SHOW work_mem").q(c.row(1)).q("COMMIT").commits()
    c.q("SHOW work_mem").q("SET search_path = nowhere, public").one("SHOW search_path").sync()
    c.q("BEGIN").q("SET TimeZone = 'Asia/Tokyo'").q("ROLLBACK").q("SHOW TimeZone").q("RESET ALL").q(c.row(2)).commits()
    c.pins = True # from the answer to a SET until the server has been asked for its value


@conversation
def prepared_by_sql(c):
    c.q("PREPARE p AS INSERT INTO t VALUES ($1, $2)").q(f"EXECUTE p({c.id(1)}, 'x')").commits()
    c.q("BEGIN").q(f"EXECUTE p({c.id(2)}, 'x')").q(f"EXECUTE p({c.id(3)}, 'x')").q("COMMIT").commits()
    c.q("DEALLOCATE p").q(c.row(4)).commits()
    c.pins = True


@conversation
def prepared_and_deallocated(c):
    c.say(wire.parse("INSERT INTO t VALUES ($1)", "s")).sync().say(wire.bind("s", values=(c.id(1),)), wire.execute()).sync().commits()
    c.q("DEALLOCATE s").say(wire.bind("s", values=(c.id(2),)), wire.execute()).sync().commits()
    c.say(wire.parse("SELECT 2", "s")).sync().q("BEGIN").q("DEALLOCATE ALL").say(wire.parse("SELECT 3", "s")).sync()
    c.q(c.row(3)).q("COMMIT").commits()


@conversation
def discards(c):
    c.say(wire.parse("SELECT 1", "s")).sync().q("SET work_mem = '1234kB'").q("DISCARD ALL").q("SHOW work_mem")
    c.say(wire.describe("S", "s")).sync().q(c.row(1)).commits()


@conversation
def procedures(c):
    c.q(f"DO $$ BEGIN {c.row(1)}; END $$").commits()
    c.q(f"DO $$ BEGIN {c.row(2)}; RAISE NOTICE 'so'; RAISE 'no'; END $$").commits()
    c.q("BEGIN").q(f"DO $$ BEGIN {c.row(3)}; END $$").q("COMMIT").commits()
    c.pins = True # until the server has been asked what it set


# ---- long messages ----

def padded(sql, size):
    return sql + " -- " + "y" * size


def _long(size):
    def long_query(c):
        c.q(padded(c.row(1), size)).commits()
        c.q("BEGIN").q(padded(c.row(2), size)).q("COMMIT").commits()

    def long_parse(c):
        c.one(padded(c.row(1), size)).sync().commits()
        c.say(wire.parse(padded("INSERT INTO t VALUES ($1)", size), "s")).sync()
        c.say(wire.bind("s", values=(c.id(2),)), wire.execute()).sync().commits()

    def long_bind(c):
        c.one("INSERT INTO t VALUES ($1, left($2, 5))", (c.id(1), "z" * size)).sync().commits()
        c.q("BEGIN").one("INSERT INTO t VALUES ($1, left($2, 5))", (c.id(2), "z" * size)).sync().q("COMMIT").commits()

    def long_copy(c):
        c.q("COPY t FROM STDIN").data(c.copy_row(1, "w" * size)).data(c.copy_row(2)).done().commits()
        c.q("COPY t FROM STDIN").data(c.copy_row(3, "w" * size)).data(b"1\tagain\n").done().commits()
        c.q(c.row(4)).commits()

    for kind in (long_query, long_parse, long_bind, long_copy):
        ALL[f"{kind.__name__}_{size}"] = kind


_long(40_000)
_long(600_000)


# ---- the end ----

@conversation
def leaves_in_order(c):
    c.q(c.row(1)).commits()
    c.one(c.row(2)).say(wire.terminate())
    c.units += 1
    c.commits()
    c.units -= 1
    c.breaks = True


@conversation
def violates_the_protocol(c):
    c.q(c.row(1)).commits()
    c.q("BEGIN").q(c.row(2)).say(wire.message("y", b"what"))
    c.units += 1
    c.commits()
    c.units -= 1
    c.breaks = True
