# SPDX-License-Identifier: Apache-2.0
"""Clients that send and leave without reading: what they asked for is run, as by the server, whatever
the gateway was at when they left. Who would have to wait for others is not waited for."""
import pytest

from stand import proc, wire


def insert(table, n):
    return wire.query(f"INSERT INTO {table} VALUES ({n}, 'x')")


SENT = {
    "simple": lambda t: insert(t, 1),
    "extended": lambda t: wire.one(f"INSERT INTO {t} VALUES ($1, 'x')", ("1",)) + wire.sync(),
    "block": lambda t: wire.query("BEGIN") + insert(t, 1) + wire.query("COMMIT"),
    "several": lambda t: insert(t, 2) + insert(t, 3) + insert(t, 1),
    "and half a message": lambda t: insert(t, 1) + insert(t, 4)[:20],
    "terminate": lambda t: insert(t, 1) + wire.terminate(),
}


def is_there(stand, table):
    proc.wait_for("the row of who has left", 10, lambda: stand.postgres.sql(f"SELECT id FROM {table} WHERE id = 1", "acme"))
    assert stand.postgres.sql(f"SELECT id FROM {table} WHERE id = 4", "acme") == []


def leave_while(state, client, console, gate, node, data):
    """Sends to a gate whose node stands still, and closes once its session is in this state."""
    node.freeze()
    client.send(data)
    with console(gate) as admin:
        proc.wait_for(f"the session to be {state}", 10, lambda: state in str(admin.query("SHOW CLIENTS")))
        client.close()
        proc.wait_for("the gate to have read that", 10, lambda: "went away" in gate.log())
    node.thaw()


@pytest.mark.parametrize("form", SENT)
def test_client_leaves_while_its_connection_is_brought_to_its_variables(one_node, login, console, stand, table, form):
    gate, node = one_node
    a, b = login(gate), login(gate)
    a.query("SET work_mem = '1MB'")
    b.query("SET work_mem = '2MB'")
    b.query("SELECT 'what was set has been read back, and nothing is asked any more'")
    leave_while("tuning", a, console, gate, node, SENT[form](table))
    is_there(stand, table)
    assert b.query("SHOW work_mem") == [["2MB"]]


@pytest.mark.parametrize("form", SENT)
def test_client_leaves_while_a_connection_is_opened(one_node, login, console, stand, table, form):
    gate, node = one_node
    a = login(gate)
    ended = a.query("SELECT pg_backend_pid()")[0][0]
    stand.postgres.sql(f"SELECT pg_terminate_backend({ended})")
    with console(gate) as admin:
        proc.wait_for("the pool to be empty", 10, lambda: admin.query("SHOW SERVERS") == [])
    leave_while("queued", a, console, gate, node, SENT[form](table))
    is_there(stand, table)


def test_who_left_a_crowd_is_not_waited_for(one_node, login, console, stand, table):
    gate, node = one_node
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    with console(gate) as admin:
        b.send(insert(table, 1))
        proc.wait_for("the session to be queued", 10, lambda: "queued" in str(admin.query("SHOW CLIENTS")))
        b.close()
        proc.wait_for("it to be given up", 10, lambda: "queued" not in str(admin.query("SHOW CLIENTS")))
    a.query("COMMIT")
    assert a.query(f"SELECT count(*) FROM {table}") == [["0"]]


@pytest.mark.parametrize("sent", ["simple", "several", "block", "extended"])
def test_who_says_goodbye_behind_requests_is_answered(gate, login, database, stand, table, sent):
    """Terminate is read in its place: what was asked for before it is told first, as by the server."""
    c = login(gate, database)
    c.send(SENT[sent](table) + wire.query("SELECT 'the last', pg_sleep(0.1)") + wire.terminate())
    told = c.until("Z")
    while wire.rows(told) != [["the last", ""]]:
        assert not wire.errors(told)
        told = c.until("Z")
    with pytest.raises((wire.Closed, ConnectionError)):
        c.until("Z")
    is_there(stand, table)
