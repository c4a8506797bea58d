"""A reload is all or nothing: whatever it is refused for, nothing of it stays and nothing is gone."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import shutil
import signal
import socket

import outside
import pytest
from conftest import own_cluster

from stand import proc, wire

# Nothing of the gate's own accord while a test compares.
QUIET = {"cluster main": {"probe_interval": "10min", "discovery_interval": "1h"}}


class Bench:
    """A gate with files of its own to lose, and a reload that would change every part of it."""

    def __init__(self, make_gate, stand, console, login, env=None):
        self.stand = stand
        gate = self.gate = make_gate(dict(QUIET), start=False)
        self.own = {name: self.folder(name) for name in ("ready", "tls", "more.d", "socket", "stale")}
        for source, name in ((stand.server_rsa[0], "a.crt"), (stand.server_rsa[1], "a.key"),
                             (stand.authority.crt, "ca.crt"), (stand.credentials, "credentials"),
                             (stand.users_file, "users"), (stand.jwks, "jwks.json"),
                             (stand.redis.password_file, "redis")):
            shutil.copy(source, os.path.join(self.own["tls"], name))
            os.chmod(os.path.join(self.own["tls"], name), 0o600)
        with open(os.path.join(self.own["more.d"], "a.ini"), "w", encoding="ascii") as f:
            f.write("[plan included]\nmax_connections = 5\n")
        self.leave_socket(os.path.join(self.own["stale"], ".s.PGSQL.6543"))
        gate.ready_file = os.path.join(self.own["ready"], "postern.ready")
        gate.write(self.present())
        gate.start(env=env)
        self.console = console(gate)
        self.client = login(gate)
        assert self.client.query("SELECT current_database()") == [["acme"]]

    def folder(self, name):
        path = os.path.join(self.gate.folder, name)
        os.makedirs(path)
        return path

    def own_file(self, name):
        return os.path.join(self.own["tls"], name)

    @staticmethod
    def leave_socket(path):
        """As a process that died leaves it."""
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)

    def present(self):
        return {"postern": {"ready_file": self.gate.ready_file, "include": "more.d",
                            "users_file": self.own_file("users")},
                "listener main": {"tls_cert": self.own_file("a.crt"), "tls_key": self.own_file("a.key")},
                "issuer stand": {"jwks_file": self.own_file("jwks.json")},
                "redis": {"password_file": self.own_file("redis")},
                "cluster main": {"tls_ca": self.own_file("ca.crt"),
                                 "credentials": self.own_file("credentials")}}

    def change(self):
        """Every part of it, and all of it good."""
        self.port, self.http_port = proc.free_port(), proc.free_port()
        return {"postern": {"log_file": "moved.log", "audit_file": "moved.jsonl",
                            "http_listen": f"127.0.0.1:{self.http_port}", "max_clients": 77},
                "redis": {"timeout": "300ms"},
                "listener main": {"tls_min_version": "1.3"},
                "listener extra": {"address": "127.0.0.1", "port": self.port, "tls": "off"},
                "listener socket": {"address": self.own["socket"], "port": 6543, "tls": "off"},
                "listener stale": {"address": self.own["stale"], "port": 6543, "tls": "off"},
                "listener oauth": None,
                "plan metered": {"queries_per_second": 7654321},
                "tenant novel": {"databases": "novel", "database_role": "${tenant}_${role}"},
                "database novel": {"cluster": "main", "dbname": "acme"},
                "database acme": {"dbname": "elsewhere"}}

    def look(self):
        """All that a refused reload must leave as it was."""
        gate = self.gate
        grows = [os.path.basename(p) for p in (gate.log_file, gate.audit_file, gate.stderr)]
        return {"listening": outside.listening(gate.pid),
                "files": outside.files(gate.folder, gate.sockets, but=(*grows, "postern.ini")),
                "threads": outside.threads(gate.pid),
                "settings": self.console.query("SHOW CONFIG"),
                "ready": gate.http("/health/ready")}

    def steady(self):
        """The descriptors, when nothing comes or goes by itself any more."""
        looks = []

        def same(): # for a while: what is being closed is not gone at once
            looks.append(outside.descriptors(self.gate.pid))
            return len(looks) > 8 and all(x == looks[-1] for x in looks[-8:]) and looks[-1]
        return proc.wait_for("the descriptors to be steady", 15, same)

    def compare(self, before, descriptors):
        after = self.look()
        try:
            proc.wait_for("no descriptor to be other than before", 10,
                          lambda: outside.descriptors(self.gate.pid) == descriptors)
        except proc.StandError:
            now = outside.descriptors(self.gate.pid)
            assert now == descriptors, sorted(set(now.items()) ^ set(descriptors.items()))
        for name, value in before.items():
            if name == "files":
                paths = set(value) | set(after[name])
                other = [p for p in paths if value.get(p) != after[name].get(p) and not p.endswith("postern.ini")]
                assert not other, other
            else:
                assert after[name] == value, name
        assert self.client.query("SELECT current_database()") == [["acme"]]


@pytest.fixture
def bench(make_gate, stand, console, login, elsewhere):
    return Bench(make_gate, stand, console, login)


# ---- what a reload can be refused for: (changes, key that the fault names) ----

def a_value(b, keep):
    return {"plan metered": {"queries_per_second": "-5"}}, "queries_per_second"


def a_vanished(name, key):
    def fault(b, keep):
        os.unlink(b.own_file(name))
        return {}, key
    fault.__name__ = f"vanished_{name}"
    return fault


def a_password_that_is_empty(b, keep):
    with open(b.own_file("redis"), "w", encoding="ascii"):
        pass
    return {}, "password_file"


def a_bad_user(b, keep):
    with open(b.own_file("users"), "a", encoding="ascii") as f:
        f.write('"nobody" "no verifier"\n')
    return {}, "users_file"


def a_bad_key_set(b, keep):
    with open(b.own_file("jwks.json"), "w", encoding="ascii") as f:
        f.write("{")
    return {}, "jwks_file"


def a_bad_url(b, keep):
    return {"redis": {"url": "redis://host:port"}}, "url"


def an_include_that_vanished(b, keep):
    shutil.rmtree(b.own["more.d"])
    return {}, "include"


def a_port_in_use(b, keep):
    s = keep(socket.create_server(("127.0.0.1", 0)))
    return {"listener other": {"address": "127.0.0.1", "port": s.getsockname()[1], "tls": "off"}}, "address"


def a_port_of_its_own(b, keep):
    return {"listener other": {"address": "0.0.0.0", "port": b.gate.port(), "tls": "off"}}, "listener main of this process"


def an_address_of_others(b, keep):
    return {"listener other": {"address": "192.0.2.1", "port": 0, "tls": "off"}}, "address"


def a_socket_in_no_folder(b, keep):
    return {"listener other": {"address": os.path.join(b.gate.folder, "nowhere"), "tls": "off"}}, "address"


def a_socket_of_another_process(b, keep):
    s = keep(socket.socket(socket.AF_UNIX))
    s.bind(os.path.join(b.own["socket"], ".s.PGSQL.7654"))
    s.listen()
    return {"listener other": {"address": b.own["socket"], "port": 7654, "tls": "off"}}, "another process"


def a_log_in_no_folder(b, keep):
    return {"postern": {"log_file": "nowhere/postern.log"}}, "log_file"


def an_audit_trail_in_no_folder(b, keep):
    return {"postern": {"audit_file": "nowhere/audit.jsonl"}}, "audit_file"


def a_log_that_is_a_folder(b, keep):
    return {"postern": {"log_file": "tls"}}, "log_file"


def an_http_port_in_use(b, keep):
    s = keep(socket.create_server(("127.0.0.1", 0)))
    return {"postern": {"http_listen": f"127.0.0.1:{s.getsockname()[1]}"}}, "http_listen"


def a_ready_file_in_no_folder(b, keep):
    shutil.rmtree(b.own["ready"])
    return {}, "ready_file"


REFUSALS = [a_value, a_vanished("a.crt", "tls_cert"), a_vanished("a.key", "tls_key"),
            a_vanished("ca.crt", "tls_ca"), a_vanished("credentials", "credentials"),
            a_vanished("users", "users_file"), a_vanished("jwks.json", "jwks_file"),
            a_vanished("redis", "password_file"), a_password_that_is_empty, a_bad_user, a_bad_key_set,
            a_bad_url, an_include_that_vanished, a_port_in_use, a_port_of_its_own, an_address_of_others,
            a_socket_in_no_folder, a_socket_of_another_process, a_log_in_no_folder,
            an_audit_trail_in_no_folder, a_log_that_is_a_folder, an_http_port_in_use,
            a_ready_file_in_no_folder]


@pytest.fixture
def keep():
    """keep(thing): closed at the end."""
    kept = []

    def add(thing):
        kept.append(thing)
        return thing
    yield add
    for thing in kept:
        thing.close()


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda f: f.__name__)
def test_refused_reload_changes_nothing(bench, keep, login, fault):
    b = bench
    changes, key = fault(b, keep)
    merged = b.change()
    for section, values in changes.items():
        merged[section] = {**(merged.get(section) or {}), **values}
    b.gate.write(merged)
    before, descriptors, said = b.look(), b.steady(), len(b.gate.log())
    with pytest.raises(wire.ServerError) as e:
        b.console.query("RELOAD")
    assert key in e.value.message, e.value.message
    b.compare(before, descriptors)
    b.gate.process.signal(signal.SIGHUP)
    b.gate.await_log("reload refused(.|\n)*reload refused", said)
    b.compare(before, descriptors)
    said = b.gate.log()[said:]
    assert "listening" not in said.replace("another process listens", "") and "broken promise" not in said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", b.port))
    # Old and new logins are as before, too.
    assert login(b.gate).query("SELECT current_database()") == [["acme"]]
    assert wire.Client(("127.0.0.1", b.gate.port("oauth")), ca=b.stand.authority.crt).close() is None


def test_taken_reload_changes_everything(bench, login, stand, token):
    b = bench
    old_http = b.gate.port("http")
    b.gate.reload(b.change())
    moved = os.path.join(b.gate.folder, "moved.log")
    proc.wait_for("the new log", 15, lambda: os.path.exists(moved) and "is in force" in open(moved, encoding="utf-8").read())
    proc.wait_for("the ready file", 15, lambda: b.gate._read_ports() and "extra" in b.gate.ports)
    assert "oauth" not in b.gate.ports
    assert b.gate.port("http") == b.http_port and b.gate.http("/health/live")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old_http))
    for address in (("127.0.0.1", b.port), os.path.join(b.own["socket"], ".s.PGSQL.6543"),
                    os.path.join(b.own["stale"], ".s.PGSQL.6543")):
        with wire.Client(address, tls=None) as c:
            c.login("acme_rw", "acme", token())
            assert c.query("SELECT current_database()") == [["elsewhere"]]
    assert sorted(os.listdir(b.own["stale"])) == [".s.PGSQL.6543"]
    assert '"RELOAD"' in open(os.path.join(b.gate.folder, "moved.jsonl"), encoding="utf-8").read()
    b.gate.log_file = moved # where end_well() looks


# ---- listeners ----

def test_listener_keeps_its_socket_under_another_name(make_gate, login, console, stand):
    port = proc.free_port()
    pair = {"tls_cert": stand.server_rsa[0], "tls_key": stand.server_rsa[1]}
    gate = make_gate({"listener extra": {"address": "127.0.0.1", "port": port, **pair}})
    before = outside.listening(gate.pid)
    gate.write({"listener extra": None, "listener front": {"address": "127.0.0.1", "port": port, "backlog": 64, **pair}})
    console(gate).query("RELOAD")
    assert outside.listening(gate.pid) == before
    proc.wait_for("the ready file", 15, lambda: gate._read_ports() and "front" in gate.ports)
    assert login(gate, listener="front").query("SELECT 1") == [["1"]]


def test_listener_serves_under_its_own_section_when_others_go(make_gate, login, console, stand):
    """Its index among the sections changes, and with it where TLS and auth come from."""
    gate = make_gate()
    gate.write({"listener main": None})
    c = wire.Client(("127.0.0.1", gate.port("oauth")), ca=stand.authority.crt)
    c.startup("acme_rw", "acme")
    assert c.receive()[1][4:].startswith(b"OAUTHBEARER")
    with pytest.raises(wire.ServerError):
        c.send(wire.sasl_initial("OAUTHBEARER", b"n,,\x01auth=Bearer no\x01\x01"))
        c.expect("R")
        c.send(wire.message("p", b"\x01"))
        c.expect("R")
    admin = wire.Client(os.path.join(gate.sockets, ".s.PGSQL.5432"), tls=None)
    admin.login(stand.admin_user, "postern", stand.admin_password)
    admin.query("RELOAD")
    admin.close()
    with wire.Client(("127.0.0.1", gate.port("oauth")), ca=stand.authority.crt) as c:
        c.startup("acme_rw", "acme")
        assert c.receive()[1][4:].startswith(b"OAUTHBEARER")


def test_http_moves_and_goes(make_gate, console):
    gate = make_gate()
    c, old, port = console(gate), gate.port("http"), proc.free_port()
    gate.write({"postern": {"http_listen": f"127.0.0.1:{port}"}})
    c.query("RELOAD")
    gate.ports["http"] = {"127.0.0.1": port}
    assert gate.http("/health/ready")[0] == 200
    assert gate.metrics()
    gate.write({"postern": {"http_listen": ""}})
    c.query("RELOAD")
    for gone in (old, port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gone))
    gate.write({"postern": {"http_listen": f"127.0.0.1:{port}"}})
    c.query("RELOAD")
    assert gate.http("/health/live")[0] == 200


# ---- the rotation of logs ----

def rotated(gate):
    """Renames both files away; a question whether there are new ones."""
    for path in (gate.log_file, gate.audit_file):
        os.rename(path, path + ".1")
    return lambda: os.path.exists(gate.log_file) and os.path.exists(gate.audit_file)


def test_refused_sighup_opens_the_logs_anew(make_gate, login):
    gate = make_gate()
    login(gate)
    opened = rotated(gate)
    gate.reload({"postern": {"log_level": "loud"}})
    proc.wait_for("new files", 15, opened)
    gate.await_log("reload refused")
    proc.wait_for("its line in the new audit trail", 15, lambda: '"RELOAD"' in gate.audit())
    with open(gate.log_file + ".1", encoding="utf-8") as f:
        assert "refused" not in f.read()


def test_sigusr1_opens_the_logs_anew_and_does_nothing_else(make_gate, login, console):
    gate = make_gate()
    c = console(gate)
    before, descriptors = c.query("SHOW CONFIG"), outside.listening(gate.pid)
    gate.write({"postern": {"log_level": "debug", "max_clients": 7}, "listener oauth": None})
    opened = rotated(gate)
    gate.process.signal(signal.SIGUSR1)
    proc.wait_for("new files", 15, opened)
    gate.await_log("opened anew")
    login(gate)
    proc.wait_for("a login in the new audit trail", 15, lambda: '"login"' in gate.audit())
    assert c.query("SHOW CONFIG") == before and outside.listening(gate.pid) == descriptors
    assert "in force" not in gate.log() and "refused" not in gate.log()


def test_log_that_cannot_be_opened_anew_goes_on(make_gate, login, console):
    gate = make_gate(start=False)
    folder, away = os.path.join(gate.folder, "logs"), os.path.join(gate.folder, "away")
    os.makedirs(folder)
    gate.log_file = os.path.join(folder, "postern.log")
    gate.write({"postern": {"log_file": gate.log_file}})
    gate.start()
    c = console(gate)
    os.rename(folder, away)
    gate.log_file = os.path.join(away, "postern.log")
    gate.process.signal(signal.SIGUSR1)
    gate.await_log("log_file .* cannot be opened anew")
    with pytest.raises(wire.ServerError):
        c.query("RELOAD")
    gate.await_log("reload refused")
    assert not os.path.exists(folder)


# ---- files that vanish ----

def test_nodes_are_served_on_when_the_files_have_vanished(make_gate, stand, login, console, nodes):
    """What was read is in force until the next reload that is taken; also for new server connections."""
    gate = make_gate(own_cluster(nodes[:1]), start=False)
    own = {}
    for key, source in (("tls_ca", stand.authority.crt), ("tls_cert", stand.node_client[0]),
                        ("tls_key", stand.node_client[1]), ("credentials", stand.credentials)):
        own[key] = os.path.join(gate.folder, key)
        shutil.copy(source, own[key])
        os.chmod(own[key], 0o600)
    gate.write({"cluster main": own})
    gate.start()
    login(gate).query("SELECT 1")
    for path in own.values():
        os.unlink(path)
    with pytest.raises(wire.ServerError) as e:
        console(gate).query("RELOAD")
    for key in ("tls_ca", "credentials"):
        assert key in e.value.message
    nodes[0].kill()
    proc.wait_for("the node to be missed", 20, lambda: not gate.is_ready())
    nodes[0].start()
    proc.wait_for("the node to be found again", 20, gate.is_ready)
    gate.await_log("monitor_user .* cannot log in, .*tls_ca")
    assert login(gate, "acme_session").query("SELECT 1") == [["1"]]
    assert gate.log().count("cannot log in") == 1 and gate.is_ready()


# ---- at other times ----

def test_reload_while_draining_opens_no_listener(make_gate, login):
    gate = make_gate()
    c = login(gate)
    c.query("BEGIN")
    gate.process.signal(signal.SIGTERM)
    gate.await_log("draining")
    assert not [x for x in outside.listening(gate.pid) if x[0] == "unix"]
    before = len(gate.log())
    gate.reload({"postern": {"max_clients": 77}})
    gate.await_log("is in force", before)
    now = outside.listening(gate.pid)
    assert len(now) == 1, f"only HTTP is left: {now}"
    assert gate.http("/health/ready")[0] == 503
    c.query("COMMIT")
    assert gate.process.wait(20) == 0


def test_reloads_behind_each_other(make_gate, console):
    """The last one counts, however quickly they come."""
    gate = make_gate()
    c = console(gate)
    for n in range(20):
        for k in range(3):
            gate.reload({"plan metered": {"queries_per_second": 1000 + 3 * n + k},
                         f"listener extra{k}": {"address": "127.0.0.1", "port": 0, "tls": "off"},
                         f"listener extra{(k + 2) % 3}": None})
    last = str(1000 + 59)
    proc.wait_for("the last reload", 15, lambda: any(
        last in r and "queries_per_second" in r for r in c.query("SHOW CONFIG")))
    c.query("RELOAD")
    proc.wait_for("the ready file", 15, lambda: gate._read_ports() and "extra2" in gate.ports)
    assert not {"extra0", "extra1"} & set(gate.ports)
    assert len([x for x in outside.listening(gate.pid) if x[0] == "tcp"]) == 4


def test_settings_that_need_a_restart_stay_what_they_are(make_gate, console):
    gate = make_gate()
    c = console(gate)
    other = os.path.join(gate.folder, "other.pid")
    with open(other, "w", encoding="ascii") as f:
        f.write("somebody else's\n")
    gate.write({"postern": {"pid_file": other, "ready_file": os.path.join(gate.folder, "other.ready"), "workers": 7}})
    before = {(r[0], r[1]): r[2] for r in c.query("SHOW CONFIG")}
    c.query("RELOAD")
    after = {(r[0], r[1]): r[2] for r in c.query("SHOW CONFIG")}
    assert after == before
    assert not os.path.exists(os.path.join(gate.folder, "other.ready"))
    assert gate.process.stop() == 0
    assert os.path.exists(other) and not os.path.exists(os.path.join(gate.folder, "postern.pid"))
    assert not os.path.exists(gate.ready_file), "it is ready no more"


def alternating(gate, stand):
    """Two configurations between which nearly everything changes."""
    pair = {"tls_cert": stand.server_rsa[0], "tls_key": stand.server_rsa[1]}
    rows = dict(next(rows for name, _, rows in gate.sections if name == "cluster main"))
    hosts = rows["hosts"].split(", ")
    one = {"postern": {"log_file": "postern.log", "http_listen": "127.0.0.1:0"},
           "listener extra": None, "listener socket": None, "cluster second": None, "database second": None,
           "redis": {"timeout": "250ms"}, "database acme": {"dbname": "acme"},
           "cluster main": {"hosts": ", ".join(hosts)}}
    two = {"postern": {"log_file": "second.log", "http_listen": "[::1]:0" if stand.ipv6 else "0.0.0.0:0"},
           "listener extra": {"address": "127.0.0.1", "port": 0, **pair},
           "listener socket": {"address": gate.folder, "port": 6543, "tls": "off"},
           "cluster second": {**rows, "hosts": ", ".join(hosts)},
           "database second": {"cluster": "second"},
           "redis": {"timeout": "300ms"}, "database acme": {"dbname": "elsewhere"},
           "cluster main": {"hosts": hosts[0]}}
    return one, two


def test_hundred_reloads_leave_nothing_behind(make_gate, console, stand, login, elsewhere):
    gate = make_gate(QUIET)
    c = console(gate)
    users = os.path.join(gate.folder, "users")
    shutil.copy(stand.users_file, users)
    with open(users, "a", encoding="ascii") as f: # so that a generation that stays is seen
        f.writelines(f'"user{n}_batch" "{stand.scram("x") if n == 0 else verifier}" acme rw\n'
                     for verifier in [stand.scram("y")] for n in range(4000))
    os.chmod(users, 0o600)
    one, two = alternating(gate, stand)
    one["postern"]["users_file"] = users
    bad = {"postern": {"log_level": "loud"}}

    def rounds(count):
        for n in range(count):
            gate.write((two, one)[n % 2])
            c.query("RELOAD")
            assert login(gate).query("SELECT current_database()") == [[("elsewhere", "acme")[n % 2]]]
            gate.write(bad)
            with pytest.raises(wire.ServerError):
                c.query("RELOAD")
            gate.write({"postern": {"log_level": "info"}})

    def count():
        return len(outside.descriptors(gate.pid))
    gate.write(one)
    rounds(10)
    descriptors, threads, memory = count(), outside.threads(gate.pid), proc.resident(gate.pid)
    rounds(100)
    proc.wait_for("descriptors and threads of before", 30, lambda: count() <= descriptors
                  and outside.threads(gate.pid) <= threads)
    if not proc.is_sanitized(gate.pid):
        grown = proc.resident(gate.pid) - memory
        assert grown < 6000, f"{grown} KiB more after 100 reloads"
