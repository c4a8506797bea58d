"""The log and the audit trail say what happened, and hold no secret and no query text."""
# SPDX-License-Identifier: Apache-2.0
import json
import signal

import pytest

from stand import proc, wire

LITERAL = "a-very-private-literal"


@pytest.fixture(params=["text", "json"])
def story(request, make_gate, login, connect, stand, token):
    """A gate at its most talkative after a day's work: (gate, secrets used)."""
    gate = make_gate({"postern": {"log_level": "debug", "log_format": request.param}})
    fresh, expired = stand.token("acme"), stand.token("acme", lifetime=-3600)
    c = login(gate, secret=fresh)
    c.query(f"SELECT '{LITERAL}'")
    c.extended("SELECT $1::text", [LITERAL])
    with pytest.raises(wire.ServerError):
        c.query(f"SELECT no_such_column FROM greeting WHERE words = '{LITERAL}'")
    c.send(wire.terminate())
    login(gate, user=stand.scram_user, secret=stand.scram_password).query("SELECT 1")
    login(gate, "metered").query("SELECT 1")
    for user, secret in (("acme_rw", expired), (stand.scram_user, "wrong-password-here"),
                         ("acme_rw", "rubbish-password-here"), ("globex_rw", fresh)):
        with pytest.raises(wire.ServerError):
            connect(gate).login(user, "acme", secret)
    console = connect(gate).login(stand.admin_user, "postern", stand.admin_password)
    console.query("RELOAD")
    with pytest.raises(wire.ServerError):
        console.query(f"SHOW '{LITERAL}'")
    gate.process.signal(signal.SIGTERM)
    assert gate.process.wait(15) == 0
    secrets = [fresh, expired, token("metered"), stand.scram_password, "wrong-password-here",
               "rubbish-password-here", stand.admin_password, stand.redis.password, LITERAL,
               *stand.postgres.passwords.values()]
    return gate, secrets


def test_no_secret_in_the_log(story):
    gate, secrets = story
    log = gate.log()
    assert log
    for secret in secrets:
        assert secret not in log
        assert secret.rpartition(".")[2] not in log, "nor a token's signature"


def test_no_secret_in_the_audit_trail(story):
    gate, secrets = story
    audit = gate.audit()
    for secret in secrets:
        assert secret not in audit
        assert secret.rpartition(".")[2] not in audit
    events = [json.loads(line) for line in audit.splitlines()]
    kinds = {e["event"] for e in events}
    assert {"login", "login_refused", "logout", "admin"} <= kinds


def test_audit_says_who_and_from_where(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("SELECT 1")
    c.send(wire.terminate())
    logins = proc.wait_for("the login and the logout", 10, lambda: (
        lambda rows: rows if {"login", "logout"} <= {r["event"] for r in rows} else None)(
        [json.loads(line) for line in gate.audit().splitlines()]))
    row = next(r for r in logins if r["event"] == "login")
    assert row["tenant"] == "acme" and row["role"] == "acme_rw" and row["database"] == "acme"
    assert row["address"].startswith("127.0.0.1") and row["tls"].startswith("TLSv1")
    assert row["subject"] == "acme-application" and row["jti"] and row["method"] == "token"


def test_log_lines_of_a_session_carry_its_tag(make_gate, login):
    gate = make_gate({"postern": {"log_level": "debug", "log_format": "json"}})
    login(gate).query("SELECT 1")
    proc.wait_for("the login to be recorded", 10, lambda: "login" in gate.audit())
    rows = [json.loads(line) for line in gate.log().splitlines() if line.startswith("{")]
    audit = [json.loads(line) for line in gate.audit().splitlines()]
    tags = {r["session"] for r in audit if r.get("session")}
    assert tags and any(any(tag == v for v in r.values()) for r in rows for tag in tags)
