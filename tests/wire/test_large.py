"""Large things pass through a gate that does not grow: rows, statements, parameters, COPY."""
# SPDX-License-Identifier: Apache-2.0
import os
import struct

import pytest

from stand import proc, wire

MB = 1024 * 1024
SIZE = int(os.environ.get("LARGE_MB", "64")) * MB
ROOM = 20 * MB  # by which the gate may grow
PIECE = b"x" * MB


@pytest.fixture(scope="module")
def large(module_gate):
    return module_gate({"listener main": {"tls": "allow"}})


class Peak:
    """The most memory that the gate has had since the beginning of the block."""

    def __init__(self, gate):
        self.gate = gate

    def __enter__(self):
        with open(f"/proc/{self.gate.pid}/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
        self.before = proc.resident(self.gate.pid)
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            grown = 1024 * (proc.resident(self.gate.pid, "VmHWM") - self.before)
            print(f"grew by {grown / MB:.1f} MB")
            if not proc.is_sanitized(self.gate.pid):
                assert grown < ROOM, f"{grown / MB:.1f} MB"


def stream(c, kind, before, size, after=b""):
    """A message whose middle are `size` bytes of x, never in memory as a whole."""
    c.send(kind.encode() + struct.pack("!i", 4 + len(before) + size + len(after)) + before)
    while size:
        part = PIECE[:min(size, MB)]
        c.send(part)
        size -= len(part)
    c.send(after)


def skim(c):
    """The messages up to ReadyForQuery: type and length, the first 50 bytes of the body."""
    out = []
    while not out or out[-1][0] != "Z":
        c._fill(5)
        kind, length = chr(c.buffer[0]), struct.unpack_from("!i", c.buffer, 1)[0] - 4
        del c.buffer[:5]
        head, left = b"", length
        while left:
            c._fill(1)
            part = c.buffer[:left]
            head = (head + part)[:50]
            del c.buffer[:len(part)]
            left -= len(part)
        out.append((kind, length, bytes(head)))
    return out


@pytest.fixture(params=["request", None], ids=["TLS", "plain"])
def c(request, large, login, database):
    it = login(large, database, tls=request.param)
    it.query("SELECT 1")
    return it


def test_row(large, c):
    with Peak(large):
        c.send(wire.query(f"SELECT repeat('x', {SIZE})"))
        row = next(m for m in skim(c) if m[0] == "D")
    assert row[1] == SIZE + 6


def test_row_for_a_slow_reader(large, c, login):
    """Nothing is read until the gate has no more room; others are served meanwhile."""
    with Peak(large):
        c.send(wire.query(f"SELECT repeat('x', {SIZE})"))
        c._fill(1)
        other = login(large)
        for n in range(20):
            assert other.query(f"SELECT {n}") == [[str(n)]]
        row = next(m for m in skim(c) if m[0] == "D")
    assert row[1] == SIZE + 6


def test_row_of_copy_out(large, c):
    with Peak(large):
        c.send(wire.query(f"COPY (SELECT repeat('x', {SIZE})) TO STDOUT"))
        row = next(m for m in skim(c) if m[0] == "d")
    assert row[1] == SIZE + 1


def test_statement(large, c):
    """It is read for what it does to the session, as it passes: the SET behind it holds."""
    with Peak(large):
        stream(c, "Q", b"SELECT length('", SIZE, b"'); SET work_mem = '17MB'\0")
        assert [m[2][6:] for m in skim(c) if m[0] == "D"] == [str(SIZE).encode()]
    assert c.query("SHOW work_mem") == [["17MB"]]


def test_statement_beyond_what_the_server_takes(large, c):
    """The server's own refusal, whatever it is: more than 1 GB is never sent by a test."""
    stream(c, "Q", b"SELEC '", 8 * MB, b"'\0")
    assert [wire.error_fields(m[2])["S"] for m in skim(c) if m[0] == "E"] == ["ERROR"]
    assert c.query("SELECT 1") == [["1"]]


def test_parameter(large, c):
    with Peak(large):
        c.send(wire.parse("SELECT length($1::text)"))
        stream(c, "B", b"\0\0" + struct.pack("!hhi", 0, 1, SIZE), SIZE, struct.pack("!h", 0))
        c.send(wire.execute(), wire.sync())
        assert [m[2][6:] for m in skim(c) if m[0] == "D"] == [str(SIZE).encode()]


def test_parameter_of_a_named_statement(large, c):
    c.ask(wire.parse("SELECT length($1::text)", "named"), wire.sync())
    with Peak(large):
        stream(c, "B", b"\0named\0" + struct.pack("!hhi", 0, 1, SIZE), SIZE, struct.pack("!h", 0))
        c.send(wire.execute(), wire.sync())
        assert [m[2][6:] for m in skim(c) if m[0] == "D"] == [str(SIZE).encode()]


def test_row_of_copy_in(large, c, table):
    """One CopyData of that size."""
    with Peak(large):
        c.send(wire.query(f"COPY {table} FROM STDIN"))
        c.expect("G")
        stream(c, "d", b"1\t", SIZE // 4, b"\n")
        c.send(wire.message("c"))
        assert "COPY 1\0".encode() in [m[2] for m in skim(c)]


def test_unnamed_parse_beyond_max_message(large, c, console):
    """Too long to be kept by the gate: the session keeps the connection that has it."""
    with Peak(large):
        stream(c, "P", b"\0SELECT length('", SIZE // 4, b"')\0\0\0")
        c.send(wire.bind(), wire.execute(), wire.sync())
        assert [m[2][6:] for m in skim(c) if m[0] == "D"] == [str(SIZE // 4).encode()]
    assert c.query("SELECT 1") == [["1"]]


def test_named_parse_beyond_max_message_is_refused(large, login):
    """In transaction mode it could not be prepared again elsewhere: an error like any other."""
    c = login(large)
    with Peak(large):
        stream(c, "P", b"named\0SELECT length('", SIZE // 4, b"')\0\0\0")
        c.send(wire.bind("named"), wire.execute(), wire.sync())
        messages = c.until("Z")
    assert wire.kinds(messages) == "EZ" and c.status == "I"
    fields = wire.errors(messages)[0]
    assert fields["C"] == "54000" and "max_message" in fields["M"]
    assert c.query("SELECT 1") == [["1"]]


def test_named_parse_beyond_max_message_fails_its_transaction(large, login):
    """Its body is dropped as it comes, and a request that fails is sent in its place."""
    c = login(large)
    c.query("BEGIN")
    with Peak(large):
        stream(c, "P", b"named\0SELECT length('", SIZE // 4, b"')\0\0\0")
        messages = c.ask(wire.bind("named"), wire.execute(), wire.sync())
    fields = wire.errors(messages)[0]
    assert fields["S"] == "ERROR" and fields["C"] == "54000" and "max_message" in fields["M"]
    assert c.status == "E"
    c.query("ROLLBACK")
    assert c.query("SELECT 1") == [["1"]]


def test_named_parse_beyond_max_message_in_session_mode(large, login):
    c = login(large, "acme_session")
    with Peak(large):
        stream(c, "P", b"named\0SELECT length('", SIZE // 4, b"')\0\0\0")
        c.send(wire.bind("named"), wire.execute(), wire.sync())
        assert [m[2][6:] for m in skim(c) if m[0] == "D"] == [str(SIZE // 4).encode()]


def test_many_large_rows_at_once(large, login):
    """Ten clients that read nothing yet: each holds what its buffers take and no more."""
    clients = [login(large, tls=None) for _ in range(10)]
    with Peak(large):
        for c in clients:
            c.send(wire.query(f"SELECT repeat('x', {SIZE // 8})"))
        for c in clients:
            proc.wait_for("a row to come", 20, lambda c=c: c._fill(1) or True)
        for c in clients:
            assert next(m for m in skim(c) if m[0] == "D")[1] == SIZE // 8 + 6
