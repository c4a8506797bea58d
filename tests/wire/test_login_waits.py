"""What a login waits for: in transaction mode nothing, where what it is told is known; where it must wait, it
is told what for, by wait_limit or by login_timeout, whichever comes first."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal

import pytest
from conftest import own_cluster, redis_section

from stand import proc, wire

# Which of the two limits comes first, and the settings of [database] and [postern] for it.
LIMITS = {"wait_limit": ({"wait_limit": "1s"}, {}),
          "login_timeout": ({"wait_limit": "60s"}, {"login_timeout": "1s"})}


@pytest.fixture(params=LIMITS)
def limits(request):
    return LIMITS[request.param]


def make(make_gate, limits, database="acme", cluster=None, postern=None, start=None, **more):
    of_database, of_postern = limits
    return make_gate({"postern": {**of_postern, **(postern or {})},
                      f"database {database}": {**of_database, **more}, **(cluster or {})}, **(start or {}))


def refusal(connect, gate, token, database="acme", **parameters):
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("acme_rw", database, token(), **parameters)
    assert caught.value.fields["S"] == "FATAL" and caught.value.fields["C"] != "08P01"
    return caught.value


def begin_login(connect, gate, token, database="acme", **parameters):
    """Up to the password; the rest comes when it comes."""
    c = connect(gate)
    c.startup("acme_rw", database, **parameters)
    c.expect("R")
    c.send(wire.password(token()))
    return c


def welcomed(c):
    """The parameters of a login that has been begun."""
    c.authenticate(None)
    return {name: value for name, value in (body[:-1].decode().split("\0") for kind, body in c.until_ready()
                                            if kind == "S")}


def waiting(console, gate, count):
    admin = console(gate)
    proc.wait_for(f"{count} logins to wait", 15,
                  lambda: sum("admitting" in row for row in admin.query("SHOW CLIENTS")) == count)


# ---- transaction mode: nothing ----

@pytest.mark.parametrize("workers", [1, 2, 4])
def test_login_succeeds_while_the_pool_is_exhausted(make_gate, login, connect, token, limits, workers):
    """On every worker, though only one of them has learned what to tell."""
    gate = make(make_gate, limits, pool_size=2, shards=workers, postern={"workers": workers})
    first = login(gate, TimeZone="Asia/Tokyo")
    holders = [login(gate), first]
    for c in holders:
        c.query("LISTEN something")
    later = [login(gate, TimeZone="Asia/Tokyo", application_name=f"pod {n}") for n in range(3 * workers)]
    assert {c.parameters["TimeZone"] for c in later} == {"Asia/Tokyo"}
    assert [c.parameters["application_name"] for c in later] == [f"pod {n}" for n in range(3 * workers)]
    assert {login(gate).parameters["TimeZone"] for _ in range(2 * workers)} == {"UTC"}
    holders[0].query("UNLISTEN *")
    for n, c in enumerate(later):
        assert c.query("SHOW application_name") == [[f"pod {n}"]]


def test_login_with_parameters_of_the_startup_packet_only(make_gate, login, limits):
    """They need a server connection of their own, but not to be greeted."""
    gate = make(make_gate, limits, pool_size=1)
    login(gate).query("SELECT 1")
    login(gate, options="-c ignore_system_indexes=on").query("SELECT 1")
    holder = login(gate)
    holder.query("BEGIN")
    later = login(gate, options="-c ignore_system_indexes=on")
    holder.query("COMMIT")
    assert later.query("SHOW ignore_system_indexes") == [["on"]]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_one_login_learns_is_told_to_all_that_wait_for_it(make_gate, login, connect, token, console, workers):
    """They leave the queue: the only connection is in use again by then."""
    gate = make_gate({"postern": {"workers": workers}, "database acme": {"pool_size": 1, "shards": workers}})
    holder, next_holder = login(gate), login(gate)
    holder.query("BEGIN")
    learner = begin_login(connect, gate, token, TimeZone="Asia/Tokyo")
    waiting(console, gate, 1)
    next_holder.send(wire.query("BEGIN"))
    admin = console(gate)
    proc.wait_for("the next one to wait", 15, lambda: any("queued" in row for row in admin.query("SHOW CLIENTS")))
    others = [begin_login(connect, gate, token, TimeZone="Asia/Tokyo") for _ in range(4)]
    waiting(console, gate, 5)
    holder.query("COMMIT")
    for c in [learner, *others]:
        assert welcomed(c)["TimeZone"] == "Asia/Tokyo"
    next_holder.until("Z")
    next_holder.query("COMMIT")
    assert learner.query("SHOW TimeZone") == [["Asia/Tokyo"]]


# ---- what must wait is told what for ----

def test_pool_full_while_learning(make_gate, login, connect, token, limits):
    gate = make(make_gate, limits, pool_size=1)
    holder = login(gate)
    holder.query("BEGIN")
    e = refusal(connect, gate, token, TimeZone="Asia/Tokyo")
    assert e.code == "53300" and "server connection" in e.fields["M"] and "pool_size" in e.hint
    holder.query("COMMIT")
    assert login(gate, TimeZone="Asia/Tokyo").parameters["TimeZone"] == "Asia/Tokyo"
    proc.wait_for("the audit trail to tell it", 15, lambda: [
        line for line in gate.audit().splitlines() if "login_refused" in line and '"pool_timeout"' in line])


def test_pool_full_in_session_mode(make_gate, login, connect, token, limits):
    gate = make(make_gate, limits, "acme_session", pool_size=1)
    holder = login(gate, "acme_session")
    e = refusal(connect, gate, token, "acme_session")
    assert e.code == "53300" and "server connection" in e.fields["M"] and e.hint
    holder.close()
    assert login(gate, "acme_session").query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_no_node(make_gate, nodes, connect, token, limits, database):
    gate = make(make_gate, limits, database, own_cluster(nodes, connect_timeout="30s"))
    for n in nodes:
        n.kill()
    e = refusal(connect, gate, token, database)
    assert e.code == "08001" and "can be reached" in e.fields["M"] and e.hint


@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_node_slow_to_log_in(make_gate, nodes, connect, token, limits, database):
    gate = make(make_gate, limits, database, own_cluster(nodes[:1], connect_timeout="60s", probe_interval="60s"))
    nodes[0].freeze()
    try:
        e = refusal(connect, gate, token, database)
        assert e.code == "08001" and "finished the login" in e.fields["M"] and e.hint
    finally:
        nodes[0].thaw()
    proc.wait_for("a login", 20, lambda: connect(gate).login("acme_rw", database, token()).query("SELECT 1"))


def test_node_slow_beyond_its_own_limit(make_gate, nodes, connect, token):
    """connect_timeout comes first: that is no node away."""
    gate = make_gate({**own_cluster(nodes[:1], connect_timeout="1s", probe_interval="60s")})
    nodes[0].freeze()
    try:
        e = refusal(connect, gate, token)
        assert e.code == "08001" and "finished the login" in e.fields["M"]
    finally:
        nodes[0].thaw()


def test_server_slow_to_answer_while_learning(make_gate, nodes, login, connect, token):
    """A connection was there; what it was asked is not answered."""
    gate = make_gate({"postern": {"login_timeout": "1s", "workers": 1}, **own_cluster(nodes[:1], probe_interval="60s")})
    login(gate).query("SELECT 1")
    nodes[0].freeze()
    try:
        e = refusal(connect, gate, token, TimeZone="Asia/Tokyo")
        assert e.code == "08006" and "not answered" in e.fields["M"] and e.hint
    finally:
        nodes[0].thaw()


def test_database_without_room(make_gate, stand, connect, token, limits):
    stand.postgres.sql("ALTER ROLE acme_rw CONNECTION LIMIT 0")
    try:
        gate = make(make_gate, limits)
        e = refusal(connect, gate, token)
        assert e.code == "53300" and "database" in e.fields["M"] and "pool_size" in e.hint
    finally:
        stand.postgres.sql("ALTER ROLE acme_rw CONNECTION LIMIT -1")


@pytest.mark.parametrize("comes_first", ["login_timeout", "redis timeout"])
def test_redis_slow(make_gate, own_redis, connect, token, login, comes_first):
    first = comes_first == "login_timeout"
    gate = make_gate({"redis": redis_section(own_redis, timeout="9s" if first else "500ms", away="closed"),
                      "postern": {"login_timeout": "1s" if first else "60s"}})
    login(gate).query("SELECT 1")
    os.kill(own_redis.process.pid, signal.SIGSTOP)
    try:
        e = refusal(connect, gate, token)
        assert e.code == "53400" and "limits" in e.fields["M"] and e.hint
    finally:
        os.kill(own_redis.process.pid, signal.SIGCONT)
    proc.wait_for("Redis to be asked again", 20, gate.is_ready)
    assert login(gate).query("SELECT 1") == [["1"]]


def test_client_that_is_slow_itself(make_gate, connect):
    gate = make_gate({"postern": {"login_timeout": "1s"}})
    c = connect(gate)
    c.startup("acme_rw", "acme")
    c.expect("R")
    fields = c.refusal()
    assert fields["C"] == "57014" and "client" in fields["M"] and "login_timeout" in fields["H"]


def test_login_timeout_counts_from_the_accept(make_gate, connect, token, nodes):
    """Not once more on the worker to which the session has moved."""
    gate = make_gate({"postern": {"login_timeout": "2s", "workers": 2},
                      **own_cluster(nodes[:1], connect_timeout="60s", probe_interval="60s")})
    nodes[0].freeze()
    try:
        clients = [begin_login(connect, gate, token) for _ in range(4)]
        for c in clients:
            assert c.refusal()["C"] == "08001"
    finally:
        nodes[0].thaw()


# ---- queries are told the same ----

def test_query_is_told_what_it_waits_for(make_gate, nodes, login):
    gate = make_gate({"database acme": {"pool_size": 2, "wait_limit": "1s"},
                      **own_cluster(nodes[:1], connect_timeout="60s", probe_interval="60s")})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    nodes[0].freeze()
    try:
        with pytest.raises(wire.ServerError) as caught:
            b.query("SELECT 1")
        assert caught.value.code == "08001" and "finished the login" in caught.value.fields["M"]
    finally:
        nodes[0].thaw()
    assert a.query("COMMIT") == []
