"""SASL OAUTHBEARER as PostgreSQL 18's libpq speaks it (RFC 7628)."""
# SPDX-License-Identifier: Apache-2.0
import json
import struct

import pytest

from stand import tokens, wire

OAUTHBEARER = "OAUTHBEARER"


@pytest.fixture(scope="module")
def strict(module_gate):
    return module_gate()


def begin(connect, gate, user="acme_rw", database="acme"):
    c = connect(gate, listener="oauth")
    c.startup(user, database)
    body = c.expect("R")
    assert struct.unpack_from("!i", body)[0] == 10
    assert body[4:] == b"OAUTHBEARER\0\0", "one mechanism for each connection"
    return c


def bearer(token, scheme="Bearer", head="n,,"):
    return f"{head}\x01auth={scheme} {token}\x01\x01".encode()


def finish(c):
    """AuthenticationOk at once: SASLFinal is what libpq refuses."""
    assert c.expect("R") == struct.pack("!i", 0)
    c.until_ready()
    return c


def challenge(c):
    body = c.expect("R")
    assert struct.unpack_from("!i", body)[0] == 11
    return body[4:]


def test_token_in_the_initial_response(gate, connect, token):
    c = begin(connect, gate)
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(token())))
    assert finish(c).query("SELECT current_user") == [["acme_rw"]]


def test_no_initial_response(gate, connect, token):
    c = begin(connect, gate)
    c.send(wire.sasl_initial(OAUTHBEARER, None))
    assert challenge(c) == b""
    c.send(wire.message("p", bearer(token())))
    assert finish(c).query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_scheme_in_any_case(gate, connect, token, scheme):
    c = begin(connect, gate)
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(token(), scheme)))
    finish(c)


def test_gs2_header_y_and_ignored_keys(gate, connect, token):
    c = begin(connect, gate)
    c.send(wire.sasl_initial(OAUTHBEARER, f"y,,\x01host=db.example\x01port=5432\x01"
                             f"auth=Bearer {token()}\x01\x01".encode()))
    finish(c)


def test_discovery(gate, connect, token):
    c = begin(connect, gate)
    c.send(wire.sasl_initial(OAUTHBEARER, b"n,,\x01auth=\x01\x01"))
    said = challenge(c)
    assert len(said) < 1900
    document = json.loads(said)
    assert document["status"] == "invalid_token"
    assert document["openid-configuration"] == tokens.ISSUER + "/.well-known/openid-configuration"
    assert document["scope"] == "openid"
    c.send(wire.message("p", b"\x01"))
    assert c.refusal()["C"] == "28000"
    again = begin(connect, gate)
    again.send(wire.sasl_initial(OAUTHBEARER, bearer(token())))
    finish(again)


def test_bad_token_gets_the_document_and_then_28000(strict, connect, stand):
    c = begin(connect, strict)
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(stand.token("acme", lifetime=-3600))))
    assert json.loads(challenge(c))["status"] == "invalid_token"
    c.send(wire.message("p", b"\x01"))
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] == "28000"


def test_anything_but_the_single_byte_after_a_failure_is_refused(strict, connect, stand, token):
    c = begin(connect, strict)
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(stand.token("acme", lifetime=-3600))))
    challenge(c)
    c.send(wire.message("p", bearer(token())))
    assert c.refusal()["C"] in ("08P01", "28000")


@pytest.mark.parametrize("response", [
    b"", b"n", b"n,,", b"n,,\x01", b"n,,\x01\x01", b"n,,\x01auth=Bearer\x01\x01",
    b"n,,\x01auth=Basic YTpi\x01\x01", b"n,,\x01auth=Bearer a b\x01\x01",
    b"n,,\x01auth=Bearer T\x01auth=Bearer T\x01\x01", b"n,,\x01auth=Bearer T\x01\x01more",
    b"n,,\x01auth=Bearer T\x01", b"n,,\x01au1th=x\x01auth=Bearer T\x01\x01",
    b"n,,auth=Bearer T\x01\x01", b"x,,\x01auth=Bearer T\x01\x01",
    b"p=tls-unique,,\x01auth=Bearer T\x01\x01", b"n,,\x01auth=Bearer \xff\x01\x01",
    b"n,,\x01noequals\x01\x01", b"n,,\x01auth=Bearer T\0\x01\x01"])
def test_malformed_responses_are_refused(strict, connect, response):
    c = begin(connect, strict)
    c.send(wire.sasl_initial(OAUTHBEARER, response))
    kind, body = c.receive()
    if kind == "R":  # well formed but no token: a challenge first
        assert struct.unpack_from("!i", body)[0] == 11
        c.send(wire.message("p", b"\x01"))
        kind, body = c.receive()
    assert kind == "E"
    assert wire.error_fields(body)["C"] in ("08P01", "28000", "28P01")
    assert c.is_closed()


def test_authzid_is_not_supported(strict, connect, token):
    c = begin(connect, strict)
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(token(), head="n,a=globex_rw,")))
    assert c.refusal()["C"] == "0A000"


def test_mechanism_that_was_not_offered(strict, connect):
    c = begin(connect, strict)
    c.send(wire.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdefgh"))
    assert c.refusal()["C"] in ("08P01", "28000")


@pytest.mark.parametrize("length", [-2, 5, 2**31 - 1])
def test_length_of_the_response_is_checked(strict, connect, length):
    c = begin(connect, strict)
    c.send(wire.message("p", wire.text(OAUTHBEARER) + struct.pack("!i", length) + b"n,,\x01"))
    assert c.refusal()["C"] == "08P01"


def test_roles_and_databases_are_checked_here_too(gate, connect, token):
    c = begin(connect, gate, "globex_rw", "acme")
    c.send(wire.sasl_initial(OAUTHBEARER, bearer(token("globex"))))
    kind, body = c.until("E")[-1]
    assert wire.error_fields(body)["C"] == "28000"


def test_users_of_the_file_use_scram_on_this_listener_too(gate, connect, stand):
    c = connect(gate, listener="oauth").login(stand.scram_user, "acme", stand.scram_password)
    assert c.query("SELECT current_user") == [["acme_rw"]]
