"""What a FunctionCall leaves behind in transaction mode: nobody reads along in functions, so it is asked for."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire

SET_CONFIG, NEXTVAL, LASTVAL, ADVISORY_LOCK, ADVISORY_UNLOCK, LO_CREATE, LO_UNLINK, TEXTCAT = \
    2078, 1574, 2559, 2880, 2884, 715, 964, 1258


@pytest.fixture(scope="module")
def own(stand):
    """Functions of the users: their numbers by name."""
    made = {"leave_variable": "PERFORM set_config('app.kept', 'by a call', false)",
            "leave_table": "EXECUTE 'CREATE TEMPORARY TABLE left_behind (id int)'",
            "leave_listening": "EXECUTE 'LISTEN left_behind'",
            "leave_work_mem": "PERFORM set_config('work_mem', '7MB', false)"}
    stand.postgres.sql(";".join(f"CREATE FUNCTION {name}() RETURNS text LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN 'done'; END $$"
                                for name, body in made.items()), "acme", "acme_rw")
    stand.postgres.sql("CREATE SEQUENCE called", "acme", "acme_rw")
    yield {name: int(stand.postgres.sql(f"SELECT '{name}'::regproc::oid", "acme", "acme_rw")[0][0]) for name in made}
    stand.postgres.sql(";".join(f"DROP FUNCTION {name}()" for name in made) + ";DROP SEQUENCE called", "acme", "acme_rw")


@pytest.fixture
def pair(make_gate, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    return login(gate), login(gate)


def call(c, oid, *args):
    messages = c.ask(wire.function_call(oid, *args))
    assert wire.kinds(messages) == "VZ", messages
    return messages[0][1][4:]


def process_of(c):
    return c.query("SELECT pg_backend_pid()")[0][0]


@pytest.mark.parametrize("name, asks, kept", [
    ("leave_variable", "SHOW app.kept", "by a call"),
    ("leave_work_mem", "SHOW work_mem", "7MB"),
    ("leave_table", "SELECT count(*) FROM left_behind", "0"),
    ("leave_listening", "SELECT * FROM pg_listening_channels()", "left_behind"),
])
def test_what_a_function_of_the_users_leaves_is_its_sessions(pair, own, name, asks, kept):
    one, other = pair
    assert call(one, own[name]) == b"done"
    for _ in range(5):
        other.query("SELECT set_config('app.kept', 'by another', false), set_config('work_mem', '1MB', false)")
        assert one.query(asks) == [[kept]]


def test_lock_is_held_and_let_go(pair):
    one, other = pair
    call(one, ADVISORY_LOCK, b"2024")
    mine = process_of(one)
    for _ in range(5):
        assert process_of(other) != mine
        assert process_of(one) == mine
    assert call(one, ADVISORY_UNLOCK, b"2024") == b"t"
    assert {process_of(one) for _ in range(2)} | {process_of(other)} and other.query("SELECT 1") == [["1"]]


def test_built_in_set_config(pair):
    one, other = pair
    assert call(one, SET_CONFIG, b"app.built_in", b"kept", b"f") == b"kept"
    for _ in range(5):
        other.query("SET app.built_in = 'by another'")
        assert one.query("SHOW app.built_in") == [["kept"]]


def test_numbers_of_sequences_are_ones_own(pair, own):
    one, other = pair
    mine = call(one, NEXTVAL, own and b"called")
    other.query("SELECT nextval('called')")
    messages = one.ask(wire.function_call(LASTVAL))
    told = wire.errors(messages)
    assert (told and told[0]["C"] == "55000") or messages[0][1][4:] == mine


def test_calls_that_leave_nothing_hold_nothing(pair):
    """Large objects, which libpq reads and writes so, and what calculates."""
    one, other = pair
    for _ in range(3):
        assert call(one, TEXTCAT, b"a", b"b") == b"ab"
        one.query("BEGIN")
        number = call(one, LO_CREATE, b"0")
        call(one, LO_UNLINK, number)
        one.query("COMMIT")
    assert process_of(one) == process_of(other), "the last one used is lent first"
