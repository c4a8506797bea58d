"""Odd corners of the protocol: what a server may say at any moment, function calls, portals."""
# SPDX-License-Identifier: Apache-2.0
import struct
import threading

import pytest

import fake
from stand import proc, wire

MANY = [fake.notice("by the way"), fake.parameter("application_name", "told"), fake.notice("and this"),
        fake.parameter("TimeZone", "Mars")]


@pytest.fixture
def faked(make_gate):
    """faked(answer): a gate whose only node is a FakeServer, and that server."""
    made = []

    def make(answer, **database):
        server = fake.FakeServer(answer)
        made.append(server)
        gate = make_gate({
            "cluster main": fake.cluster(server),
            "database acme": {"pool_size": 1, "cancel_timeout": "2s", **database},
            "database acme_session": {"pool_size": 2, "cancel_timeout": "2s", **database}})
        return gate, server
    yield make
    for server in made:
        server.close()


def in_order(kind, body):
    """Answers queries with notices and parameters in every place where a server may put them."""
    if kind == "Q" and b"SHOW" not in body and b"DISCARD" not in body and b"current_setting" not in body:
        parts = [fake.columns("a"), fake.row("1"), fake.row("2"), fake.done("SELECT 2"), fake.ready()]
        return b"".join(b"".join(MANY) + part for part in parts)
    if kind == "Q" and b"current_setting(n" in body:
        return fake.settings(body)
    if kind == "Q":
        return fake.done("DISCARD ALL") + fake.ready()
    return {"P": wire.message("1"), "B": wire.message("2"), "C": wire.message("3"), "H": b"",
            "D": b"".join(MANY) + fake.columns("a"), "E": b"".join(MANY) + fake.row("3") + b"".join(MANY) + fake.done(),
            "S": b"".join(MANY) + fake.ready()}[kind]


def test_notices_and_parameters_at_any_moment(faked, login, database):
    gate, _ = faked(in_order)
    c = login(gate, database)
    for _ in range(3):
        messages = c.ask(wire.query("SELECT a"))
        assert wire.kinds(messages) == "TDDCZ" and wire.rows(messages) == [["1"], ["2"]]
        assert sum(k == "N" for k, _ in messages) == 10
        assert sum(k == "S" for k, _ in messages) >= 2
        messages = c.ask(wire.parse("SELECT a"), wire.bind(), wire.describe("P"), wire.execute(), wire.sync())
        assert wire.kinds(messages) == "12TDCZ"
    assert c.parameters["TimeZone"] == "Mars"


@pytest.mark.parametrize("fields", [{}, {"M": "no SQLSTATE"}, {"C": "", "M": ""}, {"C": "toolong", "M": "x"}, {"S": "FATAL"}],
                         ids=["nothing at all", "no code", "empty", "a code too long", "FATAL and nothing else"])
def test_error_without_sqlstate_from_the_server(faked, login, database, fields):
    """CVE-2026-6666: such an error crashed a peer."""
    def answer(kind, body):
        if kind == "Q" and b"bad" in body:
            return fake.error(**fields) + (fake.ready() if "S" not in fields else b"")
        return in_order(kind, body)
    gate, _ = faked(answer)
    c = login(gate, database)
    c.send(wire.query("SELECT bad"))
    kind, _ = c.until("EZ")[-1]
    assert kind == "E"
    gate.process.need_alive()
    assert wire.rows(login(gate, database).ask(wire.query("SELECT a"))) == [["1"], ["2"]]


@pytest.mark.parametrize("last", [fake.error(S="FATAL", V="FATAL", C="57P01", M="going"), wire.message("?", b"what"),
                                  b"D\0\0\0\3"], ids=["FATAL", "an unknown type", "a bad length"])
def test_what_came_before_the_end_is_passed_on(faked, login, last):
    """Answers and the end of the connection in one packet: found by the torture test."""
    def answer(kind, body):
        if kind == "Q" and b"last" in body:
            return fake.columns("a") + fake.row("said") + fake.done() + fake.ready("T") + last
        return in_order(kind, body)
    gate, _ = faked(answer)
    c = login(gate)
    messages = c.ask(wire.query("SELECT last"))
    assert wire.kinds(messages) == "TDCZ" and wire.rows(messages) == [["said"]]
    messages = c.ask(wire.query("COMMIT"))
    assert wire.kinds(messages) == "EZ" and c.status == "I"
    assert wire.rows(c.ask(wire.query("SELECT a"))) == [["1"], ["2"]]


NONSENSE = {
    "a row for a Parse": (fake.row("1"), "P"),
    "a length below four": (b"D\0\0\0\3", "Q"),
    "a length of 2 GB and more": (b"D\xff\xff\xff\xff", "Q"),
    "an unknown type": (wire.message("?", b"what"), "Q"),
    "a status that is none": (fake.ready("X"), "Q"),
    "a ReadyForQuery too long": (wire.message("Z", b"II"), "Q"),
    "one ReadyForQuery too many": (fake.done() + fake.ready() + fake.ready(), "Q"),
    "BindComplete for a Query": (wire.message("2"), "Q"),
    "a second login": (wire.message("R", struct.pack("!i", 0)), "Q"),
    "ParseComplete twice": (wire.message("1") * 2, "P"),
    "COPY data without COPY": (wire.message("d", b"1\n"), "Q"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_from_the_server_reaches_nobody_else(faked, login, what):
    said, to = NONSENSE[what]
    seen = []

    def answer(kind, body):
        if kind == to and (b"bad" in body):
            seen.append(kind)
            return said
        return in_order(kind, body)
    gate, _ = faked(answer)
    bad, good = login(gate), login(gate)
    if to == "Q":
        bad.send(wire.query("SELECT bad"))
    else:
        bad.send(wire.one("SELECT bad"), wire.sync())
    for _ in range(3):
        messages = good.ask(wire.query("SELECT a"))
        assert wire.kinds(messages) == "TDDCZ" and wire.rows(messages) == [["1"], ["2"]]
    assert seen
    gate.process.need_alive()


def test_late_cancel_does_not_hit_the_gates_own_question(faked, login, console):
    """Found by the torture test: a SET was lost when a cancel request that came too late for the
    client's query ended the one that asks what it has changed."""
    runs, canceled, release = threading.Event(), threading.Event(), threading.Event()
    asked = []

    def answer(kind, body):
        if kind == "Q" and b"slow" in body:
            runs.set()
            canceled.wait(20)
            return fake.done("SET") + fake.ready()
        if b"current_setting" in body and b"work_mem" in body:
            asked.append(release.is_set())
        return in_order(kind, body)

    def hold(body):
        canceled.set()
        release.wait(20)
    gate, server = faked(answer)
    server.canceled = hold
    c = login(gate)
    c.query("SELECT a")
    c.send(wire.query("SET work_mem = '17MB' /* slow */"))
    assert runs.wait(20)
    with wire.Client(("127.0.0.1", gate.port()), "request") as other:
        other.send(wire.cancel_request(*c.key))
        assert wire.kinds(c.until("Z")) == "CZ"
        console(gate).query("SHOW POOLS")
        release.set()
        proc.wait_for("the question", 10, lambda: asked)
    assert all(asked), "it was asked while the cancel request was under way"
    assert wire.kinds(c.ask(wire.query("SELECT a"))) == "TDDCZ"


@pytest.mark.parametrize("skips", [False, True], ids=["in step", "behind an error"])
def test_type_that_is_none_is_refused_by_its_first_byte(gate, login, database, skips):
    c = login(gate, database)
    if skips:
        c.ask(wire.query("SELECT 1"))
        c.send(wire.one("SELECT 1/0"), wire.message("H", b""))
        c.until("E")
    c.send(b"y")
    told = wire.errors(c.until_closed())[0]
    assert (told["S"], told["C"]) == ("FATAL", "08P01") and "121" in told["M"]


# ---- function calls ----

call = wire.function_call
TEXTCAT, INT4DIV = 1258, 154


def test_function_calls(gate, login, database):
    c = login(gate, database)
    for n in range(5):
        messages = c.ask(call(TEXTCAT, b"one", str(n).encode()))
        assert wire.kinds(messages) == "VZ"
        assert messages[0][1] == struct.pack("!i", 4) + b"one%d" % n
    assert c.ask(call(TEXTCAT, b"x", None))[0] == ("V", struct.pack("!i", -1))


def test_function_call_that_fails(gate, login, database):
    c = login(gate, database)
    messages = c.ask(call(INT4DIV, b"1", b"0"))
    assert wire.kinds(messages) == "EZ" and wire.errors(messages)[0]["C"] == "22012"
    assert c.status == "I"
    c.query("BEGIN")
    c.ask(call(INT4DIV, b"1", b"0"))
    assert c.status == "E"
    assert wire.errors(c.ask(call(TEXTCAT, b"a", b"b")))[0]["C"] == "25P02"
    c.query("ROLLBACK")


def test_function_calls_in_a_pipeline(gate, login, database):
    c = login(gate, database)
    c.send(call(TEXTCAT, b"a", b"1"), wire.query("SELECT 2"), wire.one("SELECT 3"), wire.sync(),
           call(INT4DIV, b"1", b"0"), call(TEXTCAT, b"a", b"4"))
    assert c.until("Z")[0] == ("V", struct.pack("!i", 2) + b"a1")
    assert wire.rows(c.until("Z")) == [["2"]]
    assert wire.rows(c.until("Z")) == [["3"]]
    assert wire.kinds(c.until("Z")) == "EZ"
    assert c.until("Z")[0] == ("V", struct.pack("!i", 2) + b"a4")


def test_function_call_behind_an_error_is_skipped_up_to_sync(gate, login, database):
    c = login(gate, database)
    c.send(wire.one("SELECT 1/0"), call(TEXTCAT, b"a", b"1"), wire.sync(), wire.query("SELECT 2"))
    assert wire.kinds(c.until("Z")) == "1EZ"
    assert wire.rows(c.until("Z")) == [["2"]]


# ---- portals ----

def test_portal_with_a_row_limit_over_several_syncs_of_a_transaction(gate, login, database):
    c, other = login(gate, database), login(gate, database)
    c.query("BEGIN")
    c.ask(wire.parse("SELECT g FROM generate_series(1, 10) g"), wire.bind("", "p"), wire.sync())
    got = []
    for _ in range(3):
        messages = c.ask(wire.execute("p", 3), wire.sync())
        assert wire.kinds(messages) == "DDDsZ" and c.status == "T"
        got += [row[0] for row in wire.rows(messages)]
        other.query("SELECT 'in between'")
        c.query("SELECT 'of its own'")
    messages = c.ask(wire.execute("p", 3), wire.sync())
    assert wire.kinds(messages) == "DCZ"
    got += [row[0] for row in wire.rows(messages)]
    assert got == [str(n) for n in range(1, 11)]
    c.query("COMMIT")
    assert wire.errors(c.ask(wire.execute("p", 3), wire.sync()))[0]["C"] == "34000"


def test_portals_that_take_turns(gate, login, database):
    c = login(gate, database)
    messages = c.ask(wire.parse("SELECT $1::int + g FROM generate_series(1, 4) g", "s"),
                     wire.bind("s", "a", [10]), wire.bind("s", "b", [20]),
                     wire.execute("a", 2), wire.execute("b", 3), wire.execute("a", 2), wire.execute("b", 3),
                     wire.close("P", "a"), wire.execute("a", 1), wire.sync())
    assert wire.kinds(messages) == "122DDsDDDsDDsDC3EZ"
    assert [row[0] for row in wire.rows(messages)] == ["11", "12", "21", "22", "23", "13", "14", "24"]


def test_portal_is_gone_behind_its_sync_outside_of_a_transaction(gate, login, database):
    c = login(gate, database)
    messages = c.ask(wire.parse("SELECT 1"), wire.bind("", "p"), wire.sync())
    assert wire.kinds(messages) == "12Z"
    assert wire.errors(c.ask(wire.execute("p"), wire.sync()))[0]["C"] == "34000"


def test_copy_fail_in_a_pipeline(gate, login, database, table):
    c = login(gate, database)
    c.send(wire.query(f"COPY {table} FROM STDIN"), wire.message("d", b"1\tx\n"), wire.message("f", b"no more\0"),
           wire.query("SELECT 'next'"))
    messages = c.until("Z")
    assert wire.kinds(messages) == "GEZ" and wire.errors(messages)[0]["C"] == "57014"
    assert wire.rows(c.until("Z")) == [["next"]]
    assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]
