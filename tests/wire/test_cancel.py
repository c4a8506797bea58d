"""Cancel requests reach the right backend and no other query."""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import os
import select
import signal
import subprocess
import threading

import pytest

from conftest import conninfo
from stand import proc, wire


@pytest.fixture
def cancel(stand):
    def send(gate, key, tls="request"):
        wire.cancel(("127.0.0.1", gate.port()), key, ca=stand.authority.crt, tls=tls)
    return send


def mark():
    return f"mark_{os.urandom(5).hex()}"


def sleeping(c, running, seconds=60):
    """Starts a long query and returns once the database runs it."""
    name = mark()
    c.send(wire.query(f"SELECT pg_sleep({seconds}) AS {name}"))
    running(name)


def canceled(c):
    messages = c.until("Z")
    found = wire.errors(messages)
    assert found and found[0]["C"] == "57014", wire.kinds(messages)
    assert found[0]["S"] == "ERROR"


@pytest.mark.parametrize("version", [wire.V30, wire.V32], ids=["3.0", "3.2"])
@pytest.mark.parametrize("tls", ["request", "direct", None])
def test_cancel_ends_the_query_and_not_the_session(gate, login, cancel, running, database,
                                                   version, tls):
    c = login(gate, database, version=version)
    sleeping(c, running)
    cancel(gate, c.key, tls)
    canceled(c)
    assert c.query("SELECT 'still here'") == [["still here"]]


def test_cancel_by_psql(gate, stand, token, running):
    name = mark()
    env = {**os.environ, "PGPASSWORD": token()}
    psql = subprocess.Popen(["psql", "-XAtq", conninfo(stand, gate, "acme_rw", "acme"), "-c",
                             f"SELECT pg_sleep(60) AS {name}"], env=env, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        running(name)
        psql.send_signal(signal.SIGINT)
        _, said = psql.communicate(timeout=20 * proc.PATIENCE)
    finally:
        psql.kill()
        psql.wait()
    assert "canceling statement" in said


def test_cancel_by_psycopg(gate, psycopg_connect, running, database):
    import psycopg
    c = psycopg_connect(gate, database, autocommit=True)
    name = mark()

    def later():
        running(name)
        c.cancel()
    thread = threading.Thread(target=later)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        c.execute(f"SELECT pg_sleep(60) AS {name}")
    thread.join()
    assert c.execute("SELECT 1").fetchone() == (1,)


def test_cancel_by_asyncpg(gate, with_asyncpg, database):
    async def story(c):
        with pytest.raises(asyncio.TimeoutError):
            await c.fetchval("SELECT pg_sleep(60)", timeout=0.5)
        return await c.fetchval("SELECT 5")
    assert with_asyncpg(gate, database, story) == 5


def test_wrong_key_cancels_nothing(gate, login, cancel, running):
    c = login(gate)
    name = mark()
    c.send(wire.query(f"SELECT pg_sleep(1.5), '{name}'"))
    running(name)
    pid, secret = c.key
    cancel(gate, (pid, bytes([secret[0] ^ 1]) + secret[1:]))
    cancel(gate, (pid ^ 1, secret))
    cancel(gate, (pid, b"\0" * 4))
    messages = c.until("Z")
    assert not wire.errors(messages) and wire.rows(messages) == [["", name]]


@pytest.mark.parametrize("size", [0, 1, 3, 257, 5000])
def test_keys_of_strange_length_cancel_nothing(gate, login, cancel, size):
    c = login(gate)
    cancel(gate, (c.key[0], b"k" * size))
    assert c.query("SELECT 1") == [["1"]]


def test_cancel_while_idle_is_without_effect(gate, login, cancel, database):
    c = login(gate, database)
    for n in range(20):
        cancel(gate, c.key)
        assert c.query(f"SELECT {n}") == [[str(n)]]


def test_cancel_never_hits_a_later_query(make_gate, login, cancel):
    """Cancels that come as a query ends must not end what the same backend does next."""
    gate = make_gate({"database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    for n in range(60):
        a.send(wire.query("SELECT pg_sleep(0.002)"))
        thread = threading.Thread(target=cancel, args=(gate, a.key))
        thread.start()
        messages = a.until("Z")
        for fields in wire.errors(messages):
            assert fields["C"] == "57014"
        assert b.query(f"SELECT {n}, pg_sleep(0.003)") == [[str(n), ""]]
        thread.join()


def test_cancel_of_a_session_between_transactions_spares_the_backends_next_user(
        make_gate, login, cancel, running):
    gate = make_gate({"database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    assert a.query("SELECT 1") == [["1"]]
    name = mark()
    b.send(wire.query(f"SELECT pg_sleep(1), '{name}'"))
    running(name)
    cancel(gate, a.key)
    assert wire.rows(b.until("Z")) == [["", name]]


def test_cancel_of_a_query_that_waits_for_a_server_connection(make_gate, login, cancel, running):
    gate = make_gate({"database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    b.send(wire.query("SELECT 'never'"))

    def gone():
        cancel(gate, b.key)
        b.socket.settimeout(0.2)
        try:
            b._fill(1)
            return True
        except TimeoutError:
            return False
        finally:
            b.socket.settimeout(b.timeout)
    proc.wait_for("the cancel of the waiting query", 10, gone)
    canceled(b)
    assert a.query("SELECT 1") == [["1"]]
    a.query("COMMIT")
    assert b.query("SELECT 'now'") == [["now"]]


REQUESTS = {"simple": wire.query("SELECT 'never'"), "extended": wire.one("SELECT 'never'") + wire.sync(),
            "block": wire.query("BEGIN")}


@pytest.mark.parametrize("form", REQUESTS)
def test_cancel_while_the_connection_is_brought_to_the_variables(one_node, login, console, cancel, form):
    gate, node = one_node
    a, b = login(gate), login(gate)
    a.query("SET work_mem = '1MB'")
    b.query("SET work_mem = '2MB'")
    b.query("SELECT 'what was set has been read back, and nothing is asked any more'")
    node.freeze()
    a.send(REQUESTS[form])
    with console(gate) as admin:
        proc.wait_for("the session to be tuning", 10, lambda: "tuning" in str(admin.query("SHOW CLIENTS")))
    cancel(gate, a.key)
    node.thaw()
    canceled(a)
    assert a.status == "I" and b.query("SHOW work_mem") == [["2MB"]]
    assert a.query("SHOW work_mem") == [["1MB"]]


@pytest.mark.parametrize("how", ["simple", "batches"])
def test_cancel_of_a_begin_with_more_behind_it(one_node, login, console, cancel, table, how):
    """The rest would run by itself."""
    gate, _ = one_node
    holder, c = login(gate), login(gate)
    holder.query("BEGIN")
    texts = ["BEGIN", f"INSERT INTO {table} VALUES (1, 'x')", f"INSERT INTO {table} VALUES (2, 'x')", "ROLLBACK"]
    c.send(*[wire.query(t) if how == "simple" else wire.one(t) + wire.sync() for t in texts])
    with console(gate) as admin:
        proc.wait_for("the session to wait", 10, lambda: "queued" in str(admin.query("SHOW CLIENTS")))
    cancel(gate, c.key)
    assert [f["C"] for f in wire.errors(c.until_closed())] == ["57014"]
    holder.query("COMMIT")
    assert holder.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_cancel_in_a_transaction_leaves_it_failed(gate, login, cancel, running, database):
    c = login(gate, database)
    c.query("BEGIN")
    sleeping(c, running)
    cancel(gate, c.key)
    canceled(c)
    assert c.status == "E"
    c.query("ROLLBACK")
    assert c.query("SELECT 1") == [["1"]]


def test_cancel_of_a_pipeline(gate, login, cancel, running, database):
    c = login(gate, database)
    name = mark()
    c.send(wire.one("SELECT 1"), wire.one(f"SELECT pg_sleep(60) AS {name}"), wire.one("SELECT 2"),
           wire.sync(), wire.one("SELECT 3"), wire.sync())
    running(name)
    cancel(gate, c.key)
    messages = c.until("Z")
    assert wire.kinds(messages) == "12DC12EZ" and wire.errors(messages)[0]["C"] == "57014"
    assert wire.rows(c.until("Z")) == [["3"]]


def test_cancel_of_copy_in(gate, login, cancel, running, table, database):
    c = login(gate, database)
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.expect("G")
    running(f"COPY {table}")
    cancel(gate, c.key)
    # PostgreSQL notices when data comes; what is left of the COPY is passed over.
    numbers = iter(range(1_000_000))

    def noticed():
        c.send(wire.message("d", b"%d\tone\n" % next(numbers)))
        return select.select([c.socket], [], [], 0.01)[0]
    proc.wait_for("the cancel to be noticed", 15, noticed)
    c.send(wire.message("c"))
    messages = c.until("Z")
    assert wire.errors(messages)[0]["C"] == "57014"
    assert c.query("SELECT 1") == [["1"]]


def test_cancel_reaches_the_node_that_runs_the_query(gate, login, cancel, running):
    sessions = [login(gate) for _ in range(6)]
    for c in sessions:
        sleeping(c, running)
    for c in reversed(sessions):
        cancel(gate, c.key)
        canceled(c)


def test_malformed_cancel_requests_end(gate, connect):
    import struct
    for body in (b"", b"\0\0", b"\0" * 3):
        c = connect(gate, None)
        c.send(struct.pack("!ii", 8 + len(body), wire.CANCEL_CODE) + body)
        try:
            c.receive()
        except (wire.Closed, ConnectionError):
            pass
        assert c.is_closed()


def test_storm_of_cancels_does_not_stop_logins(gate, login, cancel):
    c = login(gate)
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            cancel(gate, c.key, None)
    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert login(gate).query("SELECT 1") == [["1"]]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
