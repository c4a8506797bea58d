"""The cluster: nodes that die, freeze and come back; logins to them; what a client is told."""
# SPDX-License-Identifier: Apache-2.0
import os
import time

import pytest

import fake
from conftest import own_cluster
from stand import proc, wire
from stand.nodes import Node


def node_of(c, nodes):
    port = int(c.query("SELECT inet_client_port()")[0][0])
    return next(n for n in nodes if n.process.alive() and n.carries(port))


def kill_backend(stand, pid):
    stand.postgres.sql(f"SELECT pg_terminate_backend({pid})")


def test_connections_spread_over_the_nodes(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    clients = [login(gate, "acme_session") for _ in range(9)]
    used = {node_of(c, nodes).name for c in clients}
    assert len(used) == 3


def test_node_killed_while_idle_goes_unnoticed(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    node = node_of(c, nodes)
    node.kill()
    assert c.query("SELECT 'answered'") == [["answered"]]
    assert node_of(c, nodes) is not node


def test_all_sessions_survive_a_node(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    clients = [login(gate) for _ in range(10)]
    for c in clients:
        c.query("SELECT 1")
    nodes[0].kill()
    for _ in range(3):
        for c in clients:
            assert c.query("SELECT 2") == [["2"]]


def test_node_killed_in_a_transaction_is_an_error_and_not_the_end(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    c, other = login(gate), login(gate)
    c.query("BEGIN")
    node_of(c, nodes).kill()
    fields = lost(c)
    assert fields["C"] == "08006" and fields["H"]
    assert c.query("SELECT 'alive'") == [["alive"]]
    assert other.query("SELECT 1") == [["1"]]


def lost(c):
    """The error that tells of a lost server connection, for the query that notices at last."""
    messages = c.ask(wire.query("SELECT 1"))
    found = wire.errors(messages)
    assert found, wire.kinds(messages)
    assert found[0]["S"] == "ERROR", "the session itself goes on"
    if c.status == "E":
        c.query("ROLLBACK")
    assert c.status == "I"
    return found[0]


def test_node_killed_in_a_query_is_an_error_and_not_the_end(make_gate, nodes, login, running):
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    c.query("BEGIN")
    node = node_of(c, nodes)
    c.send(wire.query("SELECT pg_sleep(60) AS node_dies"))
    running("node_dies")
    node.kill()
    messages = c.until("Z")
    assert wire.errors(messages)[0]["C"] == "08006"
    if c.status == "E":
        c.query("ROLLBACK")
    assert c.query("SELECT 'alive'") == [["alive"]]


def test_backend_terminated_while_idle_goes_unnoticed(make_gate, login, stand):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    kill_backend(stand, c.query("SELECT pg_backend_pid()")[0][0])
    assert c.query("SELECT 'answered'") == [["answered"]]


def test_backend_terminated_in_a_transaction(make_gate, login, stand):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.query("BEGIN")
    kill_backend(stand, c.query("SELECT pg_backend_pid()")[0][0])
    assert lost(c)["C"] in ("08006", "57P01")
    assert c.query("SELECT 'alive'") == [["alive"]]


def test_backend_terminated_in_a_query(make_gate, login, stand, running):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.send(wire.query("SELECT pg_sleep(60) AS terminated_here"))
    pid = running("terminated_here")[0][0]
    kill_backend(stand, pid)
    messages = c.until("Z")
    assert wire.errors(messages)[0]["C"] in ("08006", "57P01")
    assert wire.errors(messages)[0]["S"] == "ERROR" and c.status == "I"
    assert c.query("SELECT 'alive'") == [["alive"]]


def test_backend_terminated_in_a_pipeline_stays_in_step(make_gate, login, stand, running):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.send(wire.one("SELECT pg_sleep(60) AS pipeline_dies"), wire.one("SELECT 2"), wire.sync())
    kill_backend(stand, running("pipeline_dies")[0][0])
    messages = c.until("Z")
    # Its Sync commits: where the server's own words are lost with its requests, nobody knows.
    assert wire.errors(messages)[0]["C"] in ("08007", "57P01") and c.status == "I"
    assert c.query("SELECT 3") == [["3"]]


def test_backend_terminated_in_copy_in(make_gate, login, stand, table):
    gate = make_gate({"database acme": {"pool_size": 1}})
    c = login(gate)
    c.query("BEGIN")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    c.send(wire.query(f"COPY {table} FROM STDIN"))
    c.expect("G")
    kill_backend(stand, pid)
    messages = c.ask(wire.message("d", b"1\tone\n"), wire.message("c"))
    assert wire.errors(messages)
    if c.status == "E":
        c.query("ROLLBACK")
    assert c.query("SELECT 1") == [["1"]]


def monitor_logged_in_since(stand, moment):
    return stand.postgres.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = 'postern-monitor' "
                              f"AND backend_start > '{moment}'")


@pytest.mark.parametrize("idle", [False, True])
def test_role_that_ends_its_own_backend_takes_no_node_away(make_gate, nodes, login, stand, idle):
    """Every role may do that: nobody else waits for it. The node is asked at once whether it lives."""
    gate = make_gate(own_cluster(nodes[:1], probe_interval="10min"))
    c, other = login(gate), login(gate, "globex")
    moment, pid = c.query("SELECT clock_timestamp(), pg_backend_pid()")[0]
    if idle:
        kill_backend(stand, pid)
        proc.wait_for("it to go", 10, lambda: not stand.postgres.sql(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))
    else:
        messages = c.ask(wire.query("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert wire.errors(messages)[0]["C"] == "57P01"
    assert other.query("SELECT 'not concerned'") == [["not concerned"]]
    assert c.query("SELECT 'again'") == [["again"]]
    proc.wait_for("the monitor to log in anew", 20, lambda: monitor_logged_in_since(stand, moment))
    assert gate.is_ready()
    assert "draining" not in gate.log(), "which the watcher would have told before it asked"


@pytest.mark.parametrize("code", ["57P01", "57P02", "57P05", "57P03"])
@pytest.mark.parametrize("when", ["instead of parameters", "instead of an answer"])
def test_role_that_ends_its_own_logins_drains_no_node(make_gate, login, code, when):
    """One role's ALTER ROLE ... SET idle_session_timeout = 1, or a loop that ends all that is its own, closed
    everybody's idle connections to the node. Only the postmaster says 57P03."""
    gone = wire.message("E", f"SFATAL\0VFATAL\0C{code}\0Mgone\0\0".encode())
    well = fake.AUTHENTICATED + fake.PARAMETERS + fake.KEY
    server = fake.FakeServer(lambda kind, body: fake.columns("c") + fake.row("mine") + fake.done() + fake.ready())
    is_acme = lambda number: server.startups[number - 1].get("user") == "acme_rw"
    if when == "instead of parameters":
        server.greets = lambda number: [fake.AUTHENTICATED + gone] if is_acme(number) else [well + fake.ready()]
    else:
        server.role_settings = lambda number: gone if is_acme(number) else fake.done() + fake.ready()
    try:
        gate = make_gate({"cluster main": fake.cluster(server), "postern": {"workers": 1}})
        other = login(gate, "globex")
        other.query("SELECT 1")
        up = {name: value for name, value in gate.metrics().items() if name.startswith("postern_node_up")}
        with pytest.raises((wire.ServerError, AssertionError, EOFError)):
            login(gate).query("SELECT 1")
        tried = [s for s in server.startups if s.get("user") == "acme_rw"]
        assert tried
        if code == "57P03" and when == "instead of parameters":
            gate.await_log("draining")
            return
        for _ in range(3):
            assert {name: gate.metrics()[name] for name in up} == up and "1" in up.values(), "its connections would be closed"
            assert other.query("SELECT 1") == [["mine"]]
        assert "draining" not in gate.log()
    finally:
        server.close()


def test_monitor_that_is_ended_takes_no_node_away(make_gate, nodes, login, stand):
    gate = make_gate(own_cluster(nodes[:1]))
    moment = login(gate).query("SELECT clock_timestamp()")[0][0]
    proc.wait_for("its login", 20, lambda: stand.postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postern-monitor'"))
    proc.wait_for("the monitor to log in anew", 20, lambda: monitor_logged_in_since(stand, moment))
    assert gate.is_ready()
    assert "draining" not in gate.log()


def test_shutdown_of_the_only_node_is_seen_and_its_return_too(make_gate, nodes, login, stand):
    """A fast shutdown under load: errors that say so, no session ends, and all goes on afterwards."""
    gate = make_gate({**own_cluster(nodes[:1]), "database acme": {"wait_limit": "1s"}})
    clients = [login(gate) for _ in range(8)]
    for c in clients:
        c.send(wire.query("SELECT pg_sleep(600)"))
    proc.wait_for("all to run", 20, lambda: stand.postgres.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'") == [["8"]])
    stand.postgres.stop()
    try:
        for c in clients:
            told = wire.errors(c.until("Z"))
            assert told[0]["C"] in ("57P01", "08006") and told[0]["S"] == "ERROR", told
        proc.wait_for("the gate to say that it is not ready", 20, lambda: not gate.is_ready())
        assert "cluster main: no node answers" in gate.http("/health/ready")[1]
        told = wire.errors(clients[0].ask(wire.query("SELECT 1")))
        assert told[0]["C"] in ("08001", "57P03", "53300"), told
    finally:
        stand.postgres.start()
    proc.wait_for("the gate to be ready again", 20, gate.is_ready)
    for c in clients:
        assert c.query("SELECT 'on'") == [["on"]]


def test_session_mode_loses_its_backend_truthfully(make_gate, login, stand):
    c = login(make_gate(), "acme_session")
    c.query("SET work_mem = '17MB'")
    kill_backend(stand, c.query("SELECT pg_backend_pid()")[0][0])
    try:
        messages = c.ask(wire.query("SHOW work_mem"))
    except (wire.Closed, ConnectionError):
        return
    # Either it was told, or nothing that it had set is lost.
    found = wire.errors(messages)
    if found:
        assert found[0]["C"] in ("08006", "57P01")
    else:
        assert wire.rows(messages) == [["17MB"]]


def test_frozen_node_is_passed_over_while_connecting(make_gate, nodes, login):
    nodes[0].freeze()
    gate = make_gate(own_cluster(nodes, connect_timeout="500ms"))
    began = time.monotonic()
    for _ in range(6):
        assert login(gate, "acme_session").query("SELECT 1") == [["1"]]
    assert time.monotonic() - began < 15 * proc.PATIENCE
    nodes[0].thaw()


def test_idle_connection_to_a_node_that_does_not_answer_is_not_lent(make_gate, nodes, login):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}, **own_cluster(nodes)})
    c = login(gate)
    node = node_of(c, nodes)
    node.freeze()
    gate.await_log("down .cluster main")
    for each in c, login(gate):
        assert each.query("SELECT 'by another node'") == [["by another node"]]
    assert node_of(c, nodes) is not node
    node.thaw()


def test_node_that_comes_back_is_used_again(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    nodes[1].kill()
    assert login(gate).query("SELECT 1") == [["1"]]
    nodes[1].start()
    others = [nodes[0], nodes[2]]

    def used():
        """Each session is kept, so that the next needs a server connection of its own."""
        return node_of(login(gate, "acme_session"), nodes) is nodes[1]
    proc.wait_for("the node to be used again", 20, used)
    for n in others:
        n.kill()
    assert login(gate).query("SELECT 1") == [["1"]]


def test_who_waits_for_a_node_gets_it_as_soon_as_it_is_up(make_gate, nodes, login):
    """A pool that failed again and again tries seldom; that a node is up again ends its pause."""
    gate = make_gate({**own_cluster(nodes[:1], connect_timeout="200ms"), "database acme": {"wait_limit": "1s"}})
    c = login(gate)
    c.query("SELECT 1")
    nodes[0].kill()
    proc.wait_for("the pause to be longer than wait_limit", 30, lambda: wire.errors(c.ask(wire.query("SELECT 1"))) and
                  gate.log().count("no server connection") >= 6)
    since = len(gate.log())
    nodes[0].start()
    gate.await_log("up .cluster main", since)
    assert c.query("SELECT 'at once'") == [["at once"]]


def test_no_node_at_all_is_said(make_gate, nodes, connect, token, login):
    gate = make_gate({**own_cluster(nodes, connect_timeout="500ms"),
                      "database acme": {"wait_limit": "3s"}})
    for n in nodes:
        n.kill()
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("acme_rw", "acme", token()).query("SELECT 1")
    assert caught.value.code in ("08001", "53300"), caught.value
    proc.wait_for("the gate to say that it is not ready", 15,
                  lambda: gate.http("/health/ready")[0] == 503)
    assert gate.http("/health/live")[0] == 200
    for n in nodes:
        n.start()
    proc.wait_for("the gate to be ready again", 20, gate.is_ready)
    assert login(gate).query("SELECT 1") == [["1"]]


def test_nodes_are_learnt_from_yb_servers(make_gate, nodes, stand, login):
    stand.postgres.set_servers([(n.host, n.port, "primary", n.zone) for n in nodes])
    try:
        gate = make_gate(own_cluster(nodes[:1], discovery="on", discovery_interval="1s"))

        def spread():
            return node_of(login(gate, "acme_session"), nodes) is not nodes[0]
        proc.wait_for("a node that the configuration does not name", 20, spread)
        nodes[0].kill()
        assert login(gate).query("SELECT 1") == [["1"]]
    finally:
        stand.list_nodes()


def test_stale_row_of_yb_servers_does_no_harm(make_gate, nodes, stand, login):
    dead = proc.free_port()
    stand.postgres.set_servers([("127.0.0.1", dead, "primary", "z")]
                               + [(n.host, n.port, "primary", n.zone) for n in nodes]
                               + [(nodes[0].host, nodes[0].port, "primary", "z")])
    try:
        gate = make_gate(own_cluster(nodes, discovery="on", discovery_interval="1s"))
        for _ in range(10):
            assert login(gate, "acme_session").query("SELECT 1") == [["1"]]
    finally:
        stand.list_nodes()


def test_plain_postgres_without_yb_servers(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes, discovery="on", monitor_database="postgres"),
                     want_ready=False)
    proc.wait_for("a connection", 15, lambda: login(gate).query("SELECT 1") == [["1"]])


@pytest.mark.parametrize("method", ["md5", "password", "cert"])
def test_other_ways_to_log_in_to_a_node(make_gate, login, token, method):
    ways = {} if method == "cert" else {"cluster main": {"require_auth": f"scram-sha-256, {method}"}}
    c = login(make_gate(ways), user=f"acme_{method}", secret=token("acme", method))
    assert c.query("SELECT current_user, words FROM greeting") == \
        [[f"acme_{method}", "hello from acme"]]


def test_role_whose_password_its_client_has_changed_is_told_by_health(make_gate, stand, login, connect, token):
    """PostgreSQL lets every role change its own password: the gateway cannot log in as it any more."""
    gate = make_gate({"cluster main": {"discovery": "off"}, "database acme_session": {"wait_limit": "5s"}})
    kept = login(gate, "acme_session")
    try:
        kept.query("ALTER ROLE acme_rw PASSWORD 'my own'")
        with pytest.raises(wire.ServerError) as caught:
            connect(gate).login("acme_rw", "acme_session", token())
        assert caught.value.code == "08004"
        assert gate.http("/health/ready") == (200, "ready\ncluster main: this gateway cannot log in as acme_rw\n")
        assert gate.metrics()["postern_backend_roles_refused"] == "1"
        assert login(gate, "globex").query("SELECT 1") == [["1"]], "others are not concerned"
        assert "acme_rw" in gate.http("/health/ready")[1]
    finally:
        stand.postgres.sql(f"ALTER ROLE acme_rw PASSWORD '{stand.postgres.passwords['acme_rw']}'")
    assert kept.query("SELECT 1") == [["1"]]
    proc.wait_for("a login", 15, lambda: login(gate, "acme_session").query("SELECT 1") == [["1"]])
    assert gate.http("/health/ready") == (200, "ready\n")
    assert gate.metrics()["postern_backend_roles_refused"] == "0"


def test_wrong_password_for_the_database(make_gate, stand, connect, token):
    wrong = stand.path("gate", "wrong-credentials.txt")
    with open(wrong, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write('"acme_rw" "wrong"\n"postern_monitor" "wrong"\n')
    gate = make_gate({"cluster main": {"credentials": wrong}, "database acme": {"wait_limit": "5s"}},
                     want_ready=False)
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("acme_rw", "acme", token()).query("SELECT 1")
    assert caught.value.code in ("08004", "53300"), caught.value
    assert '"wrong"' not in gate.log()


def test_credentials_in_a_directory(make_gate, stand, login):
    folder = stand.path("gate", "credentials.d")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for role in ("acme_rw", "postern_monitor"):
        with open(os.path.join(folder, role), "w", encoding="ascii",
                  opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(stand.postgres.passwords[role] + "\n")
    gate = make_gate({"cluster main": {"credentials": folder}})
    assert login(gate).query("SELECT current_user") == [["acme_rw"]]


def test_node_with_a_certificate_of_another_authority(make_gate, stand, connect, token):
    from stand.certs import Authority
    other = Authority(stand.path("tls", "other"), "other")
    gate = make_gate({"cluster main": {"tls_ca": other.crt}, "database acme": {"wait_limit": "3s"}},
                     want_ready=False)
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("acme_rw", "acme", token()).query("SELECT 1")
    assert caught.value.code in ("08001", "53300"), caught.value


def test_verify_full_checks_the_nodes_name(make_gate, stand, nodes, connect, token):
    """127.0.0.2 is the same node under an address that its certificate does not carry."""
    node = Node(stand.node_program, "node by another name", f"127.0.0.1:{stand.postgres.port}",
                stand.path("log", "own-nodes.log"), "zone1")
    node.host = "127.0.0.2"
    node.start()
    try:
        def ask(tls):
            gate = make_gate({**own_cluster([node], tls=tls), "database acme": {"wait_limit": "3s"}},
                             want_ready=False)
            return connect(gate).login("acme_rw", "acme", token()).query("SELECT 1")
        assert ask("verify-ca") == [["1"]]
        with pytest.raises(wire.ServerError) as caught:
            ask("verify-full")
        assert caught.value.code in ("08001", "53300"), caught.value
    finally:
        node.stop()


def test_database_that_the_cluster_does_not_have(make_gate, stand, connect, token):
    gate = make_gate({"database acme": {"dbname": "nowhere", "wait_limit": "5s"}})
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("acme_rw", "acme", token()).query("SELECT 1")
    assert caught.value.code in ("3D000", "08004"), caught.value
