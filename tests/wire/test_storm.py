"""Hundreds of clients that come or go at once must not become hundreds of logins on the database."""
# SPDX-License-Identifier: Apache-2.0
import os
import socket
import struct

import pytest

from conftest import own_cluster
from stand import proc, wire

CLIENTS, POOL = int(os.environ.get("STORM_CLIENTS", "300")), 40


@pytest.fixture(scope="module")
def wide(module_gate):
    """A gate with a listener for plaintext and a pool whose clients are many."""
    many = {"cluster": "main", "dbname": "acme", "pool_size": POOL, "wait_limit": "120s", "cancel_timeout": "20s",
            "abandoned_timeout": "100ms"}
    return module_gate({"listener main": {"tls": "allow"},
                        "postern": {"workers": 2},
                        "tenant acme": {"databases": "wide, wide_session"},
                        "database acme": None, "database acme_session": None, "database acme_pool1": None,
                        "database wide": {**many, "pool_mode": "transaction"},
                        "database wide_session": {**many, "pool_mode": "session", "session_reuse": "on"}})


class Crowd:
    """Clients in step: each part of the login is sent by all before any answer is read."""

    def __init__(self, gate, secret, database, count):
        self.clients = [wire.Client(("127.0.0.1", gate.port()), None, timeout=60) for _ in range(count)]
        for c in self.clients:
            c.startup("acme_rw", database)
        for c in self.clients:
            c.expect("R")
            c.send(wire.password(secret))

    def ready(self):
        for c in self.clients:
            c.until_ready()
        return self

    def send(self, *parts):
        for c in self.clients:
            c.send(*parts)

    def vanish(self, reset):
        for c in self.clients:
            if reset:
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.socket.close()


def logins(gate):
    return int(float(gate.metrics()["postern_backend_connections_total"]))


def active(stand):
    return int(stand.postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'acme_rw'"
                                  " AND state <> 'idle'")[0][0])


def left(c):
    return [r for r in c.query("SHOW CLIENTS") if "wide" in str(r)]


DOING = {
    "in mid-query": ([wire.query("SELECT pg_sleep(600)")], "active"),
    "in a transaction": ([wire.query("BEGIN; SELECT 1")], "idle in transaction"),
    "in mid-COPY IN": ([wire.query("COPY storm FROM STDIN"), wire.message("d", b"half a row")], "active"),
    "in mid-COPY OUT": ([wire.query("COPY (SELECT repeat('x', 9000) FROM generate_series(1, 100000)) TO STDOUT")], "active"),
    "in a pipeline": ([(wire.one("SELECT pg_sleep(0.5)") + wire.sync()) * 20], "active"),
    "before Sync": ([wire.one("SELECT pg_sleep(600)")], "active"),
}


@pytest.fixture(scope="module", autouse=True)
def storm(stand):
    stand.postgres.sql("CREATE TABLE storm (a text)", "acme", "acme_rw")
    yield
    stand.postgres.sql("DROP TABLE storm", "acme", "acme_rw")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("doing", DOING)
def test_clients_that_leave_at_once_bring_no_logins(wide, token, console, stand, doing, reset):
    parts, state = DOING[doing]
    crowd = Crowd(wide, token(), "wide", CLIENTS).ready()
    crowd.send(*parts)
    proc.wait_for("the pool to be used up", 30, lambda: int(stand.postgres.sql(
        f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'acme_rw' AND state = '{state}'")[0][0]) == POOL)
    before = logins(wide)
    pids = backends(stand)
    crowd.vanish(reset)
    admin = console(wide)
    proc.wait_for("the clients to be gone", 60, lambda: not left(admin))
    proc.wait_for("the backends to be at rest", 60, lambda: active(stand) == 0)
    after = Crowd(wide, token(), "wide", POOL).ready()
    after.send(wire.query("SELECT 'reused'"))
    for c in after.clients:
        assert wire.rows(c.until("Z")) == [["reused"]]
    after.vanish(False)
    assert logins(wide) - before <= 2, "leaving clients took connections with them"
    assert len(backends(stand) - pids) <= 2


def backends(stand):
    return {row[0] for row in stand.postgres.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'acme_rw'")}


def test_sessions_that_leave_at_once_bring_no_logins(wide, token, console, stand):
    crowd = Crowd(wide, token(), "wide_session", POOL).ready()
    crowd.send(wire.query("SELECT pg_sleep(600)"))
    proc.wait_for("all to sleep", 30, lambda: active(stand) == POOL)
    before = logins(wide)
    crowd.vanish(True)
    admin = console(wide)
    proc.wait_for("the clients to be gone", 60, lambda: not left(admin))
    again = Crowd(wide, token(), "wide_session", POOL).ready()
    again.send(wire.query("SELECT 'reused'"))
    for c in again.clients:
        assert wire.rows(c.until("Z")) == [["reused"]]
    again.vanish(False)
    assert logins(wide) - before <= 2


def established(node):
    """Connections that the kernel has made with a frozen node, or tries to."""
    with open("/proc/net/tcp", encoding="ascii") as f:
        return sum(int(row.split()[2].rpartition(":")[2], 16) == node.port and row.split()[3] in ("01", "02")
                   for row in list(f)[1:])


@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_clients_that_come_at_once_open_few_connections_at_once(make_gate, nodes, token, console, database):
    """The node does not answer; what is under way is bounded, per pool and worker."""
    shards, at_once = 2, 8
    gate = make_gate({"listener main": {"tls": "allow"}, "postern": {"workers": shards},
                      f"database {database}": {"pool_size": 60, "shards": shards, "wait_limit": "60s"},
                      **own_cluster(nodes[:1], connect_timeout="60s", probe_interval="60s")})
    base = established(nodes[0])
    nodes[0].freeze()
    crowd = Crowd(gate, token(), database, 300 if database == "acme" else 60)
    try:
        admin = console(gate)
        # In transaction mode too the pool's first client must wait: what a server says at login is not known yet.
        proc.wait_for("all to wait", 30, lambda: sum(database in str(r) or "admitting" in str(r)
                                                     for r in admin.query("SHOW CLIENTS")) >= 60)
        assert shards < established(nodes[0]) - base <= shards * at_once, "some at once, and not all"
    finally:
        nodes[0].thaw()
    crowd.ready()
    crowd.send(wire.query("SELECT 'served'"))
    for c in crowd.clients:
        assert wire.rows(c.until("Z")) == [["served"]]
    assert logins(gate) <= 60
    crowd.vanish(False)
