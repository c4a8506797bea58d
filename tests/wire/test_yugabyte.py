"""YugabyteDB 2024.2 and 2025.x, as far as they differ from PostgreSQL: docs/yugabytedb.md.

The nodes are tests/wire/yugabyte.py, a model before the stand's PostgreSQL."""
# SPDX-License-Identifier: Apache-2.0
import pytest

import yugabyte
from stand import proc, wire

DATABASES = ("acme", "acme_session", "acme_reuse")


@pytest.fixture(params=sorted(yugabyte.RELEASES))
def release(request):
    return yugabyte.RELEASES[request.param]


@pytest.fixture
def nodes_of(stand):
    made = []

    def make(release, count=1, **more):
        yugabyte.prepare(stand, release)
        nodes = [yugabyte.Tserver(stand, release, **more) for _ in range(count)]
        nodes[0].lock_status("refused")
        made.extend(nodes)
        return nodes
    yield make
    for node in made:
        node.close()


def settings(nodes, release, **more):
    """A gate's overrides: acme's tokens for databases on these nodes."""
    database = {"cluster": "main", "dbname": release.database, "cancel_timeout": "5s", **more}
    return {"cluster main": {"hosts": ", ".join(f"{n.host}:{n.port}" for n in nodes), "discovery": "off",
                             "tls": "disable", "tls_ca": None, "tls_cert": None, "tls_key": None, "require_auth": "none",
                             "probe_interval": "200ms", "connect_timeout": "2s"},
            "tenant acme": {"databases": ", ".join(DATABASES)},
            "database acme": {"pool_mode": "transaction", "pool_size": 2, **database},
            "database acme_session": {"pool_mode": "session", "pool_size": 4, **database},
            "database acme_reuse": {"pool_mode": "session", "pool_size": 1, "session_reuse": "on", **database}}


@pytest.fixture
def yuga(make_gate, nodes_of, release):
    """(gate, node) of one release."""
    (node,) = nodes_of(release)
    return make_gate(settings([node], release)), node


@pytest.fixture
def enter(login):
    def get(gate, database="acme", **more):
        return login(gate, database, user="acme_rw", **more)
    return get


@pytest.fixture(params=["acme", "acme_session"], ids=["transaction", "session"])
def mode(request):
    return request.param


def refused(c, sql):
    with pytest.raises(wire.ServerError) as e:
        c.query(sql)
    return e.value


def test_version_is_the_nodes_own(yuga, enter, mode):
    gate, node = yuga
    c = enter(gate, mode)
    assert c.parameters["server_version"] == node.release.version
    assert "search_path" not in c.parameters or node.stand.postgres.version >= 18


# ---- LISTEN ----

def test_listen_is_answered_as_by_the_node(yuga, enter, mode):
    """It is a warning, or an error, and the session goes on."""
    gate, node = yuga
    c = enter(gate, mode)
    for _ in range(2):
        if node.release.listen == "off":
            assert refused(c, "LISTEN news").code == "0A000"
        else:
            messages = c.ask(wire.query("LISTEN news"))
            assert wire.kinds(messages) == "CZ" and ("C", b"LISTEN\0") in messages
            notices = [wire.error_fields(body) for kind, body in messages if kind == "N"]
            assert [(n["V"], n["C"]) for n in notices] == [("WARNING", "01000")]
        assert c.query("SELECT 'and on'") == [["and on"]]


# ---- advisory locks ----

def test_advisory_lock_is_released_with_its_session(yuga, stand, enter):
    """DISCARD ALL does not release it there: the connection that is used again held it for ever."""
    gate, node = yuga
    for database in ("acme", "acme_reuse"):
        a = enter(gate, database)
        if not node.release.advisory_locks:
            assert refused(a, "SELECT pg_advisory_lock(4711)").code == "0A000"
            assert a.query("SELECT 1") == [["1"]]
        else:
            a.query("SELECT pg_advisory_lock(4711)")
            assert held(stand, node) == 1
        logins = node.logins
        a.close()
        proc.wait_for("the lock to be released", 10, lambda: held(stand, node) == 0)
        b = enter(gate, database)
        b.query("SELECT 1")
        assert node.logins <= logins + (database == "acme"), "the connection was used again"
        b.close()


def held(stand, node):
    if not node.release.advisory_locks:
        return 0
    return int(stand.postgres.sql("SELECT count(*) FROM yb.session_locks", node.release.database)[0][0])


def test_advisory_lock_is_released_behind_the_clients_own_discard_all(yuga, stand, enter):
    gate, node = yuga
    c = enter(gate)
    if node.release.advisory_locks:
        c.query("SELECT pg_advisory_lock(4712)")
    c.query("DISCARD ALL")
    proc.wait_for("the lock to be released", 10, lambda: held(stand, node) == 0)
    assert c.query("SELECT 'and on'") == [["and on"]]


def test_node_without_advisory_locks_keeps_its_connections(make_gate, nodes_of, enter):
    """What it answers to pg_advisory_unlock_all() is no reason to close a connection."""
    release = yugabyte.RELEASES["2024.2"]
    (node,) = nodes_of(release)
    gate = make_gate({**settings([node], release), "postern": {"workers": 1},
                      "database acme": {"cluster": "main", "dbname": release.database, "pool_size": 1}})
    for n in range(5):
        c = enter(gate)
        c.query(f"CREATE TEMP TABLE left_over_{n} (i int)")
        c.query("SELECT 1")  # the gateway has asked what is left
        c.close()
    assert enter(gate).query("SELECT count(*) FROM pg_class WHERE relname LIKE 'left_over%'") == [["0"]]
    assert node.logins == 1
    assert node.count("pg_advisory_unlock_all") == 5


# ---- errors ----

ERRORS = [("40001", "The catalog snapshot used for this transaction has been invalidated: expected: 2, got: 1: MISMATCHED_SCHEMA"),
          ("40001", "schema version mismatch for table 000030a9000030008000000000004000: expected 2, got 1"),
          ("40001", "could not serialize access due to concurrent update"), ("40P01", "deadlock detected"),
          ("XX000", "Perform RPC (request call id 38) to 127.0.0.1:9100 timed out after 10.000s")]


@pytest.mark.parametrize("sqlstate,message", ERRORS, ids=["catalog", "schema", "conflict", "deadlock", "timeout"])
def test_errors_pass_and_nothing_is_sent_twice(yuga, enter, mode, sqlstate, message):
    gate, node = yuga
    c = enter(gate, mode)
    for extended in (False, True):
        node.texts.clear()
        node.fail("'the text'", sqlstate, message)
        with pytest.raises(wire.ServerError) as e:
            (c.extended if extended else c.query)("SELECT 'the text'")
        assert (e.value.code, e.value.message, e.value.fields["S"]) == (sqlstate, message, "ERROR")
        assert c.status == "I" and node.count("'the text'") == 1
        assert c.query("SELECT 'the text'") == [["the text"]]
    c.query("BEGIN")
    node.fail("'in a block'", sqlstate, message)
    assert refused(c, "SELECT 'in a block'").code == sqlstate
    assert c.status == "E" and refused(c, "SELECT 1").code == "25P02"
    c.query("ROLLBACK")
    assert c.query("SELECT 'in a block'") == [["in a block"]]
    assert node.logins <= 2, "connections were kept"


def test_prepared_statement_goes_on_behind_a_catalog_mismatch(yuga, enter, mode):
    """The error is the request's alone: the statement is still there and works the next time."""
    gate, node = yuga
    c = enter(gate, mode)
    c.query("CREATE TABLE IF NOT EXISTS changed (i int)")
    try:
        assert wire.errors(c.ask(wire.parse("SELECT i FROM changed", "s1"), wire.sync())) == []
        node.fail("INSERT INTO changed", *ERRORS[0])
        messages = c.ask(wire.one("INSERT INTO changed VALUES (1)"), wire.bind("s1"), wire.execute(), wire.sync())
        assert [e["C"] for e in wire.errors(messages)] == ["40001"]
        c.query("INSERT INTO changed VALUES (2)")
        assert wire.rows(c.ask(wire.bind("s1"), wire.execute(), wire.sync())) == [["2"]]
    finally:
        c.query("DROP TABLE changed")


# ---- logins ----

@pytest.mark.parametrize("sqlstate,message", [
    ("XX000", "Timed out: Read RPC (request call id 358) to 127.0.0.1:7100 timed out after 0.100s"),
    ("40001", ERRORS[0][1]), ("53300", "sorry, too many clients already"), ("57P03", "the database system is starting up")])
def test_login_that_a_node_refuses_for_the_moment_is_tried_at_another(make_gate, nodes_of, enter, mode, sqlstate, message):
    release = yugabyte.RELEASES["2025.1"]
    bad, good = nodes_of(release, 2)
    bad.refusal = (sqlstate, message)
    gate = make_gate(settings([bad, good], release))
    clients = [enter(gate, mode) for _ in range(3)]
    for c in clients:
        assert c.query("SELECT 'in'") == [["in"]]
    assert good.logins >= 1
    # It comes back, and is used again.
    bad.refusal = None
    seen = good.logins
    good.refusal = (sqlstate, message)
    for c in clients:
        c.close()
    for client in [enter(gate, "acme_session") for _ in range(2)]:
        assert client.query("SELECT 'in'") == [["in"]]
    assert good.logins >= seen


# ---- YSQL Connection Manager before the node ----

@pytest.fixture
def managed(make_gate, nodes_of):
    release = yugabyte.RELEASES["2025.1"]
    (node,) = nodes_of(release, manager=True)
    return make_gate(settings([node], release)), node


def test_cancel_goes_by_the_managers_key(managed, enter, mode, running, cancel_at):
    """BackendKeyData there is not the server process's."""
    gate, _ = managed
    c = enter(gate, mode)
    c.send(wire.query("SELECT pg_sleep(60) AS managed_sleep"))
    running("managed_sleep")
    cancel_at(gate, c.key)
    assert [e["C"] for e in wire.errors(c.until("Z"))] == ["57014"]
    assert c.query("SELECT 'still here'") == [["still here"]]


@pytest.fixture
def cancel_at(stand):
    return lambda gate, key: wire.cancel(("127.0.0.1", gate.port()), key, ca=stand.authority.crt)


def test_set_local_that_nobody_reports_is_gone_with_its_transaction(managed, enter):
    gate, _ = managed
    c = enter(gate, application_name="mine")
    c.query("BEGIN")
    c.query("SET LOCAL application_name = 'for a while'")
    assert c.query("SHOW application_name") == [["for a while"]]
    c.query("COMMIT")
    assert c.query("SHOW application_name") == [["mine"]]
    assert enter(gate).query("SHOW application_name") == [[""]]
