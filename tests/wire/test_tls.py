"""TLS on the client side: versions, direct start, plaintext, what comes before the handshake."""
# SPDX-License-Identifier: Apache-2.0
import socket
import ssl

import pytest

from stand import wire


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
                         ids=["1.2", "1.3"])
def test_both_tls_versions(gate, connect, token, version):
    c = connect(gate, minimum=version, maximum=version).login("acme_rw", "acme", token())
    assert c.socket.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert c.query("SELECT 1") == [["1"]]


def test_tls_1_2_refused_where_1_3_is_the_lowest(make_gate, connect):
    gate = make_gate({"listener main": {"tls_min_version": "1.3"}})
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gate, maximum=ssl.TLSVersion.TLSv1_2)
    assert connect(gate).socket.version() == "TLSv1.3"


def test_direct_tls_with_alpn(gate, connect, token):
    c = connect(gate, "direct").login("acme_rw", "acme", token())
    assert c.socket.selected_alpn_protocol() == "postgresql"
    assert c.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("alpn", [(), ("h2", "http/1.1")], ids=["none", "other"])
def test_direct_tls_without_our_alpn_is_refused(gate, connect, token, alpn):
    with pytest.raises((ssl.SSLError, ConnectionError, wire.Closed, wire.ServerError)):
        connect(gate, "direct", alpn=alpn).login("acme_rw", "acme", token())


@pytest.mark.parametrize("kind,cipher", [("RSA", "ECDHE-RSA-AES128-GCM-SHA256"),
                                         ("ECDSA", "ECDHE-ECDSA-AES128-GCM-SHA256")])
def test_either_certificate_serves(gate, stand, kind, cipher):
    context = ssl.create_default_context(cafile=stand.authority.crt)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.SSL_REQUEST)
        assert s.recv(1) == b"S"
        with context.wrap_socket(s, server_hostname="127.0.0.1") as t:
            assert t.cipher()[0] == cipher


def test_plaintext_is_refused_with_a_hint(gate, connect):
    c = connect(gate, None)
    c.startup("acme_rw", "acme")
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] == "28000"
    assert "TLS" in fields["M"] and "sslmode" in fields["H"]


def test_psql_with_sslmode_disable_reads_why(gate, psql):
    done = psql(gate, "acme", "SELECT 1", sslmode="disable")
    assert done.returncode == 2 and "TLS" in done.stderr and "sslmode=require" in done.stderr


def test_plaintext_where_the_listener_allows_it(make_gate, connect, token):
    gate = make_gate({"listener main": {"tls": "allow"}})
    assert connect(gate).login("acme_rw", "acme", token()).query("SELECT 1") == [["1"]]
    c = connect(gate, None)
    c.startup("acme_rw", "acme")
    # A token is a bearer's secret: a network connection in the clear may be refused it, but
    # never silently.
    kind, body = c.receive()
    assert kind in "RE"
    if kind == "E":
        assert wire.error_fields(body)["C"].startswith("28")


def test_tls_off_answers_n(make_gate):
    gate = make_gate({"listener main": {"tls": "off", "tls_cert": None, "tls_key": None}})
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.SSL_REQUEST)
        assert s.recv(1) == b"N"


def _everything(s):
    out = b""
    try:
        while part := s.recv(65536):
            out += part
    except ConnectionError:
        pass
    return out


def test_bytes_behind_ssl_request_are_an_attack(gate, token):
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.SSL_REQUEST + wire.startup({"user": "acme_rw", "database": "acme"}))
        got = _everything(s)
    assert got in (b"", b"S") or got[:1] == b"E", got
    assert b"R\0\0\0" not in got


def test_gssenc_is_declined_and_tls_follows(gate, stand, token):
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.GSS_REQUEST)
        assert s.recv(1) == b"N"
        s.sendall(wire.SSL_REQUEST)
        assert s.recv(1) == b"S"


def test_ssl_request_in_single_bytes(gate, stand):
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(8):
            s.sendall(wire.SSL_REQUEST[n:n + 1])
        assert s.recv(1) == b"S"


def test_second_ssl_request_inside_tls_is_refused(gate, connect):
    c = connect(gate)
    c.send(wire.SSL_REQUEST)
    try:
        assert c.receive()[0] == "E"
    except (wire.Closed, ConnectionError, ssl.SSLError):
        pass
    assert c.is_closed()


def test_handshake_of_rubbish_ends(gate):
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.SSL_REQUEST)
        assert s.recv(1) == b"S"
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        got = _everything(s)
    assert b"R\0\0\0" not in got


def test_client_certificate_is_asked_for_and_checked(make_gate, stand, connect, token):
    gate = make_gate({"listener main": {"tls_client_auth": "require",
                                        "tls_client_ca": stand.authority.crt}})
    c = connect(gate, cert=stand.client).login("acme_rw", "acme", token())
    assert c.query("SELECT 1") == [["1"]]
    with pytest.raises((ssl.SSLError, ConnectionError, wire.Closed)):
        connect(gate).login("acme_rw", "acme", token())


def test_client_certificate_of_another_authority_is_refused(make_gate, stand, connect, token):
    from stand.certs import Authority
    stranger = Authority(stand.path("tls", "stranger")).client("stranger", "stranger")
    gate = make_gate({"listener main": {"tls_client_auth": "optional",
                                        "tls_client_ca": stand.authority.crt}})
    assert connect(gate).login("acme_rw", "acme", token()).query("SELECT 1") == [["1"]]
    with pytest.raises((ssl.SSLError, ConnectionError, wire.Closed)):
        connect(gate, cert=stranger).login("acme_rw", "acme", token())


def test_tls_session_resumes(gate, stand):
    context = ssl.create_default_context(cafile=stand.authority.crt)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def handshake(session=None):
        with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
            s.sendall(wire.SSL_REQUEST)
            assert s.recv(1) == b"S"
            with context.wrap_socket(s, server_hostname="localhost", session=session) as t:
                return t.session, t.session_reused
    first, reused = handshake()
    assert not reused
    assert handshake(first)[1], "a ticket of one worker must serve on each of them"
    assert handshake(first)[1]


def test_ipv6(gate, stand, token):
    assert stand.ipv6, "this test needs ::1"
    port = gate.ports["main"]["::1"]
    with wire.Client(("::1", port), ca=stand.authority.crt) as c:
        assert c.login("acme_rw", "acme", token()).query("SELECT 1") == [["1"]]


def test_unix_socket(gate, stand, token):
    with wire.Client(f"{gate.sockets}/.s.PGSQL.5432", None) as c:
        assert c.login("acme_rw", "acme", token()).query("SELECT 1") == [["1"]]


def test_psql_over_the_unix_socket(gate, psql):
    done = psql(gate, "acme", "SELECT 'here'", host=gate.sockets, hostaddr=None, port=5432,
                sslmode="disable", sslrootcert=None)
    assert done.stdout == "here\n", done.stderr
