"""Limits of a tenant: refusals carry a code and a hint, and leave the protocol in step."""
# SPDX-License-Identifier: Apache-2.0
import re
import threading
import time

import pytest

from conftest import redis_section
from stand import proc, wire

QPS = 20


def burst(c, count=60):
    """Queries one after the other: (answered, refused)."""
    answered, refused = 0, []
    for n in range(count):
        messages = c.ask(wire.query(f"SELECT {n}"))
        found = wire.errors(messages)
        if found:
            assert wire.kinds(messages) == "EZ"
            refused.append(found[0])
        else:
            assert wire.rows(messages) == [[str(n)]]
            answered += 1
        assert c.status == "I"
    return answered, refused


def until_answered(c, seconds=15):
    def asked():
        messages = c.ask(wire.query("SELECT 'again'"))
        return wire.rows(messages) == [["again"]]
    proc.wait_for("a query to be answered again", seconds, asked)


def test_queries_beyond_the_rate_are_refused(make_gate, login):
    c = login(make_gate(), "metered")
    answered, refused = burst(c)
    assert answered >= 1 and len(refused) >= 60 - 3 * QPS
    for fields in refused:
        assert (fields["S"], fields["C"]) == ("ERROR", "53400")
        assert fields["H"], "when to come back"
    until_answered(c)


def test_rate_comes_near_what_was_set(make_gate, login):
    c = login(make_gate(), "metered")
    burst(c)
    began, answered = time.monotonic(), 0
    while time.monotonic() - began < 3:
        got, _ = burst(c, 5)
        answered += got
    took = time.monotonic() - began
    assert 0.5 * QPS * took <= answered <= 1.5 * QPS * took


def test_refused_extended_query_stays_in_step(make_gate, login):
    c = login(make_gate(), "metered")
    codes = []
    for n in range(60):
        messages = c.ask(wire.parse("SELECT $1::int"), wire.bind(values=[n]), wire.describe("P"),
                         wire.execute(), wire.sync())
        kinds = wire.kinds(messages)
        assert kinds == "12TDCZ" or kinds.endswith("EZ") and "D" not in kinds, kinds
        if "E" in kinds:
            codes.append(wire.errors(messages)[0]["C"])
        else:
            assert wire.rows(messages) == [[str(n)]]
    assert "53400" in codes and set(codes) == {"53400"}
    until_answered(c)


def test_refused_pipeline_stays_in_step(make_gate, login):
    c = login(make_gate(), "metered")
    count, began = 60, time.monotonic()
    c.send(*(wire.one("SELECT $1::int", [n]) + wire.sync() for n in range(count)))
    answered = refused = 0
    for n in range(count):
        messages = c.until("Z")
        kinds = wire.kinds(messages)
        if "E" in kinds:
            assert wire.errors(messages)[0]["C"] == "53400"
            refused += 1
        else:
            assert kinds == "12DCZ" and wire.rows(messages) == [[str(n)]]
            answered += 1
    # What stands behind a query under way may be slowed instead; the rate holds in either case.
    assert answered and answered + refused == count
    assert answered <= QPS + QPS * (time.monotonic() - began) + QPS / 2
    until_answered(c)


def test_refusal_in_a_pipeline_skips_to_sync(make_gate, login):
    c = login(make_gate(), "metered")
    burst(c)
    messages = c.ask(*(wire.one("SELECT $1::int", [n]) for n in range(40)), wire.sync())
    kinds = wire.kinds(messages)
    assert kinds.endswith("EZ") and kinds.count("E") == 1, kinds
    until_answered(c)


def test_named_statement_survives_a_refusal(make_gate, login):
    c = login(make_gate(), "metered")
    for fields in wire.errors(c.ask(wire.parse("SELECT $1::int", "kept"), wire.sync())):
        raise wire.ServerError(fields)
    burst(c)

    def asked():
        messages = c.ask(wire.bind("kept", values=[5]), wire.execute(), wire.sync())
        assert {e["C"] for e in wire.errors(messages)} <= {"53400"}
        return wire.rows(messages) == [["5"]]
    proc.wait_for("the statement to be run", 15, asked)


def test_transaction_under_way_is_slowed_and_not_broken(make_gate, login):
    c = login(make_gate(), "metered")
    proc.wait_for("BEGIN to be let in", 15, lambda: not wire.errors(c.ask(wire.query("BEGIN"))))
    for n in range(2 * QPS):
        assert c.query(f"SELECT {n}") == [[str(n)]]
        assert c.status == "T"
    c.query("COMMIT")


def test_other_tenants_are_unaffected(make_gate, login):
    gate = make_gate()
    greedy, modest = login(gate, "metered"), login(gate, "acme")
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            greedy.ask(wire.query("SELECT 1"))
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        answered, refused = burst(modest, 500)
    finally:
        stop.set()
        thread.join()
    assert (answered, refused) == (500, [])


def test_sessions_of_a_tenant_share_its_rate(make_gate, login):
    gate = make_gate()
    sessions = [login(gate, "metered") for _ in range(4)]
    began = time.monotonic()
    answered = sum(burst(c, 30)[0] for c in sessions)
    # The burst, what came in meanwhile, and a little for what was asked ahead.
    assert answered <= QPS + QPS * (time.monotonic() - began) + QPS / 2


def test_a_fleet_shares_the_rate(make_gate, own_redis, login):
    shared = {"redis": redis_section(own_redis, prefix="fleet")}
    one, two = make_gate(shared), make_gate(shared)
    a, b = login(one, "metered"), login(two, "metered")
    began = time.monotonic()
    answered = burst(a, 60)[0] + burst(b, 60)[0]
    assert answered <= QPS + QPS * (time.monotonic() - began) + QPS / 2


def test_limits_in_memory_without_a_redis(make_gate, login):
    c = login(make_gate({"redis": None}), "metered")
    answered, refused = burst(c)
    assert answered and refused and refused[0]["C"] == "53400"
    until_answered(c)


def test_rate_wait_slows_instead_of_refusing(make_gate, login):
    c = login(make_gate({"plan metered": {"rate_wait": "20s"}}), "metered")
    assert burst(c, 3 * QPS) == (3 * QPS, [])


def test_too_many_connections_of_a_tenant(make_gate, login, connect, token):
    gate = make_gate({"plan metered": {"max_connections": 3}})
    held = [login(gate, "metered") for _ in range(3)]
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login("metered_rw", "metered", token("metered"))
    assert caught.value.fields["S"] == "FATAL" and caught.value.code == "53300"
    assert login(gate, "acme").query("SELECT 1") == [["1"]]
    held.pop().close()

    def again():
        try:
            return login(gate, "metered")
        except wire.ServerError as e:
            assert e.code == "53300"
    proc.wait_for("a place to become free", 15, again)


def test_connections_too_fast(make_gate, login, connect, token):
    gate = make_gate({"plan metered": {"connections_per_second": 1, "connections_burst": 2}})
    codes = []
    for _ in range(8):
        try:
            connect(gate).login("metered_rw", "metered", token("metered"))
        except wire.ServerError as e:
            codes.append(e.code)
            assert e.hint
    assert codes and set(codes) == {"53400"}
    assert login(gate, "acme").query("SELECT 1") == [["1"]]


def test_too_many_clients_of_the_process(make_gate, login, connect, token):
    gate = make_gate({"postern": {"max_clients": 4}})
    held = [login(gate) for _ in range(4)]
    c = connect(gate, None)
    c.send(wire.SSL_REQUEST)
    try:
        answer = c.socket.recv(1)
        if answer == b"S":
            c.start_tls(None)
            c.startup("acme_rw", "acme")
            assert c.refusal()["C"] == "53300"
        elif answer == b"E":
            assert b"53300" in c.socket.recv(1000)
        else:
            assert answer == b""
    except OSError:
        pass
    for other in held:
        assert other.query("SELECT 1") == [["1"]]


# ---- Redis away ----

def away(make_gate, own_redis, policy, **plan):
    return make_gate({"redis": redis_section(own_redis, away=policy, timeout="100ms"),
                      "plan metered": plan})


def test_redis_away_share_keeps_to_the_limit(make_gate, own_redis, login):
    gate = away(make_gate, own_redis, "share")
    c = login(gate, "metered")
    own_redis.kill()
    burst(c)
    until_answered(c)
    answered, refused = burst(c, 80)
    assert refused and {f["C"] for f in refused} == {"53400"}
    assert login(gate, "acme").query("SELECT 1") == [["1"]]


def test_redis_away_open_lets_all_pass(make_gate, own_redis, login):
    c = login(away(make_gate, own_redis, "open"), "metered")
    own_redis.kill()

    def all_pass():
        return burst(c, 3 * QPS)[0] == 3 * QPS
    proc.wait_for("the limit to be lifted", 15, all_pass)


def test_redis_away_closed_refuses(make_gate, own_redis, login):
    gate = away(make_gate, own_redis, "closed")
    c = login(gate, "metered")
    own_redis.kill()

    def closed():
        _, refused = burst(c, QPS)
        return refused and "cannot be checked" in refused[-1]["M"]
    proc.wait_for("queries to be refused", 15, closed)
    with pytest.raises(wire.ServerError) as caught:
        login(gate, "acme")
    assert (caught.value.code, caught.value.fields["H"]) == ("53400", "Try again in a few seconds.")
    own_redis.start()
    until_answered(c)


@pytest.mark.parametrize("policy, status, words", [
    ("share", 200, "ready\nredis: away, and the limits are this gateway's share without it: "),
    ("open", 200, "ready\nredis: away, and the limits are open without it: "),
    ("closed", 503, "redis: away, and the limits are closed without it: ")])
def test_redis_away_is_told_by_health(make_gate, own_redis, policy, status, words):
    gate = away(make_gate, own_redis, policy)
    own_redis.kill()
    proc.wait_for("Redis to be missed", 15, lambda: gate.http("/health/ready")[1] != "ready\n")
    assert (told := gate.http("/health/ready"))[0] == status
    assert re.fullmatch(re.escape(words) + "(the connection ended|cannot connect: ).*\n", told[1]), told
    assert gate.metrics()["postern_redis_up"] == "0"
    own_redis.start()
    proc.wait_for("Redis to be there", 15, lambda: gate.http("/health/ready") == (200, "ready\n"))


@pytest.mark.parametrize("policy", ["share", "open", "closed"])
def test_redis_comes_back(make_gate, own_redis, login, policy):
    c = login(away(make_gate, own_redis, policy), "metered")
    burst(c)
    own_redis.kill()
    for _ in range(5):
        c.ask(wire.query("SELECT 1"))
    own_redis.start()

    def limited():
        answered, refused = burst(c, 3 * QPS)
        return answered and refused and all("rate" in f["M"] for f in refused) \
            and own_redis.command("DBSIZE") > 0
    proc.wait_for("the limits to be Redis's again", 20, limited)


def test_frozen_redis_does_not_freeze_queries(make_gate, own_redis, login):
    import signal
    c = login(away(make_gate, own_redis, "share"), "acme")
    own_redis.process.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert burst(c, 200) == (200, [])
        assert time.monotonic() - began < 10 * proc.PATIENCE
    finally:
        own_redis.process.signal(signal.SIGCONT)


def test_wrong_redis_password_counts_as_away(make_gate, stand, own_redis, login):
    wrong = stand.path("redis", "wrong-password")
    with open(wrong, "w", encoding="ascii") as f:
        f.write("not this\n")
    import os
    os.chmod(wrong, 0o600)
    gate = make_gate({"redis": redis_section(own_redis, password_file=wrong, timeout="100ms")},
                     want_ready=False)
    proc.wait_for("a connection", 10, lambda: login(gate, "acme").query("SELECT 1") == [["1"]])
