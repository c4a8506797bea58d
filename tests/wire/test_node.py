"""The stand's own forwarder: what it gets wrong, no other test could tell from the gate's faults."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import socket
import threading

import pytest

from stand import proc
from stand.nodes import Node


@pytest.fixture
def echo():
    """A server that answers with what it got once the other side has finished sending."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)

    def serve(s):
        with s, contextlib.suppress(OSError):
            data = b""
            while part := s.recv(65536):
                data += part
            s.sendall(data[::-1])

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def forwarder(stand, echo):
    node = Node(stand.node_program, "forwarder", f"127.0.0.1:{echo}",
                stand.path("log", "forwarder.log"), "zone1")
    node.start()
    yield node
    node.stop()


def dial(node):
    return socket.create_connection(("127.0.0.1", node.port), timeout=20 * proc.PATIENCE)


def read_all(s):
    out = b""
    while part := s.recv(65536):
        out += part
    return out


def test_half_close_is_passed_on(forwarder):
    with dial(forwarder) as s:
        s.sendall(b"abc")
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"cba"


def test_large_data_arrives_whole(forwarder):
    data = os.urandom(8_000_000)
    with dial(forwarder) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == data[::-1]


def test_many_connections(forwarder):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(forwarder)) for _ in range(400)]
        for n, s in enumerate(sockets):
            s.sendall(b"%d" % n)
            s.shutdown(socket.SHUT_WR)
        for n, s in enumerate(sockets):
            assert read_all(s) == (b"%d" % n)[::-1]


def test_kill_ends_the_connections_and_the_port_is_used_again(forwarder):
    port = forwarder.port
    with dial(forwarder) as s:
        forwarder.kill()
        with contextlib.suppress(ConnectionError):
            assert s.recv(1) == b""
    with pytest.raises(ConnectionError):
        dial(forwarder)
    forwarder.start()
    assert forwarder.port == port
    test_half_close_is_passed_on(forwarder)


def test_frozen_node_takes_connections_and_is_silent_until_it_thaws(forwarder):
    forwarder.freeze()
    with dial(forwarder) as s:
        s.sendall(b"later")
        s.shutdown(socket.SHUT_WR)
        s.settimeout(0.2)
        with pytest.raises(TimeoutError):
            s.recv(1)
        forwarder.thaw()
        s.settimeout(20 * proc.PATIENCE)
        assert read_all(s) == b"retal"


def test_database_that_is_not_there_is_a_reset(stand):
    node = Node(stand.node_program, "forwarder", f"127.0.0.1:{proc.free_port()}",
                stand.path("log", "forwarder.log"), "zone1")
    node.start()
    try:
        with pytest.raises(ConnectionError), dial(node) as s:
            s.recv(1)
            s.sendall(b"x")
            s.recv(1)
    finally:
        node.stop()


def test_idle_forwarder_costs_nothing(forwarder):
    """A connection whose one side has hung up must not keep the loop turning."""
    def ticks():
        with open(f"/proc/{forwarder.pid}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    with dial(forwarder) as s:
        s.sendall(b"x")
        before = ticks()
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.recv(1)
        assert ticks() - before <= 5
