"""Who may use which database as which role; refusals say what would work."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire


def refused(connect, gate, user, database, secret):
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login(user, database, secret)
    assert caught.value.fields["S"] == "FATAL"
    return caught.value


def test_dsn_may_name_the_tokens_role(gate, login):
    assert login(gate, user="rw").query("SELECT current_user") == [["acme_rw"]]


def test_dsn_may_name_the_database_role(gate, login):
    assert login(gate, user="acme_rw").query("SELECT current_user") == [["acme_rw"]]


def test_role_that_the_token_lacks(gate, connect, token):
    e = refused(connect, gate, "acme_rw", "acme", token("acme", "ro"))
    assert e.code == "28000" and "user" in e.message and e.hint
    assert "ro" in e.fields.get("D", "") + e.message + e.hint, "it says which roles there are"


def test_another_tenants_role(gate, connect, token):
    e = refused(connect, gate, "globex_rw", "acme", token())
    assert e.code == "28000" and e.hint
    e = refused(connect, gate, "globex_rw", "globex", token())
    assert e.code == "28000" and e.hint


def test_another_tenants_database(gate, connect, token):
    e = refused(connect, gate, "globex_rw", "acme", token("globex"))
    assert e.code == "28000" and "database" in e.message and e.hint


def test_superuser_is_nobody_here(gate, connect, token):
    assert refused(connect, gate, "postgres", "acme", token()).code == "28000"


def test_unknown_database(gate, connect, token):
    e = refused(connect, gate, "acme_rw", "no_such_place", token())
    assert e.code == "3D000" and "database" in e.message and e.hint


def test_refusals_say_nothing_of_other_tenants(gate, connect, token):
    for database in ("no_such_place", "acme"):
        e = refused(connect, gate, "globex_rw", database, token("globex"))
        text = " ".join(e.fields.values()).replace("globex", "").replace(f'"{database}"', "")
        assert "metered" not in text and "acme_" not in text


def test_tenant_without_a_section(gate, connect, stand):
    e = refused(connect, gate, "rw", "acme", stand.token("initech"))
    assert e.code == "28000"


def test_template_serves_tenants_without_a_section_of_their_own(make_gate, login):
    gate = make_gate({"tenant acme": None, "tenant globex": None, "tenant metered": None,
                      "tenant *": {"databases": "${tenant}", "database_role": "${tenant}_${role}"}})
    assert login(gate, "globex").query("SELECT current_user") == [["globex_rw"]]
    assert login(gate, "acme").query("SELECT current_user") == [["acme_rw"]]


def test_names_are_refused_rather_than_cut(gate, connect, stand):
    long = "x" * 64
    e = refused(connect, gate, long, "acme", stand.token("acme", roles=["rw"]))
    assert e.code in ("42622", "28000")


def test_role_that_the_tenant_may_not_carry(gate, connect, stand):
    assert refused(connect, gate, "owner", "acme", stand.token("acme", "owner")).code == "28000"


def test_backend_cannot_be_told_to_be_somebody_else(gate, login):
    c = login(gate)
    with pytest.raises(wire.ServerError) as caught:
        c.query("SET SESSION AUTHORIZATION postgres")
    assert caught.value.code == "42501"
    assert c.query("SELECT current_user, session_user") == [["acme_rw", "acme_rw"]]


def test_replication_is_answered(gate, connect, token):
    c = connect(gate)
    c.startup("acme_rw", "acme", replication="database")
    kind, body = c.receive()
    if kind == "R":
        c.send(wire.password(token()))
        kind, body = c.until("EZ")[-1]
    assert kind == "E"
    assert wire.error_fields(body)["C"] in ("0A000", "28000", "42501")
