"""A session's variables that cannot be set any more on a server connection: what can be had is had, what
cannot is dropped with a warning, and nothing ever runs as somebody else."""
# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest

from stand import proc, wire


@pytest.fixture
def granted(stand):
    """granted(role): acme_rw may become it, until revoked() takes that away."""
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_lent; EXCEPTION WHEN duplicate_object THEN END $$;"
                       " GRANT acme_lent TO acme_rw")
    yield "acme_lent"
    stand.postgres.sql("REVOKE acme_lent FROM acme_rw")


@pytest.fixture
def lost(one, login, stand, granted):
    """A session whose role was taken away from it, and one that its connection was lent to since."""
    a, b = login(one), login(one)
    a.query(f"SET ROLE {granted}")
    a.query("SET work_mem = '3MB'")
    b.query("SELECT 1")
    assert a.query("SELECT current_user") == [[granted]]
    stand.postgres.sql(f"REVOKE {granted} FROM acme_rw")
    b.query("SELECT 1")
    return a, b


def who(c):
    return c.query("SELECT current_user")[0][0]


def refused(messages, code="42501"):
    got = wire.errors(messages)
    assert [e["C"] for e in got] == [code], got
    return got[0]


def warnings(messages):
    return [wire.error_fields(body) for kind, body in messages if kind == "N"]


@pytest.mark.parametrize("sql", ["SELECT current_user", "SELECT 1; RESET ROLE", "BEGIN; RESET ROLE; SELECT current_user; ROLLBACK; SELECT current_user",
                                 "ROLLBACK; SELECT current_user", "SET work_mem = '4MB'", "SET LOCAL ROLE NONE",
                                 "SELECT set_config('role', 'none', false)", "EXECUTE nothing", "COPY (SELECT 1) TO STDOUT"])
def test_nothing_runs_without_its_role(lost, sql):
    a, b = lost
    for _ in range(2):
        messages = a.ask(wire.query(sql))
        if sql.startswith("BEGIN"): # it would run in pieces
            break
        error = refused(messages)
        assert error["S"] == "ERROR" and "acme_lent" in error["M"] and "RESET ROLE" in error["H"]
        assert messages[-1] == ("Z", b"I")
        assert b.query("SELECT current_user, current_setting('work_mem')") == [["acme_rw", "4MB"]]


@pytest.mark.parametrize("sql", ["SELECT current_user", "SET work_mem = '4MB'"])
def test_nothing_runs_without_its_role_in_the_extended_protocol(lost, sql):
    a, b = lost
    for batch in ([wire.one(sql)], [wire.parse(sql, "kept"), wire.describe("S", "kept")], [wire.one("RESET ROLE"), wire.one(sql)],
                  [wire.parse("RESET ROLE"), wire.one(sql)], [wire.one("BEGIN"), wire.one(sql), wire.one("COMMIT")],
                  [wire.one("BEGIN"), wire.one("RESET ROLE"), wire.one(sql)]):
        messages = a.ask(*batch, wire.sync())
        refused(messages)
        assert not wire.rows(messages)
        if messages[-1] == ("Z", b"E"):
            a.query("ROLLBACK")
        assert who(b) == "acme_rw"
        refused(a.ask(wire.query("SELECT 1")))


CURES = [("RESET ROLE", "acme_rw", "3MB"), ("SET ROLE NONE", "acme_rw", "3MB"), ("SET ROLE acme_rw", "acme_rw", "3MB"),
         ("SET SESSION AUTHORIZATION DEFAULT", "acme_rw", "3MB"), ("RESET SESSION AUTHORIZATION", "acme_rw", "3MB"), ("DISCARD ALL", "acme_rw", "4MB"),
         ("SET ROLE NONE; SELECT current_user", "acme_rw", "3MB"), (" /* ; */ reset role ; RESET ALL", "acme_rw", "4MB")]


@pytest.mark.parametrize("sql,role,memory", CURES)
def test_what_ends_it(lost, sql, role, memory):
    a, b = lost
    a.query(sql)
    for _ in range(2):
        assert a.query("SELECT current_user, current_setting('work_mem')") == [[role, memory]]
        assert who(b) == "acme_rw"


@pytest.mark.parametrize("sql,role,memory", [c for c in CURES if c[0].count(";") == 0])
def test_what_ends_it_in_the_extended_protocol(lost, sql, role, memory):
    a, b = lost
    assert not wire.errors(a.ask(wire.parse(sql, "cure"), wire.describe("S", "cure"), wire.sync()))
    assert not wire.errors(a.ask(wire.bind("cure"), wire.execute(), wire.sync()))
    for _ in range(2):
        assert a.extended("SELECT current_user, current_setting('work_mem')") == [[role, memory]]
        assert who(b) == "acme_rw"


def test_what_ends_it_within_a_transaction(lost):
    a, b = lost
    a.query("BEGIN")
    a.query("SET ROLE NONE")
    assert who(a) == "acme_rw"
    a.query("COMMIT")
    assert who(b) == who(a) == "acme_rw"


@pytest.mark.parametrize("batch", [["SET ROLE NONE"], ["SAVEPOINT s", "SET ROLE NONE"]])
def test_what_has_ended_it_is_rolled_back(lost, batch):
    a, b = lost
    a.query("BEGIN")
    for sql in batch:
        a.query(sql)
    a.query("ROLLBACK")
    assert who(b) == "acme_rw"
    refused(a.ask(wire.query("SELECT 1")))
    a.query("RESET ROLE")
    assert who(a) == "acme_rw"


@pytest.mark.parametrize("sql", ["ROLLBACK; SELECT current_user", "ROLLBACK TO s; SELECT current_user", "COMMIT; SELECT current_user"])
def test_nothing_runs_behind_its_end(lost, sql):
    """Behind the ROLLBACK the session is without its role again; in one text, and in one batch."""
    a, b = lost
    for extended in (False, True):
        for each in ("BEGIN", "SAVEPOINT s", "SET ROLE NONE", "SELECT 1"):
            a.query(each)
        parts = [wire.one(each) for each in sql.split("; ")] + [wire.sync()] if extended else [wire.query(sql)]
        messages = a.ask(*parts)
        refused(messages)
        assert not wire.rows(messages)
        if messages[-1] == ("Z", b"E"):
            a.query("ROLLBACK")
        assert who(b) == "acme_rw"
        refused(a.ask(wire.query("SELECT 1")))


def test_in_a_block_the_refusal_fails_the_block(lost):
    a, b = lost
    a.query("BEGIN")
    messages = a.ask(wire.query("SELECT 1"))
    assert refused(messages)["M"].startswith("permission denied") and messages[-1] == ("Z", b"E")
    assert wire.errors(a.ask(wire.query("RESET ROLE")))[0]["C"] == "25P02"
    a.query("ROLLBACK")
    refused(a.ask(wire.query("SELECT 1")))
    assert who(b) == "acme_rw"


@pytest.mark.parametrize("sql", ["SET ROLE nobody_has_this_name", "SET ROLE acme_lent", "RESET ALL", "ROLLBACK", "COMMIT", "BEGIN; COMMIT"])
def test_what_does_not_end_it(lost, sql):
    a, b = lost
    for extended in (False, True):
        if extended and ";" in sql:
            continue
        for each in sql.split("; "):
            a.ask(wire.one(each), wire.sync()) if extended else a.ask(wire.query(each))
        assert who(b) == "acme_rw"
        refused(a.ask(wire.query("SELECT current_user")))


def test_nothing_overtakes_what_ends_it(lost):
    """Sent at once: each is run when it is known whether the role is another."""
    a, b = lost
    a.send(wire.query("SET ROLE nobody_has_this_name"), wire.query("SELECT current_user"), wire.query("BEGIN"),
           wire.query("RESET ROLE"), wire.query("SELECT current_user"), wire.query("ROLLBACK"), wire.query("SELECT current_user"),
           wire.query("RESET ROLE"), wire.query("SELECT current_user"))
    got = [a.until("Z") for _ in range(9)]
    assert [wire.errors(m)[0]["C"] if wire.errors(m) else wire.rows(m) for m in got] == [
        "22023", "42501", [], [], [["acme_rw"]], [], "42501", [], [["acme_rw"]]]
    assert who(b) == "acme_rw"


def test_role_is_there_again(lost, stand, granted):
    a, b = lost
    refused(a.ask(wire.query("SELECT 1")))
    stand.postgres.sql(f"GRANT {granted} TO acme_rw")
    assert who(b) == "acme_rw"
    assert a.query("SELECT current_user, current_setting('work_mem')") == [[granted, "3MB"]]


def test_function_call_is_refused(lost):
    a, _ = lost
    refused(a.ask(wire.message("F", bytes.fromhex("00000385") + b"\0\0" * 3)))
    a.query("RESET ROLE")


@pytest.fixture
def mine(stand):
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION IF EXISTS public.mine; CREATE TEXT SEARCH CONFIGURATION public.mine (COPY = pg_catalog.simple)", "acme")
    yield "public.mine"
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION IF EXISTS public.mine", "acme")


@pytest.mark.parametrize("how", ["query", "extended", "BEGIN", "quiet"])
def test_what_is_gone_is_dropped_with_a_warning(one, login, stand, mine, how):
    a, b = login(one, application_name="me"), login(one)
    a.query("SET default_text_search_config = 'public.mine'")
    a.query("SET work_mem = '3MB'")
    a.query("SET statement_timeout = '31s'")
    if how == "quiet":
        a.query("SET client_min_messages = error")
    b.query("SELECT 1")
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION public.mine", "acme")
    b.query("SELECT 1")
    begun = how == "BEGIN"
    messages = a.ask(wire.one("SELECT 1"), wire.sync()) if how == "extended" else a.ask(wire.query("BEGIN" if begun else "SELECT 1"))
    assert not wire.errors(messages)
    told = warnings(messages)
    if how == "quiet":
        assert not told
    else:
        assert [(w["S"], w["C"]) for w in told] == [("WARNING", "01000")] and messages[0][0] == "N"
        assert "default_text_search_config" in told[0]["M"] and "public.mine" in told[0]["M"]
    if begun:
        a.query("COMMIT")
    for _ in range(2):
        messages = a.ask(wire.query("SELECT current_setting('work_mem'), current_setting('statement_timeout'), current_setting('application_name'),"
                                    " current_setting('default_text_search_config') <> 'public.mine'"))
        assert not warnings(messages) and wire.rows(messages) == [["3MB", "31s", "me", "t"]]
        b.query("SELECT 1")


def test_what_is_gone_and_a_role(one, login, stand, mine, granted):
    """Two faults at once; and one that a role's own rights could not help."""
    a, b = login(one), login(one)
    a.query("SET default_text_search_config = 'public.mine'")
    a.query("SET work_mem = '3MB'")
    a.query(f"SET ROLE {granted}")
    b.query("SELECT 1")
    stand.postgres.sql(f"DROP TEXT SEARCH CONFIGURATION public.mine; REVOKE {granted} FROM acme_rw", "acme")
    b.query("SELECT 1")
    refused(a.ask(wire.query("SELECT 1")))
    stand.postgres.sql(f"GRANT {granted} TO acme_rw")
    b.query("SELECT 1")
    messages = a.ask(wire.query("SELECT current_user, current_setting('work_mem')"))
    assert wire.rows(messages) == [[granted, "3MB"]] and len(warnings(messages)) == 1


def test_several_that_are_gone(one, login, stand, mine):
    a, b = login(one), login(one)
    stand.postgres.sql("DROP ROLE IF EXISTS acme_brief; CREATE ROLE acme_brief")
    a.query("SET default_text_search_config = 'public.mine'; SET temp_tablespaces = ''; SET app.x = 'kept'; SET work_mem = '3MB'")
    b.query("SELECT 1")
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION public.mine", "acme")
    b.query("SELECT 1")
    messages = a.ask(wire.query("SELECT current_setting('app.x'), current_setting('work_mem')"))
    assert wire.rows(messages) == [["kept", "3MB"]] and len(warnings(messages)) == 1


@pytest.fixture
def admin(stand):
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_admin SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$;"
                       " GRANT acme_admin TO acme_rw")
    yield "acme_admin"
    stand.postgres.sql("REVOKE acme_admin FROM acme_rw; DROP ROLE acme_admin")


ADMIN = ["SET ROLE acme_admin; SET log_min_duration_statement = '77s'; RESET ROLE",
         "SET ROLE acme_admin|SET log_min_duration_statement = '77s'|RESET ROLE",
         "SET ROLE acme_admin|SET log_min_duration_statement = '77s'",
         "BEGIN|SET LOCAL ROLE acme_admin|SET log_min_duration_statement = '77s'|COMMIT"]


@pytest.mark.parametrize("sql", ADMIN)
def test_what_only_another_role_may_set(make_gate, login, admin, sql):
    """Where it is seen in time, the session keeps the connection that has it; else it is dropped with a warning.
    Nobody is locked out, and nobody else gets it."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1 if "LOCAL" in sql else 2, "shards": 1}})
    a, b = login(gate), login(gate)
    before = b.query("SHOW log_min_duration_statement")
    for each in sql.split("|"):
        a.query(each)
    assert b.query("SHOW log_min_duration_statement") == before
    messages = a.ask(wire.query("SHOW log_min_duration_statement"))
    assert not wire.errors(messages)
    assert (wire.rows(messages), len(warnings(messages))) == (([["77s"]], 0) if "LOCAL" not in sql else (before, 1))
    a.query("DISCARD ALL")
    assert a.query("SHOW log_min_duration_statement") == before


ENCODINGS = [("SJIS", "\u8868"), ("BIG5", "\u529f"), ("GBK", "\u8a98"), ("UHC", "\uac02"), ("SHIFT_JIS_2004", "\u8868"), ("LATIN1", "\xe9"), ("UTF8", "\u8868\U0001f600")]
CODECS = {"SHIFT_JIS_2004": "shift_jis_2004", "GBK": "gbk", "UHC": "cp949"}


@pytest.fixture(scope="module")
def two(module_gate):
    """Who has an encoding with backslashes in its characters keeps its connection."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


@pytest.mark.parametrize("encoding,character", ENCODINGS)
@pytest.mark.parametrize("quote", ["off", "on"])
def test_values_in_encodings_of_clients(one, two, login, encoding, character, quote):
    """Bytes that look like a backslash, and values that would go on as SQL if such a byte ended them early."""
    gate = one if encoding in ("LATIN1", "UTF8") else two
    a, b = login(gate), login(gate)
    codec = CODECS.get(encoding, encoding.lower())
    a.query(f"SET client_encoding = '{encoding}'")
    a.query(f"SET backslash_quote = {quote}")
    evil = "',false); CREATE TABLE public.evil (n int); SET ROLE acme_team; --"
    character = character.encode(codec)
    evil = evil.encode()
    values = [character, character + b"'", b"\\" + character, character + evil, character * 3 + b"\\'" + evil, evil + character]
    for value in values:
        messages = a.ask(wire.message("Q", b"SET app.x = '" + value.replace(b"'", b"''") + b"'\0"))
        assert not wire.errors(messages), wire.errors(messages)
        b.query("SELECT 1")
        for _ in range(2):
            messages = a.ask(wire.query("SELECT current_setting('app.x')"))
            assert not wire.errors(messages)
            body = next(body for kind, body in messages if kind == "D")
            assert body[6:] == value
            row = b.query("SELECT to_regclass('public.evil') IS NULL, current_user, coalesce(current_setting('app.x', true), '')")
            assert row == [["t", "acme_rw", ""]]
    a.query("RESET client_encoding")
    b.query("SELECT 1")
    assert a.query("SELECT current_setting('app.x')") == [[values[-1].decode(codec)]]
    a.query("DISCARD ALL")


def test_name_in_an_encoding_of_clients(two, login):
    """A name that the server has refused is asked for, too: it must not go on as SQL."""
    a, b = login(two), login(two)
    a.query("SET client_encoding = 'SJIS'")
    name = b"app.\x95\x5c"
    evil = b"),(set_config((E'role'),(E'acme_team'),false)),("
    a.ask(wire.message("Q", b'SET "' + name + b'" = 1; SET "' + evil + b'" = 2\0'))
    with contextlib.suppress(wire.ServerError):
        a.query("SELECT 1")
    assert who(b) == "acme_rw"
    a.query("DISCARD ALL")
    assert who(a) == who(b) == "acme_rw"


def test_session_authorization_that_cannot_be_set(make_gate, login, stand, granted):
    """RESET ROLE does not end this, and what has ended it is the session's own role."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    away = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'acme' AND usename = 'acme_rw'"
    stand.postgres.sql("ALTER ROLE acme_rw SUPERUSER")
    try:
        a, b = login(gate), login(gate)
        a.query(f"SET SESSION AUTHORIZATION {granted}")
        a.query("SET work_mem = '3MB'")
        b.query("SELECT 1")
        assert a.query("SELECT session_user, current_setting('work_mem')") == [[granted, "3MB"]]
        b.query("SELECT 1")
    finally:
        stand.postgres.sql("ALTER ROLE acme_rw NOSUPERUSER")
    proc.await_exit(row[0] for row in stand.postgres.sql(away))
    for sql in ("SELECT session_user", "RESET ROLE", "SET ROLE NONE", "SET work_mem = '4MB'"):
        refused(a.ask(wire.query(sql)))
    a.query("RESET SESSION AUTHORIZATION")
    assert a.query("SELECT session_user, current_user, current_setting('work_mem')") == [["acme_rw", "acme_rw", "3MB"]]


def test_temp_buffers_where_temporary_tables_were_used(make_gate, login):
    """It cannot be set in such a process: another one is had for it."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("SET temp_buffers = '2MB'")
    b.query("CREATE TEMP TABLE t AS SELECT 1; DROP TABLE t")
    for _ in range(3):
        messages = a.ask(wire.query("SHOW temp_buffers"))
        assert wire.rows(messages) == [["2MB"]] and not warnings(messages)
        b.query("CREATE TEMP TABLE t AS SELECT 1; DROP TABLE t")


def test_startup_value_that_is_gone(one, login, stand, mine):
    """It is told once, and DISCARD ALL does not bring it back."""
    a, b = login(one, options="-c default_text_search_config=public.mine -c work_mem=3MB"), login(one)
    assert a.query("SHOW default_text_search_config") == [["public.mine"]]
    b.query("SELECT 1")
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION public.mine", "acme")
    b.query("SELECT 1")
    assert len(warnings(a.ask(wire.query("SELECT 1")))) == 1
    a.query("DISCARD ALL")
    b.query("SELECT 1")
    messages = a.ask(wire.query("SHOW work_mem"))
    assert wire.rows(messages) == [["3MB"]] and not warnings(messages)


def test_pinned_session_is_not_ended_by_a_startup_value_that_is_gone(make_gate, login, stand, mine):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    a = login(gate, options="-c default_text_search_config=public.mine -c work_mem=3MB")
    a.query("LISTEN something")
    stand.postgres.sql("DROP TEXT SEARCH CONFIGURATION public.mine", "acme")
    a.query("RESET default_text_search_config")
    messages = a.ask(wire.query("SHOW work_mem"))
    assert wire.rows(messages) == [["3MB"]]
    assert a.query("SELECT * FROM pg_listening_channels()") == [["something"]]
