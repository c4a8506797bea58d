"""The names that the gateway gives to statements on the server stand in pg_prepared_statements. SQL may not use them, and
what goes behind the gateway's back, in a function, costs one request."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire

ASKS = [wire.parse("SELECT 'mine', $1::text", "mine"), wire.bind("mine", values=("1",)), wire.execute(), wire.sync()]


@pytest.fixture
def pair(make_gate, login):
    """Two sessions of one identity on one connection, where the first has a statement, and its name."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "shards": 1}})
    victim, other = login(gate), login(gate)
    assert wire.rows(victim.ask(*ASKS)) == [["mine", "1"]]
    name, = [row[0] for row in other.query("SELECT name, statement FROM pg_prepared_statements") if "mine" in row[1]]
    return victim, other, name


@pytest.mark.parametrize("how", [
    'DEALLOCATE "{0}"', "DEALLOCATE PREPARE {0}", "deallocate {1}", "EXECUTE {0}", "PREPARE {0} AS SELECT 'of another'",
    "SELECT 1; DEALLOCATE {0}; PREPARE {0} AS SELECT 'of another'", "EXPLAIN EXECUTE {0}",
    "DO $$ BEGIN EXECUTE 'DEALLOCATE {0}'; END $$"])
@pytest.mark.parametrize("form", ["simple", "extended"])
def test_sql_may_not_use_them(pair, how, form):
    victim, other, name = pair
    sql = how.format(name, name.upper())
    if form == "extended" and ";" in sql and not sql.startswith("DO"):
        sql = sql.split("; ")[1]
    with pytest.raises(wire.ServerError) as caught:
        other.query(sql) if form == "simple" else other.extended(sql)
    assert caught.value.code == "42939" and other.status == "I"
    assert wire.rows(victim.ask(*ASKS[1:])) == [["mine", "1"]]


def test_within_a_transaction_it_fails(pair):
    _, other, name = pair
    other.query("BEGIN")
    with pytest.raises(wire.ServerError) as caught:
        other.query(f"DEALLOCATE {name}")
    assert caught.value.code == "42939" and other.status == "E"
    other.query("ROLLBACK")


def test_mentioning_one_is_no_harm(pair):
    _, other, name = pair
    assert other.query(f"SELECT count(*) FROM pg_prepared_statements WHERE name = '{name}'") == [["1"]]
    assert other.extended("SELECT $1::text", (name,)) == [[name]]


def test_what_a_function_drops_is_prepared_anew(pair, stand):
    """Nobody reads along there: who lacks its statement is told once."""
    victim, other, _ = pair
    stand.postgres.sql("CREATE OR REPLACE FUNCTION drop_them() RETURNS text LANGUAGE plpgsql AS "
                       "$$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN 'dropped'; END $$", "acme", "acme_rw")
    try:
        assert other.query("SELECT drop_them()") == [["dropped"]]
        told = wire.errors(victim.ask(*ASKS[1:]))
        assert not told or told[0]["C"] == "26000"
        for _ in range(3):
            assert wire.rows(victim.ask(*ASKS[1:])) == [["mine", "1"]]
    finally:
        stand.postgres.sql("DROP FUNCTION drop_them()", "acme", "acme_rw")
