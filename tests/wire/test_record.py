"""What is recorded: counters that follow the traffic and stay, every refusal in the log and the
audit trail, disks that are full, commands with their target and outcome. Number 16 of the issue
that asked for it.
"""
# SPDX-License-Identifier: Apache-2.0
import json
import os
import re
import shutil
import signal
import socket

import pytest

from stand import proc, wire
from wire.test_console import table

SECONDS = 20


def events(gate, kind=None, **members):
    """The audit trail's lines, as dictionaries."""
    rows = [json.loads(line) for line in gate.audit().splitlines()]
    return [r for r in rows if kind in (None, r["event"]) and members.items() <= r.items()]


def await_event(gate, kind, **members):
    return proc.wait_for(f"{kind} {members} in the audit trail", SECONDS,
                         lambda: events(gate, kind, **members))[0]


def metric(gate, name):
    return int(gate.metrics().get(name, -1))


def stat(rows, name, tenant=""):
    return sum(int(r["value"]) for r in rows if r["name"] == name and r["tenant"] == tenant)


# ---- bytes ----

@pytest.mark.parametrize("names", [
    ("client_received_bytes_total", "client_sent_bytes_total"),
    ("backend_sent_bytes_total", "backend_received_bytes_total")], ids=["client", "server"])
def test_bytes_follow_the_traffic_of_living_sessions(make_gate, login, console, database, names):
    gate = make_gate()
    c, admin = login(gate, database), console(gate)
    sent, received = names

    def seen():
        rows = table(admin, "SHOW STATS")
        return stat(rows, sent), stat(rows, received)
    before = seen()
    scraped = metric(gate, f"postern_{sent}"), metric(gate, f"postern_{received}")
    c.query(f"SELECT '{'a' * 100_000}' || repeat('b', 300000)")
    after = seen()
    assert after[0] - before[0] >= 100_000 and after[1] - before[1] >= 400_000
    assert metric(gate, f"postern_{sent}") - scraped[0] >= 100_000
    assert metric(gate, f"postern_{received}") - scraped[1] >= 400_000
    assert metric(gate, f"postern_{sent}") < 10_000_000, "nothing is counted twice"
    c.send(wire.terminate())
    proc.wait_for("the session to end", SECONDS, lambda: metric(gate, "postern_clients") == 1)
    assert seen()[0] >= after[0] and seen()[1] >= after[1], "nor does it fall when the session ends"


def test_bytes_of_each_client_and_server_connection(gate, login, console):
    c = login(gate, "acme_session")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    c.query("SELECT repeat('b', 300000)")
    admin = console(gate)
    mine = [r for r in table(admin, "SHOW CLIENTS") if r["backend_pid"] == pid][0]
    its = [r for r in table(admin, "SHOW SERVERS") if r["pid"] == pid][0]
    assert int(mine["bytes_out"]) >= 300_000 and 0 < int(mine["bytes_in"]) < 20_000
    assert int(its["bytes_in"]) >= 300_000 and 0 < int(its["bytes_out"]) < 20_000


def test_bytes_of_sessions_that_move_between_workers_never_fall(make_gate, login):
    gate = make_gate({"postern": {"workers": 2}})
    names = ("postern_client_received_bytes_total", "postern_client_sent_bytes_total")
    last = (0, 0)
    for _ in range(12):
        c = login(gate, "globex")
        c.query("SELECT 1")
        now = tuple(metric(gate, n) for n in names)
        assert last[0] < now[0] < 10_000_000 and last[1] < now[1] < 10_000_000
        last = now


# ---- tenants ----

def refused_queries(c, count=60):
    return sum(bool(wire.errors(c.ask(wire.query("SELECT 1")))) for _ in range(count))


def test_counters_of_a_tenant_stay_when_its_last_session_goes(make_gate, login, console):
    gate = make_gate()
    c, admin = login(gate, "metered"), console(gate)
    refused = refused_queries(c)
    assert refused
    labels = 'tenant="metered",reason="rate_limited"'
    assert metric(gate, f"postern_limit_refused_total{{{labels}}}") == refused
    assert metric(gate, "postern_rate_limited_total") == refused
    c.send(wire.terminate())
    # A meter without a session is given up by the second look, each ten seconds apart.
    proc.wait_for("the meter to go", 60, lambda: not [
        r for r in table(admin, "SHOW LIMITS") if r["tenant"] == "metered" and r["source"]])
    row = [r for r in table(admin, "SHOW LIMITS") if r["tenant"] == "metered"][0]
    assert int(row["refused"]) == int(row["rate_limited"]) == refused
    assert (row["plan"], row["queries_per_second"], row["connections"]) == ("metered", "20", "0"), \
        "its plan, which 0 would deny"
    assert int(row["memory_limit"]) > 0 and row["memory"] == "0", "nor has it no limit of memory"
    assert int(row["queries"]) == 60
    rows = table(admin, "SHOW STATS")
    assert stat(rows, "tenant_queries", "metered") == 60
    assert stat(rows, "tenant_refused_rate_limited", "metered") == refused
    assert metric(gate, f"postern_limit_refused_total{{{labels}}}") == refused
    assert metric(gate, 'postern_tenant_queries_total{tenant="metered"}') == 60
    tenants = [r for r in table(admin, "SHOW TENANTS") if r["tenant"] == "metered"]
    assert int(tenants[0]["queries"]) == 60


def test_counters_of_many_tenants_are_bounded(make_gate, login, console):
    """Those that are idle for longest go into one row, and the sum never falls."""
    gate = make_gate({"postern": {"tenant_counters": 1}})

    def queries():
        return {k: int(v) for k, v in gate.metrics().items()
                if k.startswith("postern_tenant_queries_total")}
    for n, database in enumerate(("acme", "globex", "metered"), 1):
        c = login(gate, database)
        c.query("SELECT 1")
        assert sum(queries().values()) == n
    rows = queries()
    assert rows == {'postern_tenant_queries_total{tenant="acme"}': 1,
                    'postern_tenant_queries_total{tenant="*"}': 2}


# ---- the audit event `limit` ----

def test_limit_is_in_the_audit_trail_once_for_a_tenant_and_reason(make_gate, login):
    gate = make_gate()
    c = login(gate, "metered")
    refused = refused_queries(c)
    row = await_event(gate, "limit", tenant="metered", reason="rate_limited")
    assert 1 <= row["count"] <= refused
    refused += refused_queries(c)
    gate.stop()
    rows = events(gate, "limit", tenant="metered")
    assert len(rows) <= 2, "the second at the end, with the rest"
    assert sum(r["count"] for r in rows) == refused


def test_limit_of_connections_is_told_too(make_gate, login):
    gate = make_gate({"plan metered": {"max_connections": 1}})
    login(gate, "metered")
    with pytest.raises(wire.ServerError):
        login(gate, "metered")
    await_event(gate, "login_refused", tenant="metered", reason="tenant_connections")
    row = await_event(gate, "limit", tenant="metered", reason="tenant_connections")
    assert row["count"] == 1


# ---- disks that are full ----

def may_log_in(login, gate):
    try:
        login(gate).query("SELECT 1")
        return True
    except wire.ServerError as e:
        assert e.code == "58030" and e.fields["H"] and "audit" in e.fields["M"]
        return False


def test_audit_required_refuses_logins_while_the_trail_cannot_be_written(make_gate, login):
    gate = make_gate({"postern": {"audit_file": "/dev/full", "audit_required": "on"}}, want_ready=False)
    proc.wait_for("the cluster", SECONDS, lambda: "cluster" not in gate.http("/health/ready")[1])
    proc.wait_for("logins to be refused", SECONDS, lambda: not may_log_in(login, gate))
    gate.await_log(r"audit: the audit trail cannot be written: No space left on device")
    assert metric(gate, "postern_audit_writable") == 0
    status, said = gate.http("/health/ready")
    assert (status, said) == (503, "audit trail: cannot be written, and nobody is let in without it\n")
    gate.reload({"postern": {"audit_file": "audit.jsonl"}})
    proc.wait_for("logins to be taken again", SECONDS, lambda: may_log_in(login, gate))
    gate.await_log(r"audit: the audit trail can be written again")
    rows = proc.wait_for("the trail", SECONDS, lambda: events(gate, "login") and events(gate))
    assert [r["event"] for r in rows][0] == "start", "what waited is there"
    assert events(gate, "login_refused", reason="audit_away")
    assert gate.http("/health/ready") == (200, "ready\n")
    assert metric(gate, "postern_audit_writable") == 1


def test_without_audit_required_a_full_disk_refuses_nobody(make_gate, login):
    gate = make_gate({"postern": {"audit_file": "/dev/full"}})
    gate.await_log(r"audit: the audit trail cannot be written")
    assert may_log_in(login, gate) and may_log_in(login, gate)
    assert gate.http("/health/ready") == (200, "ready\naudit trail: cannot be written\n")
    assert len(re.findall("audit trail cannot be written", gate.log())) == 1, "once a minute"
    gate.reload({"postern": {"audit_file": "audit.jsonl"}})
    proc.wait_for("the lines that waited", SECONDS, lambda: len(events(gate, "login")) == 2)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = proc.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0777", "tmpfs", str(folder)],
                    check=False)
    if done.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    proc.run(["umount", "-l", str(folder)])


def fill(folder):
    with open(folder / "fill", "ab", buffering=0) as f:
        with pytest.raises(OSError):
            while True:
                f.write(b"x" * 512)


def test_a_small_disk_that_fills_and_is_cleared(make_gate, login, small_disk):
    trail = small_disk / "audit.jsonl"
    gate = make_gate({"postern": {"audit_file": trail, "audit_required": "on"}})
    gate.audit_file = trail
    assert may_log_in(login, gate)
    fill(small_disk)
    assert not may_log_in(login, gate), "not even the first"
    assert not may_log_in(login, gate)
    os.unlink(small_disk / "fill")
    proc.wait_for("logins to be taken again", SECONDS, lambda: may_log_in(login, gate))
    proc.wait_for("the refusals, which waited", SECONDS, lambda: events(gate, "login_refused", reason="audit_away"))
    assert all(isinstance(r, dict) for r in events(gate)), "no line is torn"


def test_a_log_that_cannot_be_written_is_told_on_standard_error(make_gate, login):
    gate = make_gate({"postern": {"log_file": "/dev/full"}})
    login(gate).query("SELECT 1")

    def said():
        with open(gate.stderr, encoding="utf-8") as f:
            return "the log cannot be written: No space left on device" in f.read()
    proc.wait_for("a word on standard error", SECONDS, said)
    assert metric(gate, "postern_log_writable") == 0
    gate.reload({"postern": {"log_file": "postern.log"}})
    gate.await_log("the log can be written again")
    gate.await_log("logged in to acme")


@pytest.fixture
def folder_goes(make_gate):
    """A gate whose log and audit trail are in a folder of their own, which goes when it is told; the trail is required."""
    gate = make_gate(start=False)
    folder = os.path.join(gate.folder, "logs")
    os.mkdir(folder)
    gate.log_file, gate.audit_file = os.path.join(folder, "postern.log"), os.path.join(folder, "audit.jsonl")
    gate.write({"postern": {"log_file": gate.log_file, "audit_file": gate.audit_file, "audit_required": "on"}})
    gate.start()
    return gate, folder


def said_on_stderr(gate):
    with open(gate.stderr, encoding="utf-8") as f:
        return "the log cannot be written: No such file or directory" in f.read()


@pytest.mark.parametrize("signalled", [True, False], ids=["SIGUSR1", "without a signal"])
def test_log_folder_that_is_gone_is_told_until_it_is_back(folder_goes, login, signalled):
    gate, folder = folder_goes
    assert may_log_in(login, gate)
    shutil.rmtree(folder)
    if signalled:
        gate.process.signal(signal.SIGUSR1)
    proc.wait_for("the metrics to say so", SECONDS,
                  lambda: metric(gate, "postern_log_writable") == metric(gate, "postern_audit_writable") == 0)
    proc.wait_for("a word on standard error", SECONDS, lambda: said_on_stderr(gate))
    assert gate.http("/health/ready") == (503, "audit trail: cannot be written, and nobody is let in without it\n"
                                               "log: cannot be written\n")
    assert not may_log_in(login, gate)
    os.mkdir(folder)
    proc.wait_for("both to be there by themselves", SECONDS, lambda: gate.http("/health/ready") == (200, "ready\n"))
    assert may_log_in(login, gate)
    await_event(gate, "login_refused", reason="audit_away")
    await_event(gate, "login")
    gate.await_log("the audit trail cannot be written: No such file or directory")
    gate.await_log("the audit trail can be written again")
    assert metric(gate, "postern_log_writable") == metric(gate, "postern_audit_writable") == 1
    assert metric(gate, "postern_audit_lines_dropped_total") == metric(gate, "postern_log_lines_dropped_total") == 0
    assert "log files opened anew" not in gate.log()
    gate.process.signal(signal.SIGUSR1)
    gate.await_log("log files opened anew")


# ---- the console's commands ----

def test_kill_is_recorded_with_whom_and_by_whom(make_gate, login, console, stand):
    gate = make_gate()
    victim, admin = login(gate), console(gate)
    victim.query("SELECT 1")
    row = [r for r in table(admin, "SHOW CLIENTS") if r["tenant"] == "acme"][0]
    admin.query(f"KILL {row['id']}")
    said = await_event(gate, "admin", command="KILL")
    assert said["outcome"] == "ok" and said["user"] == stand.admin_user
    assert said["address"].startswith("127.0.0.1:") and said["session"].startswith("client ")
    assert said["target"] == f"client {row['id']}" and said["target_tenant"] == "acme"
    assert said["target_subject"] == "acme-application"
    assert await_event(gate, "logout", session=said["target"])["reason"] == "killed"


def test_kill_of_nobody_is_recorded_as_such(make_gate, console):
    gate = make_gate()
    with pytest.raises(wire.ServerError):
        console(gate).query("KILL 7fffffff")
    said = await_event(gate, "admin", command="KILL")
    assert said["outcome"] == "not_found" and said["target"] == "client 7fffffff"


def test_reloads_are_recorded_with_their_outcome(make_gate, console, stand):
    gate = make_gate()
    admin = console(gate)
    admin.query("RELOAD")
    assert await_event(gate, "admin", command="RELOAD", outcome="ok")["user"] == stand.admin_user
    gate.write({"postern": {"max_clients": "many"}})
    with pytest.raises(wire.ServerError):
        admin.query("RELOAD")
    assert await_event(gate, "admin", command="RELOAD", outcome="refused")["user"] == stand.admin_user
    gate.reload()
    await_event(gate, "admin", command="RELOAD", outcome="refused", method="signal")
    gate.reload({"postern": {"max_clients": 100}})
    await_event(gate, "admin", command="RELOAD", outcome="ok", method="signal")


def test_the_console_itself_is_recorded(make_gate, console, stand):
    gate = make_gate()
    c = console(gate)
    c.query("SHOW VERSION")
    c.send(wire.terminate())
    assert await_event(gate, "admin", command="SHOW VERSION")["user"] == stand.admin_user
    assert await_event(gate, "login", method="scram")["user"] == stand.admin_user
    assert await_event(gate, "logout", user=stand.admin_user)["database"] == "postern"


# ---- characters ----

def test_hidden_characters_reach_neither_log_nor_trail(make_gate, connect):
    evil = "a\x9b31m\x85\u202eevil\u2066\x1b[2J"
    gate = make_gate()
    c = connect(gate)
    c.startup(evil, "acme")
    c.expect("R")
    c.send(wire.password("wrong"))
    c.refusal()
    row = await_event(gate, "login_refused")
    assert row["user"] == evil
    with open(gate.audit_file, encoding="ascii", errors="strict") as f:
        raw = [line for line in f if "login_refused" in line][0]
    assert r"\u202e" in raw and r"\u009b" in raw
    gate.await_log(r"user \"a\\u009b31m\\u0085\\u202eevil\\u2066\\u001b\[2J")
    assert not re.search("[\x80-\x9f\u202a-\u202e\u2066-\u2069\x1b]", gate.log())


def test_bytes_that_are_no_utf8_are_escaped(make_gate, connect):
    gate = make_gate()
    c = connect(gate)
    c.send(wire.startup({"user": "x", "database": "acme"}).replace(b"user\0x\0", b"user\0\xff\0"))
    c.expect("R")
    c.send(wire.password("wrong"))
    c.refusal()
    gate.await_log(r'user "\\xff"')
    assert await_event(gate, "login_refused")["user"] == "\ufffd"
