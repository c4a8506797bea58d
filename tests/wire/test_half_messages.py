"""A client in the middle of a message, and what may happen meanwhile: the message goes nowhere else,
the server connection is not given back with half of it, and the process lives."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire

ROW = b"1\tagain\n"


def copy_data(body):
    return wire.message("d", body)


@pytest.fixture
def keyed(stand, table):
    stand.postgres.sql(f"INSERT INTO {table} VALUES (1, 'there')", "acme", "acme_rw")
    return table


def in_copy(c, table, extended):
    """COPY IN has begun."""
    sql = f"COPY {table} FROM STDIN"
    c.send(wire.one(sql) + wire.flush() if extended else wire.query(sql))
    c.until("G")


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("cut", [1, 4, 5, 6, 12], ids=lambda n: f"cut at {n}")
def test_copy_that_fails_while_the_client_is_in_a_message(gate, login, stand, keyed, database, extended, cut):
    """The rows violate a key, and the client goes on sending, as psql, psycopg and pg-copy-streams do."""
    c = login(gate, "acme_pool1" if database == "acme" else database)
    other = login(gate, "acme_pool1") if database == "acme" else login(gate, database)
    more = copy_data(b"2\tnever\n" * 3)
    for _ in range(5):
        in_copy(c, keyed, extended)
        # Enough for the server to look at the rows (64 kB), and the begin of one message more.
        c.send(copy_data(ROW * 10000), more[:cut])
        messages = c.until("E" if extended else "Z")
        c.send(more[cut:], more, wire.message("c"))
        messages += c.ask(wire.sync()) if extended else []
        assert [e["C"] for e in wire.errors(messages)] == ["23505"]
        assert other.query("SELECT 'not mixed up'") == [["not mixed up"]]
        assert c.query("SELECT 'goes on'") == [["goes on"]]
    assert stand.postgres.sql(f"SELECT count(*) FROM {keyed}", "acme") == [["1"]]


def test_server_connection_is_not_lent_on_with_half_a_message(gate, login, keyed):
    """The client never sends the rest: it leaves, and the next one gets a connection that works."""
    c, other = login(gate, "acme_pool1"), login(gate, "acme_pool1")
    in_copy(c, keyed, False)
    c.send(copy_data(ROW * 20000), copy_data(ROW)[:7])
    assert [e["C"] for e in wire.errors(c.until("Z"))] == ["23505"]
    other.send(wire.query("SELECT 'waited'"))
    c.close()
    assert wire.rows(other.until("Z")) == [["waited"]]


def test_rest_of_a_message_whose_connection_is_lost_goes_nowhere(gate, login, stand, keyed):
    c = login(gate, "acme_pool1")
    in_copy(c, keyed, False)
    c.send(copy_data(b"7\t" + b"x" * 100000)[:50000])
    stand.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE "
                       f"'COPY {keyed}%' AND pid <> pg_backend_pid()")
    messages = c.until("Z")
    assert [e["C"] for e in wire.errors(messages)] == ["57P01"]
    c.send(copy_data(b"7\t" + b"x" * 100000)[50000:], copy_data(ROW), wire.message("c"))
    assert c.query("SELECT 'goes on'") == [["goes on"]]


def is_over(stand, table):
    """Waits for the transaction that holds locks on the table, however it ends."""
    stand.postgres.sql(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; ROLLBACK", "acme", "acme_rw")


@pytest.mark.parametrize("ends", ["close", "terminate"])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
def test_batch_whose_client_leaves_before_its_sync_is_rolled_back(gate, login, stand, table, database, ends, within):
    c = login(gate, database)
    if within:
        c.query("BEGIN")
    c.send(wire.one(f"INSERT INTO {table} VALUES (1, 'x')"), wire.flush())
    c.until("C")
    if ends == "terminate":
        c.send(wire.terminate())
    c.close()
    is_over(stand, table)
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


def test_batch_that_commits_before_its_client_leaves_is_committed(gate, login, stand, table):
    c = login(gate)
    c.send(wire.one(f"INSERT INTO {table} VALUES (1, 'x')"), wire.sync(), wire.one(f"INSERT INTO {table} VALUES (2, 'x')"),
           wire.flush())
    c.until("Z")
    c.until("C")
    c.close()
    is_over(stand, table)
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["1"]]


VIOLATIONS = {"type": wire.message("y", b"what"), "length": b"Q\0\0\0\1", "Sync": wire.message("S", b"more")}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_violation_behind_requests_is_met_in_its_order(gate, login, stand, table, violation):
    """What was asked before it runs and is answered, as on the server, and the server connection is
    free at once: it was left with requests owed that had never been sent."""
    c, other = login(gate, "acme_pool1"), login(gate, "acme_pool1")
    for n in range(3):
        c = login(gate, "acme_pool1")
        c.send(wire.query(f"INSERT INTO {table} VALUES ({n})"), wire.one("SELECT 1"), wire.sync(), VIOLATIONS[violation])
        messages = c.until("E")
        assert wire.kinds(messages) == "CZ12DCZE"
        assert [e["C"] for e in wire.errors(messages)] == ["08P01"] and c.is_closed()
        assert other.query("SELECT 'free'") == [["free"]]
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["3"]]
    assert "did not come to rest" not in gate.log()
