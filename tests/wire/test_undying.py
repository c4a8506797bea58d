# SPDX-License-Identifier: Apache-2.0
"""Server processes that do not hear of their cancel: they hold their slot until they have ended, and are ended."""
import re

import pytest

from stand import proc, wire

# A statement that catches what cancels it, for a minute.
UNDYING = ("DO $$ DECLARE ends timestamptz := clock_timestamp() + '60 s'; BEGIN /* %s */ LOOP BEGIN PERFORM pg_sleep(60); "
           "EXCEPTION WHEN query_canceled THEN NULL; END; EXIT WHEN clock_timestamp() > ends; END LOOP; END $$")
ENDING = 'postern_pool_connections{tenant="acme",database="acme",role="acme_rw",state="ending"}'


def processes(stand, role="acme_rw"):
    return int(stand.postgres.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND backend_type = 'client backend'")[0][0])


def running(stand, mark):
    return stand.postgres.sql(f"SELECT pid FROM pg_stat_activity WHERE query LIKE '%{mark}%' AND pid <> pg_backend_pid()")




@pytest.mark.parametrize("workers", ["1", "2"])
def test_they_hold_their_slot_and_are_terminated(make_gate, login, stand, workers):
    """Each had another slot a second after its client had left: one user had all of the server's connections."""
    gate = make_gate({"postern": {"workers": workers},
                      "database acme": {"pool_size": "2", "cancel_timeout": "400ms", "abandoned_timeout": "300ms"}})
    proc.wait_for("others' to end", 10, lambda: processes(stand) == 0)
    most = 0
    for n in range(6):
        c = login(gate, "acme")
        c.send(wire.query(UNDYING % f"undying_{n}"))
        proc.wait_for("it to run", 30, lambda n=n: running(stand, f"undying_{n}"))
        most = max(most, processes(stand))
        c.reset()
        proc.wait_for("its slot to be told", 10, lambda: int(float(gate.metrics()[ENDING])) > 0)
    proc.wait_for("all to end", 30, lambda: not running(stand, "undying_"))
    assert most <= 3, "two, and one that ends them"
    assert login(gate, "acme").query("SELECT 1") == [["1"]]
    proc.wait_for("all slots to be free", 10, lambda: int(float(gate.metrics()[ENDING])) == 0)
    assert int(float(gate.metrics()["postern_backend_connections_terminated_total"])) >= 6
    assert len(re.findall(r"runs on behind its closed connection: it is terminated", gate.log())) == 6


def test_statement_that_may_run_to_its_end_is_not_terminated(make_gate, login, stand, table):
    """abandoned_timeout is longer: neither canceled nor, when its pool makes way, terminated."""
    gate = make_gate({"database acme": {"pool_size": "2", "cancel_timeout": "400ms", "abandoned_timeout": "30s"}})
    c = login(gate, "acme")
    c.send(wire.query(f"INSERT INTO {table} SELECT 1, 'x' FROM pg_sleep(4)"))
    proc.wait_for("it to run", 10, lambda: running(stand, f"INSERT INTO {table}"))
    c.reset()
    gate.reload({"database acme": {"lifetime": "1s"}})
    proc.wait_for("its row", 20, lambda: stand.postgres.sql(f"SELECT id FROM {table}", "acme"))
    assert "is terminated" not in gate.log()


def test_others_of_the_role_are_not_hit(make_gate, login, stand):
    """Only what runs behind a closed connection; not what the pool has beside it, nor what is not of its role."""
    gate = make_gate({"database acme": {"pool_size": "3", "cancel_timeout": "400ms", "abandoned_timeout": "300ms"}})
    beside = login(gate, "acme")
    beside.query("BEGIN")
    pid = beside.query("SELECT pg_backend_pid()")
    c = login(gate, "acme")
    c.send(wire.query(UNDYING % "undying_alone"))
    proc.wait_for("it to run", 10, lambda: running(stand, "undying_alone"))
    c.reset()
    proc.wait_for("it to end", 20, lambda: not running(stand, "undying_alone"))
    assert beside.query("SELECT pg_backend_pid()") == pid
    beside.query("COMMIT")
