"""Prepared statements: in transaction mode a program must not notice that its server
connection changes."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire


@pytest.fixture(scope="module")
def two(module_gate):
    """A gate with pools of exactly two server connections on one worker."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


def ok(messages):
    for fields in wire.errors(messages):
        raise wire.ServerError(fields)
    return messages


def prepare(c, sql, name):
    assert wire.kinds(ok(c.ask(wire.parse(sql, name), wire.sync()))) == "1Z"


def run(c, name, *values):
    return wire.rows(ok(c.ask(wire.bind(name, values=values), wire.execute(), wire.sync())))


def fails(c, *parts):
    messages = c.ask(*parts)
    assert c.status == "I"
    found = wire.errors(messages)
    assert len(found) == 1, wire.kinds(messages)
    return found[0]["C"]


def pid(c):
    return c.query("SELECT pg_backend_pid()")[0][0]


def test_statement_follows_over_several_backends(two, login):
    a, b, c = login(two), login(two), login(two)
    prepare(a, "SELECT $1::int + 1, pg_backend_pid()", "s")
    b.query("BEGIN")
    first = pid(b)
    _, second = run(a, "s", 1)[0]
    assert second != first
    c.query("BEGIN")
    assert pid(c) == second
    b.query("COMMIT")
    assert run(a, "s", 41) == [["42", first]]
    c.query("COMMIT")


def test_same_name_of_two_clients(two, login):
    a, b = login(two), login(two)
    prepare(a, "SELECT 'from a'", "s")
    prepare(b, "SELECT 'from b'", "s")
    for _ in range(10):
        assert run(a, "s") == [["from a"]]
        assert run(b, "s") == [["from b"]]


def test_same_text_of_two_clients(two, login):
    a, b = login(two), login(two)
    prepare(a, "SELECT $1::text", "one")
    prepare(b, "SELECT $1::text", "two")
    assert run(a, "one", "x") == [["x"]]
    assert run(b, "two", "y") == [["y"]]
    assert fails(a, wire.bind("two", values=["z"]), wire.execute(), wire.sync()) == "26000"


def test_same_text_with_other_types(two, login):
    a, b = login(two), login(two)
    ok(a.ask(wire.parse("SELECT pg_typeof($1)", "s", [23]), wire.sync()))
    ok(b.ask(wire.parse("SELECT pg_typeof($1)", "s", [25]), wire.sync()))
    assert run(a, "s", 1) == [["integer"]]
    assert run(b, "s", 1) == [["text"]]


def test_name_in_use_is_refused(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    assert fails(c, wire.parse("SELECT 2", "s"), wire.sync()) == "42P05"
    assert run(c, "s") == [["1"]]


def test_close_and_use_again(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    assert wire.kinds(c.ask(wire.close("S", "s"), wire.sync())) == "3Z"
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    prepare(c, "SELECT 2", "s")
    assert run(c, "s") == [["2"]]


def test_close_of_an_unknown_name_is_no_error(gate, login, database):
    c = login(gate, database)
    assert wire.kinds(c.ask(wire.close("S", "never"), wire.sync())) == "3Z"


def test_describe_of_a_statement(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT $1::int AS n, $2::text AS t", "s")
    for _ in range(3):
        messages = c.ask(wire.describe("S", "s"), wire.sync())
        assert wire.kinds(messages) == "tTZ"
        assert b"n\0" in messages[1][1] and b"t\0" in messages[1][1]


def test_unknown_statement_is_26000(gate, login, database):
    c = login(gate, database)
    assert fails(c, wire.bind("never"), wire.execute(), wire.sync()) == "26000"
    assert fails(c, wire.describe("S", "never"), wire.sync()) == "26000"
    assert c.query("SELECT 1") == [["1"]]


def test_statement_that_did_not_parse_is_not_there(gate, login, database):
    c = login(gate, database)
    assert fails(c, wire.parse("SELEKT", "s"), wire.sync()) == "42601"
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    prepare(c, "SELECT 'now'", "s")
    assert run(c, "s") == [["now"]]


def test_statement_skipped_by_an_error_is_not_there(gate, login, database):
    c = login(gate, database)
    assert fails(c, wire.one("SELECT 1/0"), wire.parse("SELECT 1", "skipped"), wire.sync()) == "22012"
    assert fails(c, wire.bind("skipped"), wire.execute(), wire.sync()) == "26000"


def test_statement_prepared_in_a_transaction_that_rolls_back_stays(gate, login, database):
    c = login(gate, database)
    c.query("BEGIN")
    prepare(c, "SELECT 'still'", "s")
    c.query("ROLLBACK")
    assert run(c, "s") == [["still"]]


def test_the_end_of_a_failed_transaction_may_be_prepared_already(gate, login, database):
    """pgx and pgjdbc: a ROLLBACK by name, whose text that server connection knows by then."""
    c = login(gate, database)
    for name in ("first", "second"):
        c.query("BEGIN")
        assert wire.errors(c.ask(wire.one("SELECT 1/0"), wire.sync()))
        refused = wire.errors(c.ask(wire.parse("SELECT 1", "no " + name), wire.sync()))
        assert [e["C"] for e in refused] == ["25P02"]
        messages = c.ask(wire.parse("ROLLBACK", name), wire.bind(name), wire.execute(), wire.sync())
        assert wire.kinds(ok(messages)) == "12CZ"
        assert c.status == "I"
    prepare(c, "SELECT 1", "no first")
    assert run(c, "no first") == [["1"]]


def test_unnamed_statement_lasts_over_sync(two, login):
    a, b = login(two), login(two)
    ok(a.ask(wire.parse("SELECT 'mine'"), wire.sync()))
    for _ in range(3):
        assert b.extended("SELECT 'other'") == [["other"]]
    assert run(a, "") == [["mine"]]
    assert wire.kinds(a.ask(wire.describe("S"), wire.sync())) == "tTZ"


def test_deallocate(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    prepare(c, "SELECT 2", "t")
    c.query("DEALLOCATE s")
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    assert run(c, "t") == [["2"]]


def test_deallocate_is_a_statement_of_its_transaction(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    c.query("BEGIN")
    assert wire.kinds(c.ask(wire.query("DEALLOCATE s"))) == "CZ" and c.status == "T"
    with pytest.raises(wire.ServerError) as caught:
        c.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    assert caught.value.code == "25001"
    c.query("ROLLBACK")
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    prepare(c, "SELECT 2", "s")
    c.query("BEGIN")
    c.query("SELECT 1")
    for _ in range(2):
        c.query("DEALLOCATE s")
        prepare(c, "SELECT 3", "s")
        assert run(c, "s") == [["3"]]
    c.query("COMMIT")
    assert c.query("SELECT 'on'") == [["on"]]


def test_deallocate_through_the_extended_protocol(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    prepare(c, "SELECT 2", "t")
    assert wire.kinds(c.ask(wire.one("DEALLOCATE s"), wire.sync())) == "12CZ"
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    prepare(c, "SELECT 1", "s")
    assert run(c, "s") == [["1"]] and run(c, "t") == [["2"]]


def test_psycopg_drops_statements_beyond_its_maximum(two, psycopg_connect):
    with psycopg_connect(two) as connection:
        connection.prepared_max, connection.prepare_threshold = 5, 0
        for n in range(30):
            assert connection.execute(f"SELECT {n} + %s::int", (1,)).fetchone() == (n + 1,)


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DISCARD ALL"])
def test_all_statements_forgotten(gate, login, database, sql):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    prepare(c, "SELECT 2", "t")
    assert run(c, "s") == [["1"]]
    c.query(sql)
    for name in "st":
        assert fails(c, wire.bind(name), wire.execute(), wire.sync()) == "26000"
    prepare(c, "SELECT 3", "s")
    assert run(c, "s") == [["3"]]


def test_deallocate_of_one_leaves_the_other_clients(two, login):
    a, b = login(two), login(two)
    prepare(a, "SELECT 'a'", "s")
    prepare(b, "SELECT 'b'", "s")
    a.query("DEALLOCATE ALL")
    assert run(b, "s") == [["b"]]


def test_more_statements_than_a_backend_keeps(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1, "prepared_statements": 10}})
    c = login(gate)
    for n in range(40):
        prepare(c, f"SELECT {n} + $1::int", f"s{n}")
    for _ in range(2):
        for n in range(40):
            assert run(c, f"s{n}", 1) == [[str(n + 1)]]
    held = int(c.query("SELECT count(*) FROM pg_prepared_statements")[0][0])
    assert held <= 11


def test_many_clients_with_the_same_text_prepare_it_once(make_gate, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    for n in range(10):
        c = login(gate)
        prepare(c, "SELECT 'shared'", f"name{n}")
        assert run(c, f"name{n}") == [["shared"]]
    held = c.query("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%shared%'"
                   " AND NOT from_sql")
    assert held == [["1"]]


def test_table_that_changes_under_a_statement(gate, login, database, table, stand):
    c = login(gate, database)
    stand.postgres.sql(f"INSERT INTO {table} VALUES (1, 'one')", "acme", "acme_rw")
    prepare(c, f"SELECT * FROM {table}", "s")
    assert run(c, "s") == [["1", "one"]]
    stand.postgres.sql(f"ALTER TABLE {table} ADD extra int DEFAULT 5", "acme", "acme_rw")
    # PostgreSQL itself says 0A000 once for ever; the gate may do better, never worse.
    messages = c.ask(wire.bind("s"), wire.execute(), wire.sync())
    if wire.errors(messages):
        assert wire.errors(messages)[0]["C"] == "0A000"
        if database == "acme":
            assert run(c, "s") == [["1", "one", "5"]]
    else:
        assert wire.rows(messages) == [["1", "one", "5"]]


def test_sql_prepare_keeps_its_backend(two, login):
    a, b = login(two), login(two)
    a.query("PREPARE s AS SELECT 'sql'")
    for _ in range(5):
        assert b.query("SELECT 1") == [["1"]]
        assert a.query("EXECUTE s") == [["sql"]]
    with pytest.raises(wire.ServerError) as caught:
        b.query("EXECUTE s")
    assert caught.value.code == "26000"


def test_sql_prepare_is_gone_for_the_next_client(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    a = login(gate)
    a.query("PREPARE leftover AS SELECT 1")
    a.send(wire.terminate())
    b = login(gate)
    with pytest.raises(wire.ServerError) as caught:
        b.query("EXECUTE leftover")
    assert caught.value.code == "26000"


def test_long_names_and_texts(gate, login, database):
    c = login(gate, database)
    name, words = "n" * 2000, "w" * 200000
    prepare(c, f"SELECT '{words}'", name)
    assert run(c, name) == [[words]]


def test_portals_of_one_transaction(gate, login, database):
    c = login(gate, database)
    c.query("BEGIN")
    ok(c.ask(wire.parse("SELECT * FROM generate_series(1, 5)", "g"),
             wire.bind("g", "p1"), wire.bind("g", "p2"), wire.sync()))
    assert wire.kinds(c.ask(wire.execute("p1", 2), wire.sync())) == "DDsZ"
    assert wire.kinds(c.ask(wire.execute("p2", 1), wire.sync())) == "DsZ"
    assert wire.rows(ok(c.ask(wire.execute("p1"), wire.sync()))) == [["3"], ["4"], ["5"]]
    c.query("COMMIT")
