"""SCRAM-SHA-256 users from the file, for programs that cannot hold a token."""
# SPDX-License-Identifier: Apache-2.0
import os
import struct

import pytest

from stand import wire


@pytest.fixture(scope="module")
def strict(module_gate):
    return module_gate()


def test_user_of_the_file_logs_in(gate, stand, login, database):
    c = login(gate, database, user=stand.scram_user, secret=stand.scram_password)
    assert c.query("SELECT current_user, current_database()") == [["acme_rw", "acme"]]


def test_psql_as_a_user_of_the_file(gate, stand, psql):
    done = psql(gate, "acme", "SELECT 'scram'", user=stand.scram_user,
                secret=stand.scram_password)
    assert done.stdout == "scram\n", done.stderr


def test_wrong_password_is_refused(strict, stand, connect):
    with pytest.raises(wire.ServerError) as caught:
        connect(strict).login(stand.scram_user, "acme", "wrong")
    assert caught.value.code == "28P01" and caught.value.message.startswith("authentication failed")


def test_token_does_not_open_a_user_of_the_file(strict, stand, connect, token):
    with pytest.raises(wire.ServerError) as caught:
        connect(strict).login(stand.scram_user, "acme", token())
    assert caught.value.code == "28P01"


def test_unknown_user_is_refused_like_a_wrong_token(strict, connect):
    with pytest.raises(wire.ServerError) as caught:
        connect(strict).login("nobody", "acme", "password")
    assert caught.value.code == "28P01" and caught.value.message.startswith("authentication failed")


def test_user_of_the_file_is_kept_to_his_tenant(strict, stand, connect):
    with pytest.raises(wire.ServerError) as caught:
        connect(strict).login(stand.scram_user, "globex", stand.scram_password)
    assert caught.value.code == "28000"


def scram_begin(connect, gate, user):
    c = connect(gate)
    c.startup(user, "acme")
    body = c.expect("R")
    assert struct.unpack_from("!i", body)[0] == 10
    return c


@pytest.mark.parametrize("first", [
    b"", b"n,,", b"n,,n=,r=", b"n,,r=abc", b"n,,m=must,n=,r=abc", b"p=tls-unique,,n=,r=abcdefgh",
    b"n,a=other,n=,r=abcdefgh", b"n,,n=x\0y,r=abcdefgh"])
def test_malformed_first_messages_are_refused(strict, stand, connect, first):
    c = scram_begin(connect, strict, stand.scram_user)
    c.send(wire.sasl_initial("SCRAM-SHA-256", first))
    assert c.refusal()["C"] in ("08P01", "28P01", "0A000", "28000")


@pytest.mark.parametrize("final", [
    b"", b"c=biws", b"c=biws,r=wrong,p=AAAA", b"c=AAAA,r={nonce},p=AAAA", b"c=biws,r={nonce}",
    b"c=biws,r={nonce},p=!!!", b"c=biws,r={nonce},p=" + b"A" * 4000],
    ids=range(7))
def test_malformed_final_messages_are_refused(strict, stand, connect, final):
    c = scram_begin(connect, strict, stand.scram_user)
    c.send(wire.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdefghijklmnop"))
    body = c.expect("R")
    nonce = body[4:].split(b",")[0][2:]
    c.send(wire.message("p", final.replace(b"{nonce}", nonce)))
    assert c.refusal()["C"] in ("08P01", "28P01")


def test_roles_of_the_file_choose_the_database_role(make_gate, stand, login):
    users = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")
    with open(users, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(f'# a comment\n\n"reader"  "{stand.scram("pw one")}"  acme  ro,rw\n'
                f'"quoted ""name"""  "{stand.scram("pw two")}"  globex  rw  standard\n')
    gate = make_gate({"postern": {"users_file": users, "admin_users": None}, "listener main": {"scram_users": "reader, quoted*"}})
    assert login(gate, user="reader", secret="pw one").query("SELECT current_user") == [["acme_ro"]]
    c = login(gate, "globex", user='quoted "name"', secret="pw two")
    assert c.query("SELECT current_user") == [["globex_rw"]]


def test_user_of_the_file_is_told_of_no_token(make_gate, stand, connect, token):
    gate = make_gate({"tenant acme": {"database_role": "postern_monitor"}})
    for user, secret, hint in ((stand.scram_user, stand.scram_password, "A user of the users file has the roles"),
                               ("rw", token(), "Connect as one of the roles that your token carries")):
        with pytest.raises(wire.ServerError) as caught:
            connect(gate).login(user, "acme", secret)
        assert caught.value.code == "28000" and hint in caught.value.hint


def test_scram_without_tls_on_the_unix_socket(gate, stand):
    with wire.Client(f"{gate.sockets}/.s.PGSQL.5432", None) as c:
        c.login(stand.scram_user, "acme", stand.scram_password)
        assert c.query("SELECT 1") == [["1"]]
