"""Random histories of what sets and resets variables: through a pool that another session stirs,
each variable has the value that it has on the server itself."""
# SPDX-License-Identifier: Apache-2.0
import random
import re

import pytest

from stand import wire

HISTORIES = 30
LENGTH = 24
LONG = "ln." + "x" * 70
NAMES = ["work_mem", "search_path", "timezone", "datestyle", "intervalstyle", "extra_float_digits", "application_name",
         "standard_conforming_strings", "client_min_messages", "bytea_output", "default_transaction_isolation",
         "default_transaction_read_only", "transaction_read_only", "role", "session_authorization", "my.own", "my.other", LONG,
         *(f"my.n{k}" for k in range(0, 50, 7))]
VALUES = {"work_mem": ["'1MB'", "'2MB'", "64"], "search_path": ["pg_catalog", "public, pg_catalog", "''"],
          "timezone": ["'UTC'", "'Asia/Tokyo'", "-3"], "datestyle": ["'ISO'", "'SQL, DMY'", "'German'"],
          "intervalstyle": ["'iso_8601'", "'postgres'"], "extra_float_digits": ["0", "3", "-2"],
          "application_name": ["'one'", "'two words'"], "standard_conforming_strings": ["on"],
          "client_min_messages": ["warning", "'error'"], "bytea_output": ["escape", "hex"],
          "default_transaction_isolation": ["serializable", "'repeatable read'"],
          "default_transaction_read_only": ["on", "off"], "role": ["acme_team", "acme_rw", "none"],
          "session_authorization": ["acme_rw", "DEFAULT"], "my.own": ["'x'", "''"], "my.other": ["'y z'"]}
PROCEDURES = {
    "rs_set": "EXECUTE format('SET %I = %L', n, v)",  # any name
    "rs_role": "SET ROLE acme_team",
    "rs_own": "SET my.own = 'of a procedure'; SET work_mem = '5MB'",
    "rs_config": "PERFORM set_config('my.other', v, false)",
    "rs_call": "CALL rs_own(n, v); CALL rs_role(n, v)",
    "rs_reset": "RESET ROLE; RESET my.own; RESET work_mem",
    "rs_none": "PERFORM n || v"}


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def escaped(name):
    """A name as U&"..." with one letter in another form."""
    return ".".join(f'U&"\\{ord(part[0]):04x}{part[1:]}"' for part in name.split("."))


def unread(r):
    """What the gate cannot follow by a name that it reads, or only by many."""
    name = r.choice(["role", "my.own", "my.other", "work_mem", "timezone", "datestyle"])
    value = r.choice(VALUES[name])
    text = value.strip("'")
    many = [f"SET my.n{k} = {quoted(text)}" for k in range(r.choice([7, 8, 9, 15, 50]))]
    how = r.randrange(14)
    if how == 0:
        return "; ".join([*many, f"SET {name} = {value}"])
    if how == 1:
        return "SELECT " + ", ".join(f"set_config('my.n{k}', {quoted(text)}, false)" for k in range(50))
    if how == 2:
        return "DO $$ BEGIN " + "; ".join([*many, f"SET {name} = {value}"]) + "; END $$"
    if how == 3:
        return f"SET {escaped(name)} = {value}"
    if how == 4:
        return f"SELECT set_config('{LONG}', {quoted(text)}, {r.choice(['true', 'false'])})"
    if how == 5:
        return f"DO $$ BEGIN EXECUTE 'SET ' || '{name} = ' || {quoted(value)}; END $$"
    if how == 6:
        return f"DO $$ BEGIN EXECUTE format('SET {'%I.%I' if '.' in name else '%I'} = %L', " + \
            ", ".join(quoted(part) for part in [*name.split("."), text]) + "); END $$"
    if how == 7:
        return f"DO $$ BEGIN CALL {r.choice(list(PROCEDURES))}({quoted(name.replace('my.', 'my_'))}, {quoted(text)}); END $$"
    if how == 8:
        return f"RESET {r.choice([escaped(name), name])}"
    if how == 9:
        return f"SELECT set_config({quoted(name)} || '', {quoted(text)}, false)"
    if how == 10:
        return f"SELECT 1; CALL {r.choice(list(PROCEDURES))}('work_mem', '6MB'); SELECT 2"
    return f"CALL {r.choice(list(PROCEDURES))}({quoted(r.choice(['role', 'work_mem', 'timezone']))}, {quoted(text)})"


def one_statement(r, open_, unread_too=True):
    """One random statement; open_: is there a transaction?"""
    if unread_too and r.random() < 0.3:
        return unread(r)
    name = r.choice(list(VALUES))
    value = r.choice(VALUES[name])
    how = r.random()
    if how < 0.35:
        return f"SET {r.choice(['', '', 'SESSION ', 'LOCAL '])}{name} {r.choice(['=', 'TO'])} {r.choice([value, value, 'DEFAULT'])}"
    if how < 0.42:
        local, text = r.choice(["true", "false"]), value.strip("'")
        return f"SELECT set_config('{name}', '{text}', {local})"
    if how < 0.52:
        return f"RESET {name}"
    if how < 0.62:
        return r.choice(["SET ROLE acme_team", "SET ROLE NONE", "RESET ROLE", "SET SESSION AUTHORIZATION acme_rw",
                         "RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "SET LOCAL ROLE acme_team",
                         "SET TIME ZONE 'Europe/Rome'", "SET TIME ZONE LOCAL", "SET NAMES 'UTF8'", "SET SCHEMA 'pg_catalog'",
                         "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET TRANSACTION READ ONLY"])
    if how < 0.66:
        return r.choice(["RESET ALL", "DISCARD ALL", "DISCARD TEMP", "DISCARD PLANS"])
    if how < 0.72:
        return f"DO $$ BEGIN PERFORM set_config('{name}', '{value.strip(chr(39))}', false); END $$"
    if how < 0.76:
        return f"SELECT 1; SET {name} = {value}; SELECT 2"
    if how < 0.80:
        return "SELECT 1/0"
    if open_:
        return r.choice(["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
    return r.choice(["BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"])


def without_user(stand, sql):
    """Up to 11 a SET of the session's user that is rolled back leaves another role than there was (CVE-2024-10978)."""
    return "SELECT 1" if stand.postgres.version <= 11 and re.search("session.authorization", sql, re.I) else sql


STARTUP = {"work_mem": "9MB", "search_path": "app1, public", "timezone": "Europe/Lisbon", "datestyle": "SQL, DMY",
           "application_name": "its own", "my.own": "it's \\ one", "options": "-c lock_timeout=1234 -c intervalstyle=sql_standard "
           "-c default_transaction_isolation=repeatable\\ read"}


def one_reset(r):
    own = [name for name in STARTUP if name != "options"] + ["intervalstyle", "default_transaction_isolation", "lock_timeout"]
    name = r.choice(own * 3 + ["role", "session_authorization", "extra_float_digits"])
    return r.choice([f"RESET {name}", "RESET ALL", f"SET LOCAL {name} TO DEFAULT", f"SET {name} = DEFAULT", "SET TIME ZONE LOCAL",
                     f"SELECT set_config('{name}', NULL, {r.choice(['true', 'false'])})", "SET LOCAL TIME ZONE DEFAULT"])


def some_statements(r, open_, without):
    """A text of several, resets more often among them than by chance. What SET LOCAL x TO DEFAULT has brought to
    its default is passed over by the server's RESET ALL, and has its old value behind the COMMIT: never both."""
    all_ = [one_reset(r) if r.random() < 0.4 else one_statement(r, open_, False) for _ in range(r.choice([1, 2, 3, 5]))]
    return [sql for sql in all_ if "DISCARD ALL" not in sql and not (without in sql and (without == "RESET ALL" or "DEFAULT" in sql)) and not (without == "LOCAL" and "NULL, true" in sql)] or ["SELECT 1"]


def pipeline(c, texts):
    """The same as one batch of the extended protocol."""
    return c.ask(*(part for sql in texts for part in (wire.parse(sql), wire.bind(), wire.execute())), wire.sync())


def answer(c, sql):
    """What the client is told, as far as it may be compared."""
    messages = pipeline(c, sql) if isinstance(sql, list) else c.ask(wire.query(sql))
    kinds = "".join(kind for kind, _ in messages if kind not in "NST")
    return kinds, [f["C"] for f in wire.errors(messages)], [b.rstrip(b"\0").decode() for k, b in messages if k == "C"], c.status


def values(c):
    """A variable of no module that the pool has seen is an empty text instead of NULL (docs/clients.md)."""
    columns = ", ".join(f"coalesce(current_setting('{n}', true), '')" for n in NAMES)
    row = c.query(f"SELECT {columns}, session_user, current_user")[0]
    return dict(zip([*NAMES, "session_user", "current_user"], row))


@pytest.fixture(scope="module")
def two(module_gate, stand):
    """A session that is to keep its connection leaves one to the other."""
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_team; EXCEPTION WHEN duplicate_object THEN END $$; GRANT acme_team TO acme_rw")
    for name, body in PROCEDURES.items():
        stand.postgres.sql(f"CREATE OR REPLACE PROCEDURE {name}(n text, v text) LANGUAGE plpgsql AS $p$ BEGIN {body}; END $p$; "
                           f"GRANT EXECUTE ON PROCEDURE {name} TO PUBLIC", "acme", "acme_rw")
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_variables_are_as_on_the_server(two, login, directly, stand, seed):
    r = random.Random(seed)
    gate, server, other = login(two), directly(), login(two)
    told = []
    for _ in range(LENGTH):
        sql = without_user(stand, one_statement(r, server.status != "I"))
        told.append(sql)
        assert answer(gate, sql) == answer(server, sql), told
        if server.status == "I" and r.random() < 0.7:
            other.query(f"SET {r.choice(list(VALUES)[:7])} TO DEFAULT")
            other.query("SET work_mem = '77MB'; SET my.own = 'of another'; SET timezone = 'America/Lima'; SET datestyle = 'SQL, MDY'")
            other.query("SET ROLE acme_team")
            assert other.query("SELECT session_user, current_user, current_setting('my.own'), current_setting('work_mem'), "
                               "current_setting('role')") == [["acme_rw", "acme_team", "of another", "77MB", "acme_team"]], told
            left = other.query("SELECT " + ", ".join(f"coalesce(current_setting('{n}', true), '')" for n in NAMES[16:]))
            assert set(left[0]) == {""}, (told, left)
        if server.status != "E":
            assert values(gate) == values(server), told


@pytest.mark.parametrize("seed", range(HISTORIES))
@pytest.mark.parametrize("how", ["texts", "pipelines", "both"])
def test_defaults_of_a_startup_packet(one, login, directly, stand, seed, how):
    """The same with sessions that have defaults of their own: a RESET goes back to those, wherever it stands."""
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_team; EXCEPTION WHEN duplicate_object THEN END $$; GRANT acme_team TO acme_rw")
    r = random.Random(f"{how} {seed}")
    without = r.choice(["RESET ALL", "LOCAL"])
    more = {"role": "acme_team"} if seed % 5 == 0 else {}
    gate, server, other = login(one, **STARTUP, **more), directly(**STARTUP, **more), login(one)
    told = []
    for _ in range(LENGTH):
        sql = [without_user(stand, one) for one in some_statements(r, server.status != "I", without)]
        if how == "texts" or (how == "both" and r.random() < 0.5):
            sql = "; ".join(sql) + r.choice(["", ";", " -- the end"])
        told.append(sql)
        assert answer(gate, sql) == answer(server, sql), told
        if server.status == "I" and r.random() < 0.7:
            other.query("SET work_mem = '77MB'; SET my.own = 'of another'; SET timezone = 'America/Lima'; SET datestyle = 'SQL, MDY'")
            other.query("SELECT 1")
        if server.status != "E":
            assert values(gate) == values(server), told
        if server.status == "I":
            assert reported(gate) == reported(server), told


def reported(c):
    return {name: value for name, value in c.parameters.items()
            if name in ("TimeZone", "DateStyle", "IntervalStyle", "application_name", "session_authorization", "is_superuser")}
