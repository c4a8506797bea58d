"""Key sets in the form in which identity providers publish them: taken as they are, each with the keys
for encryption and of other kinds that are beside those for signatures."""
# SPDX-License-Identifier: Apache-2.0
import json
import re

import pytest

from stand import proc, tokens, wire
from stand.providers import PROVIDERS, Provider


@pytest.fixture(scope="module")
def published(stand):
    folder = stand.path("keys", "providers")
    made = {name: Provider(name, folder) for name in PROVIDERS}
    for name, p in made.items():
        p.issuer["jwks_file"] = f"{folder}/{name}.json"
        p.write(p.issuer["jwks_file"])
    return made


@pytest.fixture(scope="module")
def gate_of_all(module_gate, published):
    return module_gate({f"issuer {name}": p.issuer for name, p in published.items()})


def refusal(connect, gate, secret):
    c = connect(gate)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.password(secret))
    return c.refusal()


@pytest.mark.parametrize("name", PROVIDERS)
def test_15_published_key_set_is_taken(gate_of_all, published, login, name):
    c = login(gate_of_all, secret=published[name].accepted)
    assert c.query("SELECT current_user") == [["acme_rw"]]


@pytest.mark.parametrize("name", PROVIDERS)
def test_15_tokens_that_its_signing_keys_did_not_sign_are_refused(gate_of_all, published, connect, name):
    for why, token in published[name].refused.items():
        before = len(gate_of_all.audit())
        assert refusal(connect, gate_of_all, token)["C"] == "28P01", why
        line = proc.wait_for("the audit trail", 10, lambda: [
            r for r in map(json.loads, gate_of_all.audit()[before:].splitlines())
            if r["event"] == "login_refused"])[0]
        assert re.search("signature is wrong|kid is not among", line["detail"]), (why, line)


def test_15_the_log_says_which_keys_are_passed_over_and_why(gate_of_all, published):
    log = gate_of_all.log()
    for number, row in enumerate(published["keycloak"].jwks["keys"], 1):
        found = re.search(rf'info +keys: issuer keycloak: key {number} \(kid "{re.escape(row["kid"])}"\) '
                          r"is passed over: (.*)", log)
        assert (found and found[1]) == ("its use is not sig" if row["use"] == "enc" else None)
    assert not re.search("issuer (?!keycloak)\\w+: key .* is passed over", log)


FAULTY = {
    "private members": lambda p, k: {**k, "d": "AQAB"},
    "its use": lambda p, k: {**k, "use": None},
    "the same kid": lambda p, k: {**k, "kid": p.jwks["keys"][1]["kid"]},
    "at least 2048 bits": lambda p, k: {**k, "n": tokens.b64u(b"\x80" + b"\0" * 126 + b"\x01")},
    "exponent is odd": lambda p, k: {**k, "e": "AQ"},
    "n or e is missing": lambda p, k: {m: v for m, v in k.items() if m != "n"},
    "does not fit its kty": lambda p, k: {**k, "alg": "ES256"},
}


@pytest.mark.parametrize("words", FAULTY)
def test_15_a_real_fault_stays_one_and_is_named(make_gate, stand, words):
    p = Provider("keycloak", stand.path("keys", "providers"))
    p.publish(FAULTY[words](p, {**Provider("okta", p.folder).jwks["keys"][0], "kid": "faulty"}))
    p.issuer["jwks_file"] = stand.path("keys", f"faulty-{len(words)}.json")
    p.write(p.issuer["jwks_file"])
    gate = make_gate({"issuer keycloak": p.issuer}, start=False)
    gate.write()
    done = gate.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1 and words.replace("its use", "use is no string") in said and "key 6" in said, said
    assert "jwks_file" in said and "[issuer keycloak]" in said
    # The same members in a key for something else are no business of ours, but for a secret given away.
    p.jwks["keys"][-1] = {**p.jwks["keys"][-1], "use": "enc", "alg": "RSA-OAEP"}
    p.write(p.issuer["jwks_file"])
    assert gate.check().returncode == (1 if words == "private members" else 0)


def test_15_a_set_without_a_usable_key_is_refused(make_gate, stand):
    p = Provider("keycloak", stand.path("keys", "providers"))
    p.jwks["keys"] = [k for k in p.jwks["keys"] if k["use"] == "enc"]
    p.issuer["jwks_file"] = stand.path("keys", "encryption-only.json")
    p.write(p.issuer["jwks_file"])
    gate = make_gate({"issuer keycloak": p.issuer}, start=False)
    gate.write()
    done = gate.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "no key in it is for signatures" in said
    assert said.count("is passed over: its use is not sig") == 2
