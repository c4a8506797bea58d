"""A schema before pg_catalog in a session's search_path whose operators say no to everything: the gateway's own
questions are answered all the same."""
# SPDX-License-Identifier: Apache-2.0
import pytest

TYPES = ["text", "name", "oid", '"char"', "int", "regclass"]


@pytest.fixture(scope="module")
def evil(stand):
    made = ["CREATE SCHEMA evil", "GRANT USAGE ON SCHEMA evil TO PUBLIC"]
    for t in TYPES:
        name = t.strip('"')
        made += [f"CREATE FUNCTION evil.never_{name}({t}, {t}) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
                 f"CREATE OPERATOR evil.= (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = evil.never_{name}, HASHES, MERGES)"]
    made += ["CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'nothing'::text $$",
             "CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT ''::text $$",
             "CREATE VIEW evil.pg_settings AS SELECT 1 AS one"]
    stand.postgres.sql(";".join(made), "acme")
    stand.postgres.sql("CREATE PROCEDURE set_unseen(v text) LANGUAGE plpgsql AS "
                       "$$ BEGIN PERFORM pg_catalog.set_config('app.unseen', v, false); END $$", "acme", "acme_rw")
    yield "SET search_path = evil, pg_catalog, public"
    stand.postgres.sql("DROP SCHEMA evil CASCADE; DROP PROCEDURE public.set_unseen(text)", "acme")


@pytest.fixture
def pair(make_gate, login, evil):
    """Two sessions of a small pool, of which one is falsified."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    one, other = login(gate), login(gate)
    one.query(evil)
    assert one.query("SELECT 'a' = 'a'") == [["f"]], "it is falsified"
    return one, other


@pytest.mark.parametrize("cause, ends, asks", [
    ("CREATE TEMPORARY TABLE hidden (id int)", "DROP TABLE hidden", "SELECT count(*) FROM hidden"),
    ("PERFORM pg_advisory_lock(1811)", "SELECT pg_advisory_unlock(1811)",
     "SELECT count(*) FROM pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' "
     "AND pid OPERATOR(pg_catalog.=) pg_backend_pid()"),
    ("LISTEN hidden", "UNLISTEN hidden", "SELECT count(*) FROM pg_listening_channels()"),
], ids=["temporary", "lock", "listen"])
def test_what_a_block_leaves_is_held(pair, cause, ends, asks):
    one, other = pair
    body = cause if cause.startswith("PERFORM") else f"EXECUTE '{cause}'"
    one.query(f"DO $$ BEGIN {body}; END $$")
    before = one.query(asks)
    for _ in range(5):
        assert other.query("SELECT pg_backend_pid()") != one.query("SELECT pg_backend_pid()"), "it is not held"
    assert one.query(asks) == before
    one.query(ends)


@pytest.mark.parametrize("cause, name, value", [
    ("DO $$ BEGIN PERFORM pg_catalog.set_config('work_mem', '7MB', false); END $$", "work_mem", "7MB"),
    ("DO $$ BEGIN PERFORM pg_catalog.set_config('app.seen', 'kept', false); END $$", "app.seen", "kept"),
    ("CALL set_unseen('by a procedure')", "app.unseen", "by a procedure"),
    ("SELECT pg_catalog.set_config('app.plain', 'x', false)", "app.plain", "x"),
], ids=["variable", "of no module", "procedure", "set_config"])
def test_variables_are_followed(pair, cause, name, value):
    one, other = pair
    one.query(cause)
    for _ in range(3):
        other.query(f"SET {name} = '1MB'")
        assert one.query(f"SHOW {name}") == [[value]]


def test_settings_of_the_role_are_known(make_gate, login, evil, stand):
    """The catalog is asked on whatever connection is idle."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "shards": 1}})
    one = login(gate)
    one.query(evil)
    stand.postgres.sql("ALTER ROLE acme_rw SET work_mem = '9MB'")
    try:
        assert login(gate).query("SHOW work_mem") == [["9MB"]]
        assert one.query("SELECT 1") == [["1"]]
    finally:
        stand.postgres.sql("ALTER ROLE acme_rw RESET work_mem")
