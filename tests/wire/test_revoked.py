"""A reload looks at every session again: what it was let in by may have been taken away."""
# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import time

import pytest

from stand import proc, tokens, wire
from wire.test_record import await_event

TAKEN_AWAY = ("FATAL", "57P01")


@pytest.fixture
def files(stand):
    """A key set and a users file of the test's own."""
    jwks = stand.path("keys", f"jwks-{os.urandom(4).hex()}.json")
    tokens.write_jwks(jwks, [stand.signing_key, stand.rsa_key])
    users = stand.path("keys", f"users-{os.urandom(4).hex()}.txt")
    shutil.copy(stand.users_file, users)
    os.chmod(users, 0o600)
    return jwks, users


@pytest.fixture
def gate(make_gate, files):
    jwks, users = files
    return make_gate({"postern": {"workers": 2, "users_file": users}, "issuer stand": {"jwks_file": jwks, "expiry_grace": "2s"}})


def reload(gate, changes=None):
    since = len(gate.log())
    gate.reload(changes or {})
    proc.wait_for("the reload", 10, lambda: "is in force" in gate.log()[since:])


def ends(c, patience=10):
    """It is ended by itself, and told so."""
    began = time.monotonic()
    messages = c.until_closed()
    assert time.monotonic() - began < patience * proc.PATIENCE
    told = wire.errors(messages)[-1]
    assert (told["S"], told["C"]) == TAKEN_AWAY
    return told["M"]


def without(path, name):
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines(True)
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(line for line in lines if not line.startswith(f'"{name}"'))


CHANGES = {
    "the issuer's tenants": {"issuer stand": {"tenants": "globex"}},
    "the issuer": {"issuer stand": None, "issuer other": {"issuer": "https://other.example", "audience": "x", "tenants": "*",
                                                             "jwks_file": "JWKS", "algorithms": "ES256"}},
    "the issuer's own name": {"issuer stand": {"issuer": "https://renamed.example"}},
    "its audience": {"issuer stand": {"audience": "somebody-else"}},
    "the claim of its tenant": {"issuer stand": {"tenant_claim": "organization"}},
    "the claim of its roles": {"issuer stand": {"roles_claim": "groups"}},
    "how long a token may live": {"issuer stand": {"max_lifetime": "10s"}},
    "the signature's algorithm": {"issuer stand": {"algorithms": "RS256"}},
    "the tenant": {"tenant acme": None},
    "its role": {"tenant acme": {"roles": "ro"}},
    "its database": {"tenant acme": {"databases": "acme_session"}},
    "what its role leads to": {"tenant acme": {"database_role": "acme_ro"}},
}


# Where it was the grant: what of it.
LACKS = {"the tenant": 'not granted any more: There is no tenant "acme" at this gateway.',
         "its role": "not granted any more: its role rw: The roles of its tenant do not have it.",
         "its database": "not granted any more: its database acme: The databases of this tenant are: acme_session."}


# A token with several roles: what is said of the one in use is not said of the others.
SEVERAL = {"the role in use": ({"tenant acme": {"roles": "rw"}}, "ro", "its role ro: The roles of its tenant do not have it."),
           "what the role leads to": ({"tenant acme": {"database_role": "globex_${role}"}}, "acme_ro",
                                      "its user acme_ro is neither its role ro nor what this one leads to"),
           "the claim of its roles": ({"issuer stand": {"roles_claim": "groups"}}, "ro",
                                      "its role ro: The roles of these credentials are: rw.")}


@pytest.mark.parametrize("what", list(SEVERAL))
def test_of_several_roles_only_what_is_true_is_said(gate, login, stand, what):
    changes, user, said = SEVERAL[what]
    c = login(gate, user=user, secret=stand.token("acme", ["ro", "rw"], groups=["rw"]))
    c.query("SELECT 1")
    reload(gate, changes)
    ends(c)
    detail = (await_event(gate, "logout", reason="revoked"))["detail"]
    assert detail == f"what it was granted is not granted any more: {said}"
    assert "carry no role" not in detail and f" ends: {detail}\n" in gate.log()


@pytest.mark.parametrize("state", ["idle", "in a transaction"])
@pytest.mark.parametrize("what", list(CHANGES))
def test_what_is_taken_away_ends_the_session(gate, login, stand, files, what, state):
    c = login(gate)
    without(files[1], stand.scram_user) # who is of that tenant
    c.query("SELECT 1")
    changes = {name: values and {k: files[0] if v == "JWKS" else v for k, v in values.items()} for name, values in CHANGES[what].items()}
    if state != "idle":
        c.query("BEGIN")
    reload(gate, changes)
    if state != "idle":
        assert c.query("SELECT 'goes on until its end'") == [["goes on until its end"]]
        c.send(wire.query("COMMIT"))
        assert c.receive()[0] == "C"
    ends(c)
    line = await_event(gate, "logout", reason="revoked")
    assert f" ends: {line['detail']}\n" in gate.log() and LACKS.get(what, "") in line["detail"]


def test_key_that_is_gone(gate, login, stand, files):
    c = login(gate)
    fresh = tokens.Key(stand.path("keys", f"fresh-{os.urandom(4).hex()}.pem"), "fresh", "ES256")
    tokens.write_jwks(files[0], [stand.signing_key, fresh])
    reload(gate)
    assert c.query("SELECT 'a key more is no matter'") == [["a key more is no matter"]]
    tokens.write_jwks(files[0], [fresh])
    reload(gate)
    assert "taken away" in ends(c)
    assert "its token's key is gone" in gate.log()
    assert login(gate, secret=stand.token("acme", key=fresh)).query("SELECT 1") == [["1"]]


def test_key_of_the_same_name_that_is_another(gate, login, stand, files):
    c = login(gate)
    other = tokens.Key(stand.path("keys", f"other-{os.urandom(4).hex()}.pem"), stand.signing_key.kid, stand.signing_key.alg)
    tokens.write_jwks(files[0], [other])
    reload(gate)
    ends(c)


@pytest.mark.parametrize("how", ["removed", "another password", "another tenant"])
def test_user_of_the_file(gate, login, stand, files, how):
    c = login(gate, user=stand.scram_user, secret=stand.scram_password)
    by_token = login(gate)
    without(files[1], stand.scram_user)
    if how != "removed":
        secret = stand.scram("another") if how == "another password" else stand.scram(stand.scram_password)
        with open(files[1], "a", encoding="utf-8") as f:
            f.write(f'"{stand.scram_user}" "{secret}" {"globex" if how == "another tenant" else "acme"} rw standard\n')
    reload(gate)
    ends(c)
    assert by_token.query("SELECT 'not its matter'") == [["not its matter"]]


def test_administrator(gate, connect, stand):
    c = connect(gate).login(stand.admin_user, "postern", stand.admin_password)
    assert c.query("SHOW VERSION")
    reload(gate, {"postern": {"admin_users": stand.scram_user}})
    ends(c)


def test_grace_is_the_end(gate, login, stand, files):
    """A statement that runs on: at once when the grace is over."""
    c = login(gate)
    without(files[1], stand.scram_user)
    c.send(wire.query("SELECT pg_sleep(60)"))
    reload(gate, {"tenant acme": None})
    ends(c, 20)


def test_limits_are_the_new_plans(gate, login):
    c = login(gate)
    c.query("SELECT 1")
    reload(gate, {"plan slow": {"queries_per_second": 1, "queries_burst": 1}, "tenant acme": {"plan": "slow"}})
    codes = []
    for _ in range(10):
        codes += [e["C"] for e in wire.errors(c.ask(wire.query("SELECT 1")))]
    assert "53400" in codes


def test_reload_that_changes_nothing_of_it_ends_nobody(gate, login, stand, connect):
    sessions = [login(gate), login(gate, "acme_session"), login(gate, user=stand.scram_user, secret=stand.scram_password)]
    console = connect(gate).login(stand.admin_user, "postern", stand.admin_password)
    for n in range(3):
        reload(gate, {"database acme": {"prepared_statements": 100 + n}, "tenant globex": {"roles": "rw"}})
        for c in sessions:
            assert c.query(f"SELECT {n}") == [[str(n)]]
        assert console.query("SHOW VERSION")


def test_claims_are_read_again_when_their_issuers_section_changes(gate, login, stand):
    """What a new login with the same token would be granted goes on; what it would not, ends."""
    one = login(gate, secret=stand.token("acme", "rw", groups=["rw", "ro"]))
    two = login(gate, secret=stand.token("acme", "rw", groups=["ro"]))
    long = login(gate, secret=stand.token("acme", "rw", groups=["rw"], padding="x" * 5000))
    three = login(gate, secret=stand.token("acme", "rw", aud=["postern", "second"]))
    reload(gate, {"issuer stand": {"audience": "postern, another", "leeway": "31s"}})
    for c in (one, two, three):
        assert c.query("SELECT 1") == [["1"]]
    assert "too long to be kept" in ends(long) or "too long to be kept" in gate.log()
    reload(gate, {"issuer stand": {"audience": "second, another"}})
    ends(one), ends(two)
    assert three.query("SELECT 1") == [["1"]]
    reload(gate, {"issuer stand": {"audience": "postern"}})
    one = login(gate, secret=stand.token("acme", "rw", groups=["rw", "ro"]))
    two = login(gate, secret=stand.token("acme", "rw", groups=["ro"]))
    reload(gate, {"issuer stand": {"roles_claim": "groups"}})
    assert one.query("SELECT current_user") == [["acme_rw"]]
    ends(two), ends(three)


def test_plan_of_a_token_is_read_again(gate, login, stand):
    c = login(gate, secret=stand.token("acme", "rw", plan="slow"))
    c.query("SELECT 1")
    reload(gate, {"plan slow": {"queries_per_second": 1, "queries_burst": 1}, "issuer stand": {"plan_claim": "plan"}})
    codes = []
    for _ in range(10):
        codes += [e["C"] for e in wire.errors(c.ask(wire.query("SELECT 1")))]
    assert "53400" in codes
