"""Crowds before the login: what they hold is theirs alone, and who is in, or answers, does not notice them."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import resource
import socket
import struct
import urllib.request

import pytest

from stand import proc, wire

PENDING = 40


def metric(gate, name):
    with urllib.request.urlopen(f"{gate.http_url}/metrics", timeout=10) as r:
        for line in r.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise KeyError(name)


def pending(gate):
    return metric(gate, "postern_logins_pending")


@contextlib.contextmanager
def crowd(gate, count, first=b"", source=None):
    """Connections that say so much and then nothing."""
    all_of_them = []
    try:
        for n in range(count):
            s = socket.socket()
            if source:
                s.bind((source(n), 0))
            s.settimeout(10 * proc.PATIENCE)
            s.connect(("127.0.0.1", gate.port()))
            if first:
                s.sendall(first)
            all_of_them.append(s)
        yield all_of_them
    finally:
        for s in all_of_them:
            s.close()


@pytest.fixture(scope="module")
def gate(module_gate):
    return module_gate({"postern": {"workers": 2, "max_clients": 100, "max_pending_logins": PENDING,
                                    "max_pending_per_address": PENDING},
                        "listener main": {"tls": "allow"}})


HALF_A_PACKET = wire.startup({"user": "acme_rw", "database": "acme"})[:-5]
SAYS = {"nothing": b"", "half a packet": HALF_A_PACKET, "that it wants TLS": struct.pack("!II", 8, 80877103),
        "who it is, and no proof": wire.startup({"user": "acme_rw", "database": "acme"})}


@pytest.mark.parametrize("says", SAYS)
def test_crowd_that_only_holds_places_keeps_nobody_out(gate, login, says):
    with login(gate) as inside:
        with crowd(gate, 5 * PENDING, SAYS[says]):
            proc.wait_for("the crowd", 10, lambda: pending(gate) > PENDING / 2)
            for _ in range(20):
                with login(gate) as c:
                    assert c.query("SELECT 1") == [["1"]]
            assert inside.query("SELECT 1") == [["1"]]
            assert pending(gate) <= PENDING
    proc.wait_for("places to be given back", 20, lambda: pending(gate) == 0)


def test_who_is_pushed_out_is_told_and_logged(make_gate):
    gate = make_gate({"postern": {"max_pending_logins": PENDING, "max_pending_per_address": PENDING}, "listener main": {"tls": "allow"}})
    with crowd(gate, PENDING) as early:
        with crowd(gate, 2 * PENDING):
            told = early[0].recv(4096)
    assert b"C53300" in told and b"too many connections are logging in" in told
    gate.await_log(r"connection from 127\.0\.0\.1:\d+ at listener main failed: crowded: too many connections are logging in")


def test_places_are_given_back_however_a_login_ends(gate, login, connect):
    for n in range(3 * PENDING):
        with connect(gate) as c:
            c.send(wire.startup({"user": f"user{n}", "database": "acme"}))
            c.expect("R")
            c.send(wire.password("no token"))
            assert c.refusal()["C"] == "28P01"
    with crowd(gate, PENDING // 2, b"\0\0\0\1"):
        pass
    for _ in range(PENDING):
        login(gate).close()
    proc.wait_for("places to be given back", 20, lambda: pending(gate) == 0)
    assert metric(gate, "postern_clients") == 0


def test_crowd_takes_no_clients_places(make_gate, login):
    gate = make_gate({"postern": {"max_clients": 5, "max_pending_logins": 50, "max_pending_per_address": 50}, "listener main": {"tls": "allow"}})
    with crowd(gate, 24):
        clients = [login(gate) for _ in range(5)]
        assert all(c.query("SELECT 1") == [["1"]] for c in clients)


def test_administrator_is_let_in_where_there_is_no_room(make_gate, login, stand):
    gate = make_gate({"postern": {"max_clients": 2}, "listener main": {"tls": "allow"}})
    clients = [login(gate) for _ in range(2)]
    with pytest.raises(wire.ServerError) as e:
        login(gate)
    assert e.value.fields["C"] == "53300"
    with login(gate, "postern", user=stand.admin_user, secret=stand.admin_password) as console:
        assert len(console.query("SHOW CLIENTS")) == 3
    assert clients[0].query("SELECT 1") == [["1"]]


def test_address_has_so_many_places(make_gate, login):
    gate = make_gate({"postern": {"max_pending_logins": 100, "max_pending_per_address": 10}, "listener main": {"address": "127.0.0.1", "tls": "allow"}})
    with crowd(gate, 30, source=lambda n: "127.0.0.2") as many:
        assert sum(b"C53300" in told_at_once(c) for c in many) >= 20 and pending(gate) <= 10
        with login(gate) as c:
            assert c.query("SELECT 1") == [["1"]]
    with crowd(gate, 30, source=lambda n: f"127.0.1.{n + 1}"):
        proc.wait_for("thirty addresses", 10, lambda: pending(gate) == 30)


def told_at_once(client):
    client.settimeout(0.5)
    try:
        return client.recv(4096)
    except TimeoutError:
        return b""


def test_who_is_silent_makes_way_for_others_of_his_address(make_gate, login, stand):
    """Behind a load balancer all have one: its places are no lock for those who say who they are."""
    gate = make_gate({"postern": {"max_pending_logins": 100, "max_pending_per_address": 20}, "listener main": {"address": "127.0.0.1", "tls": "allow"}})
    def gets_in():
        try:
            return login(gate).query("SELECT 1")
        except (wire.Closed, wire.ServerError, ConnectionError): # turned away at the door: that presses, too
            return None
    with crowd(gate, 60):
        proc.wait_for("somebody to make way", 3, gets_in)
        for _ in range(20):
            with login(gate) as c:
                assert c.query("SELECT 1") == [["1"]]
            with login(gate, "postern", user=stand.admin_user, secret=stand.admin_password) as c:
                assert c.query("SHOW VERSION")
        assert pending(gate) <= 20


def test_reload_changes_the_places(make_gate):
    gate = make_gate({"postern": {"max_pending_logins": 10, "max_pending_per_address": 10}, "listener main": {"tls": "allow"}})
    since = len(gate.log())
    gate.reload({"postern": {"max_pending_logins": 60, "max_pending_per_address": 60}})
    proc.wait_for("the reload", 10, lambda: "is in force" in gate.log()[since:])
    with crowd(gate, 30):
        proc.wait_for("thirty", 10, lambda: pending(gate) == 30)


def test_clients_leave_descriptors_for_server_connections(make_gate, login):
    """All that clients may have are taken; each still gets a server connection, and no node is thought ill of."""
    gate = make_gate({"postern": {"workers": 1, "max_pending_logins": 1000, "max_pending_per_address": 1000, "reserved_descriptors": 60},
                      "database acme": {"pool_size": 20}, "listener main": {"tls": "allow"}})
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (160, 160))
    since = len(gate.log())
    gate.reload({"postern": {"log_level": "debug"}})
    proc.wait_for("the reload", 10, lambda: "is in force" in gate.log()[since:])
    clients = [login(gate) for _ in range(10)]
    with crowd(gate, 200):
        proc.wait_for("no more descriptors", 10, lambda: "out of file descriptors" in gate.log())
        for c in clients:
            c.query("BEGIN")
        assert [c.query("SELECT 1") for c in clients] == [[["1"]]] * 10
        assert "is down" not in gate.log()[since:]


def test_drain_does_not_wait_for_a_crowd(make_gate):
    gate = make_gate({"postern": {"drain_timeout": "1h"}, "listener main": {"tls": "allow"}})
    with crowd(gate, 20):
        proc.wait_for("the crowd", 10, lambda: pending(gate) == 20)
        assert gate.stop() == 0
