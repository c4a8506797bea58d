"""Start, readiness, drain and stop."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import socket
import time

import pytest

from conftest import own_cluster, redis_section
from stand import proc, wire
from stand.gate import render


def signalled(gate, number):
    gate.process.signal(number)


def test_sigterm_tells_idle_sessions(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("SELECT 1")
    signalled(gate, signal.SIGTERM)
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] == "57P01"
    assert gate.process.wait(15) == 0


def test_sigterm_lets_transactions_finish(make_gate, login, table):
    gate = make_gate()
    idle, c = login(gate), login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1, 'drained')")
    signalled(gate, signal.SIGTERM)
    assert idle.refusal()["C"] == "57P01"
    assert gate.process.alive()
    c.query(f"INSERT INTO {table} VALUES (2, 'drained')")
    messages = c.ask(wire.query("COMMIT"))
    assert not wire.errors(messages)
    assert c.refusal()["C"] == "57P01"
    assert gate.process.wait(15) == 0


def test_sigterm_lets_a_query_finish(make_gate, login, running):
    gate = make_gate()
    c = login(gate)
    c.send(wire.query("SELECT pg_sleep(1), 'finished_by_drain'"))
    running("finished_by_drain")
    signalled(gate, signal.SIGTERM)
    assert wire.rows(c.until("Z")) == [["", "finished_by_drain"]]
    assert c.refusal()["C"] == "57P01"
    assert gate.process.wait(15) == 0


def test_drain_takes_no_new_connections(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("BEGIN")
    signalled(gate, signal.SIGTERM)

    def closed():
        try:
            with socket.create_connection(("127.0.0.1", gate.port()), timeout=2) as s:
                s.sendall(wire.SSL_REQUEST)
                return s.recv(1) in (b"", b"E")
        except OSError:
            return True
    proc.wait_for("the listeners to be closed", 10, closed)
    assert c.query("SELECT 1") == [["1"]]
    c.query("COMMIT")
    assert gate.process.wait(15) == 0


def test_drain_is_not_ready_and_alive(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("BEGIN")
    signalled(gate, signal.SIGTERM)
    proc.wait_for("not ready", 10, lambda: gate.http("/health/ready")[0] == 503)
    assert gate.http("/health/live")[0] == 200
    c.query("ROLLBACK")
    assert gate.process.wait(15) == 0


def test_drain_ends_in_time(make_gate, login):
    gate = make_gate({"postern": {"drain_timeout": "1s"}})
    c = login(gate)
    c.query("BEGIN")
    began = time.monotonic()
    signalled(gate, signal.SIGTERM)
    assert gate.process.wait(15) == 0
    assert 0.5 < time.monotonic() - began < 8 * proc.PATIENCE
    assert c.refusal()["C"] == "57P01"


@pytest.mark.parametrize("number", [signal.SIGINT], ids=["SIGINT"])
def test_sigint_stops_at_once(make_gate, login, number):
    gate = make_gate({"postern": {"drain_timeout": "1h"}})
    c = login(gate)
    c.query("BEGIN")
    began = time.monotonic()
    signalled(gate, number)
    assert gate.process.wait(15) == 0
    assert time.monotonic() - began < 5 * proc.PATIENCE


def test_open_transactions_are_rolled_back_at_the_end(make_gate, login, stand, table):
    gate = make_gate()
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1, 'lost')")
    signalled(gate, signal.SIGINT)
    assert gate.process.wait(15) == 0
    proc.wait_for("the database to notice", 10, lambda: stand.postgres.sql(
        f"SELECT count(*) FROM {table}", "acme", "acme_rw") == [["0"]]
        and stand.postgres.sql(f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass",
                               "acme") == [["0"]])


def test_files_are_written_and_removed(make_gate):
    gate = make_gate()
    with open(os.path.join(gate.folder, "postern.pid"), encoding="ascii") as f:
        assert int(f.read()) == gate.pid
    assert {"main", "oauth", "local"} <= set(gate.ports)
    assert set(gate.ports["main"]) >= {"127.0.0.1"}
    sockets = gate.sockets
    assert os.path.exists(f"{sockets}/.s.PGSQL.5432")
    gate.process.signal(signal.SIGTERM)
    assert gate.process.wait(15) == 0
    assert not os.path.exists(os.path.join(gate.folder, "postern.pid"))
    assert not os.path.exists(f"{sockets}/.s.PGSQL.5432")


ELSEWHERE = {"postern": {"http_listen": "127.0.0.1:0"}, "listener main": {"address": "127.0.0.1", "port": 0},
             "listener local": {"address": "127.0.0.1", "port": 0}}


def second_start(gate, changed):
    """A second process with the gate's own configuration, but for what is changed: started twice by mistake."""
    config = os.path.join(gate.folder, "second.ini")
    with open(config, "w", encoding="utf-8") as f:
        f.write(render(gate.sections, changed))
    return proc.Process("second Postern", [gate.binary, "--config", config], os.path.join(gate.folder, "second.err"),
                        cwd=gate.folder)


def of_the_gate(gate):
    """What it has written: the inode and the text of each file."""
    def whole(path):
        with open(path, encoding="utf-8") as f:
            return os.stat(path).st_ino, f.read()
    return {name: whole(os.path.join(gate.folder, name)) for name in ("postern.pid", "postern.ready")}


@pytest.mark.parametrize("taken", ["listener", "http_listen", "pid_file"])
def test_a_start_that_is_refused_touches_nothing_of_the_running_gate(make_gate, taken):
    gate = make_gate()
    os.symlink("no.folder/postern.pid", os.path.join(gate.folder, "to.nowhere"))
    before = of_the_gate(gate)
    section, key, value = {"listener": ("listener main", "port", gate.port()),
                           "http_listen": ("postern", "http_listen", f"127.0.0.1:{gate.port('http')}"),
                           "pid_file": ("postern", "pid_file", "to.nowhere")}[taken]
    second = second_start(gate, {**ELSEWHERE, section: {**ELSEWHERE[section], key: value}})
    assert second.wait(20) == 1
    assert of_the_gate(gate) == before
    assert not os.path.exists(gate.ready_file + ".new")
    gate.process.signal(signal.SIGTERM)
    assert gate.process.wait(15) == 0
    assert not os.path.exists(gate.ready_file) and not os.path.exists(os.path.join(gate.folder, "postern.pid"))


def test_files_that_another_process_has_written_since_stay(make_gate):
    """Of two that share their files by mistake, the one that ends leaves those of the other."""
    gate = make_gate()
    second = second_start(gate, ELSEWHERE)
    try:
        proc.wait_for("the second to be there", 20, lambda: of_the_gate(gate)["postern.pid"][1] == f"{second.pid}\n")
        others = proc.wait_for("its ready file", 20, lambda: f"http 127.0.0.1 {gate.port('http')}\n" not in
                               of_the_gate(gate)["postern.ready"][1] and of_the_gate(gate))
        gate.process.signal(signal.SIGTERM)
        assert gate.process.wait(15) == 0
        assert of_the_gate(gate) == others
        second.signal(signal.SIGTERM)
        assert second.wait(15) == 0
        assert not os.path.exists(gate.ready_file) and not os.path.exists(os.path.join(gate.folder, "postern.pid"))
    finally:
        second.stop()


def test_a_socket_that_another_process_has_bound_since_stays(make_gate):
    gate = make_gate()
    path = f"{gate.sockets}/.s.PGSQL.5432"
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        gate.process.signal(signal.SIGTERM)
        assert gate.process.wait(15) == 0
        assert os.path.exists(path)
    os.unlink(path)


def test_second_start_on_the_same_socket_directory(make_gate, gate):
    """A socket that another gate listens on must not be taken from it."""
    second = make_gate({"listener local": {"address": gate.sockets}}, start=False)
    second.write()
    second.launch()
    assert second.process.wait(20) == 1
    second.process = None
    with wire.Client(f"{gate.sockets}/.s.PGSQL.5432", None) as c:
        c.startup("acme_rw", "acme")
        assert c.expect("R")


def test_socket_left_by_a_killed_gate_is_replaced(make_gate, token):
    gate = make_gate()
    gate.process.kill()
    assert os.path.exists(f"{gate.sockets}/.s.PGSQL.5432")
    gate.start()
    with wire.Client(f"{gate.sockets}/.s.PGSQL.5432", None) as c:
        assert c.login("acme_rw", "acme", token()).query("SELECT 1") == [["1"]]


def test_health_when_all_is_well(gate):
    for path in ("/health/startup", "/health/live", "/health/ready"):
        assert gate.http(path)[0] == 200, path


def test_redis_away_at_the_start(make_gate, own_redis, login):
    own_redis.kill()
    gate = make_gate({"redis": redis_section(own_redis, timeout="100ms")}, want_ready=False)
    assert gate.http("/health/live")[0] == 200
    gate.await_log("(?i)redis")
    assert login(gate, "acme").query("SELECT 1") == [["1"]]
    assert not gate.is_ready(), "the limits are not those of the fleet"
    own_redis.start()
    proc.wait_for("the gate to be ready", 20, gate.is_ready)


def test_cluster_away_at_the_start(make_gate, nodes, login):
    for n in nodes:
        n.kill()
    gate = make_gate(own_cluster(nodes, connect_timeout="500ms"), want_ready=False)
    assert gate.http("/health/live")[0] == 200
    assert gate.http("/health/ready")[0] == 503
    nodes[2].start()
    proc.wait_for("the gate to be ready", 20, gate.is_ready)
    assert gate.http("/health/startup")[0] == 200
    assert login(gate).query("SELECT 1") == [["1"]]


def test_version_and_help(stand):
    done = proc.run([stand.binary, "--version"])
    assert "postern" in done.stdout.lower()
    assert "--check" in proc.run([stand.binary, "--help"]).stdout


def test_unknown_option_exits_with_an_error(stand):
    done = proc.run([stand.binary, "--frobnicate"], check=False)
    assert done.returncode not in (0, None) and done.returncode > 0
    assert done.stderr


def test_scram_of_the_gates_own_program(stand, make_gate, login):
    verifier = proc.run([stand.binary, "scram"], stdin="open sesame\n").stdout.strip()
    assert verifier.startswith("SCRAM-SHA-256$") and "open sesame" not in verifier
    users = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")
    with open(users, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(f'"ali" "{verifier}" acme rw\n')
    gate = make_gate({"postern": {"users_file": users, "admin_users": None}, "listener main": {"scram_users": "ali"}})
    assert login(gate, user="ali", secret="open sesame").query("SELECT 1") == [["1"]]


def test_json_log_lines_parse(make_gate, login):
    import json
    gate = make_gate({"postern": {"log_format": "json", "log_level": "debug"}})
    login(gate).query("SELECT 1")
    with open(gate.log_file, encoding="utf-8") as f:
        lines = f.read().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)


def test_file_descriptors_do_not_leak(make_gate, login, connect):
    gate = make_gate()
    login(gate).query("SELECT 1")

    def count():
        return len(os.listdir(f"/proc/{gate.pid}/fd"))
    proc.wait_for("calm", 10, lambda: count() == count())
    before = count()
    for _ in range(50):
        c = login(gate)
        c.query("SELECT 1")
        c.close()
        c = connect(gate)
        c.close()
    proc.wait_for("descriptors to be given back", 15, lambda: count() <= before + 5)


def test_a_stand_that_is_ended_says_what_it_leaves(tmp_path, capsys):
    import argparse
    from stand.__main__ import down
    (tmp_path / "stand.json").write_text('{"processes": [], "elsewhere": null}', encoding="ascii")
    assert down(argparse.Namespace(dir=str(tmp_path))) == 0
    assert f"keys and passwords among them. Remove them:  rm -rf {tmp_path}\n" in capsys.readouterr().out
