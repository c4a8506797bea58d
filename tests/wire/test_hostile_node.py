# SPDX-License-Identifier: Apache-2.0
"""A node that lies: whatever it sends, unasked or as an answer, the process lives, no other connection is
touched, and nothing of it reaches a session that it was not for."""
import struct

import pytest

import fake
from stand import proc, wire

MB = 1 << 20


def head(kind, size):
    """Of a message with this many bytes of body."""
    return kind.encode() + struct.pack("!i", size + 4)


@pytest.fixture
def node(make_gate, login):
    """A gate in front of a FakeServer that answers each Query with one row, and a session of it."""
    class It:
        answer = staticmethod(lambda kind, body: {"Q": ROW, "S": fake.ready()}.get(kind, b""))
    it = It()
    it.server = fake.FakeServer(lambda kind, body: it.answer(kind, body))
    it.gate = make_gate({"cluster main": fake.cluster(it.server), "postern": {"workers": 1},
                         "database acme": {"pool_size": 1, "cancel_timeout": "2s"}})
    it.session = login(it.gate)
    yield it
    it.server.close()


ROW = fake.columns("c") + fake.row("mine") + fake.done() + fake.ready()

UNASKED = {
    "a part of a large notice": head("N", 3 * MB) + b"S" * MB,
    "the head of a notice": head("N", 100),
    "a part of a parameter": head("S", 100) + b"x",
    "less than a header": b"N\0\0",
    "a row": fake.row("not mine"),
    "a length of nothing": b"N\0\0\0\0",
    "a negative length": b"N\xff\xff\xff\xff",
    "the largest length": b"N\x7f\xff\xff\xff",
    "ready once more": fake.ready(),
    "a type that is none": head("\x01", 4) + b"1234",
    "a parameter without a value": fake.wire.message("S", b"name\0"),
    "nothing but zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("what", UNASKED)
def test_idle_connection_that_says_what_it_may_not_is_never_lent(node, what):
    assert node.session.query("SELECT 1") == [["mine"]]
    logins = len(node.server.startups)
    node.server.push(UNASKED[what])
    node.gate.await_log("closed an idle connection: the server has said what nobody asked for")
    assert node.session.query("SELECT 1") == [["mine"]]
    assert len(node.server.startups) > logins
