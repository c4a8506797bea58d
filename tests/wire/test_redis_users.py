"""deploy/redis/users.conf in force in a Redis: a gateway's user has all that a gateway needs, a sidecar's
only its own tenant's keys; and what is told where a right is missing, or a password would be read on the
network.
"""
# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import re
import tempfile

import pytest

from stand import proc, wire
from stand.proc import Process, StandError
from stand.redis import Redis
from wire.test_console import table

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
USERS = os.path.join(TOP, "deploy", "redis", "users.conf")
QPS = 20
TEST_USERS = ("gateway", "sidecar-acme", "sidecar-metered")


class RedisWithUsers(Redis):
    """With the users that are shipped, each with a password of its own, and an administrator."""

    def __init__(self, folder, log):
        super().__init__(folder, log)
        self.passwords = {name: os.urandom(12).hex() for name in (*TEST_USERS, "admin")}
        self.socket = None

    def start(self):
        with open(USERS, encoding="ascii") as f:
            lines = f.read()
        # A second tenant's, as the file says that it is made.
        line = next(row for row in lines.splitlines() if row.startswith("user sidecar-acme "))
        lines += "\n" + line.replace("sidecar-acme", "sidecar-metered").replace("{postern:acme}", "{postern:metered}") + "\n"
        for name in TEST_USERS:
            digest = hashlib.sha256(self.passwords[name].encode()).hexdigest()
            lines, found = re.subn(rf"^(user {name} on )#SHA256 ", rf"\g<1>#{digest} ", lines, flags=re.MULTILINE)
            assert found == 1, name
        lines += f"user admin on >{self.passwords['admin']} ~* +@all\n"
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        conf = os.path.join(self.folder, "redis.conf")
        self.port = self.port or proc.free_port()
        with open(os.path.join(self.folder, "users.conf"), "w", encoding="ascii") as f:
            f.write(lines)
        with open(conf, "w", encoding="ascii") as f:
            f.write(f'bind 127.0.0.1\nport {self.port}\nsave ""\nappendonly no\ndir "{self.folder}"\n'
                    f'include {self.folder}/users.conf\n' + (f"unixsocket {self.socket}\n" if self.socket else ""))
        self.process = Process("Redis", [proc.need("redis-server", "redis-server"), conf], self.log)
        self.process.ready(20, self._answers)

    def _answers(self):
        try:
            return self.told("admin", "PING") == "PONG"
        except (OSError, StandError):
            return False

    def told(self, user, *words):
        """The answer to one command of a user."""
        return self.commands(("AUTH", user, self.passwords[user]), words)

    def section(self, user, folder, password=None, **more):
        path = os.path.join(folder, f"{user}-{os.urandom(4).hex()}")
        with open(path, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write((password or self.passwords[user]) + "\n")
        return {"redis": {"url": f"redis://{user}@127.0.0.1:{self.port}", "password_file": path, "prefix": "postern",
                          "timeout": "2s", **more}}

    def errors(self, code):
        """How often it has answered so."""
        found = re.search(rf"errorstat_{code}:count=(\d+)", self.told("admin", "INFO", "errorstats"))
        return int(found[1]) if found else 0

    def denied(self):
        """What was refused to somebody who was let in: the commands and keys."""
        said = self.told("admin", "ACL", "LOG")
        return [dict(zip(row[::2], row[1::2])) for row in said]


@pytest.fixture
def redis(stand):
    it = RedisWithUsers(tempfile.mkdtemp(prefix="redis-users-", dir=stand.folder), stand.path("log", "redis-users.log"))
    it.start()
    yield it
    it.stop()


def burst(c, count=60):
    """(answered, refused)"""
    refused = sum(bool(wire.errors(c.ask(wire.query(f"SELECT {n}")))) for n in range(count))
    return count - refused, refused


def test_gateway_has_all_it_needs(redis, make_gate, login, stand):
    """Limits, leases, connections and a fleet, and nothing was refused to it."""
    one, two = (make_gate(redis.section("gateway", stand.folder, away="closed")) for _ in range(2))
    a, b, c = login(one, "metered"), login(two, "metered"), login(one, "acme")
    answered, refused = burst(a)
    more, too = burst(b)
    assert answered + more < 6 * QPS and refused + too > 0
    assert c.query("SELECT 1") == [["1"]]
    keys = redis.told("admin", "KEYS", "*")
    assert {"{postern:metered}:q", "{postern:metered}:c", "{postern:acme}:c"} <= set(keys)
    held = redis.told("admin", "HVALS", "{postern:metered}:c")
    assert sum(int(v.split()[0]) for v in held if " " in v) == 2
    a.close()
    b.close()
    proc.wait_for("the connections to be given back", 15, lambda: not any(
        " " in v for v in redis.told("admin", "HVALS", "{postern:metered}:c") or []))
    assert redis.denied() == []
    assert "Redis is away" not in one.log() + two.log()


def test_gateway_brings_its_scripts_again(redis, make_gate, login, stand):
    gate = make_gate(redis.section("gateway", stand.folder, away="closed"))
    c = login(gate, "metered")
    burst(c, 5)
    redis.told("admin", "SCRIPT", "FLUSH")
    proc.wait_for("the scripts to be there again", 10,
                  lambda: burst(c, 5) and "number_of_cached_scripts:0" not in redis.told("admin", "INFO", "memory"))
    assert redis.denied() == []


def test_sidecar_keeps_its_tenant_to_the_limits(redis, make_gate, login, stand):
    """Beside a gateway, which has brought the scripts."""
    gate = make_gate(redis.section("gateway", stand.folder, away="closed"))
    a = login(gate, "metered")
    burst(a, 5)
    sidecar = make_gate(redis.section("sidecar-metered", stand.folder, away="closed"))
    b = login(sidecar, "metered")
    answered, refused = burst(b)
    assert answered and refused
    assert redis.denied() == [] and "Redis is away" not in sidecar.log()


OTHERS = ("{postern:metered}:q", "{postern:metered}:c", "{postern:acme-2}:q", "{postern:acme}:x", "postern", "x")


def test_sidecar_reaches_no_other_tenants_keys(redis):
    redis.told("admin", "SET", "{postern:metered}:q", "7")
    redis.told("admin", "HSET", "{postern:metered}:c", "one/0", "1 99")
    script = redis.told("admin", "SCRIPT", "LOAD", "return redis.call('GET', '{postern:metered}:q')")
    named = redis.told("admin", "SCRIPT", "LOAD", "return redis.call('SET', KEYS[1], '0')")
    for key in OTHERS:
        for command in (("GET", key), ("SET", key, "0"), ("HGETALL", key), ("HSET", key, "a", "b"), ("HDEL", key, "one/0"),
                        ("PEXPIRE", key, "1"), ("EVALSHA", named, "1", key)):
            with pytest.raises(StandError, match="NOPERM"):
                redis.told("sidecar-acme", *command)
    # Not behind a key that it may name either.
    with pytest.raises(StandError, match="NOPERM|ACL|user executing the script"):
        redis.told("sidecar-acme", "EVALSHA", script, "1", "{postern:acme}:q")
    assert redis.told("admin", "GET", "{postern:metered}:q") == "7"
    assert redis.told("admin", "HGETALL", "{postern:metered}:c") == ["one/0", "1 99"]
    for key in ("{postern:acme}:q", "{postern:}:probe"):
        assert redis.told("sidecar-acme", "SET", key, "1", "PX", "1000") == "OK"
    assert redis.told("sidecar-acme", "EVALSHA", named, "1", "{postern:acme}:q") == "OK"


COMMANDS = [("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("SCAN", "0"), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "1"),
            ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"), ("SCRIPT", "LOAD", "return 1"), ("ACL", "LIST"), ("ACL", "SETUSER", "x", "on"),
            ("SHUTDOWN",), ("DEBUG", "SLEEP", "1"), ("MONITOR",), ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"),
            ("DEL", "{postern:acme}:q"), ("RENAME", "{postern:acme}:q", "x"), ("SWAPDB", "0", "1"), ("SELECT", "1"),
            ("REPLICAOF", "NO", "ONE"), ("SAVE",), ("INFO",), ("DBSIZE",), ("RANDOMKEY",), ("PUBLISH", "a", "b"),
            ("SUBSCRIBE", "a"), ("FUNCTION", "LIST"), ("FCALL", "f", "0"), ("MULTI",), ("LATENCY", "RESET"),
            ("MODULE", "LIST"), ("SLOWLOG", "RESET"), ("APPEND", "{postern:acme}:q", "x"), ("SETRANGE", "{postern:acme}:q", "1", "x")]


@pytest.mark.parametrize("user", ["gateway", "sidecar-acme"])
def test_no_other_command(redis, user):
    for command in COMMANDS:
        with pytest.raises(StandError, match="NOPERM|DEBUG command not allowed"):
            redis.told(user, *command)
    assert redis.told("admin", "PING") == "PONG"


def test_sidecar_cannot_stop_redis_with_a_script(redis):
    with pytest.raises(StandError, match="NOPERM"):
        redis.told("sidecar-acme", "EVAL", "while true do end", "1", "{postern:acme}:q")
    assert redis.told("admin", "PING") == "PONG"


def test_nobody_without_a_name(redis):
    for words in ((("AUTH", redis.passwords["gateway"]),), ()):
        with pytest.raises(StandError, match="WRONGPASS|NOAUTH"):
            redis.commands(*words, ("GET", "{postern:acme}:q"))


def test_missing_right_is_told_plainly(redis, make_gate, login, stand):
    """A sidecar of another tenant than its user's: its queries go on by the share, and the log says why."""
    gate = make_gate(redis.section("sidecar-acme", stand.folder, away="share"))
    c = login(gate, "metered")
    burst(c, 5)
    line = gate.await_log(r'limits of tenant metered are "share".*does not allow its user sidecar-acme .*with the keys of this '
                          r"tenant.*deploy/redis/users\.conf.*EVALSHA was answered with NOPERM").group(0)
    assert redis.passwords["sidecar-acme"] not in line
    proc.wait_for("queries by the share", 15, lambda: burst(c, 1)[0] == 1)


@pytest.fixture
def limits_of(console):
    """{tenant: {column: value}} of SHOW LIMITS."""
    def get(gate):
        return {row["tenant"]: row for row in table(console(gate), "SHOW LIMITS")}
    return get


@pytest.mark.parametrize("away", ["share", "open", "closed"])
def test_right_to_one_tenants_keys_is_missing(redis, make_gate, login, stand, limits_of, away):
    """That tenant's limits are away, and nobody else's; they come back with the right, at a reload."""
    redis.told("admin", "ACL", "SETUSER", "gateway", "resetkeys", "~{postern:acme}*", "~{postern:}*")
    gate = make_gate({**redis.section("gateway", stand.folder, away=away), "postern": {"workers": 1}})
    a = login(gate, "acme")
    if away == "closed":
        with pytest.raises(wire.ServerError) as caught:
            login(gate, "metered")
        assert caught.value.code == "53400"
    else:
        m = login(gate, "metered")
        burst(m, 5)
        assert limits_of(gate)["metered"]["source"] == away
        if away == "open":
            assert burst(m, 3 * QPS) == (3 * QPS, 0)
    assert burst(a, 5) == (5, 0) and limits_of(gate)["acme"]["source"] == "redis"
    assert "Redis is away" not in gate.log() and gate.http("/health/ready") == (200, "ready\n")
    assert len(re.findall("limits of tenant metered are", gate.log())) == 1
    redis.told("admin", "ACL", "SETUSER", "gateway", "~{postern:*")
    before = len(gate.log())
    gate.reload()
    gate.await_log("is in force", before)
    m = login(gate, "metered")
    burst(m, 5)
    gate.await_log("Redis answers for tenant metered", before)
    assert limits_of(gate)["metered"]["source"] == "redis"


def test_right_within_a_script_is_missing(redis, make_gate, login, stand):
    redis.told("admin", "ACL", "SETUSER", "gateway", "-hgetall")
    gate = make_gate(redis.section("gateway", stand.folder, away="share"))
    login(gate, "metered")
    gate.await_log(r"does not allow its user gateway .*EVAL\S* was answered with .*user executing|ACL failure")


def test_right_to_the_probe_is_missing(redis, make_gate, stand):
    redis.told("admin", "ACL", "SETUSER", "gateway", "-set")
    gate = make_gate(redis.section("gateway", stand.folder), want_ready=False)
    gate.await_log(r"Redis is away.*does not allow its user gateway .*the probe \(SET\) was answered with NOPERM")
    assert redis.passwords["gateway"] not in gate.log()


def test_scripts_that_nobody_has_brought(redis, make_gate, login, stand):
    """A sidecar without EVAL where no gateway has been: told as what it is."""
    gate = make_gate(redis.section("sidecar-metered", stand.folder, away="share"))
    c = login(gate, "metered")
    burst(c, 3)
    gate.await_log(r"Redis is away.*has not got the gateways' scripts, and its user sidecar-metered may not bring them: a gateway "
                   r"whose user has EVAL brings them .*EVAL was answered with NOPERM")


def test_password_of_another_user(redis, make_gate, stand):
    wrong = "not-the-password"
    gate = make_gate(redis.section("gateway", stand.folder, password=wrong), want_ready=False)
    gate.await_log("Redis is away.*does not let in its user gateway with the password of password_file; compare both.*"
                   "AUTH was answered with WRONGPASS")
    assert wrong not in gate.log()


@pytest.mark.parametrize("change, wanted", [
    (("SETUSER", "gateway", "resetpass", ">another"), "AUTH was answered with WRONGPASS"),
    (("DELUSER", "gateway"), "AUTH was answered with WRONGPASS"),
    (("SETUSER", "gateway", "-set"), r"the probe \(SET\) was answered with NOPERM")], ids=["password", "user", "right"])
def test_other_reason_of_the_same_outage_is_told(redis, make_gate, stand, change, wanted):
    """The connection ends, and Redis is there but does not let in: in the log once, and in the body of health."""
    gate = make_gate({**redis.section("gateway", stand.folder, away="closed"), "postern": {"workers": 1}})
    before = len(gate.log())
    redis.told("admin", "ACL", *change)
    if change[0] != "DELUSER":  # which ends its connections itself
        redis.told("admin", "CLIENT", "KILL", "USER", "gateway")
    gate.await_log("Redis is away.*: the connection ended", before)
    gate.await_log("Redis is still away, limits are \"closed\": .*" + wanted, before)
    proc.wait_for("not ready", 10, lambda: gate.http("/health/ready")[0] == 503)
    body = gate.http("/health/ready")[1]
    assert re.match("redis: away, and the limits are closed without it: Redis does not .*" + wanted, body), body
    denied = redis.errors("WRONGPASS")
    proc.wait_for("more attempts", 30, lambda: change[-1] == "-set" or redis.errors("WRONGPASS") > denied + 2)
    assert len(re.findall(wanted, gate.log()[before:])) == 1, "once, not with each attempt"
    assert redis.passwords["gateway"] not in gate.log() + body


@pytest.mark.parametrize("right", ["evalsha", "set"])
def test_right_that_was_missing_is_tried_at_a_reload(redis, make_gate, login, stand, right):
    """Not only after the half minute for which nobody expects it."""
    gate = make_gate({**redis.section("gateway", stand.folder, away="share"), "postern": {"workers": 1}})
    c = login(gate, "metered")
    redis.told("admin", "ACL", "SETUSER", "gateway", "-" + right)
    redis.told("admin", "CLIENT", "KILL", "USER", "gateway")
    proc.wait_for("it to be denied", 20, lambda: burst(c, 2) and re.search(r"Redis is .*away.*NOPERM", gate.log()))
    redis.told("admin", "ACL", "SETUSER", "gateway", "+" + right)
    before = len(gate.log())
    gate.reload()
    gate.await_log("Redis answers", before, 10)
    proc.wait_for("Redis to be asked", 10, lambda: burst(c, 5) and "Redis is away" not in gate.log()[before:]
                  and gate.http("/health/ready") == (200, "ready\n"))


def test_user_at_a_unix_socket(redis, make_gate, login, stand):
    """Named before the path, as the clients of Redis write it."""
    redis.stop()
    redis.socket = f"{redis.folder}/s"
    redis.start()
    section = redis.section("gateway", stand.folder, away="closed")
    section["redis"]["url"] = f"unix://gateway@{redis.socket}"
    gate = make_gate(section)
    answered, refused = burst(login(gate, "metered"))
    assert answered and refused and "Redis is away" not in gate.log()


# ---- a password on the network ----

def clear(redis, stand, host, **more):
    section = redis.section("gateway", stand.folder, **more)
    section["redis"]["url"] = f"redis://gateway@{host}/0"
    return section


@pytest.mark.parametrize("host", ["redis.example.com", "192.0.2.1:6379", "[2001:db8::1]", "redis"])
def test_password_is_not_sent_in_clear_text(redis, make_gate, stand, host):
    gate = make_gate(clear(redis, stand, host), start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 1
    fault = re.search(r"^(\S+postern\.ini):(\d+): \[redis\] url: (.*)$", done.stderr, re.MULTILINE)
    with open(gate.config, encoding="ascii") as f:
        assert f.read().splitlines()[int(fault[2]) - 1] == f"url = redis://gateway@{host}/0"
    for words in (host, "clear text", "rediss://", "unix://", "password_in_clear = on"):
        assert words in fault[3]
    assert len(re.findall(r"\] url: ", done.stderr)) == 1
    # A start says the same.
    gate.launch()
    proc.wait_for("it to end", 20, lambda: not gate.process.alive())
    assert "in clear text" in gate.log()
    gate.process.popen.wait()
    gate.process = None


def test_reload_with_a_password_in_clear_text_is_refused(redis, make_gate, login, stand):
    gate = make_gate(redis.section("gateway", stand.folder))
    section = clear(redis, stand, "redis.example.com")
    gate.reload(section)
    gate.await_log(r"\[redis\] url: .*clear text.*rediss://")
    gate.await_log("reload refused")
    assert login(gate).query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("url", ["redis://gateway@127.0.0.1", "redis://gateway@localhost:1", "redis://[::1]", "unix:///tmp/x"])
def test_password_on_this_machine(redis, make_gate, stand, url):
    section = redis.section("gateway", stand.folder)
    section["redis"]["url"] = url
    gate = make_gate(section, start=False)
    gate.write()
    assert gate.check().returncode == 0


def test_password_in_clear_text_where_it_is_allowed(redis, make_gate, stand):
    gate = make_gate(clear(redis, stand, "redis.example.com", password_in_clear="on"), start=False)
    gate.write()
    assert gate.check().returncode == 0


def test_no_password_needs_no_secrecy(make_gate):
    gate = make_gate({"redis": {"url": "redis://redis.example.com", "password_file": None}}, start=False)
    gate.write()
    assert gate.check().returncode == 0
