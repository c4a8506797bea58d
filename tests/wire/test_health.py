"""Health as a kubelet asks for it: each probe by itself, in any order, with a connection of its own."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import ctypes
import itertools
import os
import signal
import socket
import struct

import pytest

from conftest import own_cluster, redis_section
from stand import proc, wire

STARTUP, LIVE, READY = PATHS = ("/health/startup", "/health/live", "/health/ready")


def probe(gate, path, method="GET"):
    """(status, body) by one request on a connection of its own, with a kubelet's headers and its
    linger of one second."""
    port = gate.port("http")
    with socket.create_connection(("127.0.0.1", port), timeout=20 * proc.PATIENCE) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: kube-probe/1.31\r\n"
                  "Accept: */*\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := s.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                 .split(b":")[1])
    assert (method == "HEAD" and not body and length) or len(body) == length
    return status, body.decode()


def served(gate):
    proc.wait_for("the gate to be ready", 20, lambda: probe(gate, READY)[0] == 200)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", PATHS)
def test_13_each_probe_by_itself_in_a_fresh_process(make_gate, path, method):
    """Nobody asks for anything else: startup is over by itself."""
    gate = make_gate(want_ready=False)
    if path == READY:
        proc.wait_for("the gate to be ready", 20, lambda: probe(gate, path, method)[0] == 200)
    else:
        assert probe(gate, path, method)[0] == 200


@pytest.mark.parametrize("order", itertools.permutations(PATHS), ids=lambda order: "-".join(p[8:] for p in order))
def test_13_probes_in_any_order(make_gate, nodes, order):
    """No node answers: startup is over and the process lives whatever was asked before."""
    for n in nodes:
        n.kill()
    gate = make_gate(own_cluster(nodes, connect_timeout="500ms"), want_ready=False)
    for path in order * 2:
        status, body = probe(gate, path)
        assert status == (503 if path == READY else 200), (path, body)
        if path == READY:
            assert "cluster main: no node answers" in body.splitlines()
    for n in nodes:
        n.start()
    served(gate)


def test_13_startup_is_over_once_the_listeners_are_open(make_gate, login):
    """As a pod: only the startup probe is sent until it has succeeded, then the two others."""
    gate = make_gate(want_ready=False)
    assert probe(gate, STARTUP) == (200, "started\n")
    assert wire.Client(("127.0.0.1", gate.port()), "request").socket is not None
    served(gate)
    assert probe(gate, LIVE) == (200, "alive\n")
    assert login(gate).query("SELECT 1") == [["1"]]


def test_13_startup_stays_over_when_the_cluster_goes(make_gate, nodes):
    gate = make_gate(own_cluster(nodes))
    for n in nodes[:2]:
        n.kill()
    proc.wait_for("two nodes to be out", 10, lambda: sum(
        k.startswith("postern_node_up") and float(v) == 0 for k, v in gate.metrics().items()) == 2)
    assert probe(gate, READY) == (200, "ready\n"), "one node is enough"
    nodes[2].kill()
    proc.wait_for("not ready", 10, lambda: probe(gate, READY)[0] == 503)
    assert probe(gate, STARTUP)[0] == probe(gate, LIVE)[0] == 200
    nodes[0].start()
    served(gate)


def test_13_one_cluster_of_two_is_enough_and_the_other_is_named(make_gate, stand, nodes, login):
    own = own_cluster(nodes)["cluster main"]
    rows = {row[0]: row[1] for name, _, rows in stand.sections(stand.path("gate")) if name == "cluster main"
            for row in rows}
    # Paths are relative to a gate's folder, and all of these are as deep as any.
    folder = stand.path("gates", "x")
    for key in ("tls_ca", "tls_cert", "tls_key", "credentials"):
        rows[key] = os.path.relpath(os.path.join(stand.path("gate"), rows[key]), folder)
    for n in nodes:
        n.kill()
    gate = make_gate({"cluster other": {**rows, **own}, "database elsewhere": {
        "cluster": "other", "dbname": "acme", "pool_mode": "transaction"}}, want_ready=False)
    served(gate)
    assert probe(gate, READY) == (200, "ready\ncluster other: no node answers\n")
    assert login(gate).query("SELECT 1") == [["1"]]
    nodes[1].start()
    proc.wait_for("both clusters", 20, lambda: probe(gate, READY) == (200, "ready\n"))


def test_13_ready_does_not_depend_on_who_asked_before(make_gate, own_redis):
    """Redis was there when the gate started, and nobody asked; then it went. The limits are shared
    out, as configured, and clients are served."""
    gate = make_gate({"redis": redis_section(own_redis, timeout="100ms")}, want_ready=False)
    proc.wait_for("Redis and the nodes", 20, lambda: float(gate.metrics().get("postern_redis_up", 0)) == 1)
    own_redis.kill()
    gate.await_log("Redis is away")
    served(gate)
    own_redis.start()


def test_13_drain(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("BEGIN")
    gate.process.signal(signal.SIGTERM)
    proc.wait_for("not ready", 10, lambda: probe(gate, READY) == (503, "draining: no new clients\n"))
    for method in ("GET", "HEAD"):
        assert probe(gate, STARTUP, method)[0] == probe(gate, LIVE, method)[0] == 200
        assert probe(gate, READY, method)[0] == 503
    c.query("COMMIT")
    assert gate.process.wait(15) == 0


def test_13_a_probe_that_leaves_harms_nobody(make_gate):
    """A kubelet whose deadline has passed closes with a reset, before or behind the request."""
    gate = make_gate()
    for cut in range(0, 60, 3):
        with socket.create_connection(("127.0.0.1", gate.port("http")), timeout=20) as s:
            s.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"[:cut or 1])
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for path in PATHS:
        assert probe(gate, path)[0] == 200


@contextlib.contextmanager
def stopped_thread(pid, name):
    """One thread of a process stands still, as in an endless loop or a lock that nobody releases."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize, interrupt, detach, wall = 0x4206, 0x4207, 17, 0x40000000
    for tid in map(int, os.listdir(f"/proc/{pid}/task")):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="ascii") as f:
            if f.read().strip() == name:
                break
    else:
        raise AssertionError(f"no thread {name}")
    for request in (seize, interrupt):
        assert libc.ptrace(request, tid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(tid, wall)
    try:
        yield
    finally:
        assert libc.ptrace(detach, tid, None, None) == 0, os.strerror(ctypes.get_errno())


def test_13_live_is_about_the_workers(make_gate):
    gate = make_gate({"postern": {"workers": 2}})
    with stopped_thread(gate.pid, "worker-1"):
        proc.wait_for("the worker to be missed", 40, lambda: probe(gate, LIVE)[0] == 503)
        assert probe(gate, LIVE)[1].startswith("worker 1 has not answered for ")
        assert probe(gate, STARTUP)[0] == 200
    proc.wait_for("the worker to be back", 20, lambda: probe(gate, LIVE)[0] == 200)
