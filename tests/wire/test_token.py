"""Tokens as the password: what is taken, and that everything else is refused alike."""
# SPDX-License-Identifier: Apache-2.0
import json
import os
import time

import pytest

from stand import proc, tokens, wire


@pytest.fixture(scope="module")
def strict(module_gate):
    """A gate of this file's own: failures here throttle nobody else."""
    return module_gate()


def refusal(connect, gate, secret):
    c = connect(gate)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.password(secret))
    return c.refusal()


def test_token_made_by_the_gates_own_program(gate, stand, login):
    assert login(gate, secret=stand.mint("acme")).query("SELECT current_user") == [["acme_rw"]]


def test_rs256_token(gate, stand, login):
    c = login(gate, secret=stand.token("acme", key=stand.rsa_key))
    assert c.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("alg", ["HS256", "PS256", "ES384", "EdDSA"])
def test_every_algorithm_of_the_list(stand, make_gate, login, alg):
    key = tokens.Key(stand.path("keys", f"{alg}.key"), f"k-{alg}", alg)
    jwks = stand.path("keys", f"jwks-{alg}.json")
    tokens.write_jwks(jwks, [key])
    gate = make_gate({"issuer stand": {"jwks_file": jwks, "algorithms": alg}})
    assert login(gate, secret=stand.token("acme", key=key)).query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("size", [2048, 8000, 15000])
def test_long_tokens(gate, stand, login, size):
    token = stand.token("acme", padding="x" * (size * 3 // 4 - 300))
    assert abs(len(token) - size) < 300
    assert login(gate, secret=token).query("SELECT 1") == [["1"]]


def test_padded_token_of_the_gates_own_program(gate, stand, login):
    token = stand.mint("acme", pad=1500)
    assert len(token) >= 1800
    assert login(gate, secret=token).query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("header", [{"typ": None}, {"typ": "at+jwt"}, {"typ": "jwt"}])
def test_types_that_are_allowed(gate, stand, login, header):
    assert login(gate, secret=stand.token("acme", header=header)).query("SELECT 1") == [["1"]]


def test_audience_in_an_array(gate, stand, login):
    token = stand.token("acme", aud=["somebody-else", tokens.AUDIENCE])
    assert login(gate, secret=token).query("SELECT 1") == [["1"]]


def test_roles_as_one_string(gate, stand, login):
    token = stand.token("acme", roles="ro rw")
    assert login(gate, user="acme_ro", secret=token).query("SELECT current_user") == [["acme_ro"]]


def test_expired_within_the_leeway(gate, stand, login):
    assert login(gate, secret=stand.token("acme", lifetime=-5)).query("SELECT 1") == [["1"]]


def _forged(stand):
    key = tokens.Key(stand.path("keys", f"forger-{os.urandom(4).hex()}.pem"), "stand-es", "ES256")
    return stand.token("acme", key=key)


def _none(stand):
    head = tokens.b64u(b'{"alg":"none","typ":"JWT"}')
    body = tokens.b64u(json.dumps(tokens.claims("acme", "rw")).encode())
    return f"{head}.{body}."


def _public_key_as_secret(stand):
    """RS256's public key taken for an HMAC key: the oldest trick."""
    public = proc.run(["openssl", "pkey", "-in", stand.rsa_key.path, "-pubout"]).stdout
    path = stand.path("keys", "public-as-secret")
    with open(path, "w", encoding="ascii") as f:
        f.write(public)
    return stand.token("acme", key=tokens.Key(path, "stand-rs", "HS256", make=False))


def _touched(stand):
    head, body, signature = stand.token("acme", "ro").split(".")
    body = tokens.b64u(json.dumps(tokens.claims("acme", "rw")).encode())
    return f"{head}.{body}.{signature}"


def _duplicate(stand):
    body = json.dumps(tokens.claims("acme", "rw"))
    return tokens.token(stand.signing_key, (body[:-1] + ', "tenant": "globex"}').encode())


BAD = {
    "forged": _forged,
    "expired": lambda s: s.token("acme", lifetime=-3600),
    "wrong audience": lambda s: s.token("acme", aud="somebody-else"),
    "no audience": lambda s: s.token("acme", aud=None),
    "wrong issuer": lambda s: s.token("acme", iss=tokens.ISSUER + "/"),
    "no issuer": lambda s: s.token("acme", iss=None),
    "no expiry": lambda s: s.token("acme", exp=None),
    "expiry as text": lambda s: s.token("acme", exp=str(int(time.time()) + 60)),
    "not yet valid": lambda s: s.token("acme", nbf=int(time.time()) + 3600),
    "issued in the future": lambda s: s.token("acme", iat=int(time.time()) + 3600),
    "alg none": _none,
    "public key as secret": _public_key_as_secret,
    "payload changed": _touched,
    "duplicate member": _duplicate,
    "unknown kid": lambda s: s.token("acme", header={"kid": "nobody"}),
    "alg of another key": lambda s: s.token("acme", header={"kid": "stand-rs"}),
    "crit": lambda s: s.token("acme", header={"crit": ["exp"]}),
    "strange type": lambda s: s.token("acme", header={"typ": "JWE"}),
    "no tenant": lambda s: s.token("acme", tenant=None),
    "tenant of other characters": lambda s: s.token("acme", tenant="acme'; --"),
    "tenant with a NUL": lambda s: s.token("acme", tenant="acme\0"),
    "tenant as a number": lambda s: s.token("acme", tenant=7),
    "two parts": lambda s: ".".join(s.token("acme").split(".")[:2]),
    "four parts": lambda s: s.token("acme") + ".AAAA",
    "padding": lambda s: s.token("acme") + "==",
    "payload no object": lambda s: tokens.token(s.signing_key, b"[1, 2]"),
    "payload no JSON": lambda s: tokens.token(s.signing_key, b"{"),
    "payload nested deep": lambda s: tokens.token(s.signing_key, b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "empty": lambda s: "",
    "rubbish": lambda s: "correct horse battery staple",
    "dots": lambda s: "..",
}


UNIFORM = {}  # what the first refusal said, and therefore every other must


@pytest.mark.parametrize("kind", BAD)
def test_bad_tokens_are_refused_alike(strict, stand, connect, kind):
    fields = refusal(connect, strict, BAD[kind](stand))
    assert fields["S"] == "FATAL"
    words = (fields["C"], fields["M"], fields.get("H"))
    assert words[0] == "28P01" and words[1].startswith("authentication failed")
    assert "D" not in fields and UNIFORM.setdefault("words", words) == words, \
        "why is for the log only"


def test_more_than_16_kb_is_refused(strict, stand, connect):
    fields = refusal(connect, strict, stand.token("acme", padding="x" * 20000))
    assert fields["C"] in ("28P01", "08P01", "54000")


def test_password_with_a_nul_inside_is_refused(strict, connect, token):
    c = connect(strict)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.message("p", token().encode() + b"\0more\0"))
    assert c.refusal()["C"] == "08P01"


def test_password_without_a_nul_is_refused(strict, connect, token):
    c = connect(strict)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.message("p", token().encode()))
    assert c.refusal()["C"] == "08P01"


def test_the_audit_trail_says_why(strict, stand, connect):
    before = len(strict.audit())
    refusal(connect, strict, stand.token("acme", lifetime=-3600))
    line = proc.wait_for("the audit trail", 10, lambda: [
        r for r in map(json.loads, strict.audit()[before:].splitlines())
        if r["event"] == "login_refused"])[0]
    assert "expired" in json.dumps(line)


def test_lifetime_beyond_the_issuers_limit(make_gate, stand, connect, login):
    gate = make_gate({"issuer stand": {"max_lifetime": "1h"}})
    assert login(gate, secret=stand.token("acme", lifetime=600)).query("SELECT 1") == [["1"]]
    assert refusal(connect, gate, stand.token("acme", lifetime=7200))["C"] == "28P01"


def test_algorithm_that_the_issuer_does_not_allow(make_gate, stand, connect, login):
    gate = make_gate({"issuer stand": {"algorithms": "ES256"}})
    assert login(gate).query("SELECT 1") == [["1"]]
    assert refusal(connect, gate, stand.token("acme", key=stand.rsa_key))["C"] == "28P01"


def test_claims_inside_objects(make_gate, stand, login):
    gate = make_gate({"issuer stand": {"tenant_claim": "app.tenant", "roles_claim": "app.roles"}})
    token = stand.token("nobody", app={"tenant": "acme", "roles": ["rw"]})
    assert login(gate, secret=token).query("SELECT current_user") == [["acme_rw"]]


def test_second_issuer(make_gate, stand, login, connect):
    key = tokens.Key(stand.path("keys", "second.pem"), "second", "ES256")
    jwks = stand.path("keys", "jwks-second.json")
    tokens.write_jwks(jwks, [key])
    gate = make_gate({"issuer second": {"issuer": "https://second.example", "audience": "postern", "tenants": "acme, nobody",
                                        "jwks_file": jwks}})
    token = stand.token("acme", key=key, iss="https://second.example")
    assert login(gate, secret=token).query("SELECT 1") == [["1"]]
    beyond = stand.token("globex", key=key, iss="https://second.example")
    with pytest.raises(wire.ServerError) as caught:
        login(gate, "globex", secret=beyond)
    assert caught.value.code == "28P01"
    gate.await_log("this issuer may not speak for the tenant")
    assert login(gate, "globex").query("SELECT 1") == [["1"]]
    crossed = stand.token("acme", key=key)
    assert refusal(connect, gate, crossed)["C"] == "28P01", "a key of one issuer, the name of another"


def test_several_issuers_say_whom_they_speak_for(make_gate, stand):
    gate = make_gate({"issuer stand": {"tenants": None},
                      "issuer second": {"issuer": "https://second.example", "audience": "postern",
                                        "jwks_file": stand.path("keys", "jwks.json")}}, start=False)
    gate.write({})
    done = proc.run([stand.binary, "--check", "--config", gate.config], check=False)
    for name in ("stand", "second"):
        assert f"[issuer {name}] tenants: missing" in done.stdout + done.stderr


def test_token_without_a_subject(make_gate, gate, stand, connect, login):
    token = stand.token("acme", sub=None)
    assert refusal(connect, gate, token)["C"] == "28P01"
    gate.await_log("sub is missing")
    optional = make_gate({"issuer stand": {"subject": "optional"}})
    assert login(optional, secret=token).query("SELECT 1") == [["1"]]


def test_no_token_is_the_monitor(make_gate, stand, connect, token):
    gate = make_gate({"tenant acme": {"database_role": "${role}"}})
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("postern_monitor", "acme", token("acme", "postern_monitor"))
    assert caught.value.code == "28000"


def test_jwks_of_the_gates_own_program(gate, stand):
    """Two programs that never saw each other agree on the public half of a key."""
    done = proc.run([stand.binary, "jwks", "--key", stand.signing_key.path, "--kid", "stand-es",
                     "--alg", "ES256"])
    found = json.loads(done.stdout)
    row = found["keys"][0] if "keys" in found else found
    assert {k: row[k] for k in ("kty", "crv", "x", "y", "kid")} == \
        {k: v for k, v in stand.signing_key.jwk().items() if k in ("kty", "crv", "x", "y", "kid")}
    assert "d" not in row
