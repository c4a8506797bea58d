# SPDX-License-Identifier: Apache-2.0
"""A node that lies: whatever it sends, unasked or as an answer, the process lives, no other connection is
touched, the log says what was wrong, and nothing of it reaches a session that it was not for."""
import contextlib
import itertools
import re
import struct
import threading

import pytest

import fake
from stand import proc, wire

MB = 1 << 20
OPTIONS = itertools.count()


def head(kind, size):
    """Of a message with this many bytes of body."""
    return kind.encode() + struct.pack("!i", size + 4)


def error(*fields, end=b"\0"):
    return wire.message("E", b"".join(f.encode() + b"\0" for f in fields) + end)


ROW = fake.columns("c") + fake.row("mine") + fake.done() + fake.ready()
FATAL = error("SFATAL", "VFATAL", "C57P01", "Mno more")
TAGS = (b"SET", b"RESET", b"BEGIN", b"COMMIT", b"ROLLBACK", b"LISTEN", b"UNLISTEN", b"DISCARD ALL", b"CALL", b"DO")


def says(kind, body):
    """A server with one row for each query, and a word on each question of the gateway's."""
    if kind != "Q":
        return {"P": wire.message("1"), "B": wire.message("2"), "E": fake.row("mine") + fake.done(), "C": wire.message("3"),
                "D": wire.message("t", b"\0\0") + fake.columns("c"), "S": fake.ready()}.get(kind, b"")
    if b"current_setting(n" in body:
        return fake.settings(body)
    if b"current_setting(coalesce" in body:
        return fake.columns("n", "v", "s") + b"".join(fake.row(n.decode(), "x", "session") for n in fake.names_in(body)) \
            + fake.done() + fake.ready()
    if pin := re.match(rb"SELECT '(\w+)', EXISTS", body):
        return fake.columns("p", "e") + fake.row(pin[1].decode(), "f") + fake.done() + fake.ready()
    if b"set_config" in body or b"source" in body or b"pg_prepared_statements" in body or b"pg_get_functiondef" in body:
        return fake.done() + fake.ready()
    if body.startswith(b"COPY"):
        return wire.message("G", b"\0\0\0") if b"STDIN" in body else \
            wire.message("H", b"\0\0\0") + wire.message("d", b"row\n") + wire.message("c") + fake.done("COPY 1") + fake.ready()
    if b"FAIL" in body:
        return fake.done("SET") + error("SERROR", "C22012", "Mas told") + fake.ready()
    status = "T" if body.startswith(b"BEGIN") else "I"
    for tag in TAGS:
        if body.startswith(tag):
            return fake.done(tag.decode()) + fake.ready(status)
    return ROW


@pytest.fixture(scope="module")
def town(module_gate, stand):
    """A gate with two clusters: acme's node is a FakeServer, globex has the stand's own."""
    class It:
        pass
    it = It()
    it.server = fake.FakeServer(says)
    bad = {**fake.cluster(it.server), "credentials": stand.credentials, "connect_timeout": "1s"}
    it.gate = module_gate({"postern": {"workers": 1, "log_level": "debug"}, "cluster bad": bad,
                           "database acme": {"cluster": "bad", "pool_size": 1, "cancel_timeout": "500ms"},
                           "database acme_session": {"cluster": "bad", "pool_size": 3, "cancel_timeout": "500ms"}})
    yield it
    it.server.close()


@pytest.fixture
def node(town, login):
    """... as it is before each test, and afterwards: somebody else's session goes on as if nothing had been."""
    server = town.server
    honest = {k: getattr(server, k) for k in ("answer", "greets", "lies", "role_settings", "on_cancel")}
    other = login(town.gate, "globex")
    town.began = len(town.gate.log())
    yield town
    vars(server).update(honest)
    assert other.query("SELECT 'there'") == [["there"]]
    assert fresh(town, login).query("SELECT 1") == [["mine"]]
    town.gate.process.need_alive()


def fresh(node, login, database="acme"):
    """A session for which the node is asked what to tell: nobody has had these options yet."""
    return login(node.gate, database, options=f"-c fresh.n{next(OPTIONS)}=1")


def all_of(c):
    """What comes until the session is ready, or ends: types of messages."""
    out = []
    with contextlib.suppress(wire.Closed, OSError):
        while not out or out[-1] != "Z":
            out.append(c.receive()[0])
    return out


def asks(c, *parts):
    with contextlib.suppress(OSError):
        c.send(*parts)
    return all_of(c)


# ---- while nobody asks ----

UNASKED = {
    "a part of a large notice": head("N", 3 * MB) + b"S" * MB,
    "the head of a notice": head("N", 100),
    "a part of a parameter": head("S", 100) + b"x",
    "less than a header": b"N\0\0",
    "a row": fake.row("not mine"),
    "a length of nothing": b"N\0\0\0\0",
    "a negative length": b"N\xff\xff\xff\xff",
    "the largest length": b"N\x7f\xff\xff\xff",
    "ready once more": fake.ready(),
    "a type that is none": head("\x01", 4) + b"1234",
    "a parameter without a value": wire.message("S", b"name\0"),
    "a parameter without a name": wire.message("S", b"\0value\0"),
    "a parameter with a long name": fake.parameter("n" * 9000, "x"),
    "a parameter with a long value": fake.parameter("TimeZone", "x" * 40000),
    "too many parameters": b"".join(fake.parameter(f"n{i}", "x") for i in range(1000)),
    "nothing but zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("what", UNASKED)
def test_idle_connection_that_says_what_it_may_not_is_never_lent(node, login, what):
    c = fresh(node, login)
    assert c.query("SELECT 1") == [["mine"]]
    logins = len(node.server.startups)
    node.server.push(UNASKED[what])
    node.gate.await_log("closed an idle connection: the server has said what nobody asked for", node.began)
    assert c.query("SELECT 1") == [["mine"]]
    assert len(node.server.startups) > logins


# ---- while it is logged in to ----

OK, KEY, PARAMETERS, READY = fake.AUTHENTICATED, fake.KEY, fake.PARAMETERS, fake.ready()
ODD = "é" * 63 + "x"  # 127 bytes
GREETINGS = {
    "in pieces of one byte": [bytes([b]) for b in OK + PARAMETERS + KEY + READY],
    "one parameter a thousand times": [OK + PARAMETERS + 1000 * fake.parameter("TimeZone", "Mars") + KEY + READY],
    "as many parameters as may be, of the longest names":
        [OK + PARAMETERS + b"".join(fake.parameter(f"{i:03}" + ODD[:-2], "x" * 500) for i in range(61)) + KEY + READY],
    "notices and notifications": [OK + fake.notice("by the way") + PARAMETERS + fake.notice("and") + KEY + READY],
    "a long value": [OK + PARAMETERS + fake.parameter("search_path", "s, " * 9000) + KEY + READY],
}
REFUSED = {
    "no authentication": (PARAMETERS + KEY + READY, "invalid ParameterStatus"),
    "authentication twice": (OK + OK + PARAMETERS + KEY + READY, "unexpected authentication message"),
    "authentication without a code": (wire.message("R", b"\0") + PARAMETERS, "unexpected authentication message"),
    "authentication of an unknown kind": (wire.message("R", b"\0\0\0\x63"), "a password|kind of authentication"),
    "no parameters": (OK + KEY + READY, "the node reports no parameters"),
    "a name of 9,000 bytes": (OK + PARAMETERS + fake.parameter("n" * 9000, "x") + KEY + READY, "invalid ParameterStatus"),
    "a name of 128 bytes": (OK + PARAMETERS + fake.parameter(ODD + "x", "x") + KEY + READY, "invalid ParameterStatus"),
    "an empty name": (OK + PARAMETERS + fake.parameter("", "x") + KEY + READY, "invalid ParameterStatus"),
    "no value": (OK + PARAMETERS + wire.message("S", b"name\0") + KEY + READY, "invalid ParameterStatus"),
    "a name without an end": (OK + PARAMETERS + wire.message("S", b"name") + KEY + READY, "invalid ParameterStatus"),
    "nothing in a parameter": (OK + PARAMETERS + wire.message("S") + KEY + READY, "invalid ParameterStatus"),
    "more behind a value": (OK + PARAMETERS + wire.message("S", b"a\0b\0c\0") + KEY + READY, "invalid ParameterStatus"),
    "65 parameters": (OK + b"".join(fake.parameter(f"n{i}", "x") for i in range(65)) + KEY + READY, "invalid ParameterStatus"),
    "a value of 40,000 bytes": (OK + PARAMETERS + fake.parameter("search_path", "s" * 40000) + KEY + READY, "invalid message length"),
    "values of 90,000 bytes": (OK + PARAMETERS + b"".join(fake.parameter(f"n{i}", "s" * 30000) for i in range(3)) + KEY + READY,
                               "invalid ParameterStatus"),
    "no key": (OK + PARAMETERS + READY, "not ready after the login"),
    "two keys": (OK + PARAMETERS + KEY + KEY + READY, "invalid cancel key"),
    "a key without a secret": (OK + PARAMETERS + wire.message("K", b"\0\0\0\1") + READY, "invalid cancel key"),
    "a key of 300 bytes": (OK + PARAMETERS + wire.message("K", b"k" * 300) + READY, "invalid cancel key"),
    "the key first": (KEY + OK + PARAMETERS + READY, "cancel key before authentication"),
    "ready first": (READY + OK + PARAMETERS + KEY, "not ready after the login"),
    "ready twice": (OK + PARAMETERS + KEY + READY + READY, "not ready after the login"),
    "ready in a transaction": (OK + PARAMETERS + KEY + fake.ready("T"), "not ready after the login"),
    "ready for nothing": (OK + PARAMETERS + KEY + wire.message("Z"), "not ready after the login"),
    "ready with more": (OK + PARAMETERS + KEY + wire.message("Z", b"II"), "not ready after the login"),
    "a row": (OK + fake.row("x") + PARAMETERS + KEY + READY, "unexpected message during the login"),
    "a type that is none": (OK + head("\xe9", 0)[:1] + b"\0\0\0\4", "unexpected message|invalid message"),
    "a length of 3": (OK + b"N\0\0\0\3", "invalid message length"),
    "a negative length": (OK + b"N\xff\xff\xff\xf0", "invalid message length"),
    "a length of a gigabyte": (OK + b"N\x3f\xff\xff\xff", "invalid message length"),
    "an error of huge fields": (error("SFATAL", "C28000", *(f + "x" * 6000 for f in "MDHW")), "28000"),
    "an error without an end": (error("SFATAL", "C28P01", end=b""), "28P01"),
    "an error of nothing": (wire.message("E"), "XX000"),
    "zeros": (b"\0" * 5000, "invalid message length"),
    "the end": (OK + PARAMETERS, "closed the connection during the login"),
}


@pytest.mark.parametrize("what", GREETINGS)
@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_odd_greeting_that_follows_the_protocol_is_good(node, login, what, database):
    node.server.hang_up()
    node.server.greets = lambda number: GREETINGS[what]
    assert fresh(node, login, database).query("SELECT 1") == [["mine"]]


@pytest.mark.parametrize("database, what", [("acme", w) for w in REFUSED]
                         + [("acme_session", w) for w in ("no parameters", "a name of 9,000 bytes", "a key of 300 bytes", "the end")])
def test_greeting_that_does_not_is_refused(node, login, database, what):
    said, logged = REFUSED[what]

    def greets(number):
        yield said
        raise EOFError  # and it hangs up
    honest = node.server.greets
    node.server.hang_up()
    node.server.greets = greets
    with pytest.raises(wire.ServerError) as e:
        fresh(node, login, database)
    assert e.value.fields["S"] == "FATAL"
    node.gate.await_log(logged, node.began)
    node.server.greets = honest
    assert fresh(node, login, database).query("SELECT 1") == [["mine"]]


def test_greeting_without_an_end_is_given_up(node, login):
    node.server.hang_up()
    node.server.greets = lambda number: [OK + PARAMETERS + KEY]
    with pytest.raises(wire.ServerError) as e:
        fresh(node, login)
    assert e.value.fields["S"] == "FATAL"
    node.gate.await_log("did not answer in time", node.began)


# ---- as an answer to the gateway's own questions ----

def to_block(c):
    """A named statement, and a block that may have dropped it."""
    asks(c, wire.parse("SELECT 1", "s1") + wire.sync())
    asks(c, wire.query("DO $$ BEGIN EXECUTE 'DEALLOCATE s1'; END $$"))


# What is asked, and how a session brings it about: with its connection, or by its login.
QUESTIONS = {
    "settings of the role": (b"pg_db_role_setting", None),
    "values": (b"WHERE context ", None),
    "what logins are told": (b"SELECT n, pg_catalog.current_setting(n", None),
    "setting": (b"set_config(", None),
    "variables": (b"SELECT n, pg_catalog.current_setting(n", lambda c: asks(c, wire.query("SET work_mem = '5MB'"))),
    "sources": (b"SELECT n, NULL, source", lambda c: asks(c, wire.query("SET work_mem = '5MB'; FAIL"))),
    "all variables": (b"FULL JOIN", lambda c: asks(c, wire.query("RESET ALL"))),
    "whose variables": (b"AND context ", lambda c: asks(c, wire.query("SET ROLE x; SET work_mem = '5MB'"))),
    "pins": (b"pg_listening_channels", lambda c: asks(c, wire.query("LISTEN x; UNLISTEN x"))),
    "procedures": (b"pg_get_functiondef", lambda c: asks(c, wire.query("CALL p()"))),
    "names": (b"WHERE NOT from_sql", to_block),
    "back to no variables": (b"RESET", None),
}
NAME = struct.pack("!i", 4) + b"name"
LONG = "é" * 50000
ANSWERS = {
    "nothing": fake.ready(),
    "no columns": wire.message("D", b"\0\0") + fake.done() + fake.ready(),
    "one column": fake.row("work_mem") + fake.done() + fake.ready(),
    "two columns": fake.row("work_mem", "x") + fake.done() + fake.ready(),
    "three columns": fake.row("work_mem", "x", "session") + fake.done() + fake.ready(),
    "five columns": fake.row("0", "0", "a.b=1", "a.b", "1") + fake.done() + fake.ready(),
    "sixteen columns": fake.row(*"abcdefghijklmnop") + fake.done() + fake.ready(),
    "seventeen columns": fake.row(*"abcdefghijklmnopq") + fake.done() + fake.ready(),
    "65,535 columns": wire.message("D", b"\xff\xff") + fake.done() + fake.ready(),
    "no count of columns": wire.message("D") + fake.done() + fake.ready(),
    "a NULL": wire.message("D", b"\0\2" + NAME + b"\xff\xff\xff\xff") + fake.done() + fake.ready(),
    "only NULLs": wire.message("D", b"\0\2" + 2 * b"\xff\xff\xff\xff") + fake.done() + fake.ready(),
    "a negative length": wire.message("D", b"\0\2" + NAME + b"\xff\xff\xff\xfe") + fake.done() + fake.ready(),
    "a column longer than its row": wire.message("D", b"\0\2" + NAME + b"\0\0\0\x09x") + fake.done() + fake.ready(),
    "more than its columns": wire.message("D", b"\0\1" + NAME + b"more") + fake.done() + fake.ready(),
    "empty texts": fake.row("", "") + fake.row("", "", "") + fake.row("", "", "", "", "") + fake.done() + fake.ready(),
    "a NUL in a name": fake.row("a\0b", "x") + fake.done() + fake.ready(),
    "NULs in a value": fake.row("work_mem", "\0\0\0") + fake.row("a", "\0", "session") + fake.done() + fake.ready(),
    "a name of 100,000 bytes": fake.row(LONG, "x") + fake.row(LONG, "x", "session") + fake.done() + fake.ready(),
    "a value of 100,000 bytes": fake.row("work_mem", LONG) + fake.row("a.b", LONG, "session") + fake.done() + fake.ready(),
    "a value of two megabytes": fake.row("work_mem", "x" * 2 * MB) + fake.row("a.b", "x" * 2 * MB, "session") + fake.done() + fake.ready(),
    "a value of five megabytes": fake.row("work_mem", "x" * 5 * MB) + fake.done() + fake.ready(),
    "names of a megabyte": b"".join(fake.row(f"v{i}." + "é" * 1000, "x") for i in range(500)) + fake.done() + fake.ready(),
    "all of them, of a megabyte": b"".join(fake.row(f"v{i}." + "é" * 1000, "x", "session") for i in range(500)) + fake.done() + fake.ready(),
    "quotes": fake.row("'\\'\"" * 30, "'\\" * 30) + fake.row("'\\'\"" * 30, "'\\" * 30, "session") + fake.done() + fake.ready(),
    "ten thousand rows": b"".join(fake.row(f"n{i}", "x") for i in range(10000)) + fake.done() + fake.ready(),
    "ten thousand rows of three": b"".join(fake.row(f"n{i}", "x", "session") for i in range(10000)) + fake.done() + fake.ready(),
    "ten thousand rows of five": b"".join(fake.row("0", "0", f"n{i}=x", f"n{i}", "x") for i in range(10000)) + fake.done() + fake.ready(),
    "an error": error("SERROR", "C42501", "Mno") + fake.ready(),
    "an error that may pass": error("SERROR", "CXX000", "Mno") + fake.ready(),
    "an error of huge fields": error("SERROR", "C22023", *(f + "é" * 9000 for f in "MDHW")) + fake.ready(),
    "an error of nothing": wire.message("E") + fake.ready(),
    "two errors": error("SERROR", "C22023", "Ma") + error("SERROR", "C42501", "Mb") + fake.ready(),
    "FATAL": FATAL,
    "ready in a transaction": fake.done() + fake.ready("T"),
    "ready in a failed one": error("SERROR", "C22023", "Ma") + fake.ready("E"),
    "ready for what is nothing": fake.done() + fake.ready("X"),
    "ready without a word": fake.done() + wire.message("Z"),
    "ready twice": fake.done() + fake.ready() + fake.ready(),
    "a row behind it": fake.done() + fake.ready() + fake.row("not mine"),
    "half a message behind it": fake.done() + fake.ready() + head("D", 9) + b"x",
    "a notice behind it": fake.done() + fake.ready() + fake.notice("by the way"),
    "a COPY to the server": wire.message("G", b"\0\0\0"),
    "a COPY from it": wire.message("H", b"\0\0\0") + wire.message("d", b"x") + wire.message("c") + fake.done() + fake.ready(),
    "a COPY both ways": wire.message("W", b"\0\0\0"),
    "the answer to a Parse": wire.message("1") + fake.ready(),
    "a type that is none": head("!", 0) + fake.ready(),
    "a length of 3": b"D\0\0\0\3" + fake.ready(),
    "a length of a gigabyte": b"D\x3f\xff\xff\xff" + b"x" * 100,
    "parameters": b"".join(fake.parameter(f"n{i % 50}", "é" * 20) for i in range(1000)) + fake.done() + fake.ready(),
    "too many parameters": b"".join(fake.parameter(f"n{i}", "x") for i in range(1000)) + fake.done() + fake.ready(),
    "a parameter of 9,000 bytes": fake.parameter("n" * 9000, "x") + fake.done() + fake.ready(),
    "a notification": wire.message("A", b"\0\0\0\1x\0y\0") + fake.done() + fake.ready(),
    "half a notification": wire.message("A", b"\0") + fake.done() + fake.ready(),
    "a part, and the end": None,
}


# Each answer to the questions whose rows are kept, some to the others.
MANY = ("settings of the role", "what logins are told", "variables", "all variables")
SOME = ("nothing", "two columns", "seventeen columns", "a NULL", "a column longer than its row", "NULs in a value", "a name of 100,000 bytes",
        "ten thousand rows", "an error", "FATAL", "ready in a transaction", "ready twice", "a row behind it", "a COPY to the server",
        "a parameter of 9,000 bytes", "a part, and the end")


@pytest.mark.parametrize("question, answer", [(q, a) for q in QUESTIONS for a in (ANSWERS if q in MANY else SOME)])
def test_answer_to_a_question_of_the_gateways(node, login, question, answer):
    pattern, bring_about = QUESTIONS[question]
    lied = []

    def lies(kind, body):
        if kind != "Q" or pattern not in body or lied:
            return b""
        lied.append(body)
        if ANSWERS[answer] is None:
            node.server.sockets[-1].sendall(head("D", 100) + b"x")
        return ANSWERS[answer]
    c = None
    if bring_about or question in ("setting", "back to no variables"):
        c = fresh(node, login)
        asks(c, wire.query("SELECT 1"))
        if question == "back to no variables":
            asks(c, wire.query("SET work_mem = '5MB'"))
            asks(c, wire.query("SELECT 1"))
    else:
        node.server.hang_up()
    if question == "values":
        node.server.role_settings = lambda number: fake.row("0", "0", f"a.b={answer}", "a.b", answer) + fake.done() + fake.ready()
    node.server.lies = lies
    if bring_about:
        bring_about(c)
    else: # whoever comes next
        with contextlib.suppress(wire.ServerError, wire.Closed, OSError):
            c = fresh(node, login)
    if c: # it is told something, whatever that is
        asks(c, wire.query("SELECT 1"))
        c.close()
    assert lied, "it was not asked"
    node.server.lies = lambda kind, body: b""


@pytest.mark.parametrize("answer", ["all of them, of a megabyte", "a value of two megabytes", "ten thousand rows of three", "quotes"])
def test_what_a_node_has_told_is_asked_for_again(node, login, answer):
    """What it calls set is the session's, goes to the next connection, and is in the next question."""
    node.server.lies = lambda kind, body: ANSWERS[answer] if b"FULL JOIN" in body else b""
    c = fresh(node, login)
    for sql in ("RESET ALL", "SELECT 1", "RESET ALL", "SELECT 1", "SET work_mem = '5MB'", "SELECT 1"):
        asks(c, wire.query(sql))
    node.server.hang_up()
    for sql in ("SELECT 1", "RESET ALL", "DISCARD ALL", "SELECT 1"):
        asks(c, wire.query(sql))
    c.close()


def numbers(c):
    """A session that keeps its connection for a currval(), and whose RESET goes back to what its login said."""
    for sql in ("SELECT currval('s')", "BEGIN", "SELECT nextval('s')", "RESET fresh.mine", "COMMIT"):
        asks(c, wire.query(sql))


@pytest.mark.parametrize("answer", ["an error that may pass", "an error", "FATAL", "ready in a transaction", "a part, and the end"])
def test_kept_connection_that_cannot_be_tuned_while_nothing_waits(node, login, answer):
    lied = []

    def lies(kind, body):
        if kind == "Q" and b"SELECT n, NULL, source" in body:
            return fake.row("fresh.mine", "", "default") + fake.done() + fake.ready()
        if kind == "Q" and body.startswith((b"SELECT nextval", b"RESET")): # within their block
            return fake.done("RESET") + (fake.done("SET") if b"SET" in body[6:] else b"") + fake.ready("T")
        if kind != "Q" or b"set_config('fresh.mine'" not in body or lied:
            return b""
        lied.append(body)
        return ANSWERS[answer]
    c = login(node.gate, "acme", options=f"-c fresh.mine={next(OPTIONS)}")
    asks(c, wire.query("SELECT 1"))
    node.server.lies = lies
    numbers(c)
    proc.wait_for("the question", 10, lambda: lied)
    asks(c, wire.query("SELECT 1"))
    assert lied
    c.close()


# ---- as an answer to a client ----

REPLIES = {
    "nothing owed behind it": ROW + fake.row("not mine"),
    "a part of a row, and the end": fake.columns("c") + head("D", 100) + b"x",
    "a parameter of 9,000 bytes": fake.parameter("n" * 9000, "x") + ROW,
    "a parameter of 40,000 bytes": fake.parameter("TimeZone", "x" * 40000) + ROW,
    "a parameter without an end": wire.message("S", b"TimeZone") + ROW,
    "too many parameters": b"".join(fake.parameter(f"n{i}", "x") for i in range(1000)) + ROW,
    "an error of a megabyte": error("SERROR", "C22012", "M" + "x" * MB) + fake.ready(),
    "an error of nothing": wire.message("E") + fake.ready(),
    "a tag without an end": wire.message("C", b"x" * 9000) + fake.ready(),
    "a tag of nothing": wire.message("C") + fake.ready(),
    "ready without a word": fake.done() + wire.message("Z"),
    "ready for what is nothing": fake.done() + fake.ready("?"),
    "ready first": fake.ready() + ROW,
    "types of no size": wire.message("t") + wire.message("n") + ROW,
    "the answer to a Bind": wire.message("2") + fake.ready(),
    "half a notification": wire.message("A", b"\0\0") + ROW,
    "a function's result": wire.message("V", b"") + fake.ready(),
    "a COPY both ways": wire.message("W", b"\0\0\0"),
    "the end of no COPY": wire.message("c") + fake.ready(),
    "a negative length": b"D\xff\xff\xff\xff",
    "a length of a gigabyte, and the end": b"D\x3f\xff\xff\xff" + b"x" * 1000,
    "authentication": fake.AUTHENTICATED + ROW,
    "a type that is none": head("?", 0) + fake.ready(),
    "FATAL and no end": FATAL,
    "zeros": b"\0" * 1000,
}


def a_copy(c):
    c.send(wire.query("COPY t FROM STDIN"))
    c.until("GE")
    c.send(wire.message("d", b"row\n"), wire.message("c"))


HOW = {
    "a query": ("Q", lambda c: c.send(wire.query("SELECT 'asked'"))),
    "a batch": ("S", lambda c: c.send(wire.parse("SELECT 'asked'", "s"), wire.describe("S", "s"), wire.bind("s"), wire.execute(), wire.sync())),
    "a Describe": ("D", lambda c: c.send(wire.parse("SELECT 'asked'", "s"), wire.describe("S", "s"), wire.sync())),
    "a COPY": ("c", a_copy),
    "a function": ("F", lambda c: c.send(wire.message("F", struct.pack("!ihhh", 4711, 0, 0, 0)))),
}


def ends_with(node, reply, kinds, text=b""):
    """From now on the node says that once, to the first message of these types, and hangs up."""
    def lies(kind, body):
        if kind not in kinds or text not in body:
            return b""
        node.server.lies = lambda *_: b""
        node.server.sockets[-1].sendall(reply)
        return None
    node.server.lies = lies


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("what", REPLIES)
def test_answer_to_a_client(node, login, how, what):
    """It reads the answer, an error, or the end of its session; and nobody else has it."""
    kind, ask = HOW[how]
    c = fresh(node, login)
    asks(c, wire.query("SELECT 1"))
    ends_with(node, REPLIES[what], kind, b"asked" if kind == "Q" else b"")
    with contextlib.suppress(wire.Closed, OSError):
        ask(c)
        c.until("ZE")
    c.close()


# ---- while the connection is made ready for the next one ----

LEFT = {
    "in a transaction": ("BEGIN", b"ROLLBACK"),
    "with something to forget": ("LISTEN x", b"DISCARD ALL"),
}


@pytest.mark.parametrize("answer", SOME)
@pytest.mark.parametrize("how", LEFT)
def test_answer_to_the_clean_up(node, login, how, answer):
    sql, question = LEFT[how]
    c = fresh(node, login)
    asks(c, wire.query(sql))
    ends_with(node, ANSWERS[answer] or head("D", 100), "Q", question)
    c.close()
    assert fresh(node, login).query("SELECT 1") == [["mine"]]


@pytest.mark.parametrize("what", REPLIES)
def test_answer_to_a_client_that_has_gone(node, login, what):
    """What it had asked for is answered to nobody."""
    c, asked = fresh(node, login), threading.Event()
    asks(c, wire.query("SELECT 1"))

    def lies(kind, body):
        if b"asked" not in body:
            return b""
        asked.set()
        left.wait(10 * proc.PATIENCE)
        node.server.sockets[-1].sendall(REPLIES[what])
        return None
    left = threading.Event()
    node.server.lies = lies
    c.send(wire.query("SELECT 'asked'"))
    assert asked.wait(10 * proc.PATIENCE)
    c.close()
    node.gate.await_log("the client went away with requests under way", node.began)
    node.server.lies = lambda *_: b""
    left.set()


# ---- while a cancel is under way ----

def talks_on(c, body):
    with contextlib.suppress(OSError):
        while True:
            c.sendall(b"x" * 65536)


CANCELS = {
    "talks without an end": talks_on,
    "says a word": lambda c, body: c.sendall(b"Z\0\0\0\5I"),
    "says nothing, and stays": lambda c, body: c.recv(1),
    "goes": lambda c, body: None,
}


@pytest.mark.parametrize("how", CANCELS)
def test_node_to_which_a_cancel_is_sent(node, login, stand, how):
    c, other = fresh(node, login), login(node.gate, "globex")
    asks(c, wire.query("SELECT 1"))
    canceled = threading.Event()

    def on_cancel(connection, body):
        canceled.set()
        CANCELS[how](connection, body)

    def lies(kind, body):
        if b"asked" not in body:
            return b""
        canceled.wait(10 * proc.PATIENCE)
        return error("SERROR", "C57014", "Mcanceled") + fake.ready()
    node.server.on_cancel, node.server.lies = on_cancel, lies
    c.send(wire.query("SELECT 'asked'"))
    proc.wait_for("the query", 10, lambda: any(b"asked" in body for _, _, body in node.server.heard) or True)
    canceler = threading.Thread(target=wire.cancel, args=(("127.0.0.1", node.gate.port()), c.key), kwargs={"ca": stand.authority.crt})
    canceler.start()
    assert canceled.wait(10 * proc.PATIENCE)
    assert other.query("SELECT 'meanwhile'") == [["meanwhile"]]
    assert c.until("Z")[0][0] == "E"
    canceler.join(10 * proc.PATIENCE)
    assert not canceler.is_alive()
    assert c.query("SELECT 1") == [["mine"]]
