"""What a session sets, holds and leaves: transaction pooling must not change what a program
sees, and nothing may reach the next client."""
# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest

from stand import proc, wire


@pytest.fixture(scope="module")
def one(module_gate):
    """A gate whose pools have one server connection: everybody follows on everybody."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1},
                        "database globex": {"pool_size": 1}})


@pytest.fixture(scope="module")
def two(module_gate):
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


def show(c, name):
    return c.query(f"SHOW {name}")[0][0]


def test_set_stays_with_its_session(one, login):
    a, b = login(one), login(one)
    a.query("SET statement_timeout = '123s'")
    assert show(b, "statement_timeout") == "0"
    b.query("SET statement_timeout = '77s'")
    for _ in range(3):
        assert show(a, "statement_timeout") == "123s"
        assert show(b, "statement_timeout") == "77s"


def test_set_follows_over_backends(two, login):
    a, b, c = login(two), login(two), login(two)
    a.query("SET search_path = pg_catalog")
    seen = set()
    for holder, other in ((b, c), (c, b)):
        holder.query("BEGIN")
        seen.add(holder.query("SELECT pg_backend_pid()")[0][0])
        seen.add(a.query("SELECT pg_backend_pid()")[0][0])
        assert show(a, "search_path") == "pg_catalog"
        other.query("BEGIN")
        holder.query("COMMIT")
        assert show(a, "search_path") == "pg_catalog"
        other.query("COMMIT")
    assert len(seen) == 2


def test_set_by_the_extended_protocol(one, login):
    a, b = login(one), login(one)
    a.extended("SET work_mem = '3MB'")
    assert show(b, "work_mem") != "3MB"
    assert show(a, "work_mem") == "3MB"


def test_set_in_a_transaction_that_commits(one, login):
    a, b = login(one), login(one)
    a.query("BEGIN")
    a.query("SET work_mem = '5MB'")
    a.query("COMMIT")
    assert show(b, "work_mem") != "5MB"
    assert show(a, "work_mem") == "5MB"


def test_set_in_a_transaction_that_rolls_back(one, login):
    a, b = login(one), login(one)
    a.query("SET work_mem = '2MB'")
    a.query("BEGIN; SET work_mem = '6MB'; ROLLBACK")
    b.query("SELECT 1")
    assert show(a, "work_mem") == "2MB"


def test_set_behind_a_savepoint_that_is_rolled_back(one, login):
    a, b = login(one), login(one)
    for sql in ("BEGIN", "SET work_mem = '2MB'", "SAVEPOINT s", "SET work_mem = '7MB'",
                "ROLLBACK TO s", "COMMIT"):
        a.query(sql)
    b.query("SELECT 1")
    assert show(a, "work_mem") == "2MB"


def test_set_local_ends_with_its_transaction(one, login):
    a, b = login(one), login(one)
    a.query("BEGIN")
    a.query("SET LOCAL work_mem = '8MB'")
    assert show(a, "work_mem") == "8MB"
    a.query("COMMIT")
    assert show(a, "work_mem") == show(b, "work_mem") != "8MB"


def test_reset_and_reset_all(one, login):
    a, b = login(one), login(one)
    a.query("SET work_mem = '9MB'")
    a.query("SET statement_timeout = '9s'")
    a.query("RESET work_mem")
    b.query("SELECT 1")
    assert show(a, "work_mem") == show(b, "work_mem")
    assert show(a, "statement_timeout") == "9s"
    a.query("RESET ALL")
    b.query("SELECT 1")
    assert show(a, "statement_timeout") == "0"


def test_reset_goes_back_to_the_startup_value(one, login):
    a, b = login(one, statement_timeout="31s"), login(one)
    a.query("SET statement_timeout = '1min'")
    b.query("SELECT 1")
    a.query("RESET statement_timeout")
    b.query("SELECT 1")
    assert show(a, "statement_timeout") == "31s"


def test_set_config_for_the_session(two, login):
    """It keeps its backend, which a pool of one could then lend to nobody else."""
    a, b = login(two), login(two)
    a.query("SELECT set_config('myapp.user', 'anna', false)")
    assert b.query("SELECT coalesce(current_setting('myapp.user', true), '')") == [[""]]
    assert a.query("SELECT current_setting('myapp.user')") == [["anna"]]


@pytest.mark.parametrize("name,value", [("TimeZone", "Asia/Tokyo"), ("DateStyle", "SQL, DMY"),
                                        ("IntervalStyle", "iso_8601"), ("client_encoding", "LATIN1"),
                                        ("application_name", "a name; with 'quotes\\'")])
def test_reported_settings_are_reported(one, login, name, value):
    a, b = login(one), login(one)
    quoted = value.replace("'", "''")
    a.query(f"SET {name} = '{quoted}'")
    assert a.parameters[name] == value
    assert show(b, name) != value
    assert show(a, name) == value


def test_long_values(one, login):
    a, b = login(one), login(one)
    path = ", ".join(f"schema_{n}" for n in range(200))
    a.query(f"SET search_path = {path}")
    b.query("SELECT 1")
    assert show(a, "search_path") == path


def test_set_that_fails_is_not_kept(one, login):
    a, b = login(one), login(one)
    with pytest.raises(wire.ServerError):
        a.query("SET work_mem = 'nonsense'")
    b.query("SELECT 1")
    assert show(a, "work_mem") == show(b, "work_mem")


@pytest.fixture
def team(stand):
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE acme_team; EXCEPTION WHEN duplicate_object THEN END $$;"
                       " GRANT acme_team TO acme_rw")
    return "acme_team"


def test_reset_role_goes_back_to_the_startup_packets(one, login, stand, team):
    a, b = login(one, role=team), login(one)
    for back, role in (("RESET ROLE", team), ("SET ROLE NONE", "acme_rw"), ("RESET ALL", "acme_rw"),
                       ("DISCARD ALL", team if stand.postgres.version >= 12 else "acme_rw")):
        a.query("SET ROLE acme_rw")
        a.query(back)
        b.query("SELECT 1")
        assert a.query("SELECT current_user") == [[role]], back


def test_set_role_stays_with_its_session(one, login, team):
    a, b = login(one), login(one)
    a.query("SET ROLE acme_team")
    assert b.query("SELECT current_user") == [["acme_rw"]]
    assert a.query("SELECT current_user") == [["acme_team"]]
    a.query("RESET ROLE")
    assert a.query("SELECT current_user") == [["acme_rw"]]


def test_session_characteristics(one, login):
    a, b = login(one), login(one)
    a.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    assert show(b, "transaction_read_only") == "off"
    assert show(a, "transaction_read_only") == "on"


@pytest.mark.parametrize("statement", ["RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION acme_rw",
                                       "SET SESSION AUTHORIZATION DEFAULT", "SET session_authorization = acme_rw"])
def test_session_authorization_ends_the_role(one, login, team, statement):
    """It sets two variables, and only one of them is named."""
    a, b = login(one), login(one)
    a.query("SET ROLE acme_team")
    assert a.query("SELECT current_user") == [["acme_team"]]
    a.query(statement)
    for _ in range(2):
        assert a.query("SELECT session_user, current_user, current_setting('role')") == [["acme_rw", "acme_rw", "none"]]
        b.query("SELECT 1")


@pytest.mark.parametrize("how", ["alone", "in a text", "a pipeline", "unseen", "in a transaction"])
@pytest.mark.parametrize("statement", ["RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT", "SET SESSION AUTHORIZATION acme_rw",
                                       "SELECT set_config('session_authorization', NULL, false)", "SET SESSION SESSION AUTHORIZATION DEFAULT",
                                       "RESET ROLE", "SET role = DEFAULT", "SET SESSION role TO DEFAULT", "SET ROLE NONE",
                                       "SELECT set_config('role', NULL, false)", "SELECT set_config('role', 'none', false)"])
def test_session_authorization_and_the_role_of_a_startup_packet(two, login, directly, team, statement, how):
    """Whether it gives that back, or leaves none, is another with each server's minor version."""
    a, b, server = login(two, role="acme_team"), login(two), directly(role="acme_team")
    for c in (a, server):
        if how == "unseen":
            c.query("DO $$ BEGIN " + statement.replace("SELECT", "PERFORM") + "; END $$")
        elif how == "a pipeline":
            c.extended(statement)
        elif how == "in a transaction":
            c.query("BEGIN")
            c.query(statement)
            c.query("COMMIT")
        else:
            c.query(statement if how == "alone" else "SELECT 1; " + statement + "; SELECT 2")
    for _ in range(2):
        assert a.query("SELECT session_user, current_user, current_setting('role')") == \
            server.query("SELECT session_user, current_user, current_setting('role')")
        b.query("SELECT 1")


@pytest.mark.parametrize("unseen", ["RESET ALL", "RESET ALL; SET ROLE NONE", "RESET ROLE; SET ROLE NONE", "RESET ROLE; SET ROLE acme_rw",
                                    "RESET ROLE; SET role TO none", "SET ROLE acme_team; SET ROLE NONE", "SET ROLE NONE; RESET ROLE"])
def test_role_behind_a_block(two, login, directly, team, unseen):
    """RESET ALL leaves it alone; and what is set behind a RESET is set."""
    a, b, server = login(two, role="acme_team"), login(two), directly(role="acme_team")
    for c in (a, server):
        c.query("SET ROLE NONE")
        c.query(f"DO $$ BEGIN {unseen}; END $$")
    for _ in range(2):
        assert a.query("SELECT current_user, current_setting('role')") == server.query("SELECT current_user, current_setting('role')")
        b.query("SELECT 1")


def test_temporary_table_stays_and_is_gone_for_the_next(two, login):
    a, b = login(two), login(two)
    a.query("CREATE TEMP TABLE mine (n int)")
    a.query("INSERT INTO mine VALUES (1)")
    for _ in range(5):
        with pytest.raises(wire.ServerError) as caught:
            b.query("SELECT * FROM mine")
        assert caught.value.code == "42P01"
        assert a.query("SELECT * FROM mine") == [["1"]]
    a.send(wire.terminate())
    for other in (b, login(two), login(two)):
        with pytest.raises(wire.ServerError):
            other.query("SELECT * FROM mine")


def test_advisory_lock_is_held_and_released_with_the_session(two, login):
    a, b = login(two), login(two)
    a.query("SELECT pg_advisory_lock(4711)")
    for _ in range(3):
        assert b.query("SELECT pg_try_advisory_lock(4711)") == [["f"]]
        assert a.query("SELECT 1") == [["1"]]
    a.send(wire.terminate())
    proc.wait_for("the lock to be free", 10,
                  lambda: b.query("SELECT pg_try_advisory_xact_lock(4711)") == [["t"]])


def test_listen_and_notify(two, login):
    a, b = login(two), login(two)
    a.query("LISTEN news")
    b.query("NOTIFY news, 'extra'")
    body = a.expect("A")
    assert body[4:] == b"news\0extra\0"


def test_own_notifications_are_told_apart(two, login, database):
    """Programs tell what they sent themselves by the process id that they were given."""
    a, b = login(two, database), login(two, database)
    a.query("LISTEN news")
    said = a.ask(wire.query("NOTIFY news, 'own'"))
    own = next(body for kind, body in said if kind == "A")
    assert int.from_bytes(own[:4], "big") == a.key[0]
    b.query("NOTIFY news, 'others'")
    others = a.expect("A")
    assert int.from_bytes(others[:4], "big") != a.key[0]


@pytest.fixture
def sequence(stand):
    stand.postgres.sql("CREATE SEQUENCE numbers", "acme", "acme_rw")
    yield "numbers"
    stand.postgres.sql("DROP SEQUENCE numbers", "acme", "acme_rw")


@pytest.mark.parametrize("how", ["query", "extended"])
def test_currval_is_the_sessions_own(two, login, sequence, how):
    a, b = login(two), login(two)
    assert a.query(f"SELECT nextval('{sequence}')") == [["1"]]
    for n in range(3):  # from its first use on the session keeps its connection
        assert getattr(a, how)(f"SELECT currval('{sequence}'), lastval()") == [["1"] * 2]
        assert getattr(b, how)(f"SELECT nextval('{sequence}')") == [[str(n + 2)]]


@pytest.mark.parametrize("how", ["query", "extended"])
def test_currval_is_never_anothers(one, login, sequence, how):
    a, b = login(one), login(one)
    a.query(f"SELECT nextval('{sequence}')")
    b.query(f"SELECT nextval('{sequence}')")
    with pytest.raises(wire.ServerError) as caught:
        getattr(a, how)(f"SELECT currval('{sequence}')")
    assert caught.value.code == "55000"


def test_currval_that_was_prepared_before(make_gate, login, sequence):
    # (a gate of its own: it learns what programs do)
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    a, b = login(gate), login(gate)
    a.query(f"SELECT nextval('{sequence}')")
    a.ask(wire.parse(f"SELECT currval('{sequence}')", "s1"), wire.sync())
    b.query(f"SELECT nextval('{sequence}')")
    got = a.ask(wire.bind("s1"), wire.execute(), wire.sync())
    assert wire.rows(got) == [["1"]]


def test_currval_that_was_prepared_where_it_was_drawn(make_gate, login, sequence):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    a.query(f"SELECT nextval('{sequence}')")
    a.ask(wire.parse(f"SELECT currval('{sequence}')", "s1"), wire.sync())
    a.query("COMMIT")
    a.query("SELECT 1")  # gives the connection back
    b.query(f"SELECT nextval('{sequence}')")
    got = a.ask(wire.bind("s1"), wire.execute(), wire.sync())
    assert [e["C"] for e in wire.errors(got)] == ["55000"]


@pytest.mark.parametrize("seed", ["SELECT setseed(0.5)", "SET SEED TO 0.5", "SET seed = 0.5"])
def test_seed_is_the_sessions_own(two, login, seed):
    def numbers(between):
        a, b = login(two), login(two)
        a.query(seed)
        out = []
        for n in range(3):
            if between:
                b.query("SELECT setseed(0.1), random()")
            out += a.query("SELECT random()")
        a.close()
        b.close()
        return out
    assert numbers(True) == numbers(False)


def test_do_block_may_do_anything(two, login):
    a, b = login(two), login(two)

    def do(body):
        a.query(f"DO $$ BEGIN {body} END $$")
        b.query("BEGIN")  # whatever connection a gave back is b's now
        b.query("SELECT 1")

    do("PERFORM set_config('work_mem', '5MB', false);")
    assert show(a, "work_mem") == "5MB"
    b.query("COMMIT")
    assert show(b, "work_mem") != "5MB"
    do("CREATE TEMP TABLE t_do AS SELECT 5 AS five;")
    assert a.query("SELECT five FROM t_do") == [["5"]]
    a.query("DROP TABLE t_do")
    b.query("COMMIT")
    do("LISTEN done;")
    assert a.query("SELECT pg_listening_channels()") == [["done"]]
    b.query("NOTIFY done")
    b.query("COMMIT")
    assert a.expect("A")
    a.query("UNLISTEN *")


def test_cursor_with_hold(two, login):
    a, b = login(two), login(two)
    a.query("DECLARE held CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 3)")
    for n in (1, 2, 3):
        assert b.query("SELECT 1") == [["1"]]
        assert a.query("FETCH held") == [[str(n)]]
    a.query("CLOSE held")


def test_transaction_keeps_its_backend(two, login, table):
    a, b = login(two), login(two)
    a.query("BEGIN")
    pid = a.query("SELECT pg_backend_pid()")
    a.query(f"INSERT INTO {table} VALUES (1, 'a')")
    for _ in range(5):
        assert b.query(f"SELECT count(*) FROM {table}") == [["0"]]
        assert a.query("SELECT pg_backend_pid()") == pid
    assert a.status == "T"
    a.query("COMMIT")
    assert b.query(f"SELECT count(*) FROM {table}") == [["1"]]


def test_failed_transaction_keeps_its_backend_until_it_ends(two, login):
    a, b = login(two), login(two)
    a.query("BEGIN")
    with pytest.raises(wire.ServerError):
        a.query("SELECT 1/0")
    assert a.status == "E"
    b.query("SELECT 1")
    with pytest.raises(wire.ServerError) as caught:
        a.query("SELECT 1")
    assert caught.value.code == "25P02"
    a.query("ROLLBACK")
    assert a.query("SELECT 1") == [["1"]]


def test_leaving_in_a_transaction_rolls_it_back(one, login, table):
    a = login(one)
    a.query("BEGIN")
    a.query(f"INSERT INTO {table} VALUES (1, 'lost')")
    a.close()
    b = login(one)
    assert b.query(f"SELECT count(*) FROM {table}") == [["0"]]
    assert b.status == "I"


def test_leaving_in_a_query_of_a_transaction_frees_the_backend(one, login, running):
    a = login(one)
    a.query("BEGIN")
    a.send(wire.query("SELECT pg_sleep(60) AS left_alone"))
    running("left_alone")
    a.close()
    assert login(one).query("SELECT 'free'") == [["free"]]


def test_session_mode_keeps_one_backend_and_everything_in_it(gate, login):
    a, b = login(gate, "acme_session"), login(gate, "acme_session")
    pid = a.query("SELECT pg_backend_pid()")
    a.query("CREATE TEMP TABLE kept (n int)")
    a.query("SET work_mem = '11MB'")
    for _ in range(3):
        assert b.query("SELECT pg_backend_pid()") != pid
        assert a.query("SELECT pg_backend_pid()") == pid
    assert show(a, "work_mem") == "11MB"


def test_session_mode_resets_before_the_next_client(make_gate, login):
    gate = make_gate({"database acme_session": {"pool_size": 1, "session_reuse": "on"}})
    a = login(gate, "acme_session")
    a.query("SET work_mem = '13MB'")
    a.query("CREATE TEMP TABLE secret AS SELECT 1")
    a.query("PREPARE p AS SELECT 1")
    a.send(wire.terminate())
    b = login(gate, "acme_session")
    assert show(b, "work_mem") != "13MB"
    for sql in ("SELECT * FROM secret", "EXECUTE p"):
        with pytest.raises(wire.ServerError):
            b.query(sql)


# What can be made in pg_temp; how it shows that it is there; how it goes.
IN_PG_TEMP = {
    "table": ("CREATE TABLE pg_temp.x (n int)", "SELECT count(*) FROM pg_temp.x", "DROP TABLE pg_temp.x"),
    "view": ("CREATE VIEW pg_temp.x AS SELECT 1", "SELECT count(*) FROM pg_temp.x", "DROP VIEW pg_temp.x"),
    "sequence": ("CREATE SEQUENCE pg_temp.x", "SELECT nextval('pg_temp.x')", "DROP SEQUENCE pg_temp.x"),
    "function": ("CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT pg_temp.x()", "DROP FUNCTION pg_temp.x"),
    "procedure": ("CREATE PROCEDURE pg_temp.x() LANGUAGE sql AS 'SELECT 1'", "CALL pg_temp.x()", "DROP PROCEDURE pg_temp.x"),
    "aggregate": ("CREATE AGGREGATE pg_temp.x (int) (SFUNC = int4pl, STYPE = int, INITCOND = 0)", "SELECT pg_temp.x(1)",
                  "DROP AGGREGATE pg_temp.x (int)"),
    "type": ("CREATE TYPE pg_temp.x AS (n int)", "SELECT '(1)'::pg_temp.x", "DROP TYPE pg_temp.x"),
    "enum": ("CREATE TYPE pg_temp.x AS ENUM ('a')", "SELECT 'a'::pg_temp.x", "DROP TYPE pg_temp.x"),
    "domain": ("CREATE DOMAIN pg_temp.x AS int", "SELECT 1::pg_temp.x", "DROP DOMAIN pg_temp.x"),
    "operator": ("CREATE OPERATOR pg_temp.### (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)", "SELECT 1 OPERATOR(pg_temp.###) 1",
                 "DROP OPERATOR pg_temp.### (int, int)"),
    "collation": ("CREATE COLLATION pg_temp.x FROM \"C\"", "SELECT 'a' COLLATE pg_temp.x", "DROP COLLATION pg_temp.x"),
    "dictionary": ("CREATE TEXT SEARCH DICTIONARY pg_temp.x (TEMPLATE = simple)", "SELECT ts_lexize('pg_temp.x', 'a')",
                   "DROP TEXT SEARCH DICTIONARY pg_temp.x"),
    "statistics": ("CREATE STATISTICS pg_temp.x ON id, n FROM {table}",
                   "SELECT 1 / count(*) FROM pg_statistic_ext WHERE stxnamespace = pg_my_temp_schema()", "DROP STATISTICS pg_temp.x"),
}


@pytest.mark.parametrize("what", IN_PG_TEMP)
def test_whatever_is_in_pg_temp_stays(one, login, console, table, what):
    create, use, drop = IN_PG_TEMP[what]
    a = login(one)
    a.query(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS n int")

    def pins():
        with console(one) as c:
            return [p for row in c.query("SHOW CLIENTS") for p in row if p == "temporary"]
    a.query(create.format(table=table))
    for _ in range(2):
        a.query(use)
        a.query("DROP TABLE IF EXISTS there_is_no_such_table")  # after which it is asked what is left
        assert pins() == ["temporary"]
    a.query(drop)
    a.query("SELECT 1")
    assert pins() == []


def leave_traces(gate, login):
    """What a client leaves behind that DISCARD ALL does not undo; its server process."""
    a = login(gate, "acme_session")
    a.query("SET trace.mark = 'x'")
    a.query("CREATE TEMP TABLE passing (n int)")
    pid = a.query("SELECT pg_backend_pid()")
    a.send(wire.terminate())
    return pid


def test_session_mode_gives_each_client_a_server_process_of_its_own(make_gate, login):
    gate = make_gate({"database acme_session": {"pool_size": 1}})
    for _ in range(3):
        pid = leave_traces(gate, login)
        b = login(gate, "acme_session")
        assert b.query("SELECT pg_backend_pid()") != pid
        assert b.query("SELECT pg_my_temp_schema()") == [["0"]]
        with pytest.raises(wire.ServerError) as caught:
            show(b, "trace.mark")
        assert caught.value.code == "42704"
        b.send(wire.terminate())


def test_session_mode_uses_a_server_connection_again_when_so_set(make_gate, login):
    gate = make_gate({"database acme_session": {"pool_size": 1, "session_reuse": "on"}})
    pid = leave_traces(gate, login)
    b = login(gate, "acme_session")
    assert b.query("SELECT pg_backend_pid()") == pid
    assert show(b, "trace.mark") == ""


def test_tenants_never_share_a_server_connection(one, login):
    pids = {}
    for _ in range(5):
        for database in ("acme", "globex"):
            c = login(one, database)
            pids.setdefault(database, set()).add(c.query("SELECT pg_backend_pid()")[0][0])
            c.send(wire.terminate())
    assert not pids["acme"] & pids["globex"]


def test_roles_never_share_a_server_connection(one, login, token):
    a = login(one)
    b = login(one, user="acme_ro", secret=token("acme", "ro"))
    assert a.query("SELECT current_user") == [["acme_rw"]]
    assert b.query("SELECT current_user") == [["acme_ro"]]
    assert a.query("SELECT pg_backend_pid()") != b.query("SELECT pg_backend_pid()")


def test_encoding_of_one_client_is_not_the_others(one, login):
    a, b = login(one, client_encoding="LATIN1"), login(one, client_encoding="UTF8")
    for _ in range(3):
        a.send(wire.message("Q", b"SELECT '\xe9'\0"))
        assert a.until("Z")[1][1].endswith(b"\0\0\0\1\xe9")
        assert b.query("SELECT 'é'") == [["é"]]


def test_datestyle_in_part_does_not_add_to_anothers(one, login):
    a, b = login(one, DateStyle="ISO"), login(one)
    for _ in range(2):
        b.query("SET DateStyle = 'German, DMY'")
        assert show(a, "DateStyle") == "ISO, MDY"


@pytest.mark.parametrize("encoding, value", [("UTF8", "é世"), ("LATIN1", "é")])
def test_value_is_the_same_behind_a_client_of_another_encoding(one, login, encoding, value):
    python = {"UTF8": "utf-8", "LATIN1": "latin-1"}
    a, b = login(one, client_encoding=encoding), login(one, client_encoding="LATIN1")
    c = login(one, client_encoding="UTF8")

    def ask(client, sql, said):
        got = client.ask(wire.message("Q", sql.encode(said) + b"\0"))
        assert not wire.errors(got)
        return next((wire_value(body) for kind, body in got if kind == "D"), None)

    def wire_value(body):
        return body[6:]

    ask(a, f"SET my.v = '{value}'", python[encoding])
    for _ in range(2):
        for other in (b, c):
            ask(other, "SELECT 1", "ascii")
            assert ask(a, "SHOW my.v", "ascii") == value.encode(python[encoding])
    # a value outlives the encoding in which it was set
    a.query("SET client_encoding = 'UTF8'")
    for other in (b, c):
        ask(other, "SELECT 1", "ascii")
        assert ask(a, "SHOW my.v", "ascii") == value.encode()


def test_refused_set_of_one_client_is_not_undone_at_the_cost_of_the_next(one, login):
    a = login(one)
    with pytest.raises(wire.ServerError) as caught:
        a.query("SET log_statement = 'all'")
    assert caught.value.code == "42501"
    a.close()
    b = login(one)
    b.query("SET TIME ZONE 'Asia/Tokyo'")
    assert show(b, "TimeZone") == "Asia/Tokyo"


# ---- sequences ----

@pytest.fixture
def two_on_one(make_gate, login):
    """Two sessions that share one server connection, with a sequence."""
    gate = make_gate({"database acme": {"pool_size": 1, "wait_limit": "20s"}})
    a, b = login(gate), login(gate)
    a.query("DROP TABLE IF EXISTS numbered; CREATE TABLE numbered (id serial, words text)")
    return a, b


def test_currval_is_never_another_sessions(two_on_one):
    a, b = two_on_one
    assert a.query("SELECT nextval('numbered_id_seq')") == [["1"]]
    assert b.query("SELECT nextval('numbered_id_seq')") == [["2"]]
    for sql in ("SELECT currval('numbered_id_seq')", "SELECT lastval()"):
        with pytest.raises(wire.ServerError) as e:
            a.query(sql)
        assert e.value.code == "55000"


def test_currval_behind_an_insert_is_the_sessions_own(two_on_one):
    a, b = two_on_one
    with contextlib.suppress(wire.ServerError):
        a.query("SELECT lastval()")  # now the gate knows what kind of program this is
    a.query("SELECT 1")
    for n in range(1, 9):
        a.query("INSERT INTO numbered (words) VALUES ('a')")
        b.send(wire.query("INSERT INTO numbered (words) VALUES ('b')"))
        assert a.query("SELECT lastval()") == [[str(2 * n - 1)]]
        a.query("SELECT 'something else'")
        b.until("Z")
        assert b.query("SELECT currval('numbered_id_seq')") == [[str(2 * n)]]
        b.query("SELECT 'something else'")


def test_session_that_may_ask_for_a_number_does_not_starve_others(two_on_one):
    a, b = two_on_one
    with contextlib.suppress(wire.ServerError):
        a.query("SELECT lastval()")
    a.query("INSERT INTO numbered (words) VALUES ('a')")
    assert b.query("SELECT 'in'") == [["in"]]  # a says nothing more


def test_currval_within_the_transaction_keeps_no_connection(two_on_one):
    a, b = two_on_one
    for n in range(3):
        a.query("BEGIN")
        a.query("INSERT INTO numbered (words) VALUES ('a')")
        assert a.query("SELECT currval('numbered_id_seq'), lastval()") == [[str(n + 1)] * 2]
        a.query("COMMIT")
        assert b.query("SELECT 'at once'") == [["at once"]]


def test_seed_of_random_stays_with_its_session(two_on_one):
    a, _ = two_on_one
    a.query("SELECT setseed(0.5)")
    first = a.query("SELECT random()")
    assert a.query("SELECT setseed(0.5)") == [[""]]
    assert a.query("SELECT random()") == first


# ---- DO blocks ----

@pytest.mark.parametrize("body,ask,value", [
    ("PERFORM set_config('app.user', 'ann', false)", "SELECT current_setting('app.user', true)", "ann"),
    ("SET app.person = 'ann'", "SELECT current_setting('app.person', true)", "ann"),
    ("SET SESSION app.person TO 'ann'", "SELECT current_setting('app.person', true)", "ann"),
    ("EXECUTE 'SET work_mem = ''3MB'''", "SHOW work_mem", "3MB"),
    ("PERFORM set_config('work' || '_mem', '3MB', false)", "SHOW work_mem", "3MB"),
    ("SET search_path = pg_catalog", "SHOW search_path", "pg_catalog"),
    ("CREATE TEMP TABLE in_do (i int)", "SELECT count(*) FROM in_do", "0"),
    ("PERFORM pg_advisory_lock(77)",
     "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1"),
    ("LISTEN in_do", "SELECT count(*) FROM pg_listening_channels()", "1"),
])
def test_state_that_a_do_block_leaves_is_its_sessions_only(make_gate, login, body, ask, value):
    gate = make_gate({"database acme": {"pool_size": 2}})
    a, others = login(gate), [login(gate) for _ in range(3)]
    a.query(f"DO $body$ BEGIN {body}; END $body$")
    assert a.query(ask) == [[value]]
    for c in others:
        try:
            assert c.query(ask) != [[value]]
        except wire.ServerError as e:
            assert e.code == "42P01"
    assert a.query(ask) == [[value]]


def test_do_block_that_leaves_nothing_keeps_no_connection(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("DO $$ BEGIN PERFORM 1; END $$")
    assert b.query("SELECT 1") == [["1"]]


LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77"
PREPARED = {
    "query": ["PREPARE p AS SELECT {}", "EXECUTE p", "DEALLOCATE p"],
    "one text": ["PREPARE p AS SELECT {}; EXECUTE p; DEALLOCATE p"],
    "two texts": ["PREPARE p AS SELECT {}", "EXECUTE p; DEALLOCATE p"],
    "explain": ["PREPARE p AS SELECT {}", "EXPLAIN ANALYZE EXECUTE p", "DEALLOCATE p"],
    "explain with options": ["PREPARE p AS SELECT {}", "EXPLAIN (ANALYZE, COSTS off) EXECUTE p", "DEALLOCATE p"],
    "all": ["PREPARE p AS SELECT {}", "EXECUTE p", "DEALLOCATE ALL"],
    "block": ["PREPARE p AS SELECT {}", "BEGIN; EXECUTE p; DEALLOCATE p; COMMIT"],
    "do": ["PREPARE p AS SELECT {}", "DO $$ BEGIN EXECUTE 'EXECUTE p'; END $$", "DEALLOCATE p"],
    "in do": ["DO $$ BEGIN EXECUTE 'PREPARE p AS SELECT {}'; END $$", "EXECUTE p", "DEALLOCATE p"],
    "create": ["PREPARE p AS SELECT 1 FROM (SELECT {}) AS s", "DROP TABLE IF EXISTS made", "CREATE TABLE made AS EXECUTE p", "DROP TABLE made", "DEALLOCATE p"],
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("how", PREPARED)
@pytest.mark.parametrize("what", ["pg_advisory_lock(77)", "set_config('app.of_p', 'set', false)", "set_config('work_mem', '3MB', false)",
                                  "set_config(concat('app.of', '_p'), 'set', false)"])
def test_what_an_execute_has_done_outlives_its_statement(two, login, how, what, extended):
    a, b = login(two), login(two)
    for sql in PREPARED[how]:
        call = what.replace("'", "''") if "EXECUTE 'PREPARE" in sql else what
        sql = sql.format(call)
        a.extended(sql) if extended and "; " not in sql.split("$$")[0] else a.query(sql)
    for _ in range(3):
        if "lock" in what:
            assert b.query("SELECT pg_try_advisory_lock(77)") == [["f"]]
        else:
            name, value = ("work_mem", "3MB") if "work_mem" in what else ("app.of_p", "set")
            assert a.query(f"SELECT current_setting('{name}', true)") == [[value]]
            assert b.query(f"SELECT current_setting('{name}', true) IS DISTINCT FROM '{value}'") == [["t"]]
    if "lock" in what:
        a.query("SELECT pg_advisory_unlock(77)")
        assert b.query("SELECT pg_try_advisory_lock(77), pg_advisory_unlock(77)") == [["t", "t"]]


def test_unlock_by_execute_ends_the_pin(one, login):
    a, b = login(one), login(one)
    a.query("PREPARE u AS SELECT pg_advisory_unlock(77)")
    a.query("SELECT pg_advisory_lock(77)")
    a.query("EXECUTE u")
    a.query("DEALLOCATE u")
    assert b.query("SELECT pg_try_advisory_lock(77), pg_advisory_unlock(77)") == [["t", "t"]]


def test_set_config_by_execute_does_not_pin(one, login):
    """Its name is known: what it set follows the session over its connections."""
    a, b = login(one), login(one)
    for sql in ("PREPARE s AS SELECT set_config('work_mem', '3MB', false)", "EXECUTE s", "DEALLOCATE s"):
        a.query(sql)
    for _ in range(2):
        assert show(b, "work_mem") == "4MB"
        assert show(a, "work_mem") == "3MB"
