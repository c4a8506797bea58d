"""Messages that are begun and not finished: they take no server connection from others, they end in
time, and what they hold in memory is bounded."""
# SPDX-License-Identifier: Apache-2.0
import re
import struct

import pytest

from stand import proc, wire

MB = 1 << 20
GB_LESS = (1 << 30) - 1024  # the server takes messages of a little less than 1 GB


def head(kind, size):
    """The header of a message with a body of that many bytes."""
    return kind.encode() + struct.pack("!i", size + 4)


def codes(messages):
    return [fields["C"] for fields in wire.errors(messages)]


BEGUN = {
    "a Query of 1 GB": head("Q", GB_LESS) + b"SELECT ",
    "a Query of 1 GB and a piece of it": head("Q", GB_LESS) + b"SELECT 1 -- " + b"x" * 20000,
    "a short Query": wire.query("SELECT 1")[:9],
    "a Parse of 1 GB": head("P", GB_LESS) + b"\0SELECT ",
    "a Bind of 1 GB": head("B", GB_LESS) + b"\0\0\0\0\0\x01" + struct.pack("!i", GB_LESS // 2),
    "a FunctionCall": head("F", 1 << 20) + b"\0\0\0\0",
    "a Describe": wire.describe("S", "name")[:7],
}


@pytest.mark.parametrize("form", BEGUN)
def test_message_that_is_only_announced_takes_no_server_connection(gate, login, form):
    many = [login(gate, "acme_pool1") for _ in range(3)]
    for c in many:
        c.send(BEGUN[form])
    other = login(gate, "acme_pool1")
    for _ in range(3):
        assert other.query("SELECT 'not kept waiting'") == [["not kept waiting"]]


@pytest.mark.parametrize("form", BEGUN)
def test_message_that_does_not_go_on_ends_its_session(make_gate, login, database, form):
    gate = make_gate({"postern": {"message_timeout": "200ms"}})
    c = login(gate, database)
    assert c.query("SELECT 1") == [["1"]]
    c.send(BEGUN[form])
    refused = c.refusal()
    assert refused["C"] == "08P01" and "did not arrive in time" in refused["M"]


def test_client_that_is_silent_between_messages_is_left_alone(make_gate, login, database, stand, table):
    gate = make_gate({"postern": {"message_timeout": "100ms"}})
    c, other = login(gate, database), login(gate, database)
    c.query("BEGIN")
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.until("G")
    c.send(wire.message("d", b"1\tx\n"))
    other.send(wire.query("SELECT 1")[:8])
    other.refusal()
    c.send(wire.message("c"))
    c.until("Z")
    c.query("COMMIT")
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["1"]]


def test_large_message_half_way_to_the_server_ends_with_its_session(make_gate, login, stand):
    gate = make_gate({"postern": {"message_timeout": "300ms"}, "database acme": {"pool_size": 1}})
    c, other = login(gate), login(gate)
    c.send(head("Q", 4 * MB) + b"SELECT 1 -- " + b"x" * MB)
    c.refusal()
    assert other.query("SELECT 'free again'") == [["free again"]]


# ---- memory ----

def limited(make_gate, **more):
    return make_gate({"postern": {"memory_limit": "4MB", "tenant_memory_limit": "2MB", **more}})


def test_request_that_finds_no_memory_is_refused_in_step(make_gate, login):
    gate = limited(make_gate)
    c = login(gate)
    big = wire.parse("SELECT '" + "x" * 3 * MB + "'")
    for _ in range(2):
        assert codes(c.ask(big, wire.bind(), wire.execute(), wire.sync())) == ["53200"]
        assert c.status == "I" and c.query("SELECT 'in step'") == [["in step"]]
    gate.await_log(r"warning client \S+: request refused: memory: there is no memory left")
    assert len(re.findall("request refused", gate.log())) == 1
    # What streams through is held by nobody.
    assert wire.rows(c.ask(wire.one("SELECT length($1)", ["x" * 3 * MB]), wire.sync())) == [[str(3 * MB)]]
    assert wire.rows(c.ask(wire.query("SELECT length('" + "x" * 3 * MB + "')"))) == [[str(3 * MB)]]


def test_request_that_finds_no_memory_fails_its_transaction(make_gate, login):
    gate = limited(make_gate)
    c = login(gate)
    c.query("BEGIN")
    assert codes(c.ask(wire.parse("SELECT '" + "x" * 3 * MB + "'"), wire.sync())) == ["53200"]
    assert c.status == "E"
    gate.await_log("request refused: memory: there is no memory left")
    assert codes(c.ask(wire.query("SELECT 1"))) == ["25P02"]
    c.query("ROLLBACK")
    assert c.query("SELECT 'in step'") == [["in step"]]


def test_memory_is_shared_by_a_tenants_sessions_and_given_back(make_gate, login):
    gate = limited(make_gate)
    begun = wire.parse("SELECT '" + "x" * MB + "'")
    a, b, other = login(gate), login(gate), login(gate, "globex")
    a.send(begun[:-10])
    b.send(begun[:-10])
    b.send(begun[-10:], wire.sync())
    a.send(begun[-10:], wire.sync())
    told = [codes(a.until("Z")), codes(b.until("Z"))]
    assert ["53200"] in told, "two of 1 MB and what they become do not fit into 2 MB"
    assert codes(other.ask(begun, wire.sync())) == [], "another tenant has its own"
    for c in (a, b, other):
        c.close()
    proc.wait_for("the memory to be given back", 10, lambda: float(gate.metrics()["postern_client_memory_bytes"]) == 0)
    c = login(gate)
    assert codes(c.ask(begun, wire.sync())) == []


def test_statements_by_name_count(make_gate, login):
    gate = limited(make_gate)
    c = login(gate)
    refused = 0
    for n in range(40):
        refused += codes(c.ask(wire.parse("SELECT '" + "x" * 100000 + f"', {n}", f"s{n}"), wire.sync())) == ["53200"]
    assert 15 <= refused <= 28, "a quarter of 2 MB may be kept on the connection as well"
    for n in range(40):
        c.ask(wire.close("S", f"s{n}"), wire.sync())
    assert codes(c.ask(wire.parse("SELECT '" + "x" * 100000 + "'", "again"), wire.sync())) == []


def test_named_statement_too_long_fails_in_step_inside_a_transaction(make_gate, login):
    gate = make_gate({"postern": {"max_message": "64kB"}})
    c = login(gate)
    c.query("BEGIN")
    long = wire.parse("SELECT '" + "x" * 100000 + "'", "s")
    assert codes(c.ask(long, wire.bind("s"), wire.execute(), wire.sync())) == ["54000"]
    assert c.status == "E"
    c.query("ROLLBACK")
    assert c.query("SELECT 'in step'") == [["in step"]]
