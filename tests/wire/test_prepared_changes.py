"""Prepared statements whose tables change under them. A program was told which rows a statement
gives, and builds on it: "cached plan must not change result type" is what the server says instead
of giving other rows. Each story runs on the database itself, through a gate on the same server
connection, and on another one from step to step."""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import ssl
import struct

import pytest

from stand import proc, wire


class Place:
    """Where a story runs: log_in() makes clients, move() puts them on another server connection."""

    def __init__(self, log_in, admin, holders=()):
        self.log_in, self.admin, self.holders = log_in, admin, holders
        self.at = 0
        for holder in holders:
            holder.query("BEGIN")
        if holders:
            holders[0].query("COMMIT")

    def move(self):
        if self.holders:
            self.holders[self.at].query("BEGIN")
            self.at = 1 - self.at
            self.holders[self.at].query("COMMIT")

    def sql(self, text):
        self.admin.query(text)


@pytest.fixture(scope="module")
def pools(module_gate):
    return {n: module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": n, "shards": 1}})
            for n in (1, 2)}


@pytest.fixture
def direct(stand):
    made = []

    def get(user="acme_rw"):
        made.append(wire.Client(("127.0.0.1", stand.postgres.port)))
        return made[-1].login(user, "acme", stand.postgres.passwords[user])
    yield get
    for each in made:
        each.close()


@pytest.fixture(params=["direct", "same", "other"])
def place(request, pools, login, direct):
    if request.param == "direct":
        return Place(direct, direct())
    if request.param == "same":
        return Place(lambda: login(pools[1]), direct())
    return Place(lambda: login(pools[2]), direct(), [login(pools[2]) for _ in range(2)])


def prepare(c, sql, name="s", types=()):
    got = c.ask(wire.parse(sql, name, types), wire.describe("S", name), wire.sync())
    assert wire.kinds(got) in ("1tTZ", "1tnZ"), wire.errors(got)
    return got


def run(c, name="s", *values):
    got = c.ask(wire.bind(name, values=values), wire.execute(), wire.sync())
    assert not wire.errors(got), wire.errors(got)
    return wire.rows(got)


def refused(c, *parts):
    got = c.ask(*(parts or (wire.bind("s"), wire.execute(), wire.sync())))
    (fields,) = wire.errors(got)
    return fields["C"]


def is_changed(c, name="s", kinds="EZ"):
    got = c.ask(wire.bind(name), wire.execute(), wire.sync())
    (fields,) = wire.errors(got)
    assert wire.kinds(got) == kinds
    assert fields["C"] == "0A000" and fields["M"] == "cached plan must not change result type"
    assert fields["R"] == "RevalidateCachedQuery"
    return True


def test_cached_plan_must_not_change_result_type(place, table):
    c = place.log_in()
    place.sql(f"INSERT INTO {table} VALUES (1, 'one')")
    prepare(c, f"SELECT * FROM {table}")
    assert run(c) == [["1", "one"]]
    place.sql(f"ALTER TABLE {table} ADD extra int DEFAULT 5")
    for _ in range(3):
        place.move()
        assert is_changed(c)
    prepare(c, f"SELECT * FROM {table}", "anew")
    for _ in range(3):
        place.move()
        assert run(c, "anew") == [["1", "one", "5"]]
        assert is_changed(c)
    assert wire.kinds(c.ask(wire.close("S", "s"), wire.sync())) == "3Z"
    prepare(c, f"SELECT * FROM {table}")
    assert run(c) == [["1", "one", "5"]]


def test_a_change_before_the_first_use(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    place.sql(f"ALTER TABLE {table} ALTER id TYPE bigint")
    place.move()
    assert is_changed(c)


def test_who_prepares_behind_the_change_never_fails(place, table):
    c, other = place.log_in(), place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    assert run(c) == []
    place.sql(f"ALTER TABLE {table} ADD extra int")
    for _ in range(2):
        prepare(other, f"SELECT * FROM {table}")
        for _ in range(3):
            assert run(other) == []
            place.move()
        assert is_changed(c)
        other.ask(wire.close("S", "s"), wire.sync())


def test_a_change_that_is_taken_back(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    assert is_changed(c)
    place.sql(f"ALTER TABLE {table} DROP extra")
    for _ in range(3):
        assert run(c) == []
        place.move()


def test_a_change_that_is_rolled_back(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    c.query("BEGIN")
    c.query(f"ALTER TABLE {table} ADD extra int")
    assert is_changed(c)
    assert c.status == "E"
    c.query("ROLLBACK")
    place.move()
    assert run(c) == []


def test_a_statement_prepared_in_a_change_that_is_rolled_back(place, table):
    c = place.log_in()
    c.query("BEGIN")
    c.query(f"ALTER TABLE {table} ADD extra int")
    prepare(c, f"SELECT * FROM {table}")
    assert run(c) == []
    c.query("ROLLBACK")
    place.move()
    assert is_changed(c)
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    assert run(c) == []


def test_a_changed_statement_fails_its_transaction(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    c.query("BEGIN")
    assert is_changed(c) and c.status == "E"
    assert refused(c, wire.query("SELECT 1")) == "25P02"
    c.query("ROLLBACK")


def test_a_changed_statement_in_a_pipeline(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    prepare(c, f"INSERT INTO {table} VALUES ($1)", "put")
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    c.send(wire.bind("put", values=[1]), wire.execute(), wire.bind("s"), wire.execute(), wire.bind("s"),
           wire.execute(), wire.sync(), wire.bind("put", values=[2]), wire.execute(), wire.sync())
    got = c.until("Z")
    assert wire.kinds(got) == "2CEZ" and wire.errors(got)[0]["C"] == "0A000"
    assert wire.kinds(c.until("Z")) == "2CZ"
    assert c.query(f"SELECT id FROM {table}") == [["2"]]  # the first was undone with its batch


def test_describe_of_a_changed_statement(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table} WHERE id = $1")
    prepare(c, f"DELETE FROM {table} WHERE id = $1", "no rows")
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    got = c.ask(wire.describe("S", "s"), wire.sync())
    assert wire.kinds(got) == "tEZ" and wire.errors(got)[0]["C"] == "0A000"
    place.sql(f"DROP TABLE {table}")
    place.move()
    got = c.ask(wire.describe("S", "s"), wire.sync())
    assert wire.kinds(got) == "tEZ" and wire.errors(got)[0]["C"] == "42P01"
    assert wire.kinds(c.ask(wire.describe("S", "no rows"), wire.sync())) == "tnZ"


def test_a_column_that_is_dropped(place, table):
    c = place.log_in()
    prepare(c, f"SELECT words FROM {table}")
    place.sql(f"ALTER TABLE {table} DROP words")
    place.move()
    (fields,) = wire.errors(c.ask(wire.bind("s"), wire.execute(), wire.sync()))
    assert (fields["C"], fields["M"], fields["P"]) == ("42703", 'column "words" does not exist', "8")


def test_a_table_that_is_dropped_and_made_again(place, table):
    c = place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    assert run(c) == []
    place.sql(f"DROP TABLE {table}")
    place.move()
    assert refused(c) == "42P01"
    # The same columns: the server takes it for the same, and so must the gate.
    place.sql(f"CREATE TABLE {table} (id int, words text)")
    place.sql(f"INSERT INTO {table} VALUES (1, 'new')")
    for _ in range(3):
        assert run(c) == [["1", "new"]]
        place.move()


def test_prepare_says_what_is_missing(place, table):
    """Parse itself is refused, though the text was prepared before."""
    c, other = place.log_in(), place.log_in()
    prepare(c, f"SELECT * FROM {table}")
    place.sql(f"DROP TABLE {table}")
    got = other.ask(wire.parse(f"SELECT * FROM {table}", "s"), wire.sync())
    assert wire.kinds(got) == "EZ" and wire.errors(got)[0]["C"] == "42P01"


def test_parameters_keep_the_types_that_were_told(place, table):
    """Binary values are read by them."""
    c = place.log_in()
    got = prepare(c, f"INSERT INTO {table} (id, words) VALUES ($1, 'x')")
    assert got[1][1] == struct.pack("!hI", 1, 23)
    place.sql(f"ALTER TABLE {table} ALTER id TYPE text USING id::text")
    for n in range(2):
        place.move()
        body = b"\0s\0" + struct.pack("!hhhii", 1, 1, 1, 4, 258 + n) + struct.pack("!h", 0)
        got = c.ask(wire.message("B", body), wire.execute(), wire.sync())
        assert wire.kinds(got) == "2CZ", wire.errors(got)
    assert c.query(f"SELECT id FROM {table} ORDER BY 1") == [["258"], ["259"]]


def test_an_unnamed_statement_that_was_described(place, table):
    """lib/pq asks for the description, and binds in a transaction of its own."""
    c, other = place.log_in(), place.log_in()
    prepare(c, f"SELECT * FROM {table}", "")
    place.move()
    assert run(c, "") == []
    place.sql(f"ALTER TABLE {table} ADD extra int")
    place.move()
    assert other.extended("SELECT 1") == [["1"]]
    assert is_changed(c, "")


# ---- EXECUTE of what was prepared by protocol ----

def test_execute_by_sql(place, table):
    c = place.log_in()
    prepare(c, f"INSERT INTO {table} VALUES ($1, $2) RETURNING id", "Put It")
    prepare(c, f"SELECT words FROM {table} WHERE id = $1", "get_it")
    prepare(c, f"DELETE FROM {table}", "clear")
    for n in range(3):
        assert c.query(f"""EXECUTE "Put It" ({n}, 'a ' || {n})""") == [[str(n)]]
        place.move()
        assert c.query(f"/* x */ execute GET_IT({n})") == [[f"a {n}"]]
        assert run(c, "get_it", n) == [[f"a {n}"]]
    c.query("BEGIN")
    assert c.query("EXECUTE get_it(1)") == [["a 1"]]
    assert wire.kinds(c.ask(wire.query("EXECUTE clear"))) == "CZ" and c.status == "T"
    c.query("ROLLBACK")
    place.move()
    assert wire.kinds(c.ask(wire.query("EXECUTE clear"))) == "CZ" and c.status == "I"
    assert c.query("EXECUTE get_it(1)") == []


def test_execute_by_sql_fails_as_on_the_server(place, table):
    c = place.log_in()
    prepare(c, f"SELECT words FROM {table} WHERE id = $1")
    for sql, code, message in (
            ("EXECUTE none", "26000", 'prepared statement "none" does not exist'),
            ("EXECUTE s", "42601", 'wrong number of parameters for prepared statement "s"'),
            ("EXECUTE s(1/0)", "22012", "division by zero"), ("EXECUTE s(", "42601", "syntax error at end of input")):
        place.move()
        got = c.ask(wire.query(sql))
        assert wire.kinds(got) == "EZ" and c.status == "I"
        assert [(e["C"], e["M"]) for e in wire.errors(got)] == [(code, message)]
    place.sql(f"ALTER TABLE {table} ALTER words TYPE varchar")
    for _ in range(2):
        place.move()
        got = c.ask(wire.query("EXECUTE s(1)"))
        assert wire.kinds(got) == "EZ" and wire.errors(got)[0]["C"] == "0A000"
    place.sql(f"DROP TABLE {table}")
    for begun in (False, True):
        place.move()
        if begun:
            c.query("BEGIN")
        got = c.ask(wire.query("EXECUTE s(1)"))
        assert wire.kinds(got) == "EZ" and wire.errors(got)[0]["C"] == "42P01"
        assert c.status == ("E" if begun else "I")
        if begun:
            assert wire.errors(c.ask(wire.query("EXECUTE s(1)")))[0]["C"] == "25P02"
            c.query("ROLLBACK")
    assert c.query("SELECT 1") == [["1"]]


def test_execute_by_sql_in_a_pipeline(place, table):
    c = place.log_in()
    prepare(c, f"INSERT INTO {table} VALUES ($1)", "put")
    place.move()
    c.send(wire.bind("put", values=[1]), wire.execute(), wire.sync(), wire.query("EXECUTE put(2)"),
           wire.query("EXECUTE put(2)"), wire.query("EXECUTE put(3)"))
    assert [wire.kinds(c.until("Z")) for _ in range(4)] == ["2CZ", "CZ", "EZ", "CZ"]
    assert c.query(f"SELECT id FROM {table} ORDER BY 1") == [["1"], ["2"], ["3"]]


# ---- search_path, settings ----

@pytest.fixture
def schemas(stand):
    stand.postgres.sql("CREATE SCHEMA one AUTHORIZATION acme_rw; CREATE SCHEMA other AUTHORIZATION acme_rw;"
                       "CREATE TABLE one.same (a int); CREATE TABLE other.same (a int);"
                       "CREATE TABLE one.differs (a int); CREATE TABLE other.differs (x text, y date);"
                       "INSERT INTO one.same VALUES (1); INSERT INTO other.same VALUES (2);"
                       "INSERT INTO one.differs VALUES (3); INSERT INTO other.differs VALUES ('four', '2004-04-04');"
                       "GRANT ALL ON ALL TABLES IN SCHEMA one, other TO acme_rw", "acme", "postgres")
    yield
    stand.postgres.sql("DROP SCHEMA one CASCADE; DROP SCHEMA other CASCADE", "acme", "postgres")


def test_one_text_in_two_schemas(place, schemas):
    one, other = place.log_in(), place.log_in()
    one.query("SET search_path = one")
    other.query("SET search_path = other")
    for c in (one, other):
        prepare(c, "SELECT * FROM same", "same")
        prepare(c, "SELECT * FROM differs", "differs")
    for _ in range(4):
        assert run(one, "same") == [["1"]] and run(other, "same") == [["2"]]
        assert run(one, "differs") == [["3"]] and run(other, "differs") == [["four", "2004-04-04"]]
        place.move()


def test_a_search_path_set_behind_the_parse(place, schemas):
    c = place.log_in()
    c.query("SET search_path = one")
    prepare(c, "SELECT * FROM same", "same")
    prepare(c, "SELECT * FROM differs", "differs")
    for _ in range(2):
        c.query("SET search_path = other")
        assert run(c, "same") == [["2"]]
        assert is_changed(c, "differs")
        place.move()
        assert run(c, "same") == [["2"]]
        assert is_changed(c, "differs")
        c.query("SET search_path = one")
        place.move()
        assert run(c, "same") == [["1"]] and run(c, "differs") == [["3"]]


def test_a_search_path_for_a_transaction(place, schemas):
    c, other = place.log_in(), place.log_in()
    for each in (c, other):
        each.query("SET search_path = one")
        prepare(each, "SELECT * FROM same")
    for _ in range(3):
        c.query("BEGIN")
        c.query("SET LOCAL search_path = other")
        assert run(c) == [["2"]]
        c.query("COMMIT")
        assert run(c) == [["1"]] and run(other) == [["1"]]
        place.move()


@pytest.mark.parametrize("name, one, other, sql, answers", [
    ("TimeZone", "UTC", "Asia/Tokyo", "SELECT extract(epoch FROM '2024-01-01 09:00'::timestamptz)::int - 1704067200",
     ("32400", "0")),
    ("DateStyle", "ISO, MDY", "ISO, DMY", "SELECT '01/02/2024'::date", ("2024-01-02", "2024-02-01")),
    ("IntervalStyle", "sql_standard", "postgres", "SELECT extract(day FROM '-1 1:00:00'::interval)::int * 100 + "
     "extract(hour FROM '-1 1:00:00'::interval)::int", ("-101", "-99")),
])
def test_literals_are_read_with_the_settings_of_their_session(place, name, one, other, sql, answers):
    a, b = place.log_in(), place.log_in()
    a.query(f"SET {name} = '{one}'")
    b.query(f"SET {name} = '{other}'")
    prepare(a, sql)
    prepare(b, sql)
    for _ in range(3):
        assert (run(a)[0][0], run(b)[0][0]) == answers
        place.move()


def test_literals_are_read_with_the_settings_of_their_transaction(place):
    a, b = place.log_in(), place.log_in()
    sql = "SELECT '01/02/2024'::date"
    a.query("BEGIN")
    a.query("SET LOCAL datestyle = 'ISO, DMY'")
    prepare(a, sql)
    assert run(a) == [["2024-02-01"]]
    a.query("COMMIT")
    prepare(b, sql)
    assert run(b) == [["2024-01-02"]]


def test_settings_of_a_transaction_stay_out_of_shared_statements(place, table):
    a, b = place.log_in(), place.log_in()
    sql = f"SELECT '01/02/2024'::date FROM {table}"
    place.sql(f"INSERT INTO {table} VALUES (1)")
    for each in (a, b):
        prepare(each, sql)
    a.query("BEGIN")
    a.query("SET LOCAL datestyle = 'ISO, DMY'")
    place.sql(f"ALTER TABLE {table} ADD extra int")  # the server reads the text anew
    assert run(a) == [["2024-02-01"]]
    a.query("COMMIT")
    assert run(b) == [["2024-01-02"]]


def test_now_is_when_it_was_prepared(place):
    a, b = place.log_in(), place.log_in()
    sql = "SELECT 'now'::timestamptz"
    prepare(a, sql)
    prepare(b, sql)
    first, second = run(a), run(b)
    assert first < second and run(a) == first


# ---- drivers ----

@pytest.fixture(params=["direct", "gate"])
def dsn(request, stand, pools, token):
    if request.param == "direct":
        return {"port": stand.postgres.port, "password": stand.postgres.passwords["acme_rw"]}
    return {"port": pools[2].port(), "password": token("acme")}


def test_asyncpg_prepares_again_by_itself(dsn, table, stand, direct):
    import asyncpg
    admin = direct()

    async def story():
        c = await asyncpg.connect(host="127.0.0.1", user="acme_rw", database="acme", timeout=20 * proc.PATIENCE,
                                  ssl=ssl.create_default_context(cafile=stand.authority.crt), **dsn)
        try:
            sql = f"SELECT * FROM {table}"
            assert [dict(r) for r in await c.fetch(sql)] == [{"id": 1, "words": "one"}]
            admin.query(f"ALTER TABLE {table} ADD extra int DEFAULT 5")
            assert [dict(r) for r in await c.fetch(sql)] == [{"id": 1, "words": "one", "extra": 5}]
            admin.query(f"ALTER TABLE {table} ALTER id TYPE bigint")
            with pytest.raises(asyncpg.InvalidCachedStatementError):
                async with c.transaction():
                    await c.fetch(sql)
            assert [dict(r) for r in await c.fetch(sql)] == [{"id": 1, "words": "one", "extra": 5}]
        finally:
            await c.close()
    admin.query(f"INSERT INTO {table} VALUES (1, 'one')")
    asyncio.run(story())


def test_psycopg_is_told_as_by_the_server(dsn, table, stand, direct):
    import psycopg
    admin = direct()
    admin.query(f"INSERT INTO {table} VALUES (1, 'one')")
    with psycopg.connect(host="localhost", hostaddr="127.0.0.1", user="acme_rw", dbname="acme", sslmode="verify-full",
                         sslrootcert=stand.authority.crt, autocommit=True, prepare_threshold=0, **dsn) as c:
        sql = f"SELECT * FROM {table} WHERE id = %s"
        assert c.execute(sql, (1,)).fetchall() == [(1, "one")]
        admin.query(f"ALTER TABLE {table} ADD extra int DEFAULT 5")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            c.execute(sql, (1,))
        assert c.execute(sql, (1,), prepare=False).fetchall() == [(1, "one", 5)]
