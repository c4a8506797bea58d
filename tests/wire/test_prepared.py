"""Prepared statements: in transaction mode a program must not notice that its server
connection changes."""
# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from stand import proc, wire


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


def test_many_clients_with_the_same_text_share_it(make_gate, login):
    """Each Parse is the server's own, and one of them stays."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    clients = [login(gate) for _ in range(10)]
    for n, c in enumerate(clients):
        prepare(c, "SELECT 'shared'", f"name{n}")
        assert run(c, f"name{n}") == [["shared"]]
    prepare(c, "SELECT 1", "last")  # closes what is there twice
    held = c.query("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%shared%'"
                   " AND NOT from_sql")
    assert held == [["1"]]
    for n, c in enumerate(clients):
        assert run(c, f"name{n}") == [["shared"]]


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


# ---- what hurt the peers ----

def test_a_name_is_never_used_for_another_text_pgdog_1331(make_gate, login):
    """The cache of a connection is reset and filled again: an old name must not find a new text."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1, "prepared_statements": 10}})
    a, b = login(gate), login(gate)
    prepare(a, "SELECT 'first of a'", "s")
    assert run(a, "s") == [["first of a"]]
    for how in ("DISCARD ALL", "DEALLOCATE ALL"):
        b.query(how)
        for n in range(30):
            prepare(b, f"SELECT 'b {n}'", f"{how} {n}")
            assert run(b, f"{how} {n}") == [[f"b {n}"]]
        assert run(a, "s") == [["first of a"]]
    names = b.query("SELECT count(DISTINCT name), count(*) FROM pg_prepared_statements")[0]
    assert names[0] == names[1]


def test_the_unnamed_statement_lives_until_the_next_one_pgdog_574(two, login):
    a, b = login(two), login(two)
    assert wire.kinds(a.ask(wire.parse("SELECT $1::int", ""), wire.sync())) == "1Z"
    for n in range(4):
        b.query("BEGIN")
        assert b.extended("SELECT 'between'") == [["between"]]
        assert run(a, "", n) == [[str(n)]]
        b.query("COMMIT")
        assert run(a, "", n) == [[str(n)]]
    a.query("SELECT 1")
    assert fails(a, wire.bind("", values=[1]), wire.execute(), wire.sync()) == "26000"


@pytest.mark.parametrize("by", ["query", "protocol"])
def test_sql_deallocate_as_pdo_and_rails_do_pgbouncer_991_1041_1535(two, login, by):
    c, other = login(two), login(two)
    for n in range(20):
        name = f"pdo_stmt_{n:08x}"
        prepare(c, f"SELECT {n % 3}, $1::text", name)
        assert run(c, name, "x") == [[str(n % 3), "x"]]
        if n % 2:
            other.query("BEGIN")
        sql = f"DEALLOCATE {name}"
        if by == "query":
            assert wire.kinds(c.ask(wire.query(sql))) == "CZ"
        else:
            assert wire.kinds(c.ask(wire.one(sql), wire.sync())) == "12CZ"
        assert fails(c, wire.bind(name, values=["x"]), wire.execute(), wire.sync()) == "26000"
        assert fails(c, wire.query(sql)) == "26000"
        if n % 2:
            other.query("COMMIT")


def test_deallocate_is_the_servers_own(gate, login, database):
    """It counts as a statement of its transaction, and fails in a failed one."""
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    prepare(c, "SELECT 2", "t")
    c.query("BEGIN")
    c.query("DEALLOCATE s")
    assert c.status == "T"
    got = c.ask(wire.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    assert [e["C"] for e in wire.errors(got)] == ["25001"]
    c.query("ROLLBACK")
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"
    c.query("BEGIN")
    assert wire.errors(c.ask(wire.query("SELECT 1/0")))
    got = c.ask(wire.query("DEALLOCATE t"))
    assert [e["C"] for e in wire.errors(got)] == ["25P02"] and c.status == "E"
    c.query("ROLLBACK")
    assert run(c, "t") == [["2"]]


def test_deallocate_all_in_a_transaction_that_rolls_back(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    c.query("BEGIN")
    c.query("DEALLOCATE ALL")
    c.query("ROLLBACK")
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"


@pytest.mark.parametrize("sql", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_what_is_prepared_behind_all_forgotten_in_one_go(two, login, sql):
    c, other = login(two), login(two)
    prepare(c, "SELECT 'old'", "s")
    c.send(wire.query(sql), wire.parse("SELECT 'new'", "s"), wire.bind("s"), wire.execute(), wire.sync())
    c.until("Z")
    assert wire.rows(ok(c.until("Z"))) == [["new"]]
    other.query("BEGIN")
    assert run(c, "s") == [["new"]]
    other.query("COMMIT")
    assert run(c, "s") == [["new"]]


def test_deallocate_all_in_the_middle_of_a_batch(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 'old'", "s")
    got = c.ask(wire.bind("s"), wire.execute(), wire.one("DEALLOCATE ALL"), wire.parse("SELECT 'new'", "s"),
                wire.bind("s"), wire.execute(), wire.sync())
    assert wire.rows(ok(got)) == [["old"], ["new"]]
    assert run(c, "s") == [["new"]]


def prepare_many(c, count, text):
    for first in range(0, count, 500):
        c.send_and_read(*(wire.parse(f"SELECT {n}, {text}", f"s{n}") for n in range(first, first + 500)), wire.sync())
        ok(c.until("Z"))


def test_thousands_of_statements_in_bounded_memory_pgdog_1311(make_gate, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    text, sizes = "'" + "x" * 300 + "'", []
    for turn in range(3):
        c = login(gate)
        prepare_many(c, 20000, text)
        for n in (0, 19999, 7777):
            assert run(c, f"s{n}")[0][0] == str(n)
        assert int(c.query("SELECT count(*) FROM pg_prepared_statements")[0][0]) < 1100
        if turn == 1:
            c.query("DEALLOCATE ALL")
        sizes.append(proc.resident(gate.pid))
        c.send(wire.terminate())
        assert c.is_closed()
    if proc.is_sanitized(gate.pid):  # freed memory is kept for a while: its size says nothing
        return
    # About 1 kB each while there is one who may use them, and not twice over.
    assert sizes[0] < 64 * 1024 and sizes[2] < sizes[0] * 1.25


def test_a_client_that_never_closes_is_told_so(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1, "statement_memory": "64kB"}})
    c = login(gate)
    for n in range(1000):  # what is closed does not count
        assert wire.kinds(ok(c.ask(wire.parse(f"SELECT {n}", "s"), wire.close("S", "s"), wire.sync()))) == "13Z"
    refused = next(n for n in range(1000) if wire.errors(c.ask(wire.parse(f"SELECT {n}", f"s{n}"), wire.sync())))
    assert refused > 50
    assert fails(c, wire.parse("SELECT 1", "more"), wire.bind("more"), wire.sync()) == "54000"
    gate.await_log(r"info    client \S+: request refused: statements_too_many: too many prepared statements")
    assert len(re.findall("request refused", gate.log())) == 1, "one line for a session and reason"
    assert run(c, "s1") == [["1"]]
    c.query("DEALLOCATE ALL")
    prepare(c, "SELECT 1", "more")
    assert login(gate).query("SELECT 1") == [["1"]]


def test_large_texts_are_not_kept_for_nobody(make_gate, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    c, sizes = login(gate), []
    for n in range(40):
        ok(c.ask(wire.parse(f"SELECT length('{n % 10}{'y' * 2000000}')", f"s{n}"), wire.close("S", f"s{n}"), wire.sync()))
        sizes.append(proc.resident(gate.pid))
    assert proc.is_sanitized(gate.pid) or max(sizes) < 64 * 1024


# ---- names ----

def everything(messages):
    return b"".join(body for _, body in messages)


def test_our_names_are_in_no_error(two, login):
    """Message, detail, context: the client's own name, or none."""
    c, other = login(two), login(two)
    prepare(c, "SELECT $1::int + 1", "mine")
    got = c.ask(wire.bind("mine"), wire.execute(), wire.sync())
    assert wire.errors(got)[0]["M"] == 'bind message supplies 0 parameters, but prepared statement "mine" requires 1'
    other.query("BEGIN")
    for parts in ([wire.bind("mine")], [wire.bind("mine", values=["x"])], [wire.bind("mine", "p", values=["2147483647"]), wire.execute("p")],
                  [wire.parse("SELECT 1", "mine")], [wire.bind("no such")], [wire.describe("S", "no such")],
                  [wire.query("EXECUTE no_such")], [wire.query("DEALLOCATE no_such")], [wire.one("DEALLOCATE no_such")]):
        got = c.ask(*parts, b"" if parts[0][:1] == b"Q" else wire.sync())
        assert wire.errors(got) and b"postern" not in everything(got)
    got = c.ask(wire.parse("SELECT 1", "mine"), wire.sync())
    assert wire.errors(got)[0]["M"] == 'prepared statement "mine" already exists'
    got = c.ask(wire.parse("DEALLOCATE mine", "d"), wire.bind("d"), wire.bind("d", "p"), wire.execute(), wire.execute("p"), wire.sync())
    assert [e["M"] for e in wire.errors(got)] == ['prepared statement "mine" does not exist']
    other.query("COMMIT")


def test_context_of_plpgsql_holds_no_names(two, login):
    c = login(two)
    prepare(c, "DO $$ BEGIN PERFORM 1/0; END $$", "d")
    got = c.ask(wire.bind("d"), wire.execute(), wire.sync())
    (fields,) = wire.errors(got)
    assert fields["C"] == "22012" and "PL/pgSQL" in fields["W"] and b"postern" not in everything(got)


def test_a_statement_of_another_cannot_be_had_by_its_real_name(make_gate, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    prepare(a, "SELECT 'of a'", "s")
    name = b.query("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%of a%'")[0][0]
    assert fails(b, wire.bind(name), wire.execute(), wire.sync()) == "26000"
    assert fails(b, wire.describe("S", name), wire.sync()) == "26000"


def test_close_of_a_bound_statement_leaves_its_portal(gate, login, database):
    c = login(gate, database)
    prepare(c, "SELECT 1", "s")
    got = c.ask(wire.bind("s", "p"), wire.close("S", "s"), wire.execute("p"), wire.sync())
    assert wire.kinds(got) == "23DCZ"
    assert fails(c, wire.bind("s"), wire.execute(), wire.sync()) == "26000"


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


def test_fetch_is_about_whatever_cursor_has_the_name(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c, other = login(gate), login(gate)

    def fetch():
        got = c.ask(wire.bind("f"), wire.execute(), wire.sync())
        return wire.rows(got) or [e["C"] for e in wire.errors(got)]

    c.query("DECLARE held CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 3) n")
    c.ask(wire.parse("FETCH 1 FROM held", "f"), wire.describe("S", "f"), wire.sync())
    assert fetch() == [["1"]]
    c.query("CLOSE held")
    other.query("SELECT 1")
    assert fetch() == ["34000"]
    c.query("DECLARE held CURSOR WITH HOLD FOR SELECT 'of another', 'shape'")
    assert fetch() == [["of another", "shape"]]
