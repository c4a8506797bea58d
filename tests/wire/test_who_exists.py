"""Whether there is a user of that name is told to nobody who has not proven himself: not by the method that is asked
for, not by what SCRAM is begun with, not by how it ends, at no listener, at no gate of a fleet, in no later run."""
# SPDX-License-Identifier: Apache-2.0
import base64
import os
import struct

import pytest

from stand import wire

REAL, FAKE = ("acme_batch", "late_batch"), ("acme_botch_batch", "_batch")
ADMIN = ("admin", "admim") # a tenant's database is not the console


def conversation(client, user, database, secret):
    """All that a stranger is told, but for what is random: the nonce; of the salt its length."""
    with client as c:
        c.startup(user, database)
        told = []
        while True:
            kind, body = c.receive()
            if kind == "E":
                fields = wire.error_fields(body)
                return told + [(fields["C"], fields["M"].replace(user, "USER"), fields.get("D"), fields.get("H"))]
            code = struct.unpack("!i", body[:4])[0]
            told.append((kind, code, len(body)))
            if code == 3:
                c.send(wire.password(secret))
            elif code == 10 and b"OAUTHBEARER" in body:
                c.send(wire.sasl_initial("OAUTHBEARER", b"n,,\1auth=Bearer a.b.c\1\1"))
            elif code == 10:
                c.send(wire.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdefghijklmnop"))
            elif code == 11 and body[4:6] == b"r=":
                first = body[4:].decode().split(",")
                told[-1] = (kind, code, len(body), first[2], len(base64.b64decode(first[1][2:])))
                c.send(wire.message("p", f"c=biws,{first[0]},p={base64.b64encode(bytes(32)).decode()}".encode()))
            elif code == 11:
                c.send(wire.message("p", b"\1"))


def salt(gate, user, stand):
    with wire.Client(("127.0.0.1", gate.port()), "request", ca=stand.authority.crt) as c:
        c.startup(user, "acme")
        c.expect("R")
        c.send(wire.sasl_initial("SCRAM-SHA-256", b"n,,n=,r=abcdefghijklmnop"))
        return c.expect("R")[4:].split(b",")[1]


@pytest.fixture(scope="module")
def users(stand):
    """A file whose verifiers are made in one way, by PostgreSQL 16's scram_iterations say."""
    path = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")
    rows = [f'"{stand.admin_user}" "{stand.scram(stand.admin_password)}" - -\n', *(f'"{u}" "{stand.scram("pw")}" acme rw\n' for u in REAL)]
    with open(path, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.writelines(rows)
    return path


@pytest.fixture(scope="module")
def at(module_gate, stand, users):
    """A way to a listener: (its client, the database)."""
    gate = module_gate({"postern": {"users_file": users}, "listener main": {"tls": "allow"}})
    ways = {"a token as password": ("main", "request"), "without TLS": ("main", None), "OAUTHBEARER": ("oauth", "request"),
            "a unix socket": (None, None)}

    def connect(way):
        listener, tls = ways[way]
        where = ("127.0.0.1", gate.port(listener)) if listener else f"{gate.sockets}/.s.PGSQL.5432"
        return wire.Client(where, tls, ca=stand.authority.crt if tls else None)
    return connect


@pytest.mark.parametrize("database", ["acme", "nosuch", "postern"])
@pytest.mark.parametrize("secret", ["wrong", ""])
@pytest.mark.parametrize("way", ["a token as password", "without TLS", "OAUTHBEARER", "a unix socket"])
def test_user_who_is_there_is_met_as_one_who_is_not(at, way, secret, database):
    def told(user):
        return conversation(at(way), user, database, secret)
    assert [told(u) for u in REAL] == [told(u) for u in FAKE], "a pattern's names"
    assert told(ADMIN[0]) == told(ADMIN[1]) == told("acme_rw"), "names of no pattern"
    if database == "postern":
        assert told(ADMIN[0]) == told(REAL[0])


def test_salts_of_nobody_stay_at_every_gate_and_start(make_gate, stand, users):
    one, two = (make_gate({"postern": {"users_file": users}}) for _ in range(2))
    names = (*REAL, *FAKE)
    before = [salt(one, u, stand) for u in names]
    assert len(set(before)) == len(names)
    assert [salt(two, u, stand) for u in names] == before, "a fleet"
    one.stop()
    one.start()
    assert [salt(one, u, stand) for u in names] == before, "a new start"
    with open(users, "a", encoding="ascii") as f:
        f.write(f'"new_batch" "{stand.scram("pw")}" acme rw\n')
    since = len(one.log())
    one.reload()
    one.await_log("is in force", since=since)
    assert [salt(one, u, stand) for u in names] == before, "one user more"


def write_secret(stand, name, content):
    path = stand.path("gates", f"{name}-{os.urandom(4).hex()}")
    with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(content)
    return path


def rows(stand, *users):
    return "".join(f'"{u}" "{verifier}" acme rw\n' for u, verifier in users).encode() + \
        f'"{stand.admin_user}" "{stand.scram(stand.admin_password)}" - -\n'.encode()


def test_first_user_who_is_replaced_gives_nobody_away(make_gate, stand):
    """Two looks, before and behind a reload: the salt of who is not there stays, as that of a user does whose line stays."""
    kept = ("late_batch", stand.scram("pw"))
    path = write_secret(stand, "users", rows(stand, ("acme_batch", stand.scram("pw")), kept))
    gate = make_gate({"postern": {"users_file": path}})
    names = ("late_batch", *FAKE)
    before = [salt(gate, u, stand) for u in names]
    for users in ([("acme_batch", stand.scram("pw")), kept], [kept], [("new_batch", stand.scram("pw")), kept]):
        with open(path, "wb") as f:
            f.write(rows(stand, *users))
        since = len(gate.log())
        gate.reload()
        gate.await_log("is in force", since=since)
        assert [salt(gate, u, stand) for u in names] == before


def test_gates_with_one_key_agree_whatever_their_users(make_gate, stand):
    key = write_secret(stand, "salts", os.urandom(32))
    files = [write_secret(stand, "users", rows(stand, (u, stand.scram("pw")))) for u in REAL]
    one, two = (make_gate({"postern": {"users_file": f, "salt_key_file": key}}) for f in files)
    before = [salt(one, u, stand) for u in FAKE]
    assert [salt(two, u, stand) for u in FAKE] == before
    one.stop()
    with open(files[0], "wb") as f:
        f.write(rows(stand, ("new_batch", stand.scram("pw"))))
    one.start()
    assert [salt(one, u, stand) for u in FAKE] == before, "a start with other users"


def test_names_are_asked_for_a_token_or_for_scram_by_the_listener(make_gate, stand, login, token, users):
    gate = make_gate({"postern": {"users_file": users}, "listener main": {"scram_users": "late*"},
                      "listener oauth": {"scram_users": "*", "auth": "password"}})
    assert login(gate, user="late_batch", secret="pw").query("SELECT 1") == [["1"]]
    assert login(gate).query("SELECT 1") == [["1"]], "a token"
    with pytest.raises(wire.ServerError) as e:
        login(gate, user="acme_batch", secret="pw")
    assert e.value.code == "28P01", "here that name holds a token"
    with wire.Client(("127.0.0.1", gate.port("oauth")), "request", ca=stand.authority.crt) as c:
        assert c.login("acme_batch", "acme", "pw").query("SELECT 1") == [["1"]]
    with wire.Client(("127.0.0.1", gate.port("oauth")), "request", ca=stand.authority.crt) as c, pytest.raises(wire.ServerError) as e:
        c.login("acme_rw", "acme", token())
    assert e.value.code == "28P01", "all are asked for SCRAM"


def test_without_issuers_everybody_is_asked_for_scram(make_gate, stand, login, users):
    gate = make_gate({"postern": {"users_file": users}, "issuer stand": None,
                      **{f"listener {name}": {"scram_users": None} for name in ("main", "oauth", "local")}})
    assert login(gate, user="late_batch", secret="pw").query("SELECT 1") == [["1"]]
    with pytest.raises(wire.ServerError) as e:
        login(gate, user="nobody", secret="pw")
    assert e.value.code == "28P01"
