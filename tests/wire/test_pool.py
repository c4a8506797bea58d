"""Pools: how many server connections, who waits, how long."""
# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest

from stand import proc, wire


def backends(stand, role="acme_rw"):
    rows = stand.postgres.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = "
                              f"'client backend' AND usename = '{role}' AND pid <> pg_backend_pid()")
    return {row[0] for row in rows}


def test_many_clients_over_few_server_connections(make_gate, login, stand):
    gate = make_gate({"database globex": {"pool_size": 3}})
    before = backends(stand, "globex_rw")
    clients = [login(gate, "globex") for _ in range(40)]
    for _ in range(5):
        for n, c in enumerate(clients):
            c.send(wire.query(f"SELECT {n}"))
        for n, c in enumerate(clients):
            assert wire.rows(c.until("Z")) == [[str(n)]]
    assert 1 <= len(backends(stand, "globex_rw") - before) <= 3


def test_pool_of_one_serves_all_in_turn(gate, login):
    clients = [login(gate, "acme_pool1") for _ in range(20)]
    pids = set()
    for c in clients:
        c.send(wire.query("SELECT pg_backend_pid()"))
    for c in clients:
        pids.add(wire.rows(c.until("Z"))[0][0])
    assert len(pids) == 1


def test_wait_limit(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1, "wait_limit": "1s"}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    began = time.monotonic()
    with pytest.raises(wire.ServerError) as caught:
        b.query("SELECT 1")
    assert caught.value.code == "53300" and caught.value.hint
    assert 0.8 < time.monotonic() - began < 8 * proc.PATIENCE
    a.query("COMMIT")
    if caught.value.fields["S"] == "ERROR":
        assert b.query("SELECT 2") == [["2"]]
    assert login(gate).query("SELECT 3") == [["3"]]


def test_wait_limit_in_a_pipeline_stays_in_step(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1, "wait_limit": "1s"}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    messages = b.ask(wire.one("SELECT 1"), wire.one("SELECT 2"), wire.sync())
    assert wire.kinds(messages) == "EZ" and wire.errors(messages)[0]["C"] == "53300"
    a.query("COMMIT")
    assert b.query("SELECT 3") == [["3"]]


def test_queue_that_is_full(make_gate, login, running):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "max_waiting": 2}})
    holder = login(gate)
    holder.query("BEGIN")
    clients = [login(gate) for _ in range(6)]
    for c in clients:
        c.send(wire.query("SELECT 'served'"))
    refused = []
    for c in clients:
        c.socket.settimeout(0.5 * proc.PATIENCE)
        try:
            messages = c.until("Z")
            assert wire.errors(messages)[0]["C"] == "53300"
            refused.append(c)
        except TimeoutError:
            c.socket.settimeout(c.timeout)
    assert len(refused) == 4
    holder.query("COMMIT")
    for c in clients:
        if c not in refused:
            assert wire.rows(c.until("Z")) == [["served"]]


def test_waiting_clients_are_served_in_turn(make_gate, login, console, table):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    holder, admin = login(gate), console(gate)
    holder.query("BEGIN")
    clients = [login(gate) for _ in range(8)]
    for n, c in enumerate(clients, 1):
        c.send(wire.query(f"INSERT INTO {table} VALUES ({n}, clock_timestamp()::text)"))
        proc.wait_for(f"{n} sessions to wait", 10,
                      lambda n=n: n == sum("queued" in r for r in admin.query("SHOW CLIENTS")))
    holder.query("COMMIT")
    for c in clients:
        assert not wire.errors(c.until("Z"))
    rows = holder.query(f"SELECT id FROM {table} ORDER BY words")
    assert [row[0] for row in rows] == [str(n) for n in range(1, len(clients) + 1)]


def test_pool_min_is_kept_open(make_gate, login, stand):
    gate = make_gate({"database globex": {"pool_min": 2, "pool_size": 5}})
    before = backends(stand, "globex_rw")
    c = login(gate, "globex")
    c.query("SELECT 1")
    proc.wait_for("two server connections", 15,
                  lambda: len(backends(stand, "globex_rw") - before) >= 2)


def test_idle_server_connections_are_closed(make_gate, login, stand):
    gate = make_gate({"database globex": {"idle_timeout": "1s"}})
    before = backends(stand, "globex_rw")
    c = login(gate, "globex")
    c.query("SELECT 1")
    assert backends(stand, "globex_rw") - before
    proc.wait_for("the idle connection to be closed", 15,
                  lambda: not backends(stand, "globex_rw") - before)
    assert c.query("SELECT 2") == [["2"]]


def test_old_server_connections_are_replaced(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1, "lifetime": "1s"}})
    c = login(gate)
    first = c.query("SELECT pg_backend_pid()")
    proc.wait_for("another backend", 20, lambda: c.query("SELECT pg_backend_pid()") != first)


def test_server_connections_are_used_again(gate, login):
    pids = set()
    for _ in range(10):
        c = login(gate, "acme_pool1")
        pids.add(c.query("SELECT pg_backend_pid()")[0][0])
        c.send(wire.terminate())
    assert len(pids) == 1


def test_clients_in_many_threads_get_their_own_answers(gate, login, token):
    wrong = []

    def work(n):
        c = login(gate, "acme" if n % 2 else "globex")
        for k in range(100):
            want = f"{n}-{k}"
            got = c.extended("SELECT $1::text", [want]) if k % 2 else c.query(f"SELECT '{want}'")
            if got != [[want]]:
                wrong.append((want, got))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_idle_session_is_ended_when_so_set(make_gate, login):
    gate = make_gate({"postern": {"client_idle_timeout": "1s"}})
    c = login(gate)
    c.query("SELECT 1")
    assert c.refusal()["C"] == "57P05"


def test_idle_transaction_is_ended_when_so_set(make_gate, login, table):
    gate = make_gate({"postern": {"idle_transaction_timeout": "1s"}, "database acme": {"pool_size": 1}})
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1, 'x')")
    assert c.refusal()["C"] == "25P03"
    assert login(gate).query(f"SELECT count(*) FROM {table}") == [["0"]]
