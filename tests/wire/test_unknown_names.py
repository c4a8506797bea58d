"""Variables whose names the gate cannot know, or can hardly: what a session sets stays with it, and reaches
no other session of its pool. What cannot be followed from connection to connection keeps its own."""
# SPDX-License-Identifier: Apache-2.0
import struct

import pytest

from stand import wire

PINNED = 11  # the column of SHOW CLIENTS
LONG = "ln." + "x" * 70


@pytest.fixture(scope="module")
def two(module_gate):
    """A session that keeps its connection leaves one to the other."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


@pytest.fixture(scope="module")
def procedures(stand):
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_team; EXCEPTION WHEN duplicate_object THEN END $$; GRANT acme_team TO acme_rw")
    bodies = {
        "un_role": "BEGIN SET ROLE acme_team; END",
        "un_user": "BEGIN SET SESSION AUTHORIZATION acme_rw; SET LOCAL work_mem = '3MB'; END",
        "un_set": "BEGIN SET un.c0 = 'a'; END",
        "un_call": "BEGIN CALL public . \"un_set\"(); END",
        "un_config": "BEGIN PERFORM set_config('un.c0', 'a', false); END",
        "un_text": "BEGIN EXECUTE 'SET un.' || 'c0 = ''a'''; END",
        "un_nothing": "BEGIN UPDATE pg_temp_none SET n = 1; EXCEPTION WHEN OTHERS THEN EXECUTE 'SELECT ' || quote_literal('un.x'); END",
        "un_inner": "BEGIN PERFORM un_function(); END",
    }
    for name, body in bodies.items():
        stand.postgres.sql(f"CREATE OR REPLACE PROCEDURE {name}() LANGUAGE plpgsql AS $p$ {body} $p$", "acme", "acme_rw")
    stand.postgres.sql("CREATE OR REPLACE PROCEDURE \"Un Sql\"(v text) LANGUAGE sql AS $p$ SELECT set_config('un.c0', v, false) $p$",
                       "acme", "acme_rw")
    stand.postgres.sql("CREATE OR REPLACE FUNCTION un_function() RETURNS text LANGUAGE sql AS "
                       "$p$ SELECT set_config('un.inner', 'x', false) $p$", "acme", "acme_rw")


def of(c, name):
    return c.query(f"SELECT coalesce(current_setting('{name}', true), '')")[0][0]


def many(n, last):
    return [f"SET un.c{k} = 'a'" for k in range(n)] + [last]


def once(c, statements):
    c.query("; ".join(statements))


def block(c, statements):
    for sql in ["BEGIN", *statements, "COMMIT"]:
        c.query(sql)


def batch(c, statements):
    sent = []
    for sql in statements:
        sent += [wire.parse(sql), wire.bind(), wire.execute()]
    assert not wire.errors(c.ask(*sent, wire.sync()))


def do(c, statements):
    c.query("DO $$ BEGIN " + "; ".join(statements) + "; END $$")


ROLES = {
    "nine in a text": lambda c: once(c, many(8, "SET ROLE acme_team")),
    "forty in a text": lambda c: once(c, many(40, "SET ROLE acme_team")),
    "forty in a block": lambda c: block(c, many(40, "SET ROLE acme_team")),
    "forty in a batch": lambda c: batch(c, many(40, "SET ROLE acme_team")),
    "do": lambda c: c.query("DO $$BEGIN SET ROLE acme_team; END$$"),
    "do that executes": lambda c: c.query("DO $$BEGIN EXECUTE 'SET ROLE ' || 'acme_team'; END$$"),
    "call": lambda c: c.query("CALL un_role()"),
    "call by the protocol": lambda c: c.extended("CALL public.un_role()"),
    "unicode": lambda c: c.query('SET U&"r\\006fle" = acme_team'),
    "unicode with an escape of its own": lambda c: c.query("SET U&\"r!006fle\" UESCAPE '!' = acme_team"),
    "prepared and dropped": lambda c: [c.query(q) for q in ("PREPARE p AS SELECT set_config('role', 'acme_team', false)",
                                                             "EXECUTE p", "DEALLOCATE p")],
    "large": lambda c: c.query("SELECT '" + "x" * 40000 + "'; SET ROLE acme_team"),
    "large do": lambda c: c.query("DO $$BEGIN PERFORM '" + "x" * 40000 + "'; SET ROLE acme_team; END$$"),
    "large call": lambda c: c.query("SELECT '" + "x" * 40000 + "'; CALL un_role()"),
}


@pytest.mark.parametrize("how", ROLES)
def test_role_stays_with_its_session(two, login, procedures, how):
    a, b = login(two), login(two)
    b.query("SELECT 1")
    ROLES[how](a)
    for _ in range(3):
        assert b.query("SELECT current_user") == [["acme_rw"]]
        assert a.query("SELECT current_user, current_setting('role')") == [["acme_team"] * 2]
    a.send(wire.terminate())
    for c in (b, login(two), login(two)):
        assert c.query("SELECT current_user, current_setting('role')") == [["acme_rw", "none"]]


CUSTOM = {
    "nine in a text": lambda c: once(c, many(9, "SELECT 1")),
    "a hundred in a text": lambda c: once(c, many(100, "SELECT 1")),
    "six hundred in a text": lambda c: once(c, many(600, "SELECT 1")),
    "a hundred in a block": lambda c: block(c, many(100, "SELECT 1")),
    "a hundred in a batch": lambda c: batch(c, many(100, "SELECT 1")),
    "a hundred by set_config": lambda c: c.query("SELECT " + ", ".join(f"set_config('un.c{k}', 'a', false)" for k in range(100))),
    "large": lambda c: once(c, many(100, "SELECT '" + "x" * 40000 + "'")),
    "do": lambda c: do(c, many(100, "PERFORM 1")),
    "do with quoted names": lambda c: do(c, ["SET \"un\" . \"C0\" TO 'a'", "SET SESSION /* of */ \"un.c1\" = a"]),
    "do in a string": lambda c: c.query("DO ' BEGIN SET un.c0 = ''a''; END '"),
    "do with escapes": lambda c: c.query("DO E' BEGIN S\\x45T un.c0 = ''a''; END '"),
    "do in capitals": lambda c: do(c, ["PERFORM SET_CONFIG('un.c0', 'a', false)"]),
    "do that joins": lambda c: do(c, ["EXECUTE 'SET un.'||'c0=''a'''"]),
    "do that joins a word": lambda c: do(c, ["EXECUTE 'S' || 'ET un.c0=''a'''"]),
    "do that formats": lambda c: do(c, ["EXECUTE format('SET %I.%I=%L', 'un', 'c0', 'a')"]),
    "do that formats a word": lambda c: do(c, ["EXECUTE format('S%I un.c0 = %L', 'et', 'a')"]),
    "do that formats a statement": lambda c: do(c, ["EXECUTE format('%I un.c0 = %L', 'set', 'a')"]),
    "do that executes a variable": lambda c: c.query(
        "DO $$ DECLARE q text := reverse('''a'' = 0c.nu TES'); BEGIN EXECUTE q; END $$"),
    "do with unicode": lambda c: do(c, ["SET un.U&\"c\\0030\" = a"]),
    "do that calls": lambda c: do(c, ["CALL un_set()"]),
    "call": lambda c: c.query("CALL un_set()"),
    "call behind a comment": lambda c: c.query("/* CALL me */ CALL -- this\n public.un_set()"),
    "call by the protocol": lambda c: c.extended("CALL un_set()"),
    "call of a call": lambda c: c.query("CALL un_call()"),
    "call of set_config": lambda c: c.query("CALL un_config()"),
    "call that executes": lambda c: c.query("CALL un_text()"),
    "call of sql": lambda c: c.query("CALL \"Un Sql\"('a')"),
    "call with unicode": lambda c: c.query("CALL U&\"un\\005fset\"()"),
    "call in a block": lambda c: block(c, ["CALL un_set()"]),
    "two calls": lambda c: c.query("CALL un_nothing(); CALL un_set()"),
    "function call": lambda c: c.ask(wire.message("F", struct.pack("!ihh", 2078, 0, 3) + b"".join(
        struct.pack("!i", len(v)) + v for v in (b"un.c0", b"a", b"f")) + struct.pack("!h", 0))),
    "unicode": lambda c: c.query("SET un.U&\"c\\0030\" = 'a'"),
    "unicode beside": lambda c: c.query("SELECT set_config('un.c1', 'a', false), U&\"set\\005fconfig\"('un.c0', 'a', false)"),
    "prepared and dropped": lambda c: [c.query(q) for q in ("PREPARE p AS SELECT set_config('un.c0', 'a', false)",
                                                             "EXECUTE p", "DEALLOCATE p")],
}


@pytest.mark.parametrize("how", CUSTOM)
def test_variables_of_no_module_stay_with_their_session(two, login, procedures, how):
    a, b = login(two), login(two)
    b.query("SELECT 1")
    CUSTOM[how](a)
    names = [f"un.c{k}" for k in range(600)]
    set_ = [n for n in names if of(a, n) == "a"] if "hundred" in how else [n for n in names[:9] if of(a, n) == "a"]
    assert set_, "none was set"
    for n in (set_[0], set_[-1]):
        for _ in range(2):
            assert of(b, n) == "", n
            assert of(a, n) == "a", n
    a.send(wire.terminate())
    for c in (b, login(two), login(two)):
        assert all(of(c, n) == "" for n in set_)


@pytest.mark.parametrize("length", [63, 64, 70, 124, 125, 200])
def test_long_names(two, login, length):
    a, b = login(two), login(two)
    name = "ln." + "x" * length
    a.query(f"SELECT set_config('{name}', 'a', false)")
    for _ in range(2):
        assert of(b, name) == ""
        assert of(a, name) == "a"
    a.send(wire.terminate())
    for c in (b, login(two), login(two)):
        assert of(c, name) == ""


def test_long_name_that_the_server_cuts(two, login):
    a, b = login(two), login(two)
    a.query(f"SET {LONG} = 'a'")
    for _ in range(2):
        assert of(b, LONG[:66]) == ""
        assert of(a, LONG[:66]) == "a"


FREE = {
    "call": "CALL un_nothing()",
    "call that sets": "CALL un_set()",
    "call of what is not there": "CALL un_missing()",
    "role": "CALL un_role()",
    "user": "CALL un_user()",
    "do": "DO $$ BEGIN SET un.c0 = 'a'; END $$",
    "do that creates": "DO $$ BEGIN EXECUTE 'CREATE TABLE ' || quote_ident('un_table') || ' (n int)';"
                       " EXECUTE format('DROP TABLE %I', 'un_table'); END $$",
    "do with remarks": "DO $$ BEGIN\n -- execute what is set, then call it\n PERFORM 1; END $$",
    "do in the language": "DO LANGUAGE plpgsql $$ BEGIN EXECUTE $q$SELECT 1$q$; END $$",
    "many": "; ".join(many(100, "RESET ALL")),
    "reset": "RESET ALL",
}


@pytest.mark.parametrize("how", FREE)
def test_what_is_known_keeps_no_connection(two, login, console, procedures, how):
    """A pool of two, and three sessions that have all run it."""
    for _ in range(3):
        c = login(two, application_name=f"free {how}")
        c.ask(wire.query(FREE[how]))
        c.query("SELECT 1")
    assert {row[PINNED] or "" for row in console(two).query("SHOW CLIENTS")} == {""}


def test_what_a_procedure_calls_reaches_nobody(two, login, procedures):
    """Functions cannot be followed, but what a procedure's have set is reset for the others."""
    a, *others = [login(two) for _ in range(4)]
    for _ in range(3):
        a.query("CALL un_inner()")
        for b in others:
            assert of(b, "un.inner") == ""


def test_what_is_prepared_survives_a_procedure(make_gate, login, procedures):
    """The variables are reset behind a CALL, and not all of the connection (DISCARD ALL)."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.ask(wire.parse("SELECT 4711", "kept"), wire.sync())
    a.ask(wire.bind("kept"), wire.execute(), wire.sync())
    a.query("CALL un_nothing()")
    assert ["f"] in b.query("SELECT from_sql FROM pg_prepared_statements WHERE statement LIKE 'SELECT 4711%'")
