"""RESET goes back to what the session's startup packet said, wherever it stands: alone, in a block, in a
text of several statements, in a pipeline. Each is run on the server itself as well."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire

STARTUP = {"work_mem": "9MB", "search_path": "app1, public", "timezone": "Asia/Tokyo", "datestyle": "SQL, DMY",
           "application_name": "it's \\ one", "statement_timeout": "77s", "extra_float_digits": "2", "my.own": "a'b",
           "options": "-c lock_timeout=1234 -c DateStyle=German"}
NAMES = ["work_mem", "search_path", "timezone", "datestyle", "application_name", "statement_timeout", "extra_float_digits",
         "my.own", "lock_timeout", "enable_seqscan"]
RESETS = ["RESET {0}", "SET {0} TO DEFAULT", "SET SESSION {0} = DEFAULT", "SET LOCAL {0} TO DEFAULT", 'reset /* a; b */ "{0}"',
          "RESET ALL", "set local {0} -- ; x\n = default", "SELECT set_config('{0}', NULL, false)",
          "select pg_catalog.set_config ( '{0}' , null , true )"]


@pytest.fixture
def both(one, login, directly):
    """Runs requests at the gate and on the server: the answers are the same, and so are all variables behind
    them, where another session has had the connection meanwhile."""
    gate, server, other = login(one, **STARTUP), directly(**STARTUP), login(one)

    def run(*parts):
        ends = sum(part[:1] in (b"Q", b"S") for part in parts)
        told = []
        for c in (gate, server):
            c.send(*parts)
            told.append([m for _ in range(ends) for m in heard(c.until())])
        assert told[0] == told[1], parts
        assert gate.status == server.status
        if gate.status == "I":
            assert other.query("SHOW work_mem") == [["4MB"]]
        if gate.status != "E":
            assert values(gate) == values(server), parts
        assert names_told(gate) == names_told(server)
        return told[0]
    run.gate, run.server = gate, server
    return run


def heard(messages):
    return [(kind, wire.error_fields(body).get("C"), wire.error_fields(body).get("P")) if kind in "EN"
            else (kind, body) for kind, body in messages if kind not in "S"]


def names_told(c):
    return {name: value for name, value in c.parameters.items()
            if name.lower() in ("application_name", "datestyle", "timezone", "client_encoding", "intervalstyle")}


def values(c):
    return c.query("SELECT " + ", ".join(f"current_setting('{n}', true)" for n in NAMES))[0]


def name_of(form, name):
    return form.format(name) if '"{0}"' not in form else form.format(name.replace(".", '"."'))


@pytest.mark.parametrize("name, other", [("work_mem", "'1MB'"), ("search_path", "pg_catalog"), ("timezone", "'UTC'"),
                                         ("datestyle", "'ISO'"), ("my.own", "'x'"), ("application_name", "'y'")])
@pytest.mark.parametrize("form", RESETS)
def test_in_a_block(both, form, name, other):
    for end in "COMMIT", "ROLLBACK":
        both(wire.query(f"SET {name} = {other}"))
        both(wire.query("BEGIN"))
        both(wire.query(name_of(form, name)))
        both(wire.query("SELECT 1"))
        both(wire.query(end))


@pytest.mark.parametrize("form", RESETS)
@pytest.mark.parametrize("name, other", [("work_mem", "'1MB'"), ("search_path", "pg_catalog"), ("timezone", "'UTC'")])
def test_in_a_text_of_several(both, form, name, other):
    reset, shows = name_of(form, name), f"SELECT current_setting('{name}')"
    for text in (f"SET {name} = {other}; {reset}; {shows}", f"BEGIN; {reset}; {shows}; COMMIT; {shows}",
                 f"SET LOCAL {name} = {other}; {shows}; {reset}; {shows};", f"{reset}; {shows}; SELECT 1/0; SELECT 2",
                 f"BEGIN; SET {name} = {other}; SAVEPOINT a; {reset}; {shows}; ROLLBACK TO a; {shows}; COMMIT; {shows}",
                 f"BEGIN; {reset}; ROLLBACK; {shows}", f"SELECT 1; {reset} -- the end", f"{reset}; {reset}; {shows} ;; ;"):
        both(wire.query(text))


def test_savepoints(both):
    both(wire.query("SET work_mem = '1MB'"))
    both(wire.query("BEGIN"))
    for sql in ("SET LOCAL work_mem = '2MB'", "SAVEPOINT a", "RESET work_mem", "SAVEPOINT b", "SET work_mem = '3MB'",
                "SET LOCAL work_mem TO DEFAULT", "ROLLBACK TO b", "RESET ALL", "SET work_mem = '5MB'", "ROLLBACK TO a",
                "SET LOCAL work_mem TO DEFAULT", "RELEASE a", "COMMIT"):
        both(wire.query(sql))


def test_a_statement_that_fails_shows_its_own_place(both):
    for text in ("RESET work_mem; SELECT nothing", "BEGIN; RESET ALL;\nSET LOCAL work_mem TO DEFAULT; SELECT 'ä', nothing; COMMIT",
                 "SELEC; RESET work_mem", "RESET work_mem; SELECT 1;\n SELEC", "RESET work_mem; RESET nothing.at.all; SELECT 1",
                 "SELECT 'äöü', 1; RESET work_mem; SELECT 'ß', nothing", "RESET work_mem; SELEC",
                 "SELECT set_config('search_path', NULL, false); SELECT nothing"):
        assert [m for m in both(wire.query(text)) if m[0] == "E"]
        if both.gate.status != "I":
            both(wire.query("ROLLBACK"))


def batch(*texts, portal="", end=True):
    parts = []
    for sql in texts:
        parts += [wire.parse(sql), wire.bind(portal=portal), wire.execute(portal)]
        if portal:
            parts.append(wire.close("P", portal))
    return parts + [wire.sync()] * end


@pytest.mark.parametrize("portal", ["", "p"])
@pytest.mark.parametrize("form", RESETS[:7])
@pytest.mark.parametrize("name, other", [("work_mem", "'1MB'"), ("search_path", "pg_catalog"), ("timezone", "'UTC'")])
def test_in_a_pipeline(both, form, name, other, portal):
    reset, shows = name_of(form, name), f"SELECT current_setting('{name}')"
    for texts in ([f"SET {name} = {other}", reset, shows], ["BEGIN", reset, shows, "COMMIT", shows], [reset],
                  ["BEGIN", f"SET {name} = {other}", "SAVEPOINT a", reset, shows, "ROLLBACK TO a", shows, "COMMIT"],
                  [f"SET {name} = {other}", reset, "SELECT 1/0", shows], ["SELECT 1/0", reset, shows],
                  [reset, reset, shows]):
        both(*batch(*texts, portal=portal))
    both(wire.query("BEGIN"))
    both(*batch(reset, portal=portal))
    both(wire.query(f"SET {name} = {other}"))
    both(*batch(reset, portal=portal), *batch(shows, f"SET LOCAL {name} = {other}", portal=portal), *batch(reset, shows))
    both(wire.query("ROLLBACK"))


def test_portals_run_in_their_own_order(both):
    both(wire.query("SET work_mem = '1MB'"))
    both(wire.query("BEGIN"))
    both(wire.parse("RESET work_mem", "r"), wire.bind("r", "p1"), wire.parse("SET work_mem = '3MB'", "s"), wire.bind("s", "p2"),
         wire.execute("p1"), wire.execute("p2"), wire.sync())
    both(wire.bind("r", "p3"), wire.bind("s", "p4"), wire.execute("p4"), wire.execute("p3"), wire.flush(), wire.sync())
    both(wire.bind("r", "p5"), wire.bind("s", "p5x"), wire.execute("p5x"), wire.sync())
    both(wire.query("COMMIT"))


def test_a_prepared_reset(both):
    both(wire.parse("SET LOCAL search_path TO DEFAULT", "r"), wire.sync())
    for _ in range(3):
        both(wire.query("BEGIN; SET search_path = pg_catalog"))
        both(wire.bind("r"), wire.execute(), wire.sync())
        both(wire.query("COMMIT"))


def test_isolation_can_still_be_chosen(both):
    for reset in "RESET ALL", "SET LOCAL search_path TO DEFAULT":
        both(wire.query(f"BEGIN; {reset}; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT"))
        both(wire.query("BEGIN"))
        both(*batch(reset))
        both(wire.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        both(wire.query("COMMIT"))


def test_text_that_only_looks_like_one(both):
    for text in ("SELECT 'a; RESET work_mem; b'", "SELECT $$; RESET ALL; $$; SELECT 2", "SELECT 1 /* ; RESET ALL; */; SELECT 2",
                 "SELECT E'\\'; RESET ALL; ', 1; SELECT 1", "SELECT 1 AS \"; RESET ALL;\"",
                 "CREATE FUNCTION pg_temp.f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; DROP FUNCTION pg_temp.f()"):
        both(wire.query(text))


def test_text_with_a_backslash(both):
    both(wire.query("SET timezone = 'UTC'"))
    both(wire.query("RESET timezone; SELECT E'it\\'s;'; SHOW timezone"))


def test_many_portals_that_never_run(both):
    both(wire.query("BEGIN"))
    both(wire.parse("RESET work_mem", "r"), *(wire.bind("r", f"p{i}") for i in range(200)), wire.execute("p1"), wire.sync())
    both(wire.query("ROLLBACK"))


def test_strings_that_are_read_otherwise(both):
    both(wire.query("BEGIN"))
    both(wire.query("SET LOCAL standard_conforming_strings = off"))
    both(wire.query("SELECT 'it\\'s; RESET ALL; '; SELECT 2"))
    both(wire.query("COMMIT"))


def test_pipelined_queries(both):
    """Several that wait for no answer: each finds its own companions."""
    for c in (both.gate, both.server):
        c.send(wire.query("BEGIN"), wire.query("SET work_mem = '1MB'; RESET work_mem; SELECT nothing"), wire.query("ROLLBACK"),
               wire.query("BEGIN; RESET work_mem"), wire.query("SET LOCAL work_mem TO DEFAULT; SHOW work_mem"),
               wire.query("COMMIT"))
    told = [[heard(c.until()) for _ in range(6)] for c in (both.gate, both.server)]
    assert told[0] == told[1]
    assert values(both.gate) == values(both.server)


@pytest.mark.parametrize("how", ["query", "text", "pipeline"])
def test_rows_go_where_the_startup_packet_says(one, login, stand, how):
    stand.postgres.sql("CREATE SCHEMA IF NOT EXISTS app1; DROP TABLE IF EXISTS app1.orders, public.orders; CREATE TABLE app1.orders (n int); "
                       "CREATE TABLE public.orders (n int); GRANT USAGE ON SCHEMA app1 TO PUBLIC; "
                       "GRANT ALL ON app1.orders, public.orders TO PUBLIC", database="acme")
    c = login(one, options="-c search_path=app1")
    texts = ["BEGIN", "SET LOCAL search_path = public", "RESET search_path", "INSERT INTO orders VALUES (1)", "COMMIT"]
    if how == "query":
        for sql in texts:
            c.query(sql)
    elif how == "text":
        c.ask(wire.query("; ".join(texts)))
    else:
        c.ask(*batch(*texts))
    assert c.query("SELECT (SELECT count(*) FROM app1.orders), (SELECT count(*) FROM public.orders)") == [["1", "0"]]
    stand.postgres.sql("DROP SCHEMA app1 CASCADE; DROP TABLE public.orders", database="acme")


def test_who_may_not_read_pg_settings_leaves_nothing(one, login, stand):
    """What a RESET has come to is guessed then; the value that a companion has set stays with its session."""
    stand.postgres.sql("REVOKE SELECT ON pg_settings FROM PUBLIC; REVOKE ALL ON pg_settings FROM acme_rw", database="acme")
    try:
        a, b = login(one, work_mem="9MB"), login(one)
        for sql in "BEGIN", "SET work_mem = '1MB'", "RESET work_mem", "COMMIT", "BEGIN", "RESET ALL", "COMMIT":
            a.query(sql)
            if a.status == "I":
                assert b.query("SHOW work_mem") == [["4MB"]]
        assert a.query("SHOW work_mem") == [["9MB"]]
    finally:
        stand.postgres.sql("GRANT SELECT ON pg_settings TO PUBLIC", database="acme")


@pytest.mark.parametrize("sql, options, said", [
    ("SET work_mem = '1MB'; RESET work_mem; SELECT current_setting('work_mem')", "-c work_mem=9MB", "9MB"),
    ("BEGIN; RESET ALL; SELECT current_setting('search_path') || current_setting('lock_timeout'); COMMIT",
     "-c search_path=app1 -c lock_timeout=77ms", "app177ms")])
def test_options(one, login, sql, options, said):
    messages = login(one, options=options).ask(wire.query(sql))
    assert wire.rows(messages) == [[said]]
    assert len([kind for kind, _ in messages if kind == "C"]) == sql.count(";") + 1


def test_statement_timeout_of_the_startup_packet_holds_behind_reset_all(one, login, stand):
    if stand.postgres.version < 12:
        return  # its timer is not started within a text where it was off: the next Query's is
    c = login(one, statement_timeout="100ms")
    told = wire.errors(c.ask(wire.query("BEGIN; RESET ALL; SELECT pg_sleep(30); COMMIT")))
    assert [f["C"] for f in told] == ["57014"]
    assert c.status == "E"


def test_lone_set_local_is_told_that_it_does_nothing(both):
    assert [m for m in both(wire.query("SET LOCAL work_mem TO DEFAULT")) if m[0] == "N"]


def test_a_role_that_may_not_set_everything(one, login, stand):
    """RESET ALL resets for everybody what only superusers set: it must not fail for what stands behind it."""
    if stand.postgres.version < 15:
        return  # only superusers have such a startup packet
    stand.postgres.sql("GRANT SET ON PARAMETER log_min_duration_statement TO acme_rw; "
                       "DO $$ BEGIN CREATE ROLE acme_team; EXCEPTION WHEN duplicate_object THEN END $$; GRANT acme_team TO acme_rw")
    try:
        c = login(one, log_min_duration_statement="1234s", work_mem="9MB")
        c.query("BEGIN; SET LOCAL ROLE acme_team; RESET ALL")
        assert c.query("SHOW work_mem") == [["9MB"]]
        c.query("COMMIT")
        assert c.query("SHOW log_min_duration_statement") == [["1234s"]]
        c.close()
    finally:
        stand.postgres.sql("REVOKE SET ON PARAMETER log_min_duration_statement FROM acme_rw")


def test_encodings(one, login, directly):
    """A value that is not ASCII, in an encoding of one byte a character, and in another one meanwhile."""
    gate, server = (get(client_encoding="LATIN1", **{"my.own": "x"}) for get in (lambda **p: login(one, **p), directly))
    for c in gate, server:
        c.send(wire.message("Q", "SELECT '\xe9'; RESET my.own; SELECT '\xe9', nothing".encode("latin-1") + b"\0"))
    assert heard(gate.until()) == heard(server.until())
    for sql in "SET client_encoding = 'UTF8'; RESET my.own", "BEGIN; RESET client_encoding; SHOW client_encoding", "COMMIT":
        for c in gate, server:
            c.send(wire.query(sql))
        assert heard(gate.until()) == heard(server.until())
    assert gate.query("SHOW client_encoding") == server.query("SHOW client_encoding") == [["LATIN1"]]
