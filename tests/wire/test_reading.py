# SPDX-License-Identifier: Apache-2.0
"""Texts that the server may read otherwise than the gateway: what they do stays with their session."""
import pytest

from stand import wire

HIDDEN = "SET work_mem = '77MB'"
# The last byte of the character is a backslash (0x5c), with which a string would seem to go on.
SJIS = {"SJIS": b"\x95\x5c", "SHIFT_JIS_2004": b"\x95\x5c", "BIG5": b"\xa5\x5c", "GBK": b"\x95\x5c", "GB18030": b"\x95\x5c"}


def raw(sql):
    return wire.message("Q", sql + b"\0")


def attack_by_encoding(c, encoding):
    """standard_conforming_strings is off, so that a backslash counts; for the server it is none here."""
    c.ask(raw(b"SELECT '" + SJIS[encoding] + b"'; " + HIDDEN.encode() + b"; --'"))


@pytest.mark.parametrize("how", ["startup", "SET"])
@pytest.mark.parametrize("encoding", SJIS)
def test_encoding_with_backslashes_in_its_characters(one, login, encoding, how):
    more = {"client_encoding": encoding} if how == "startup" else {}
    a = login(one, **more)
    if how == "SET":
        a.query(f"SET client_encoding = '{encoding}'")
    a.query("SET standard_conforming_strings = off")
    attack_by_encoding(a, encoding)
    assert a.query("SHOW work_mem") == [["77MB"]], "it was no attack"
    a.close()
    with login(one) as b:
        assert b.query("SHOW work_mem") == [["4MB"]]


@pytest.mark.parametrize("how", ["block", "pipeline", "extended", "function"])
def test_strings_read_otherwise_within_a_transaction(one, login, how):
    off = {"function": "SELECT set_config('standard_conforming_strings', 'off', true)"}.get(
        how, "SET LOCAL standard_conforming_strings = off" if how != "pipeline" else "SET standard_conforming_strings = off")
    hidden = "SELECT '\\''; " + HIDDEN + "; --'"
    with login(one) as a:
        if how == "pipeline":
            a.send(wire.query(off), wire.query(hidden))
            a.until("Z")
            a.until("Z")
        elif how == "extended":
            a.ask(wire.one("BEGIN"), wire.one(off), wire.sync())
            a.ask(wire.query(hidden))
            a.query("COMMIT")
        else:
            a.query("BEGIN")
            a.ask(wire.query(off))
            a.ask(wire.query(hidden))
            a.query("COMMIT")
        assert a.query("SHOW work_mem") == [["77MB"]], "it was no attack"
    with login(one) as b:
        assert b.query("SHOW work_mem") == [["4MB"]]


def test_text_that_others_have_read_otherwise(one, login):
    """Statements of one text are shared; what it does is looked at for each reading."""
    with login(one) as a, login(one) as c:
        sql = "DO '\\'; BEGIN SET work_mem = ''77MB''; END; --'"
        a.ask(wire.parse(sql, "n"), wire.sync())
        c.query("SET standard_conforming_strings = off")
        c.ask(wire.parse(sql, "n"), wire.sync())
        c.ask(wire.bind("n"), wire.execute(), wire.sync())
    with login(one) as b:
        assert b.query("SHOW work_mem") == [["4MB"]]


PATHS = {"long text": ["BEGIN", "SELECT '" + 70000 * "x" + "'; SET LOCAL search_path = pg_temp, public"],
         "prepared": ["PARSE SET LOCAL search_path = pg_temp, public", "BEGIN", "EXECUTE"],
         "SET": ["SET search_path = pg_temp, public"], "LOCAL": ["BEGIN", "SET LOCAL search_path = pg_temp, public"],
         "set_config": ["SELECT set_config('search_path', 'pg_' || 'temp, public', false)"],
         "block": ["DO $$ BEGIN SET search_path = pg_temp, public; END $$"],
         "escapes": ['SET search_path = U&"pg\\005ftemp", public']}


@pytest.mark.parametrize("how", PATHS)
def test_table_made_in_pg_temp_without_a_word_catches_nobody(one, login, stand, table, how):
    with login(one) as a:
        for sql in PATHS[how]:
            if sql.startswith("PARSE "):
                a.ask(wire.parse(sql[6:], "n"), wire.sync())
            elif sql == "EXECUTE":
                a.ask(wire.bind("n"), wire.execute(), wire.sync())
            else:
                a.query(sql)
        a.query(f"CREATE TABLE {table} (id int, words text)")
        if "BEGIN" in PATHS[how]:
            a.query("COMMIT")
        a.query("RESET search_path")
        a.query("SELECT 1")
        with login(one, "globex"):
            pass
        assert a.query(f"SELECT count(*) FROM pg_temp.{table}") == [["0"]]
    with login(one) as victim:
        victim.query(f"INSERT INTO {table} VALUES (1, 'mine')")
    assert stand.postgres.sql(f"SELECT words FROM {table}", "acme") == [["mine"]]


def test_startup_packet_with_pg_temp_first(one, login, stand, table):
    with login(one, options="-c search_path=pg_temp,public") as a:
        a.query(f"CREATE TABLE {table} (id int, words text)")
        a.query("SELECT 1")
    with login(one) as victim:
        victim.query(f"INSERT INTO {table} VALUES (1, 'mine')")
    assert stand.postgres.sql(f"SELECT words FROM {table}", "acme") == [["mine"]]
