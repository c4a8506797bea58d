"""Every connection that is not let in is told: one line in the log, and where a login was tried one
in the audit trail. And the documentation's tables of events and reasons say what can be written.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import re
import signal
import socket
import struct
import threading

import pytest

from stand import proc, wire
from wire.conftest import own_cluster, redis_section
from wire.fake import FakeServer
from wire.test_record import SECONDS, await_event, events, metric

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


class Kit:
    """What a way to fail needs."""

    def __init__(self, stand, make_gate, connect, login, token, stack):
        self.stand, self.make_gate, self.connect = stand, make_gate, connect
        self.login, self.token, self.stack, self.gate = login, token, stack, None

    def client(self, tls="request", listener="main"):
        return self.connect(self.gate, tls, listener)

    def bare(self):
        """A socket without a word said yet."""
        return self.stack.enter_context(socket.create_connection(("127.0.0.1", self.gate.port()), timeout=20))

    def started(self, user="acme_rw", database="acme", listener="main", **more):
        c = self.client(listener=listener)
        c.startup(user, database, **more)
        c.expect("R")
        return c

    def refused(self, user="acme_rw", database="acme", secret=None, **more):
        with pytest.raises(wire.ServerError):
            self.client().login(user, database, secret or self.token(), **more).query("SELECT 1")

    def fake(self, *hello):
        """A server that says this to each startup message, and hangs up."""
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))

        def serve(c):
            with contextlib.suppress(OSError), c:
                if c.recv(10000):
                    c.sendall(b"".join(hello))
                while c.recv(10000):
                    pass

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"


def one_server(address, **more):
    return {"hosts": address, "tls": "disable", "discovery": "off", "monitor_user": None,
            "tls_ca": None, "tls_cert": None, "tls_key": None, **more}


def fatal(code, text):
    return wire.message("E", b"".join(k + v.encode() + b"\0" for k, v in
                                      ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", text))) + b"\0")


# ---- ways to fail: each provokes one, with the gate of `overrides` ----

def bad_password_length(k):
    k.started().send(b"p" + struct.pack("!i", 2))


def not_a_password(k):
    k.started().send(wire.query("SELECT 1"))


def half_a_name(k):
    k.client().send(struct.pack("!ii", 15, wire.V30) + b"user\0ab")


def oauth_with_an_authzid(k):
    k.started(listener="oauth").send(wire.sasl_initial("OAUTHBEARER", b"n,a=somebody,\x01auth=Bearer x\x01\x01"))


def oauth_with_a_bad_token(k):
    """The client leaves after the answer, as libpq does: it is told nevertheless."""
    c = k.started(listener="oauth")
    c.send(wire.sasl_initial("OAUTHBEARER", b"n,,\x01auth=Bearer x.y.z\x01\x01"))
    c.expect("R")
    c.close()


def silent_after_startup(k):
    assert k.started().refusal()["C"] == "57014"


def plaintext(k):
    c = k.client(tls=None)
    c.startup("acme_rw", "acme")
    assert c.refusal()["C"] == "28000"


def console_for_anybody(k):
    with pytest.raises(wire.ServerError):
        k.client().login(k.stand.scram_user, "postern", k.stand.scram_password)


def one_too_many(k):
    k.login(k.gate)
    with pytest.raises(wire.ServerError):
        k.login(k.gate)


def metered_twice(k):
    k.login(k.gate, "metered")
    with pytest.raises(wire.ServerError):
        k.login(k.gate, "metered")


def redis_gone(k):
    k.redis.stop()
    proc.wait_for("the gate to notice", SECONDS, lambda: "closed" in k.gate.http("/health/ready")[1])
    k.refused()


def session_mode_full(k):
    k.held = k.login(k.gate, "acme_session")
    k.refused(database="acme_session")


def queue_full(k):
    k.held = k.login(k.gate, "acme_session")
    waiting = k.client()
    waiting.startup("acme_rw", "acme_session")
    waiting.expect("R")
    waiting.send(wire.password(k.token()))
    admin = k.connect(k.gate).login(k.stand.admin_user, "postern", k.stand.admin_password)
    proc.wait_for("a session that waits", SECONDS,
                  lambda: any(r[5] != "0" for r in admin.query("SHOW POOLS") if "acme_session" in r))
    k.refused(database="acme_session")


def shutdown(k):
    k.started()
    k.gate.process.signal(signal.SIGTERM)
    k.gate.process.wait(20)


def no_audit(k):
    gate_is_failing = lambda: metric(k.gate, "postern_audit_writable") == 0  # noqa: E731
    proc.wait_for("the trail to fail", SECONDS, gate_is_failing)
    k.refused()
    k.gate.reload({"postern": {"audit_file": "audit.jsonl"}})


def expired(k):
    k.refused(secret=k.stand.token("acme", lifetime=-3600))


def of_a_closed_pool(k):
    """The database goes while a client logs in."""
    c = k.started()
    k.gate.reload({"database acme": None, "tenant acme": {"databases": "acme_session, acme_pool1"}})
    k.gate.await_log("is in force")
    c.send(wire.password(k.token()))
    with contextlib.suppress(wire.Closed, OSError):
        c.refusal()


ONE = {"postern": {"workers": 1}}

# reason: (overrides, way, words of the log line behind the reason)
TRIED = {
    "protocol": ({}, not_a_password, "expected an authentication response"),
    "message_length": ({}, bad_password_length, "invalid length of an authentication response"),
    "startup_packet": ({}, half_a_name, "invalid startup packet layout"),
    "options": ({}, lambda k: k.refused(options="-x"), "."),
    "startup_value": ({}, lambda k: k.refused(replication="maybe"), "invalid value for parameter"),
    "protocol_version": ({}, lambda k: k.client().startup("acme_rw", "acme", 2 << 16), "unsupported frontend"),
    "not_supported": ({}, oauth_with_an_authzid, "authorization identity"),
    "replication": ({}, lambda k: k.refused(replication="database"), ""),
    "tls_required": ({}, plaintext, ""),
    "login_timeout": ({"postern": {"login_timeout": "1s"}}, silent_after_startup, ""),
    "auth_failed": ({}, expired, "expired"),
    "tenant_unknown": ({}, lambda k: k.refused(secret=k.stand.token("nobody")), "no tenant \"nobody\""),
    "role_denied": ({}, lambda k: k.refused(user="globex_rw"), "roles of these credentials"),
    "database_denied": ({}, lambda k: k.refused(database="globex"), "databases of this tenant"),
    "database_unknown": ({}, lambda k: k.refused(database="nowhere"), "."),
    "name_too_long": ({}, lambda k: k.refused(database="n" * 70), "70 bytes"),
    "tenant_connections": ({"plan metered": {"max_connections": 1}}, metered_twice, ""),
    "connect_rate": ({"plan metered": {"connections_per_second": 1}}, metered_twice, ""),
    "limits_away": ("redis", redis_gone, ""),
    "too_many_clients": ({"postern": {"max_clients": 1}}, one_too_many, ""),
    "audit_away": ({"postern": {"audit_file": "/dev/full", "audit_required": "on"}}, no_audit, ""),
    "pool_timeout": ({**ONE, "database acme_session": {"pool_size": 1, "wait_limit": "1s"}}, session_mode_full, ""),
    "pool_full_queue": ({**ONE, "database acme_session": {"pool_size": 1, "max_waiting": 1}}, queue_full, ""),
    "no_node": ("closed port", lambda k: k.refused(), ""),
    "backend_auth": ({"cluster main": {"credentials": "wrong"}}, lambda k: k.refused(), ""),
    "backend_refused": ("refusing", lambda k: k.refused(), "connections are not wanted"),
    "backend_protocol": ("babbling", lambda k: k.refused(), ""),
    "backend_tls": ("other authority", lambda k: k.refused(), ""),
    "admin_only": ({}, console_for_anybody, "admin_users"),
    "shutdown": ({}, shutdown, ""),
    "config_changed": (ONE, of_a_closed_pool, ""),
}


def port_of_nobody():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def overrides_of(kit, stand, what, own_redis):
    quick = {"database acme": {"wait_limit": "15s"}}
    if what == "redis":
        kit.redis = own_redis()
        return {"redis": {**redis_section(kit.redis), "away": "closed"}}
    if what == "closed port":
        return {**quick, "cluster main": one_server(f"127.0.0.1:{port_of_nobody()}")}
    if what == "refusing":
        return {**quick, "cluster main": one_server(kit.fake(fatal("0A000", "connections are not wanted")))}
    if what == "babbling":
        return {**quick, "cluster main": one_server(kit.fake(b"zzzzzzzzzzzzzzzz"))}
    if what == "other authority":
        from stand.certs import Authority
        other = Authority(stand.path("tls", f"other-{os.urandom(3).hex()}"), "other")
        return {**quick, "cluster main": {"tls_ca": other.crt, "monitor_user": None}}
    if "cluster main" in what:
        wrong = stand.path("gate", f"wrong-{os.urandom(3).hex()}.txt")
        with open(wrong, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write('"acme_rw" "wrong"\n')
        return {**quick, "cluster main": {"credentials": wrong, "monitor_user": None}}
    return what


@pytest.fixture
def kit(stand, make_gate, connect, login, token):
    with contextlib.ExitStack() as stack:
        yield Kit(stand, make_gate, connect, login, token, stack)


@pytest.fixture
def redis_maker(request):
    return lambda: request.getfixturevalue("own_redis")


@pytest.mark.parametrize("reason", TRIED)
def test_login_that_fails_is_in_the_log_and_in_the_audit_trail(kit, stand, make_gate, redis_maker, reason):
    what, way, words = TRIED[reason]
    overrides = overrides_of(kit, stand, what, redis_maker)
    kit.gate = make_gate(overrides, want_ready=not isinstance(what, str) and "cluster main" not in what
                         and reason != "audit_away")
    failed = metric(kit.gate, "postern_logins_failed_total")
    way(kit)
    proc.wait_for("a refusal", SECONDS, lambda: events(kit.gate, "login_refused"))
    assert reason in {e["reason"] for e in events(kit.gate, "login_refused")}
    line = await_event(kit.gate, "login_refused", reason=reason)
    assert line["session"].startswith("client ") and line["address"].startswith("127.0.0.1:")
    if reason not in ("startup_packet", "protocol_version"):
        assert line["user"] and line["database"]
    assert len(events(kit.gate, "login_refused", session=line["session"])) == 1, "once"
    assert words.strip(".") in line.get("detail", "")
    said = kit.gate.await_log(rf"{line['session']}: login refused: user .* at listener (main|oauth|local): {reason}")
    assert len(re.findall(f"{line['session']}: login refused", kit.gate.log())) == 1, said
    if kit.gate.process and reason not in ("shutdown", "too_many_clients"):
        assert metric(kit.gate, "postern_logins_failed_total") > failed


# ---- before a login was tried: the log alone ----

def bad_length(k):
    k.client().send(struct.pack("!i", 5) + b"x")


def http(k):
    k.bare().sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def bad_handshake(k):
    s = k.bare()
    s.sendall(wire.SSL_REQUEST)
    assert s.recv(1) == b"S"
    s.sendall(b"\x16\x03\x01\x00\x05hello")
    with contextlib.suppress(OSError):
        s.recv(100)


def silent(k):
    s = k.bare()
    s.settimeout(20)
    while s.recv(1000):
        pass


def clear_text_behind_the_request(k):
    k.bare().sendall(wire.SSL_REQUEST + b"more")


def direct_without_alpn(k):
    k.connect(k.gate, "direct", alpn=())


def short_cancel(k):
    k.bare().sendall(struct.pack("!iii", 12, wire.CANCEL_CODE, 1))


def cancel_of_nobody(k):
    s = k.bare()
    s.sendall(struct.pack("!iiii", 16, wire.CANCEL_CODE, 1, 2))
    with contextlib.suppress(OSError):
        s.recv(1)


UNTRIED = {
    "bad length": (bad_length, "message_length"),
    "http": (http, "message_length"),
    "bad handshake": (bad_handshake, "tls_failed"),
    "silence": (silent, "login_timeout"),
    "text behind the request": (clear_text_behind_the_request, "protocol"),
    "direct without alpn": (direct_without_alpn, "protocol"),
    "short cancel": (short_cancel, "protocol"),
    "cancel of nobody": (cancel_of_nobody, "cancel_unknown"),
}


@pytest.fixture(scope="module")
def quick_gate(module_gate):
    return module_gate({"postern": {"login_timeout": "2s"}})


@pytest.mark.parametrize("name", UNTRIED)
def test_connection_that_fails_before_a_login_is_in_the_log(quick_gate, kit, name):
    way, reason = UNTRIED[name]
    kit.gate = quick_gate
    before, tried = len(quick_gate.log()), len(events(quick_gate, "login_refused"))
    with contextlib.suppress(wire.Closed, ConnectionError):
        way(kit)
    quick_gate.await_log(rf"connection from 127\.0\.0\.1:\d+ at listener main failed: {reason}: ", before)
    assert len(re.findall(" failed: ", quick_gate.log()[before:])) == 1
    assert len(events(quick_gate, "login_refused")) == tried, "nobody tried to log in"


def test_client_that_leaves_in_its_login_is_in_the_log(gate, connect):
    """As psql does to ask for a password: nobody was refused."""
    before, failed = len(gate.log()), metric(gate, "postern_logins_failed_total")
    c = connect(gate)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.close()
    gate.await_log(r'login given up: user "acme_rw" database "acme" from .*: client_gone', before)
    assert metric(gate, "postern_logins_failed_total") == failed


def test_password_where_a_token_is_asked_for_is_told_as_that(make_gate, stand, connect, token):
    """And the other way round; in the log alone: the client reads the same, whoever there is."""
    gate = make_gate({"listener local": {"address": "127.0.0.1", "port": 0, "scram_users": None}})
    told = {}
    for listener, user, secret, words in (
            ("local", stand.scram_user, stand.scram_password, "; users_file has this user, but the listener's scram_users do not"),
            ("local", "nobody", "sesame", "not three parts with dots between; the listener's scram_users do not take this name"),
            ("main", "rw_batch", token(), "no such user in users_file; the listener's scram_users take this name, so it is not"),
            ("main", stand.scram_user, "wrong", "auth_failed: wrong password$"),
            ("main", "rw", token()[:-8], "auth_failed: (?!.*scram_users)")):
        before = len(gate.log())
        with pytest.raises(wire.ServerError) as caught:
            connect(gate, "request" if listener == "main" else None, listener).login(user, "acme", secret)
        told[user, listener] = (caught.value.code, caught.value.message.replace(user, "USER"), caught.value.hint)
        line = gate.await_log(rf'(?m)login refused: user "{user}" database "acme" from .* at listener {listener}: .*$', before)
        assert re.search(words, line.group(0)), line.group(0)
    assert len(set(told.values())) == 1, told


def test_oauth_token_that_is_refused_is_told_though_the_client_leaves(make_gate, kit):
    kit.gate = make_gate()
    oauth_with_a_bad_token(kit)
    line = await_event(kit.gate, "login_refused", method="oauthbearer")
    assert line["reason"] == "auth_failed" and line["detail"]


def test_log_is_bounded_in_a_flood_and_the_audit_trail_is_not(make_gate):
    gate = make_gate({"postern": {"workers": 1}})
    count = 600
    with contextlib.ExitStack() as stack:
        for _ in range(count):  # all at once: a line each would be far more than the log takes
            s = stack.enter_context(socket.create_connection(("127.0.0.1", gate.port()), timeout=20))
            s.sendall(wire.startup({"user": "acme_rw", "database": "acme"}))
        proc.wait_for("every one in the audit trail", SECONDS,
                      lambda: len(events(gate, "login_refused", reason="tls_required")) == count)
    proc.wait_for("the rest to be told as a number", SECONDS, lambda: sum(
        map(int, re.findall(r"clients: (\d+) more connections failed", gate.log())))
        + gate.log().count(": tls_required") == count)
    assert gate.log().count(": tls_required") < count


@pytest.mark.parametrize("mode", ["acme", "acme_session"])
@pytest.mark.parametrize("parameters, name", [
    ({"work_mem": "sesame"}, "work_mem"), ({"TimeZone": "sesame"}, "TimeZone"), ({"options": "-c work_mem=sesame"}, "work_mem"),
    ({"replication": "sesame"}, "replication"), ({"options": "--sesame"}, ""), ({"work_mem": "10048576TB"}, "work_mem"),
    ({"role": "sesame"}, "")])
def test_value_of_the_startup_packet_is_the_clients_to_read_and_nobody_elses(kit, make_gate, mode, parameters, name):
    kit.gate = make_gate({"postern": {"log_level": "debug"}})
    value = "10048576TB" if "10048576TB" in str(parameters) else "sesame"
    with pytest.raises(wire.ServerError) as caught:
        kit.login(kit.gate, mode, **parameters)
    assert value.rstrip("TB") in caught.value.fields["M"]
    line = await_event(kit.gate, "login_refused")
    kit.gate.await_log("login refused")
    assert name in line.get("detail", "")
    assert value not in kit.gate.log() and value not in str(events(kit.gate))


# ---- the ends of sessions, and what else has a reason ----

def ended(gate, reason):
    return await_event(gate, "logout", reason=reason)


def leave(k):
    k.login(k.gate).close()


def expire(k):
    c = k.login(k.gate, secret=k.stand.token("acme", lifetime=2))
    with contextlib.suppress(wire.Closed, OSError):
        c.refusal()


def idle(k):
    assert k.login(k.gate).refusal()["C"] == "57P05"


def idle_in_transaction(k):
    c = k.login(k.gate)
    c.query("BEGIN")
    assert c.refusal()["C"] == "25P03"
    k.gate.await_log("ended: terminating connection due to idle-in-transaction timeout")


def database_taken_away(k):
    c = k.login(k.gate, "acme")
    c.query("SELECT 1")
    k.gate.reload({"database acme": None, "tenant acme": {"databases": "acme_session, acme_pool1"}})
    with contextlib.suppress(wire.Closed, OSError):
        c.refusal()


def kill(k):
    c = k.login(k.gate)
    admin = k.connect(k.gate).login(k.stand.admin_user, "postern", k.stand.admin_password)
    row = [r for r in admin.query("SHOW CLIENTS") if "acme" in r][0]
    admin.query(f"KILL {row[0]}")
    c.refusal()


def server_lost(k):
    c = k.login(k.gate, "acme_session")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    k.stand.postgres.sql(f"SELECT pg_terminate_backend({pid})")
    with contextlib.suppress(wire.Closed, OSError, AssertionError):
        c.refusal()


def message_begun(k):
    c = k.login(k.gate)
    c.send(wire.query("SELECT 1")[:7])
    c.refusal()


LOGOUTS = {"message_timeout": ({"postern": {"message_timeout": "200ms"}}, message_begun), "client_gone": ({}, leave), "token_expired": ({"issuer stand": {"leeway": "0s"}}, expire),
           "idle_timeout": ({"postern": {"client_idle_timeout": "1s"}}, idle),
           "idle_transaction": ({"postern": {"idle_transaction_timeout": "1s"}}, idle_in_transaction),
           "config_changed": ({}, database_taken_away), "killed": ({}, kill), "backend_lost": ({}, server_lost)}


@pytest.mark.parametrize("reason", LOGOUTS)
def test_end_of_a_session_is_in_the_audit_trail_with_its_reason(kit, make_gate, reason):
    overrides, way = LOGOUTS[reason]
    kit.gate = make_gate(overrides)
    way(kit)
    line = ended(kit.gate, reason)
    assert line["tenant"] == "acme" and line["duration_us"] > 0 and line["bytes_out"] > 0


# Reasons that are provoked elsewhere: by which test.
ELSEWHERE = {
    "ok": "test_refusals.py::test_normal_end_has_the_reason_ok",
    "tls_failed": "test_refusals.py::test_connection_that_fails_before_a_login_is_in_the_log",
    "cancel_unknown": "test_refusals.py::test_connection_that_fails_before_a_login_is_in_the_log",
    "rate_limited": "test_record.py::test_limit_is_in_the_audit_trail_once_for_a_tenant_and_reason",
    "too_large": "test_refusals.py::test_commands_that_pile_up_end_the_console",
    "statement_too_large": "test_large.py::test_named_parse_beyond_max_message_is_refused",
    "reserved_name": "test_own_names.py::test_sql_may_not_use_them",
    "crowded": "test_crowd.py::test_who_is_pushed_out_is_told_and_logged",
    "revoked": "test_revoked.py::test_what_is_taken_away_ends_the_session",
    "statements_too_many": "test_prepared.py::test_a_client_that_never_closes_is_told_so",
    "commit_lost": "test_loss.py::test_loss_in_commit_says_that_the_outcome_is_unknown",
    "transaction_aborted": "test_lost_block.py::test_nothing_runs_by_itself_behind_the_loss",
    "chain_lost": "test_lost_block.py::test_chain_is_not_guessed",
    "setting_lost": "test_replay.py::test_what_is_gone_is_dropped_with_a_warning",
    "identity_lost": "test_replay.py::test_nothing_runs_without_its_role",
    "canceled": "test_cancel.py::test_cancel_of_a_query_that_waits_for_a_server_connection",
    "no_client": "test_console.py::test_errors_of_commands_that_were_understood",
    "config_refused": "test_console.py::test_errors_of_commands_that_were_understood",
    "syntax": "test_console.py::test_unknown_commands_are_syntax_errors",
    "memory": "test_unfinished.py::test_request_that_finds_no_memory_is_refused_in_step",
    "out_of_memory": "../tools/walk-faults.sh",
    "node_slow": "test_login_waits.py::test_node_slow_to_log_in",
    "backend_slow": "test_login_waits.py::test_server_slow_to_answer_while_learning",
    "database_full": "test_login_waits.py::test_database_without_room",
    "database_away": "../unit/test_login.c",
    "not_resolved": "../unit/test_login.c",
}


def test_commands_that_pile_up_end_the_console(make_gate, console):
    gate = make_gate({"postern": {"max_message": "64kB"}})
    c = console(gate)
    with contextlib.suppress(OSError):
        c.send(wire.query("SHOW VERSION") * 200_000)
    assert await_event(gate, "logout", reason="too_large")["database"] == "postern"


def documented():
    with open(os.path.join(TOP, "docs", "operations.md"), encoding="utf-8") as f:
        text = f.read()
    inside = re.search(r"<!-- reasons: .*? -->\n(.*?)<!-- /reasons -->", text, re.DOTALL).group(1)
    return inside.strip()


def test_normal_end_has_the_reason_ok(make_gate, login):
    gate = make_gate()
    login(gate).send(wire.terminate())
    ended(gate, "ok")


def test_documentation_says_what_the_program_can_write(stand):
    printed = proc.run([stand.binary, "--reasons"]).stdout.strip()
    assert documented() == printed, "put the output of `postern --reasons` into docs/operations.md"


def names(heading):
    table = documented().split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_every_documented_reason_is_provoked_by_a_test():
    for where in ELSEWHERE.values():
        path, _, function = where.partition("::")
        with open(os.path.join(HERE, path), encoding="utf-8") as f:
            assert not function or f"def {function}(" in f.read(), where
    provoked = set(TRIED) | set(LOGOUTS) | set(ELSEWHERE)
    assert names("reason") - provoked == set(), "documented and provoked by no test"
    assert provoked - names("reason") == set(), "provoked and not documented"


def test_every_documented_event_is_provoked(make_gate, login, console):
    gate = make_gate()
    c = login(gate, "metered")
    wire.cancel(("127.0.0.1", gate.port()), c.key)
    for _ in range(40):
        c.ask(wire.query("SELECT 1"))
    await_event(gate, "cancel")
    await_event(gate, "limit")
    c.send(wire.terminate())
    console(gate).query("SHOW VERSION")
    with pytest.raises(wire.ServerError):
        login(gate, secret="wrong")
    await_event(gate, "logout")
    gate.stop()
    written = {json.loads(line)["event"] for line in gate.audit().splitlines()}
    assert written == names("event")


def test_every_reason_is_used_by_the_program():
    """One that nothing gives is a promise of the documentation that nobody keeps."""
    with open(os.path.join(TOP, "include", "base", "reasons.def"), encoding="utf-8") as f:
        rows = re.findall(r"^REASON\((\w+),", f.read(), re.MULTILINE)
    source = ""
    for folder, _, files in os.walk(os.path.join(TOP, "src")):
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                source += f.read()
    assert [r for r in rows if not re.search(rf"\bREASON_{r}\b", source)] == []
