"""A refusal during the login reaches the client, whatever the client is sending at that time: the
connection is closed in order, not reset over input that nobody has read."""
# SPDX-License-Identifier: Apache-2.0
import os
import socket
import ssl
import struct

import pytest

from conftest import conninfo
from stand import proc, wire

MIB = 1 << 20


@pytest.fixture(scope="module")
def open_gate(module_gate):
    """A gate of this file's own whose main listener takes plaintext too."""
    return module_gate({"listener main": {"tls": "allow"}, "postern": {"max_clients": 200}})


@pytest.fixture(params=[None, "request"], ids=["plain", "tls"])
def tls(request):
    return request.param


def read_all(c):
    """Everything until the end, which must be an orderly one; the fields of the one error in it."""
    said = bytes(c.buffer)
    try:
        while part := c.socket.recv(65536):
            said += part
    except ssl.SSLError as e:
        raise AssertionError(f"no orderly end of TLS: {e}") from None
    except ConnectionError as e:
        raise AssertionError(f"reset: {e}; {said!r}") from None
    c.buffer[:] = said
    out = []
    while len(c.buffer) >= 5:
        out.append(c.receive())
    errors = wire.errors(out)
    assert len(errors) == 1 and not c.buffer, out
    return errors[0]


def asked_for_a_proof(connect, gate, tls, listener="main"):
    c = connect(gate, tls, listener)
    c.startup("acme_rw", "acme")
    c.expect("R")
    return c


@pytest.mark.parametrize("size", [17 * 1024, 64 * 1024, 300_000, 3 * MIB])
def test_17_token_too_long_is_told_so(open_gate, connect, tls, size):
    """The whole message is sent before anything is read, as drivers do."""
    c = asked_for_a_proof(connect, open_gate, tls)
    c.send(wire.password("x" * size))
    fields = read_all(c)
    assert (fields["S"], fields["C"]) == ("FATAL", "54000")
    assert fields["M"] == f"token or password too long: {size + 1} bytes, at most 16384 are accepted"
    assert "fewer claims" in fields["H"]


def test_17_real_token_of_more_than_16_kb(open_gate, connect, stand, tls):
    token = stand.token("acme", padding="x" * 40000)
    c = asked_for_a_proof(connect, open_gate, tls)
    c.send(wire.password(token))
    assert read_all(c)["C"] == "54000"
    line = open_gate.await_log("login refused: .*token or password too long")
    assert line and token[:30] not in open_gate.log()


def test_17_the_end_waits_for_what_was_announced(open_gate, connect, tls):
    """A client that still sends when it is told does not find the end before it has sent all."""
    c = asked_for_a_proof(connect, open_gate, tls)
    message = wire.password("x" * 200_000)
    c.send(message[:70_000])
    assert c.receive()[0] == "E"
    c.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        c.socket.recv(1)
    c.socket.settimeout(c.timeout)
    c.send(message[70_000:])
    assert c.socket.recv(1) == b""


@pytest.mark.parametrize("size", [17 * 1024, 500_000])
def test_17_oauthbearer_message_too_long(open_gate, connect, size):
    c = asked_for_a_proof(connect, open_gate, "request", "oauth")
    c.send(wire.sasl_initial("OAUTHBEARER", b"n,,\x01auth=Bearer " + b"x" * size + b"\x01\x01"))
    assert read_all(c)["C"] == "54000"


def test_17_scram_message_too_long(open_gate, connect, stand, tls):
    c = connect(open_gate, tls)
    c.startup(stand.scram_user, "acme")
    c.expect("R")
    c.send(wire.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=" + b"x" * 200_000))
    assert read_all(c)["C"] == "54000"


@pytest.mark.parametrize("size", [10_001, 50_000, 400_000])
def test_17_startup_packet_too_large(open_gate, connect, tls, size):
    c = connect(open_gate, tls)
    c.send(wire.startup({"user": "acme_rw", "database": "acme", "application_name": "x" * size}))
    assert read_all(c)["C"] == "08P01"


BEHIND = wire.password("not a token") + wire.query("SELECT 1") * 20_000


REFUSED = {
    "unknown protocol": (struct.pack("!ii", 8, 2 << 16), "0A000"),
    "no user": (wire.startup({"database": "acme"}), "28000"),
    "no terminator": (struct.pack("!ii", 14, wire.V30) + b"user\0x", "08P01"),
    "bad options": (wire.startup({"user": "acme_rw", "database": "acme", "options": "-Z"}), "42601"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: example\r\n" + b"X: y\r\n" * 100, "08P01"),
    "garbage": (bytes(range(255, 0, -1)) * 40, "08P01"),
    "wrong token": (wire.startup({"user": "acme_rw", "database": "acme"}), "28P01"),
    "query for a password":
        (wire.startup({"user": "acme_rw", "database": "acme"}) + wire.query("SELECT 1"), "08P01"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_17_refusal_with_more_behind_it(open_gate, connect, tls, name):
    """The client has sent half a megabyte more than is looked at."""
    first, code = REFUSED[name]
    c = connect(open_gate, tls)
    c.send(first + BEHIND)
    assert read_all(c)["C"] == code


@pytest.mark.parametrize("request_code", [wire.SSL_REQUEST, wire.GSS_REQUEST], ids=["SSL", "GSS"])
def test_17_request_with_more_behind_it(open_gate, connect, request_code):
    """What is behind a request for encryption is an attack, and is told so."""
    c = connect(open_gate, None)
    c.send(request_code + BEHIND)
    assert read_all(c)["C"] == "08P01"


def test_17_plaintext_where_tls_is_required(gate, connect):
    c = connect(gate, None)
    c.send(wire.startup({"user": "acme_rw", "database": "acme"}) + BEHIND)
    assert read_all(c)["C"] == "28000"


def test_17_too_many_clients(make_gate, connect, login):
    gate = make_gate({"listener main": {"tls": "allow"}, "postern": {"max_clients": 1}})
    held = login(gate)
    for tls in (None, "request"):
        c = connect(gate, tls)
        c.send(wire.startup({"user": "acme_rw", "database": "acme"}) + BEHIND)
        assert read_all(c)["C"] == "53300"
    assert held.query("SELECT 1") == [["1"]]


def test_17_drain_during_a_login(make_gate, login, connect):
    gate = make_gate({"listener main": {"tls": "allow"}})
    held = login(gate)
    held.query("BEGIN")
    c = connect(gate, None)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.password("x" * 100_000)[:50_000])
    c.receive()
    late = connect(gate, None)
    late.startup("acme_rw", "acme")
    late.expect("R")
    gate.process.signal(15)
    assert read_all(late)["C"] == "57P01"
    held.query("COMMIT")
    c.close()
    assert gate.process.wait(15) == 0


def test_17_tls_alert_arrives(open_gate, stand):
    """Whoever has the wrong protocol or no cipher in common is told by an alert, behind which more
    has been sent."""
    c = socket.create_connection(("127.0.0.1", open_gate.port()), timeout=20 * proc.PATIENCE)
    with c:
        c.sendall(wire.SSL_REQUEST)
        assert c.recv(1) == b"S"
        # A ClientHello of TLS 1.0 with one cipher that nobody has, and bytes behind it.
        hello = b"\x03\x01" + os.urandom(32) + b"\0" + b"\0\x02\x00\x01" + b"\x01\0"
        hello = b"\x01" + len(hello).to_bytes(3, "big") + hello
        c.sendall(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello + b"\x17\x03\x03\x10\0" * 50_000)
        said = b""
        while part := c.recv(65536):
            said += part
        assert said[:1] == b"\x15", said


def test_17_client_certificate_is_missing(make_gate, stand, connect, token):
    """TLS 1.3: the client has its startup packet on its way when the server refuses."""
    gate = make_gate({"listener main": {"tls_client_auth": "require", "tls_client_ca": stand.authority.crt}})
    c = connect(gate)
    with pytest.raises(ssl.SSLError, match="(?i)certificate.required"):
        c.startup("acme_rw", "acme")
        c.send(BEHIND)
        c.socket.recv(1)


def test_17_who_keeps_sending_is_cut(open_gate, connect, tls):
    """Neither a refused client that sends for ever nor one that never closes is kept for ever."""
    def clients():
        return float(open_gate.metrics()["postern_clients"])
    sends, waits = asked_for_a_proof(connect, open_gate, tls), asked_for_a_proof(connect, open_gate, tls)
    for c in (sends, waits):
        c.send(wire.password("x" * 20_000))
    sent, block = 0, b"x" * 65536
    with pytest.raises((ConnectionError, ssl.SSLError)):
        while sent < 64 * MIB:
            sends.socket.sendall(block)
            sent += len(block)
    assert sent < 64 * MIB
    assert read_all(waits)["C"] == "54000"
    proc.wait_for("both to be closed", 30, lambda: clients() == 0)
    assert open_gate.http("/health/live")[0] == 200


def test_17_slow_sender_is_cut_by_the_deadline(open_gate, connect):
    c = asked_for_a_proof(connect, open_gate, None)
    c.send(b"p" + struct.pack("!i", 3 * MIB))
    assert c.receive()[0] == "E"

    def is_cut():
        try:
            c.send(b"x")
            return False
        except ConnectionError:
            return True
    proc.wait_for("the gate to give up", 30, is_cut)


def test_17_a_session_that_is_ended_in_mid_message_reads_why(make_gate, login, console):
    """The same behind the login: KILL while a large message is half sent."""
    gate = make_gate()
    c = login(gate)
    pid = console(gate).query("SHOW CLIENTS")
    victim = next(row[0] for row in pid if "acme" in row)
    message = wire.query("SELECT '" + "x" * 3 * MIB + "'")
    c.send_and_read(message[:2 * MIB])
    console(gate).query(f"KILL {victim}")
    c.send_and_read(message[2 * MIB:2 * MIB + 200_000])
    assert read_all(c)["C"] == "57P01"


@pytest.mark.parametrize("mode", ["disable", "verify-full"])
@pytest.mark.parametrize("size", [17 * 1024, 100_000])
def test_17_psql_shows_the_sentence(open_gate, psql, mode, size):
    done = psql(open_gate, sql="SELECT 1", secret="x" * size, sslmode=mode)
    assert done.returncode != 0
    assert "token or password too long" in done.stderr and "fewer claims" in done.stderr, done.stderr


def test_17_psql_with_a_megabyte_of_token(open_gate, stand):
    """More than an environment variable holds: from a password file."""
    path = stand.path("keys", "pgpass")
    with open(path, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write("*:*:*:*:" + "x" * MIB + "\n")
    for mode in ("disable", "verify-full"):
        done = proc.run(["psql", "-XqAt", conninfo(stand, open_gate, "acme_rw", "acme", sslmode=mode, passfile=path),
                         "-c", "SELECT 1"], check=False)
        assert "token or password too long" in done.stderr, done.stderr


def test_17_psql_with_too_large_a_startup_packet(open_gate, psql):
    done = psql(open_gate, sql="SELECT 1", options=(), application_name="x" * 30_000, sslmode="disable")
    assert "invalid length of startup packet" in done.stderr, done.stderr


def test_17_time_is_not_wasted_on_those_who_close(open_gate, connect, tls):
    """A client that reads its refusal and goes leaves nothing behind."""
    for _ in range(150):
        c = asked_for_a_proof(connect, open_gate, tls)
        c.send(wire.password("x" * 17_000))
        assert c.receive()[0] == "E"
        c.close()
    proc.wait_for("all to be gone", 10, lambda: float(open_gate.metrics()["postern_clients"]) == 0)
