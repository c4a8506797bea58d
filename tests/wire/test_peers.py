"""What hurt other proxies, where no other test guards it already; docs/peers-bugs.md has the list."""
# SPDX-License-Identifier: Apache-2.0
import socket
import struct
import threading
import time

import pytest

from conftest import own_cluster
from stand import proc, wire


@pytest.fixture(scope="module")
def one(module_gate):
    """One server connection: everybody follows on everybody."""
    return module_gate({"postern": {"workers": 1}, "listener main": {"tls": "allow"},
                        "database acme": {"pool_size": 1, "prepared_statements": 50}})


# ---- session state ----

@pytest.mark.parametrize("how", ["SELECT pg_catalog.set_config('search_path', '', false)",
                                 "SET search_path = ''"])
def test_search_path_emptied_by_pg_dump_poisons_nobody(one, login, how):
    """pgbouncer#396, #452, #976."""
    dump, other = login(one), login(one)
    before = other.query("SHOW search_path")
    dump.query(how)
    assert dump.query("SHOW search_path") == [['""']] or dump.query("SHOW search_path") == [[""]]
    assert other.query("SHOW search_path") == before
    dump.send(wire.terminate())
    assert login(one).query("SHOW search_path") == before


@pytest.mark.parametrize("size", [126, 127, 300, 301, 4000, 30000])
def test_variables_of_any_length_are_neither_cut_nor_skipped(one, login, size):
    """PgBouncer cuts a SET beyond 300 bytes and skips values over about 126."""
    a, b = login(one), login(one)
    schemas = ", ".join(f"s{n}" for n in range(size // 5))
    value = (schemas + ", " + "x" * 60)[:size].rstrip(", ")
    a.query(f"SET search_path = {value}")
    a.query(f"SET my.own = '{'v' * size}'")
    b.query("SELECT 1")
    assert a.query("SHOW search_path") == [[value]]
    assert a.query("SHOW my.own") == [["v" * size]]
    assert b.query("SHOW search_path") != [[value]]


def test_startup_parameters_are_those_of_the_session_alone(one, login):
    """pgbouncer#1576: variables that only a startup packet sets went on to the next client."""
    a = login(one, extra_float_digits="2", options="-c statement_timeout=55s -c work_mem=3MB", search_path="pg_catalog")
    b = login(one)
    names = ("extra_float_digits", "statement_timeout", "work_mem", "search_path")
    own = [a.query(f"SHOW {n}")[0][0] for n in names]
    assert own == ["2", "55s", "3MB", "pg_catalog"]
    others = [b.query(f"SHOW {n}")[0][0] for n in names]
    assert not any(x == y for x, y in zip(own, others))
    a.send(wire.terminate())
    c = login(one)
    assert [c.query(f"SHOW {n}")[0][0] for n in names] == others


# ---- prepared statements ----

def test_name_of_a_statement_never_comes_to_mean_another(one, login):
    """pgdog#1331: a name that was used again after a reset ran another query."""
    clients = [login(one) for _ in range(3)]
    for turn in range(4):
        for n, c in enumerate(clients):
            c.ask(wire.parse(f"SELECT {turn * 100 + n}", "same"), wire.sync())
        clients[turn % 3].query("DISCARD ALL" if turn % 2 else "DEALLOCATE ALL")
        clients[turn % 3].ask(wire.parse(f"SELECT {turn * 100 + turn % 3}", "same"), wire.sync())
        for n, c in enumerate(clients):
            assert wire.rows(c.ask(wire.bind("same"), wire.execute(), wire.sync())) == [[str(turn * 100 + n)]]
            c.ask(wire.close("S", "same"), wire.sync())


def test_statements_that_come_and_go_leave_no_memory_behind(one, login):
    """pgdog#1311: millions of statements were held, 7 GiB."""
    c = login(one, tls=None)

    def many(count, tag):
        for at in range(0, count, 200):
            c.send_and_read(*(wire.parse(f"SELECT {n}, '{tag}{'x' * 300}'", f"s{n}") + wire.close("S", f"s{n}")
                              + wire.one(f"SELECT {n}, 'unnamed {tag}{'x' * 300}'") for n in range(at, at + 200)), wire.sync())
            assert not wire.errors(c.until("Z"))
    many(4000, "warm")
    warm = proc.resident(one.pid)
    many(20000, "more")
    assert proc.resident(one.pid) - warm < 8 * 1024 or proc.is_sanitized(one.pid), f"{warm} to {proc.resident(one.pid)} kB"


# ---- cancels ----

def cancel_and_leave(gate, key):
    """A cancel request from a client that does not wait for anything."""
    with socket.create_connection(("127.0.0.1", gate.port())) as s:
        s.sendall(wire.cancel_request(*key))


def test_cancel_from_a_client_that_closes_at_once(one, login, running):
    c = login(one)
    for n in range(5):
        c.send(wire.query(f"SELECT pg_sleep(60) AS at_once_{n}"))
        running(f"at_once_{n}")
        cancel_and_leave(one, c.key)
        messages = c.until("Z")
        assert wire.errors(messages)[0]["C"] == "57014"


def test_wrong_keys_cost_the_guesser_and_not_the_gate(one, login, connect):
    """Thousands of guesses: no session hears of them, others are served, nothing is kept."""
    c = login(one)
    stop, guesses = threading.Event(), []

    def guess(seed):
        n = seed
        while not stop.is_set():
            n += 8
            cancel_and_leave(one, (n, struct.pack("!I", n * 2654435761 % 2**32)))
            guesses.append(n)
    counted = float(one.metrics()["postern_cancels_unknown_total"])
    threads = [threading.Thread(target=guess, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        slowest, before = 0, proc.resident(one.pid)
        while len(guesses) < 12000:
            began = time.monotonic()
            assert c.query("SELECT 'served'") == [["served"]]
            slowest = max(slowest, time.monotonic() - began)
        assert login(one).query("SELECT 1") == [["1"]]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert slowest < 2 * proc.PATIENCE, "a query waited for the guesses"
    proc.wait_for("all guesses to be counted", 20, lambda: float(one.metrics()["postern_cancels_unknown_total"]) - counted >= 12000)
    # What many of them at once took stays with the allocator; nothing that grows with their number.
    assert proc.resident(one.pid) - before < 64 * 1024 or proc.is_sanitized(one.pid)


def test_cancels_that_pile_up_block_neither_logins_nor_queries(make_gate, nodes, login, running):
    """Odyssey: cancels of a node that does not answer held up every accept."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"cancel_timeout": "60s"}, **own_cluster(nodes)})
    c = login(gate)
    node = next(n for n in nodes if n.carries(int(c.query("SELECT inet_client_port()")[0][0])))
    c.send(wire.query("SELECT pg_sleep(600) AS piled_up"))
    running("piled_up")
    node.freeze()
    waiting = []
    for _ in range(300):
        s = socket.create_connection(("127.0.0.1", gate.port()))
        s.sendall(wire.cancel_request(*c.key))
        waiting.append(s)
    proc.wait_for("the node to be seen as down", 20, lambda: "down" in gate.log())
    for n in range(5):
        assert login(gate).query(f"SELECT {n}") == [[str(n)]]
    node.thaw()
    assert wire.errors(c.until("Z"))[0]["C"] == "57014"
    for s in waiting:
        with s:
            assert s.recv(1) == b"", "each is told when it is over"


# ---- clients that go away ----

def test_backend_that_does_not_come_to_rest_is_closed_in_time(make_gate, nodes, login, running, stand):
    """Its node is frozen: neither the cancel nor the end of the query arrives."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "cancel_timeout": "1s", "abandoned_timeout": "1s"},
                      **own_cluster(nodes)})
    c = login(gate)
    node = next(n for n in nodes if n.carries(int(c.query("SELECT inet_client_port()")[0][0])))
    c.send(wire.query("SELECT pg_sleep(600) AS never_ends"))
    running("never_ends")
    node.freeze()
    c.close()
    assert login(gate).query("SELECT 'another connection'") == [["another connection"]]
    node.thaw()
    # The server was never told: it would go on sleeping under the tests that follow.
    stand.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%AS never_ends'")


# ---- who may cause what ----

def test_parameters_of_an_unauthenticated_client_reach_no_server(gate, connect, stand):
    """CVE-2025-12819: an unauthenticated search_path reached the query for credentials."""
    def seen():
        return stand.postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'evil'")
    before = gate.metrics()["postern_backend_connections_total"]
    for _ in range(5):
        with pytest.raises(wire.ServerError):
            connect(gate).login("acme_rw", "acme_session", "no token", search_path="evil", application_name="evil",
                                options="-c search_path=evil")
        assert seen() == [["0"]]
    assert gate.metrics()["postern_backend_connections_total"] == before


def test_startup_that_a_prerelease_libpq_sends(gate, connect, token):
    """pgbouncer#1459, #1519: protocol 3.9999 and an option that only tests negotiation."""
    c = connect(gate)
    c.login("acme_rw", "acme", token(), 3 << 16 | 9999, **{"_pq_.test_protocol_negotiation": ""})
    version, count = struct.unpack_from("!ii", c.negotiated)
    assert (version, count) == (wire.V32, 1) and b"_pq_.test_protocol_negotiation\0" in c.negotiated
    assert c.query("SELECT 1") == [["1"]]


# ---- both directions ----

def test_both_directions_are_independent(gate, login, database):
    """Odyssey: a full buffer one way must not stop the other. Neither side reads before it has
    written more than all buffers hold together, of a COPY and of the notices that it brings."""
    c = login(gate, database)
    c.query("SET client_min_messages = notice")
    noisy = "DO $$ BEGIN FOR i IN 1..20000 LOOP RAISE NOTICE '%', repeat('n', 1000); END LOOP; END $$"
    c.send_and_read(wire.query(noisy), wire.one("SELECT length($1)", ["x" * (30 << 20)]), wire.sync())
    messages = c.until("Z")
    assert sum(k == "N" for k, _ in messages) == 20000
    assert wire.rows(c.until("Z")) == [[str(30 << 20)]]


def test_answers_that_keep_coming_let_no_more_of_a_request_through_than_the_server_takes(gate, login, database):
    """Each of them had another piece of the request held back for a server that does not read, until it was too much."""
    c = login(gate, database)
    c.query("SET client_min_messages = notice")
    busy = "DO $$ BEGIN FOR i IN 1..3000 LOOP RAISE NOTICE '%', i; PERFORM pg_sleep(0.0003); END LOOP; END $$"
    before = proc.resident(gate.pid)
    c.send(wire.query(busy))
    c.send_and_read(wire.one("SELECT length($1)", ["x" * (60 << 20)]), wire.sync())
    assert sum(k == "N" for k, _ in c.until("Z")) == 3000
    assert wire.rows(c.until("Z")) == [[str(60 << 20)]]
    assert proc.resident(gate.pid) - before < 8 * 1024 or proc.is_sanitized(gate.pid)
