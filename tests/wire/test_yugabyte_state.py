"""What a session has on its connection is not lost where YugabyteDB does not answer the gateway's own
questions: pg_locks is refused, or does not tell of young locks, and any statement may fail.

The nodes are those of test_yugabyte.py."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire
import yugabyte
from test_yugabyte import ERRORS, enter, nodes_of, release, settings, yuga  # noqa: F401  (fixtures)


def stir(enter, gate, count=4):
    """Other sessions use every connection that they may."""
    others = [enter(gate) for _ in range(count)]
    for other in others:
        other.query("SELECT 1")
    for other in others:
        other.close()


# ---- pg_locks ----

ANSWERS = ["refused", "unavailable", "young"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("how", ["CREATE TEMP TABLE mine (i int)",
                                 "DO $$ BEGIN CREATE TEMP TABLE mine (i int); END $$"], ids=["statement", "block"])
def test_temporary_table_stays_whatever_pg_locks_answers(yuga, enter, answer, how):
    gate, node = yuga
    node.lock_status(answer)
    c = enter(gate)
    c.query(how)
    c.query("PREPARE other AS SELECT 1")
    c.query("DEALLOCATE other")  # it may undo something: what is left is in doubt
    stir(enter, gate)
    assert c.query("SELECT count(*) FROM mine") == [["0"]]


@pytest.mark.parametrize("answer", ANSWERS)
def test_advisory_lock_stays_whatever_pg_locks_answers(yuga, enter, answer):
    """An empty answer tells of no lock that was taken just now."""
    gate, node = yuga
    if not node.release.advisory_locks:
        return
    node.lock_status(answer)
    c = enter(gate)
    c.query("SELECT pg_advisory_lock(4713)")
    c.query("SELECT pg_advisory_lock(4714)")
    assert c.query("SELECT pg_advisory_unlock(4714)") == [["t"]]
    stir(enter, gate)
    assert c.query("SELECT pg_advisory_unlock(4713)") == [["t"]]


@pytest.mark.parametrize("sqlstate,message", [ERRORS[0], ERRORS[4]], ids=["catalog", "timeout"])
def test_variable_is_not_lost_where_the_gateways_own_query_fails(yuga, enter, sqlstate, message):
    """Any statement may fail so there, the gateway's own too."""
    gate, node = yuga
    c = enter(gate)
    node.fail("current_setting", sqlstate, message)
    try:
        c.query("SET work_mem = '3MB'")
        stir(enter, gate)
        assert c.query("SHOW work_mem") == [["3MB"]]
    except (wire.ServerError, wire.Closed):
        pass  # said, not lost in silence
    stir(enter, gate)
    assert enter(gate).query("SHOW work_mem") != [["3MB"]]


def test_session_that_listens_to_nothing_keeps_no_connection(make_gate, nodes_of, enter):  # noqa: F811
    """2024.2 passes LISTEN over: who has said it holds up nobody."""
    release = yugabyte.RELEASES["2024.2"]  # noqa: F811
    (node,) = nodes_of(release)
    gate = make_gate(settings([node], release, pool_size=1, wait_limit="5s"))
    listening, other = enter(gate), enter(gate)
    listening.query("LISTEN news")
    for c in (other, listening, other):
        assert c.query("SELECT 'served'") == [["served"]]
