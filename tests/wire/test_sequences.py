"""currval() and lastval() in transaction mode: the right number or the server's error, never the
number that somebody else has drawn on the same server connection."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from stand import wire

WAYS = {"simple": lambda c, sql: c.query(sql), "extended": lambda c, sql: c.extended(sql)}


@pytest.fixture
def serial(stand):
    """A table with a sequence of its own."""
    stand.postgres.sql("DROP TABLE IF EXISTS numbered; DROP SEQUENCE IF EXISTS drawn; CREATE SEQUENCE drawn START 1000;"
                       "CREATE TABLE numbered (id serial, words text)", "acme", "acme_rw")
    yield "numbered"
    stand.postgres.sql("DROP TABLE numbered; DROP SEQUENCE drawn", "acme", "acme_rw")


@pytest.fixture
def small(make_gate):
    """One worker and three connections, of which the last one used is lent first."""
    return make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 3, "shards": 1}})


@pytest.fixture(params=list(WAYS))
def ask(request):
    return WAYS[request.param]


def insert(ask, c, words):
    return ask(c, f"INSERT INTO numbered (words) VALUES ('{words}') RETURNING id")[0]


@pytest.mark.parametrize("read", ["lastval()", "currval('numbered_id_seq')"])
def test_number_of_another_session_is_never_told(small, login, serial, ask, read):
    a, b = login(small), login(small)
    insert(ask, a, "a")
    insert(ask, b, "b")
    with pytest.raises(wire.ServerError) as caught:
        ask(a, f"SELECT {read}")
    assert caught.value.code == "55000"


@pytest.mark.parametrize("read", ["lastval()", "currval('numbered_id_seq')"])
def test_number_is_told_when_nobody_came_between(small, login, serial, ask, read):
    a, b = login(small), login(small)
    insert(ask, b, "b")
    mine = insert(ask, a, "a")
    assert ask(a, f"SELECT {read}") == [mine]


def test_session_that_asks_keeps_its_connection(small, login, serial, ask):
    a, b = login(small), login(small)
    with pytest.raises(wire.ServerError):
        ask(a, "SELECT lastval()")
    for _ in range(3):
        mine = insert(ask, a, "a")
        b.query("SELECT nextval('drawn')")
        assert ask(a, "SELECT lastval()") == [mine]


def test_pool_learns_that_its_sessions_ask(small, login, serial, ask):
    first = login(small)
    with pytest.raises(wire.ServerError):
        ask(first, "SELECT lastval()")
    first.send(wire.terminate())
    a, b = login(small), login(small)
    mine = insert(ask, a, "a")
    theirs = insert(ask, b, "b")
    assert ask(a, "SELECT lastval()") == [mine]
    assert ask(b, "SELECT lastval()") == [theirs]
    c = login(small)
    drawn = ask(c, "SELECT nextval('drawn')")
    b.query("SELECT nextval('drawn')")
    assert ask(c, "SELECT currval('drawn')") == drawn


def test_asking_within_the_transaction_pins_nothing(small, login, serial, ask, console):
    a, b = login(small), login(small)
    for _ in range(3):
        a.query("BEGIN")
        mine = insert(ask, a, "a")
        assert ask(a, "SELECT lastval()") == [mine]
        a.query("COMMIT")
        insert(ask, b, "b")
    assert a.query("SELECT nextval('drawn'), currval('drawn')")[0][0]
    assert not any("sequence" in str(row) for row in console(small).query("SHOW CLIENTS"))


def test_prepared_statement_that_asks(small, login, serial):
    a, b = login(small), login(small)
    a.ask(wire.parse("SELECT lastval()", "last"), wire.sync())
    insert(WAYS["simple"], b, "b")
    messages = a.ask(wire.bind("last"), wire.execute(), wire.sync())
    assert wire.errors(messages)[0]["C"] == "55000"
    mine = insert(WAYS["extended"], a, "a")
    messages = a.ask(wire.bind("last"), wire.execute(), wire.sync())
    assert wire.rows(messages) == [mine]


@pytest.mark.parametrize("run", ["EXECUTE n", "EXPLAIN ANALYZE EXECUTE n"])
def test_number_drawn_by_an_execute_outlives_its_statement(small, login, serial, ask, run):
    """DEALLOCATE lets go of the connection: not of one that the session may ask for its number."""
    a, b = login(small), login(small)
    with pytest.raises(wire.ServerError):
        ask(a, "SELECT lastval()")
    ask(a, "PREPARE n AS SELECT nextval('drawn')")
    ask(a, run)
    ask(a, "DEALLOCATE n")
    ask(b, "SELECT nextval('drawn')")
    assert ask(a, "SELECT currval('drawn')") == [["1000"]]
    assert ask(b, "SELECT 1") == [["1"]]


PINS = {"LISTEN": "LISTEN it", "temporary table": "CREATE TEMP TABLE mine (i int)", "lock": "SELECT pg_advisory_lock(815)",
        "setseed": "SELECT setseed(0.5)"}


@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("read", ["lastval()", "currval('numbered_id_seq')"])
def test_session_that_is_pinned_keeps_its_numbers(one, login, serial, ask, pin, read):
    """Its connection had numbers of others, and nobody else has had it since."""
    with login(one) as other, login(one) as c:
        insert(ask, other, "other")
        c.query(PINS[pin])
        mine = insert(ask, c, "mine")
        c.query("SELECT 'between'")
        assert ask(c, f"SELECT {read}") == [mine]


def test_session_that_is_pinned_is_not_told_the_number_of_another(one, login, serial, ask):
    with login(one) as other, login(one) as c:
        insert(ask, other, "other")
        c.query("LISTEN it")
        with pytest.raises(wire.ServerError) as caught:
            ask(c, "SELECT lastval()")
        assert caught.value.code == "55000"
