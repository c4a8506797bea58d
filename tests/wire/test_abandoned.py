# SPDX-License-Identifier: Apache-2.0
"""What runs when its client leaves: to its end as on the server, for abandoned_timeout."""
import secrets

import pytest

from stand import proc, wire

LEAVES = ["close", "reset", "terminate"]


def leave(c, how):
    if how == "terminate":
        c.send(wire.terminate())
        c.close()
    else:
        getattr(c, how)()


def running(stand, mark):
    return stand.postgres.sql(f"SELECT pid FROM pg_stat_activity WHERE query LIKE '%{mark}%' AND state = 'active' "
                              "AND pid <> pg_backend_pid()")


def holds(stand, lock):
    """A session past every gate that has this advisory lock."""
    c = wire.Client(("127.0.0.1", stand.postgres.port), "request", ca=stand.authority.crt)
    c.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"])
    c.query(f"SELECT pg_advisory_lock({lock})")
    return c


def slow_insert(table, lock, values="(1, 'x')"):
    return f"INSERT INTO {table} SELECT v.* FROM (VALUES {values}) v, (SELECT pg_advisory_lock_shared({lock})) l"


def started(stand, table):
    proc.wait_for("the statement to wait", 10, lambda: running(stand, table))


@pytest.fixture
def lock(stand):
    lock = abs(hash(stand.path())) % 100000 + 17
    with holds(stand, lock) as holder:
        holder.number = lock
        yield holder


@pytest.mark.parametrize("how", LEAVES)
def test_statement_under_way_is_run(gate, login, stand, table, database, lock, how):
    c = login(gate, database)
    c.send(wire.query(slow_insert(table, lock.number)))
    started(stand, table)
    leave(c, how)
    # Far longer than a cancel takes; the gateway has read that by now, and asks for nothing.
    with login(gate) as other:
        for _ in range(20):
            other.query("SELECT pg_sleep(0.02)")
    assert running(stand, table)
    lock.query(f"SELECT pg_advisory_unlock({lock.number})")
    proc.wait_for("its row", 10, lambda: stand.postgres.sql(f"SELECT id FROM {table}", "acme"))


@pytest.mark.parametrize("how", LEAVES)
def test_batches_under_way_are_run(gate, login, stand, table, database, lock, how):
    c = login(gate, database)
    c.send(wire.one(slow_insert(table, lock.number)), wire.sync(), wire.query(f"INSERT INTO {table} VALUES (2, 'y')"))
    started(stand, table)
    leave(c, how)
    lock.query(f"SELECT pg_advisory_unlock({lock.number})")
    proc.wait_for("both rows", 10, lambda: stand.postgres.sql(f"SELECT id FROM {table} ORDER BY id", "acme") == [["1"], ["2"]])


@pytest.mark.parametrize("how", LEAVES)
def test_transaction_whose_commit_was_sent_is_committed(gate, login, stand, table, database, lock, how):
    c = login(gate, database)
    c.query("BEGIN")
    c.send(wire.query(slow_insert(table, lock.number)), wire.query("COMMIT"))
    started(stand, table)
    leave(c, how)
    lock.query(f"SELECT pg_advisory_unlock({lock.number})")
    proc.wait_for("its row", 10, lambda: stand.postgres.sql(f"SELECT id FROM {table}", "acme"))


@pytest.mark.parametrize("how", LEAVES)
def test_what_cannot_be_committed_any_more_is_canceled(gate, login, stand, table, database, lock, how):
    c = login(gate, database)
    c.query("BEGIN")
    c.send(wire.query(slow_insert(table, lock.number)))
    started(stand, table)
    leave(c, how)
    proc.wait_for("it to be canceled", 10, lambda: not running(stand, table))
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == []


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("form", ["running", "waiting"])
def test_its_time_is_bounded(make_gate, login, stand, table, lock, form, how):
    """Of what runs, and of what waits in the gateway for that to end."""
    gate = make_gate({"database acme": {"pool_size": 1, "abandoned_timeout": "100ms"}})
    c = login(gate, options="-c TimeZone=Asia/Tokyo")
    c.send(wire.query(("RESET TimeZone; " if form == "waiting" else "") + slow_insert(table, lock.number)))
    started(stand, table)
    c.send(wire.query("SELECT 1"), wire.query("SELECT 2"))
    leave(c, how)
    with login(gate) as other:
        assert other.query("SELECT 'mine'") == [["mine"]]
    assert not running(stand, table)


def test_what_a_session_runs_that_is_killed_is_canceled(make_gate, login, console, stand, table, lock):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.send(wire.query(slow_insert(table, lock.number)))
    started(stand, table)
    with console(gate) as admin:
        row = next(r for r in admin.query("SHOW CLIENTS") if "acme_rw" in r)
        admin.ask(wire.query(f"KILL {row[0]}"))
    proc.wait_for("it to be canceled", 10, lambda: not running(stand, table))


@pytest.mark.parametrize("timeout", ["1h", "0s"])
@pytest.mark.parametrize("how", LEAVES)
def test_what_has_much_to_say_to_nobody_is_canceled(make_gate, login, stand, database, timeout, how):
    """As a server ends what it cannot send: it was read to its end, at the expense of all others."""
    mark = secrets.token_hex(5)
    gate = make_gate({f"database {database}": {"pool_size": 1, "abandoned_timeout": timeout}})
    c = login(gate, database)
    c.send(wire.query(f"SELECT '{mark}', generate_series(1, 1000000000), repeat('x', 1000)"))
    c.receive()
    leave(c, how)
    with login(gate, database) as other:
        assert other.query("SELECT 'mine'") == [["mine"]]
    assert not running(stand, mark)
