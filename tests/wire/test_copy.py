"""COPY in and out, and what goes wrong in it."""
# SPDX-License-Identifier: Apache-2.0
import io

import pytest

from stand import proc, wire


def data(text):
    return wire.message("d", text.encode() if isinstance(text, str) else text)


DONE = wire.message("c")


def fail(words):
    return wire.message("f", wire.text(words))


def copy_in(c, table, *parts):
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.expect("G")
    return c.ask(*parts)


def test_copy_in_and_out(gate, psycopg2_connect, database, table):
    with psycopg2_connect(gate, database) as c, c.cursor() as cursor:
        cursor.copy_expert(f"COPY {table} FROM STDIN",
                           io.StringIO("".join(f"{n}\tw{n}\n" for n in range(10000))))
    with psycopg2_connect(gate, database) as c, c.cursor() as cursor:
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT", out)
        lines = out.getvalue().splitlines()
        assert len(lines) == 10000 and lines[77] == "77\tw77"


def test_large_copy_in_both_directions(gate, psycopg_connect, database, table):
    with psycopg_connect(gate, database) as c, c.cursor() as cursor:
        with cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for n in range(400):
                copy.write(f"{n}\t{'x' * 100000}\n")
        size = 0
        with cursor.copy(f"COPY {table} TO STDOUT") as copy:
            for part in copy:
                size += len(part)
        assert size > 400 * 100000


def test_psql_copies(gate, psql, database, table):
    done = psql(gate, database, stdin=f"\\copy {table} FROM STDIN\n1\tone\n2\ttwo\n\\.\n"
                                      f"\\copy {table} TO STDOUT\n")
    assert done.stdout == "1\tone\n2\ttwo\n", done.stderr


def test_copy_fail_leaves_the_session_in_step(gate, login, database, table):
    c = login(gate, database)
    messages = copy_in(c, table, data("1\tone\n"), fail("changed my mind"))
    assert wire.errors(messages)[0]["C"] == "57014"
    assert c.status == "I"
    assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_bad_data_ends_the_copy_and_not_the_session(gate, login, database, table):
    c = login(gate, database)
    messages = copy_in(c, table, data("no number\tone\n"), data("2\ttwo\n") * 1000, DONE)
    assert wire.errors(messages)[0]["C"] == "22P02"
    assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_session_after_an_early_copy_error_has_no_extra_answers(gate, login, database, table):
    c = login(gate, database)
    copy_in(c, table, data("bad\n"), DONE)
    for n in range(5):
        assert c.query(f"SELECT {n}") == [[str(n)]]


def test_copy_rows_cut_anywhere(gate, login, database, table):
    c = login(gate, database)
    text = "".join(f"{n}\tw{n}\n" for n in range(200))
    messages = copy_in(c, table, *(data(text[n:n + 7]) for n in range(0, len(text), 7)), DONE)
    assert wire.kinds(messages) == "CZ"
    assert c.query(f"SELECT count(*) FROM {table}") == [["200"]]


def test_copy_in_by_the_extended_protocol(gate, login, database, table):
    c = login(gate, database)
    c.send(wire.one(f"COPY {table} FROM STDIN"), wire.flush())
    assert wire.kinds(c.until("G")) == "12G"
    messages = c.ask(data("1\tone\n"), DONE, wire.sync())
    assert wire.kinds(messages) == "CZ"
    assert c.query(f"SELECT words FROM {table}") == [["one"]]


def test_sync_and_flush_within_copy_are_ignored(gate, login, database, table):
    c = login(gate, database)
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.expect("G")
    messages = c.ask(data("1\tone\n"), wire.sync(), wire.flush(), data("2\ttwo\n"), DONE)
    assert wire.kinds(messages) == "CZ"
    assert c.query(f"SELECT count(*) FROM {table}") == [["2"]]


def test_copy_out_by_the_extended_protocol(gate, login, database):
    c = login(gate, database)
    messages = c.ask(wire.one("COPY (SELECT * FROM generate_series(1, 3)) TO STDOUT"), wire.sync())
    assert wire.kinds(messages) == "12HdddcCZ"


def test_copy_out_that_fails_half_way(gate, login, database):
    c = login(gate, database)
    messages = c.ask(wire.query("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) n) TO STDOUT"))
    assert wire.kinds(messages).endswith("EZ")
    assert wire.errors(messages)[0]["C"] == "22012"
    assert c.query("SELECT 1") == [["1"]]


def test_copy_between_other_statements_of_one_message(gate, login, database, table):
    c = login(gate, database)
    c.send(wire.query(f"SELECT 1; COPY {table} FROM STDIN; SELECT 2"))
    assert wire.kinds(c.until("G")) == "TDCG"
    messages = c.ask(data("1\tone\n"), DONE)
    assert wire.kinds(messages) == "CTDCZ"


def test_copy_in_a_transaction_that_is_rolled_back(gate, login, database, table):
    c = login(gate, database)
    c.query("BEGIN")
    assert wire.kinds(copy_in(c, table, data("1\tone\n"), DONE)) == "CZ"
    assert c.status == "T"
    c.query("ROLLBACK")
    assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_leaving_in_the_middle_of_copy_in_leaves_nothing(make_gate, login, table):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.expect("G")
    c.send(data("1\tone\n"))
    c.close()
    other = login(gate)
    assert other.query(f"SELECT count(*) FROM {table}") == [["0"]]


def test_leaving_in_the_middle_of_copy_out_frees_the_pool(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.send(wire.query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT"))
    c.expect("H")
    c.close()
    assert login(gate).query("SELECT 'free'") == [["free"]]


def test_slow_reader_does_not_make_the_gate_hold_everything(gate, login, stand):
    c = login(gate)
    c.send(wire.query("COPY (SELECT repeat('x', 10000) FROM generate_series(1, 20000)) TO STDOUT"))
    c.expect("H")
    other = login(gate)
    for n in range(50):
        assert other.query(f"SELECT {n}") == [[str(n)]]
    size = proc.resident(gate.pid)
    assert size < 150 * 1024 or proc.is_sanitized(gate.pid), f"{size} kB"
    total = sum(len(body) for kind, body in c.until("Z") if kind == "d")
    assert total == 20000 * 10001


@pytest.mark.parametrize("kind", "dcf")
def test_copy_messages_outside_copy_are_ignored(gate, login, database, kind):
    """As PostgreSQL does: what is left of a COPY that failed may still arrive."""
    c = login(gate, database)
    c.send(wire.message(kind, b"left over\0" if kind != "c" else b""))
    assert c.query("SELECT 1") == [["1"]]
