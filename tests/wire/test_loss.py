"""A server connection that is lost: what the client is told, in every place where it may be."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal

import pytest

from conftest import own_cluster
from stand import proc, wire

UNKNOWN, ROLLED_BACK = "unknown", "was rolled back."


def node_of(c, nodes):
    port = int(c.query("SELECT inet_client_port()")[0][0])
    return next(n for n in nodes if n.process.alive() and n.carries(port))


def sockets(port):
    """(state, bytes to be read) of the sockets whose own port or peer's port this is:
    ({own: ...}, {peer: ...})."""
    own, peer = [], []
    with open("/proc/net/tcp", encoding="ascii") as f:
        next(f)
        for row in f:
            fields = row.split()
            here, there = (int(fields[i].rpartition(":")[2], 16) for i in (1, 2))
            about = (fields[3], int(fields[4].rpartition(":")[2], 16))
            if here == port:
                own.append(about)
            if there == port:
                peer.append(about)
    return own, peer


def reached(node):
    """Waits until bytes of the gate's lie before a frozen node."""
    proc.wait_for("the request to leave the gate", 10, lambda: any(n for _, n in sockets(node.port)[0]))


def thread_states(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii") as f:
            yield f.read().rpartition(")")[2].split()[0]


def noticed(gate, count=1):
    gate.await_log(f"(?s)(connection to the database was lost.*){{{count}}}")


def codes(messages):
    return [fields["C"] for fields in wire.errors(messages)]


def said(messages, code, hint):
    found = wire.errors(messages)
    assert len(found) == 1, wire.kinds(messages)
    assert found[0]["C"] == code and hint in found[0].get("H", ""), found[0]
    assert found[0]["S"] == "ERROR"


@pytest.fixture
def asleep(stand):
    """asleep(): waits until a backend sleeps: its process id."""
    yield lambda: proc.wait_for("a statement that takes long", 15, lambda: stand.postgres.sql(
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))[0][0]
    wake_all(stand)


def wake_all(stand):
    stand.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")


@pytest.fixture
def sleepy(stand, table):
    """A table whose every insertion takes effect at COMMIT, which takes a minute."""
    stand.postgres.sql(f"""
        CREATE FUNCTION f_{table}() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(60) /* {table} sleeps */; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER sleeps AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION f_{table}()""", "acme", "acme_rw")
    yield table
    wake_all(stand)
    stand.postgres.sql(f"DROP TABLE {table}; DROP FUNCTION f_{table}()", "acme", "acme_rw")


def insert(table):
    return f"INSERT INTO {table} VALUES (1, 'x')"


# Inside of a transaction block? What is sent, and what the last ReadyForQuery says: after a text
# of several statements nobody knows whether the block is over, so the client is to end it.
IN_DOUBT = ("several statements", "pipeline", "long text")
COMMITS = {
    "commit": (True, lambda t: [wire.query("COMMIT")]),
    "end": (True, lambda t: [wire.query("/* the */ END")]),
    "extended": (True, lambda t: [wire.one("COMMIT"), wire.sync()]),
    "several statements": (True, lambda t: [wire.query("SELECT 1; COMMIT; SELECT 2")]),
    "autocommit": (False, lambda t: [wire.query(insert(t))]),
    "autocommit extended": (False, lambda t: [wire.one(insert(t)), wire.sync()]),
    "several statements, autocommit": (False, lambda t: [wire.query(f"SELECT 1; {insert(t)}")]),
    "pipeline": (False, lambda t: [wire.one("BEGIN"), wire.one(insert(t)), wire.one("COMMIT"), wire.sync()]),
    "long text": (True, lambda t: [wire.query(f"SELECT length('{'x' * 100000}'); COMMIT")]),
}


def lose_in_commit(c, nodes, sleepy, asleep, form):
    """The nodes die while the server sleeps at the end of the transaction."""
    within, make = COMMITS[form]
    if within:
        c.query("BEGIN")
        c.query(insert(sleepy))
    c.send(*make(sleepy))
    asleep()
    for node in nodes:
        node.kill()


@pytest.mark.parametrize("form", COMMITS)
def test_loss_in_commit_says_that_the_outcome_is_unknown(make_gate, nodes, login, sleepy, asleep, form):
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    lose_in_commit(c, nodes, sleepy, asleep, form)
    messages = c.until("Z")
    said(messages, "08007", UNKNOWN)
    assert c.status == ("E" if form in IN_DOUBT else "I")


@pytest.mark.parametrize("form", ["commit", "extended", "autocommit"])
def test_loss_in_commit_in_session_mode(make_gate, nodes, login, sleepy, asleep, form):
    gate = make_gate(own_cluster(nodes))
    c = login(gate, "acme_session")
    lose_in_commit(c, nodes, sleepy, asleep, form)
    fields = wire.errors(c.until("E"))[0]
    assert fields["S"] == "FATAL" and UNKNOWN in fields["H"]
    assert fields["C"] == ("08006" if form == "extended" else "08007"), "an extended COMMIT is not recognised there"
    assert c.is_closed()


def test_backend_terminated_in_commit_keeps_the_servers_words(gate, login, stand, sleepy, asleep):
    c = login(gate)
    c.query("BEGIN")
    c.query(insert(sleepy))
    c.send(wire.query("COMMIT"))
    stand.postgres.sql(f"SELECT pg_terminate_backend({asleep()})")
    said(c.until("Z"), "57P01", UNKNOWN)
    assert c.query(f"SELECT count(*) FROM {sleepy}") == [["0"]]


def test_several_commits_in_flight(make_gate, nodes, login, sleepy, asleep):
    """Each has its own error and its own ReadyForQuery."""
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    c.send(wire.query(insert(sleepy)), wire.one("SELECT 1"), wire.sync(), wire.query("SELECT 2"))
    asleep()
    for node in nodes:
        node.kill()
    for _ in range(3):
        said(c.until("Z"), "08007", UNKNOWN)


NO_COMMITS = {
    "statement in a transaction": (True, "E", [wire.query("SELECT 1 FROM pg_sleep(60)")]),
    "extended in a transaction": (True, "E", [wire.one("SELECT 1 FROM pg_sleep(60)"), wire.sync()]),
    "text with a commit in a string": (True, "E", [wire.query("SELECT 1 FROM pg_sleep(60) -- ; COMMIT\n WHERE 'COMMIT' <> ';'")]),
    "rollback to come": (True, "E", [wire.query("SELECT 1 FROM pg_sleep(60); ROLLBACK")]),
    "savepoint": (True, "E", [wire.query("SELECT 1 FROM pg_sleep(60); RELEASE a")]),
    "begin": (False, "E", [wire.query("BEGIN"), wire.query("SELECT 1 FROM pg_sleep(60)")]),
    "no Sync yet": (False, None, [wire.one("SELECT 1 FROM pg_sleep(60)"), wire.flush()]),
    "failed transaction": ("failed", "E", [wire.query("ROLLBACK TO a; SELECT 1 FROM pg_sleep(60)")]),
}


@pytest.mark.parametrize("form", NO_COMMITS)
def test_loss_without_commit_says_that_it_was_rolled_back(make_gate, nodes, login, asleep, form):
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    within, status, parts = NO_COMMITS[form]
    if within:
        c.query("BEGIN")
        c.query("SAVEPOINT a")
    if within == "failed":
        c.ask(wire.query("SELECT 1/0"))
    c.send(*parts)
    begun = form == "begin" and c.until("Z")
    asleep()
    for node in nodes:
        node.kill()
    messages = c.until("E")
    if status is None:
        c.send(wire.sync())
    messages += c.until("Z")
    said(messages, "08006", ROLLED_BACK)
    assert c.status == (status or "I") and (form != "begin" or begun)


def test_rollback_that_is_lost_has_rolled_back(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes[:1]))
    c = login(gate)
    c.query("BEGIN")
    nodes[0].freeze()
    c.send(wire.query("ROLLBACK"))
    reached(nodes[0])
    nodes[0].kill()
    said(c.until("Z"), "08006", ROLLED_BACK)


def test_commit_of_a_failed_transaction_that_is_lost_has_rolled_back(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes[:1]))
    c = login(gate)
    c.query("BEGIN")
    c.ask(wire.query("SELECT 1/0"))
    nodes[0].freeze()
    c.send(wire.query("COMMIT"))
    reached(nodes[0])
    nodes[0].kill()
    said(c.until("Z"), "08006", ROLLED_BACK)


# ---- between two requests ----

NEXT = {
    "query": [wire.query("SELECT 1")],
    "commit": [wire.query("COMMIT")],
    "batch": [wire.one("SELECT 1"), wire.one("SELECT 2"), wire.sync()],
    "sync alone": [wire.sync()],
    "close": [wire.close("S", "s"), wire.sync()],
    "close of a portal": [wire.close("P", "p"), wire.sync()],
    "deallocate": [wire.query("DEALLOCATE s")],
    "describe": [wire.describe("S", "s"), wire.sync()],
    "bind": [wire.bind("s"), wire.execute(), wire.sync()],
    "function": [wire.message("F", b"\0\0\0\0" + b"\0\0" * 3)],
    "flush first": [wire.flush(), wire.query("SELECT 1")],
}


@pytest.mark.parametrize("form", NEXT)
def test_loss_between_two_requests_is_told_with_the_next(make_gate, login, stand, form):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.ask(wire.parse("SELECT 'prepared'", "s"), wire.sync())
    c.query("BEGIN")
    stand.postgres.sql(f"SELECT pg_terminate_backend({c.query('SELECT pg_backend_pid()')[0][0]})")
    noticed(gate)
    said(c.ask(*NEXT[form]), "57P01", ROLLED_BACK)
    if form != "commit":
        assert c.status == "E"
        assert codes(c.ask(wire.query("SELECT 1"))) == ["25P02"] and c.status == "E"
        assert c.query("ROLLBACK") == []
    assert c.status == "I"
    assert c.extended("SELECT 'goes on'") == [["goes on"]]
    assert wire.rows(c.ask(wire.bind("s"), wire.execute(), wire.sync())) == [["prepared"]]


# ---- before anything of the client's went out ----

def test_backend_that_dies_as_it_would_be_lent_is_passed_over(make_gate, nodes, login):
    """The gate is shown the client's query first and the end of the idle connection second, in
    one turn of its loop."""
    gate = make_gate({"postern": {"workers": 1}, "redis": None, "database acme": {"pool_size": 1}, **own_cluster(nodes)})
    c = login(gate)
    node = node_of(c, nodes)
    gate.process.signal(signal.SIGSTOP)
    try:
        proc.wait_for("all threads to stop", 10, lambda: set(thread_states(gate.pid)) == {"T"})
        c.send(wire.query("SELECT 'answered'"))
        node.kill()
        proc.wait_for("the end of the connection to arrive", 10,
                      lambda: all(state != "01" for state, _ in sockets(node.port)[1]))
    finally:
        gate.process.signal(signal.SIGCONT)
    messages = c.until("Z")
    assert not wire.errors(messages) and wire.rows(messages) == [["answered"]]


def test_backend_that_dies_while_it_is_brought_to_the_clients_variables_is_replaced(make_gate, nodes, login):
    gate = make_gate({"postern": {"workers": 1}, **own_cluster(nodes), "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("SET application_name = 'mine'")
    node = node_of(b, nodes)
    node.freeze()
    a.send(wire.query("SHOW application_name"))
    reached(node)
    node.kill()
    messages = a.until("Z")
    assert not wire.errors(messages) and wire.rows(messages) == [["mine"]]


def test_what_may_have_run_is_never_run_again(make_gate, nodes, login, stand, table, running):
    """The statement commits while its answer is held back by a node that dies."""
    gate = make_gate({"database acme": {"pool_size": 1}, **own_cluster(nodes)})
    c = login(gate)
    node = node_of(c, nodes)
    mark = f"mark_{os.urandom(4).hex()}"
    c.send(wire.query(f"INSERT INTO {table} SELECT 1, '{mark}' FROM pg_sleep(2)"))
    running(mark)
    node.freeze()
    proc.wait_for("the row", 10, lambda: stand.postgres.sql(f"SELECT 1 FROM {table}", "acme"))
    node.kill()
    said(c.until("Z"), "08007", UNKNOWN)
    assert c.query(f"SELECT count(*) FROM {table}") == [["1"]]


def test_loss_at_a_deallocate_is_told_once(make_gate, nodes, login):
    """What the gate sends of its own beside it is owed to nobody."""
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}, **own_cluster(nodes)})
    c = login(gate)
    node = next(n for n in nodes if n.carries(int(c.query("SELECT inet_client_port()")[0][0])))
    c.ask(wire.parse("SELECT 1", "s1"), wire.sync())
    node.freeze()
    c.send(wire.query("DEALLOCATE s1"), wire.query("SELECT 'behind it'"))
    reached(node)
    node.kill()
    for _ in range(2):
        assert wire.kinds(c.until("Z")) == "EZ"
    assert c.query("SELECT 'and on'") == [["and on"]]
