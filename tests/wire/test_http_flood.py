"""Health and metrics answer while others fill the HTTP port: connections that say nothing, that say
it slowly, half of it, or keep what they have. HTTP has its own number of connections, so that none of
that is felt by the database's clients.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time

import pytest

from stand import proc

ROOM = 16
# One that was refused and has not read it yet, and one that is just being looked at.
BESIDE = 2
FLOOD = 2000


def descriptors(gate):
    """The gate's own descriptors of connections to its HTTP port, whatever has become of them."""
    held, port = set(), f":{gate.port('http'):04X}"
    for name in os.listdir(f"/proc/{gate.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(f"/proc/{gate.pid}/fd/{name}"))
    with open("/proc/net/tcp", encoding="ascii") as f:
        rows = [line.split() for line in f][1:]
    # local address, state (0A: listens), inode
    return sum(row[1].endswith(port) and row[3] != "0A" and f"socket:[{row[9]}]" in held for row in rows)


def ask(gate, path, source="127.0.0.1", seconds=10):
    """(status, seconds until the whole answer was there)."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", gate.port("http")), 10 * proc.PATIENCE, (source, 0)) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while chunk := s.recv(65536):
            said += chunk
    took = time.monotonic() - began
    assert took < seconds * proc.PATIENCE, f"{path} took {took:.1f} s"
    return int(said.split()[1])


class Crowd:
    """Connections to the HTTP port."""

    def __init__(self, gate, source="127.0.0.1"):
        self.gate, self.source, self.sockets = gate, source, []

    def add(self, count=1, said=b""):
        for _ in range(count):
            s = socket.create_connection(("127.0.0.1", self.gate.port("http")), 10 * proc.PATIENCE,
                                         (self.source, 0))
            if said:
                with contextlib.suppress(OSError):
                    s.sendall(said)
            self.sockets.append(s)
        return self.sockets[-1]

    def open(self):
        """How many the gate has not closed."""
        poll = select.poll()
        for s in self.sockets:
            poll.register(s, select.POLLIN | select.POLLRDHUP)
        return len(self.sockets) - len(poll.poll(0))

    def close(self):
        for s in self.sockets:
            s.close()
        self.sockets = []


@pytest.fixture
def gate(make_gate):
    return make_gate({"postern": {"http_max_connections": ROOM}})


@pytest.fixture
def crowd(gate):
    it = Crowd(gate)
    yield it
    it.close()


def all_answer(gate, login, source="127.0.0.1"):
    for path in ("/health/live", "/metrics", "/health/ready", "/health/startup", "/"):
        assert ask(gate, path, source) == 200
    assert login(gate).query("SELECT 1") == [["1"]]


def few_descriptors(gate):
    assert descriptors(gate) <= ROOM + BESIDE


def settles(gate):
    """Everything of HTTP's is closed at the end."""
    proc.wait_for("the connections to be closed", 20, lambda: gate.metrics()["postern_http_connections"] == "1")


def test_thousands_that_say_nothing(gate, crowd, login):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(FLOOD, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    session = login(gate)
    try:
        for _ in range(count // 100):
            crowd.add(100)
            few_descriptors(gate)
        all_answer(gate, login)
        assert session.query("SELECT 1") == [["1"]]
        proc.wait_for("the gate to close all but its own number", 10, lambda: crowd.open() <= ROOM)
        metrics = gate.metrics()
        assert int(metrics['postern_http_refused_total{why="made_way"}']) >= count - ROOM
        assert int(metrics["postern_http_connections"]) <= ROOM
        gate.await_log("http_max_connections")
        said = [line for line in gate.log().splitlines() if "http_max_connections" in line]
        assert len(said) == 1, "a line a minute"
        # Nobody of those that are left has said anything: they are closed without others, too.
        proc.wait_for("the others to be closed", 20, lambda: crowd.open() == 0)
        settles(gate)
    finally:
        crowd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_sender_is_not_waited_for(gate, crowd, login):
    """One byte now and then does not put off the end: ten seconds from the first one, or the accept."""
    began = time.monotonic()
    crowd.add(ROOM // 2)
    request, at = b"GET /health/live HTTP/1.1\r\nHost: " + b"x" * 200, 0
    while crowd.open():
        assert time.monotonic() - began < 14 * proc.PATIENCE, "the slow ones are still there"
        for s in crowd.sockets:
            with contextlib.suppress(OSError):
                s.send(request[at:at + 1])
        at += 1
        assert ask(gate, "/health/live") == 200
        time.sleep(0.25)
    assert time.monotonic() - began > 8
    assert int(gate.metrics()['postern_http_refused_total{why="late"}']) >= ROOM // 2
    all_answer(gate, login)
    settles(gate)


def test_half_requests(gate, crowd, login):
    for part in (b"G", b"GET /metrics", b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
        crowd.add(ROOM, part)
        few_descriptors(gate)
        all_answer(gate, login)
    proc.wait_for("the half requests to be given up", 20, lambda: crowd.open() == 0)
    settles(gate)


def test_connections_that_are_kept(gate, crowd, login):
    """Those that have asked and stay make way too, and end when they are idle for too long."""
    for path in (b"/metrics", b"/health/ready") * 2:
        crowd.add(ROOM, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        few_descriptors(gate)
        all_answer(gate, login)
    settles(gate)


def test_answer_that_nobody_takes(gate, crowd, login):
    """Each asks for more than its socket holds, and reads nothing."""
    many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    for _ in range(ROOM * 2):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", gate.port("http")))
        s.settimeout(0.2)
        with contextlib.suppress(OSError):
            s.sendall(many)
        crowd.sockets.append(s)
    few_descriptors(gate)
    proc.wait_for("room for others", 10, lambda: all(answered(gate, "/health/live") for _ in range(2 * ROOM)))
    all_answer(gate, login)
    crowd.close()
    settles(gate)


def answered(gate, path):
    try:
        return ask(gate, path, seconds=5) == 200
    except (OSError, IndexError):
        return False


# In a network of its own, where the loopback has an address that is none of its own: the flood's.
FROM_ELSEWHERE = r"""
import contextlib, fcntl, json, select, socket, struct, subprocess, sys
tests, binary, config, port, room = sys.argv[1:]
sys.path.insert(0, tests)
from stand import proc
port, room = int(port), int(room)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))          # SIOCSIFFLAGS: up
fcntl.ioctl(s, 0x8916, struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("10.98.76.54")))  # SIOCSIFADDR
gate = subprocess.Popen([binary, "--config", config], stderr=subprocess.DEVNULL)
live = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"

def connected(host):
    return socket.create_connection((host, port), 10 * proc.PATIENCE)

def is_open():
    with contextlib.suppress(ConnectionError):
        connected("127.0.0.1").close()
        return True

def answers(s):
    with contextlib.suppress(OSError):
        s.sendall(live)
        return s.recv(4096).startswith(b"HTTP/1.1 200")
    return False

try:
    proc.wait_for("the gate", 10, is_open)
    probes = [connected("127.0.0.1") for _ in range(room // 2)]
    told = {"first": sum(answers(s) for s in probes)}
    flood = [connected("10.98.76.54") for _ in range(10 * room)]
    told["beside"] = answers(connected("127.0.0.1"))
    poll = select.poll()
    for s in flood:
        poll.register(s, select.POLLIN | select.POLLRDHUP)
    proc.wait_for("the flood's own to make way", 10, lambda: len(flood) - len(poll.poll(0)) <= room // 2)
    told["then"] = sum(answers(s) for s in probes)
finally:
    gate.terminate()
    gate.wait()
print(json.dumps(told))
"""


def test_one_address_has_half_of_the_room(make_gate):
    """A flood from elsewhere keeps nobody else out, and takes nobody else's place."""
    gate = make_gate({"postern": {"http_max_connections": ROOM}})
    gate.write({"postern": {"http_listen": "0.0.0.0:9187"}})  # nobody else is in that network
    gate.stop()
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", FROM_ELSEWHERE, tests, gate.binary, gate.config, "9187", str(ROOM)],
                          capture_output=True, text=True, timeout=60 * proc.PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # One may have made way for the question in between, when all places were taken.
    assert (told["first"], told["beside"]) == (ROOM // 2, True) and told["then"] >= ROOM // 2 - 1, told


def test_a_flood_without_end(gate, login):
    """Four threads that connect, say a little and leave or stay, as fast as they can."""
    stop = threading.Event()

    def flood():
        held = []
        while not stop.is_set():
            try:
                s = socket.create_connection(("127.0.0.1", gate.port("http")), 1)
                s.sendall(b"GET /health/live HT")
                held.append(s)
            except OSError:
                pass
            if len(held) > 50:
                held.pop(0).close()
        for s in held:
            s.close()
    threads = [threading.Thread(target=flood) for _ in range(4)]
    for t in threads:
        t.start()
    try:
        statuses = []
        for _ in range(20):
            statuses.append(answered(gate, "/health/live"))
            few_descriptors(gate)
            assert login(gate).query("SELECT 1") == [["1"]]
    finally:
        stop.set()
        for t in threads:
            t.join()
    # From this machine itself nobody has a share: a question may lose its place before it is heard.
    assert statuses.count(True) >= 10, statuses
    all_answer(gate, login)
    settles(gate)


def test_reload_changes_the_number(gate, crowd, login):
    crowd.add(ROOM)
    gate.reload({"postern": {"http_max_connections": 4}})
    proc.wait_for("those that are too many to make way", 10, lambda: crowd.open() <= 4)
    all_answer(gate, login)


def test_probe_when_clients_have_all_descriptors(make_gate, login):
    """HTTP keeps one for itself, and turns over what it has."""
    gate = make_gate({"postern": {"http_max_connections": 4}})
    session = login(gate)
    assert session.query("SELECT 1") == [["1"]]
    used = [int(n) for n in os.listdir(f"/proc/{gate.pid}/fd")]
    free = next(n for n in range(len(used) + 1) if n not in used)
    limits = resource.prlimit(gate.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, (max(free, max(used) + 1), limits[1]))
    try:
        for _ in range(20):
            assert ask(gate, "/health/live") == 200
            assert session.query("SELECT 1") == [["1"]]
    finally:
        resource.prlimit(gate.pid, resource.RLIMIT_NOFILE, limits)


def test_refusal_is_a_sentence(gate):
    """What cannot be understood is told so at once, and the connection ends."""
    for said, status in ((b"\x16\x03\x01\x02\x00", b"400"), (b"GET / HTTP/2.0\r\n\r\n", b"505"),
                         (b"GET /" + b"x" * 9000, b"431")):
        with socket.create_connection(("127.0.0.1", gate.port("http")), 5 * proc.PATIENCE) as s:
            s.sendall(said)
            heard = b""
            while chunk := s.recv(4096):
                heard += chunk
            assert heard.split()[1] == status and b"Connection: close" in heard
