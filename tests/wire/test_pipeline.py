"""Pipelines: several requests on their way at once, with errors, Flush and Syncs between."""
# SPDX-License-Identifier: Apache-2.0
import select

import pytest

from stand import wire


def test_error_skips_to_sync_and_no_further(gate, login, database):
    c = login(gate, database)
    c.send(wire.one("SELECT 1"), wire.one("SELECT 1/0"), wire.one("SELECT 2"), wire.sync(),
           wire.one("SELECT 3"), wire.sync())
    assert wire.kinds(c.until("Z")) == "12DC1EZ"
    messages = c.until("Z")
    assert wire.kinds(messages) == "12DCZ" and wire.rows(messages) == [["3"]]


def test_many_syncs_in_flight(gate, login, database):
    c = login(gate, database)
    c.send(*(wire.one("SELECT $1::int", [n]) + wire.sync() for n in range(500)))
    for n in range(500):
        assert wire.rows(c.until("Z")) == [[str(n)]]


def test_syncs_alone(gate, login, database):
    c = login(gate, database)
    c.send(wire.sync() * 3)
    assert [wire.kinds(c.until("Z")) for _ in range(3)] == ["Z"] * 3


def test_flush_brings_answers_before_sync(gate, login, database):
    c = login(gate, database)
    c.send(wire.one("SELECT 'early'"), wire.flush())
    messages = c.until("C")
    assert wire.rows(messages) == [["early"]]
    c.send(wire.one("SELECT 'late'"), wire.flush())
    assert wire.rows(c.until("C")) == [["late"]]
    assert wire.kinds(c.ask(wire.sync())) == "Z"


def test_flush_after_parse_and_describe(gate, login, database):
    """The order of drivers that want the types before they bind."""
    c = login(gate, database)
    c.send(wire.parse("SELECT $1::int", "d"), wire.describe("S", "d"), wire.flush())
    assert wire.kinds(c.until("T")) == "1tT"
    c.send(wire.bind("d", values=[9]), wire.execute(), wire.sync())
    assert wire.rows(c.until("Z")) == [["9"]]


def test_backend_is_kept_between_flush_and_sync(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 2, "shards": 1}, "postern": {"workers": 1}})
    a, b = login(gate), login(gate)
    a.send(wire.one("SELECT pg_backend_pid()"), wire.flush())
    first = wire.rows(a.until("C"))
    assert b.query("SELECT pg_backend_pid()") != first
    a.send(wire.one("SELECT pg_backend_pid()"), wire.sync())
    assert wire.rows(a.until("Z")) == first


def test_simple_query_behind_a_pipeline(gate, login, database):
    c = login(gate, database)
    c.send(wire.one("SELECT 1"), wire.sync(), wire.query("SELECT 2"), wire.one("SELECT 3"),
           wire.sync())
    assert [wire.rows(c.until("Z")) for _ in range(3)] == [[["1"]], [["2"]], [["3"]]]


def test_simple_query_behind_an_error_without_sync(gate, login, database):
    """A Query message does not end the skipping: only Sync does."""
    c = login(gate, database)
    c.send(wire.one("SELECT 1/0"), wire.query("SELECT 'skipped'"), wire.sync())
    messages = c.until("Z")
    assert wire.kinds(messages) == "1EZ"
    assert c.query("SELECT 'next'") == [["next"]]


def test_several_simple_queries_in_flight(gate, login, database):
    c = login(gate, database)
    c.send(*(wire.query(f"SELECT {n}; SELECT {n} + 1") for n in range(20)))
    for n in range(20):
        assert wire.rows(c.until("Z")) == [[str(n)], [str(n + 1)]]


def test_transaction_over_a_pipeline(gate, login, database, table):
    c = login(gate, database)
    c.send(wire.one("BEGIN"), wire.one(f"INSERT INTO {table} VALUES (1, 'p')"), wire.sync(),
           wire.one("SELECT 1/0"), wire.sync(), wire.one("ROLLBACK"), wire.sync())
    statuses = []
    for _ in range(3):
        c.until("Z")
        statuses.append(c.status)
    assert statuses == ["T", "E", "I"]
    assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_statement_prepared_and_used_in_one_pipeline(gate, login, database):
    c = login(gate, database)
    c.send(wire.parse("SELECT $1::int", "s"),
           *(wire.bind("s", values=[n]) + wire.execute() for n in range(5)),
           wire.close("S", "s"), wire.parse("SELECT 'new'", "s"), wire.bind("s"), wire.execute(),
           wire.sync())
    messages = c.until("Z")
    assert wire.kinds(messages) == "1" + "2DC" * 5 + "312DCZ"
    assert wire.rows(messages)[-1] == ["new"]


def test_pipeline_larger_than_any_buffer(gate, login, database):
    c = login(gate, database)
    count, big = 200, "z" * 50000
    c.send_and_read(*(wire.one("SELECT $1::text", [big]) + wire.sync() for _ in range(count)))
    for _ in range(count):
        assert wire.rows(c.until("Z")) == [[big]]


def test_empty_query(gate, login, database):
    c = login(gate, database)
    assert wire.kinds(c.ask(wire.query(""))) == "IZ"
    assert wire.kinds(c.ask(wire.one("  -- nothing\n"), wire.sync())) == "12IZ"


def test_messages_in_single_bytes(gate, login, database):
    c = login(gate, database)
    for byte in wire.query("SELECT 'slow'") + wire.one("SELECT 'slower'") + wire.sync():
        c.send(bytes([byte]))
    assert wire.rows(c.until("Z")) == [["slow"]]
    assert wire.rows(c.until("Z")) == [["slower"]]


def test_leaving_in_the_middle_of_a_pipeline_leaves_the_pool_clean(make_gate, login, stand):
    gate = make_gate({"database acme": {"pool_size": 1}})
    for _ in range(5):
        c = login(gate)
        c.send(*(wire.one("SELECT repeat('a', 100000)") + wire.sync() for _ in range(20)),
               wire.parse("SELECT 'half")[:9])
        c.close()
    other = login(gate)
    for n in range(20):
        assert other.query(f"SELECT {n}, current_setting('application_name')") == [[str(n), ""]]


def test_fetch_size_leaves_the_rest_to_the_next_execute(gate, login, database):
    c = login(gate, database)
    messages = c.ask(wire.parse("SELECT * FROM generate_series(1, 10)"), wire.bind(),
                     wire.execute("", 4), wire.execute("", 4), wire.execute("", 4), wire.sync())
    assert wire.kinds(messages) == "12DDDDsDDDDsDDCZ"


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_pipeline_of_five_thousand_executions(gate, login, database, named):
    """With one Sync: more requests than may be under way at once."""
    c = login(gate, database)
    name, count = "s" if named else "", 5000
    parts = [wire.parse("SELECT $1::int, repeat('x', 100)", name)]
    for n in range(count):
        parts += [wire.bind(name, values=[n]), wire.describe("P"), wire.execute()]
        if not named and n % 3 == 0:
            parts.append(wire.parse("SELECT $1::int, repeat('x', 100)", name))
    c.send_and_read(*parts, wire.sync())
    messages = c.until("Z")
    assert not wire.errors(messages)
    assert [row[0] for row in wire.rows(messages)] == [str(n) for n in range(count)]


def test_answers_of_our_own_to_a_client_that_does_not_read(make_gate, login):
    """Close is answered by the gate: what waits for the client is bounded, and nothing breaks."""
    gate = make_gate({"listener main": {"tls": "allow"}})
    c = login(gate, tls=None)
    count = 2000000
    data = memoryview(wire.close("S", "") * count + wire.sync())
    c.socket.setblocking(False)
    while data and select.select([], [c.socket], [], 0.5)[1]:
        data = data[c.socket.send(data[:65536]):]
    assert data, "the gate must have stopped reading"
    c.send_and_read(data)
    assert wire.kinds(c.until("Z")) == "3" * count + "Z"
