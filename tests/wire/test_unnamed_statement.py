"""The unnamed statement in pipelines: a batch that has failed skips what would have replaced or ended it, and
what is sent behind that, before anybody knows of the failure, must not find or lose another one than on the
server."""
# SPDX-License-Identifier: Apache-2.0
import random

import pytest

from stand import wire

BAD = wire.bind("there is none")
EXECUTE = wire.bind() + wire.execute()
STEPS = {
    "parse": lambda n: wire.parse(f"SELECT {n}"),
    "write": lambda n: wire.parse(f"INSERT INTO unnamed_t VALUES ({n})"),
    "no text": lambda n: wire.parse("SELEKT"),
    "named": lambda n: wire.parse(f"SELECT {n}", "n"),
    "close": lambda n: wire.close("S", ""),
    "close named": lambda n: wire.close("S", "n"),
    "execute": lambda n: EXECUTE,
    "execute named": lambda n: wire.bind("n") + wire.execute(),
    "bad": lambda n: BAD,
    "query": lambda n: wire.query(f"SELECT {n}"),
    "function": lambda n: wire.function_call(177, b"1", b"2"),
    "sync": lambda n: wire.sync(),
}
BEFORE = ["write", "sync"]
# In transaction mode these executed what the server did not have any more, or did not find what it had.
KNOWN = [["bad", "query", "sync", "close", "sync", "execute", "sync"], ["bad", "query", "sync", "query", "execute", "sync"],
         ["bad", "close", "sync", "query", "execute", "sync"], ["bad", "close", "sync", "close", "sync", "execute", "sync"],
         ["bad", "close", "sync", "no text", "sync", "execute", "sync"], ["bad", "parse", "sync", "query", "execute", "sync"],
         ["bad", "close", "sync", "bad", "parse", "sync", "execute", "sync"], ["bad", "query", "sync", "bad", "parse", "sync", "execute", "sync"],
         ["bad", "query", "sync", "function", "execute", "sync"]]


def script(seed):
    r = random.Random(seed)
    names = list(STEPS) + ["sync", "sync", "bad", "execute", "execute", "query", "close"]
    return [r.choice(names) for _ in range(r.choice([6, 12, 30]))] + ["sync"]


def story(messages):
    return "".join(f"E{wire.error_fields(body)['C']} " if kind == "E" else kind for kind, body in messages if kind not in "NS")


def play(c, steps):
    """The server's own word is how far it goes: what is behind the last Sync is its ReadyForQuery."""
    c.ask(wire.close("S", ""), wire.close("S", "n"), wire.sync())
    c.query("TRUNCATE unnamed_t")
    c.send(b"".join(STEPS[step](n) for n, step in enumerate([*BEFORE, *steps])) + wire.query("SELECT 'the end'"))
    told = []
    while not told or wire.rows(told[-1]) != [["the end"]]:
        told.append(c.until("Z"))
    return [story(messages) for messages in told], c.query("SELECT * FROM unnamed_t ORDER BY 1")


@pytest.fixture
def both(one, login, directly, stand):
    stand.postgres.sql("CREATE TABLE IF NOT EXISTS unnamed_t (n int)", "acme", "acme_rw")
    return login(one), directly()


@pytest.mark.parametrize("steps", [*KNOWN, *map(script, range(60))], ids=lambda steps: " ".join(steps)[:60])
def test_as_on_the_server(both, steps):
    gate, server = both
    for _ in range(5):
        assert play(gate, steps) == play(server, steps), steps
