"""SIGHUP takes all of a new configuration or nothing; --check reads it as a reload would."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import shutil
import ssl

import pytest

from stand import proc, tokens, wire
from stand.certs import Authority


def reloaded(gate, console, section, key, value, changes):
    """Reloads and waits until SHOW CONFIG tells the new value."""
    gate.reload(changes)
    c = console(gate)
    proc.wait_for(f"[{section}] {key} = {value}", 15,
                  lambda: [r for r in c.query("SHOW CONFIG")
                           if section in r and key in r and str(value) in r])


def refused_reload(gate, changes):
    """Reloads what must not be taken; what the gate said to it."""
    before = len(gate.log())
    gate.reload(changes)
    name = re.escape(os.path.basename(gate.config))
    gate.await_log(rf"{name}:\d+: ", before)
    proc.wait_for("the gate to live on", 5, lambda: gate.http("/health/live")[0] == 200)
    return gate.log()[before:]


def refusals(c, count=60):
    return sum(bool(wire.errors(c.ask(wire.query("SELECT 1")))) for _ in range(count))


def test_limit_is_raised(make_gate, login, console):
    gate = make_gate()
    c = login(gate, "metered")
    assert refusals(c)
    reloaded(gate, console, "plan metered", "queries_per_second", 100000,
             {"plan metered": {"queries_per_second": 100000}})
    proc.wait_for("the new limit to hold", 10, lambda: not refusals(c))


def test_tenant_is_added_and_taken_away(make_gate, login, connect, token, console):
    gate = make_gate({"tenant globex": None, "database globex": None,
                      "database globex_session": None})
    with pytest.raises(wire.ServerError):
        connect(gate).login("globex_rw", "globex", token("globex"))
    reloaded(gate, console, "tenant globex", "databases", "globex", {
        "tenant globex": {"databases": "globex", "database_role": "${tenant}_${role}"},
        "database globex": {"cluster": "main"}})
    assert login(gate, "globex").query("SELECT current_user") == [["globex_rw"]]


def test_session_goes_on_over_a_reload(make_gate, login, console, table):
    gate = make_gate()
    idle, busy = login(gate), login(gate, "acme_session")
    busy.query("BEGIN")
    busy.query(f"INSERT INTO {table} VALUES (1, 'kept')")
    reloaded(gate, console, "postern", "log_level", "debug", {"postern": {"log_level": "debug"}})
    busy.query("COMMIT")
    assert idle.query(f"SELECT words FROM {table}") == [["kept"]]


def test_pool_size_is_changed(make_gate, login, console, stand):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    b.send(wire.query("SELECT 'after the reload'"))
    reloaded(gate, console, "database acme", "pool_size", 4, {"database acme": {"pool_size": 4}})
    assert wire.rows(b.until("Z")) == [["after the reload"]]
    a.query("COMMIT")


def test_signing_keys_are_changed(make_gate, stand, login, connect, token):
    jwks = stand.path("keys", f"jwks-{os.urandom(4).hex()}.json")
    fresh = tokens.Key(stand.path("keys", f"fresh-{os.urandom(4).hex()}.pem"), "fresh", "ES256")
    tokens.write_jwks(jwks, [stand.signing_key])
    gate = make_gate({"issuer stand": {"jwks_file": jwks}})
    assert login(gate).query("SELECT 1") == [["1"]]
    tokens.write_jwks(jwks, [fresh])
    gate.reload()

    def taken():
        try:
            return login(gate, secret=stand.token("acme", key=fresh))
        except wire.ServerError as e:
            assert e.code == "28P01"
    proc.wait_for("the new key to be taken", 15, taken)
    with pytest.raises(wire.ServerError):
        connect(gate).login("acme_rw", "acme", token())


def test_users_file_is_read_again(make_gate, stand, login):
    users = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")

    def write(text):
        with open(users, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(text)
    write("")
    gate = make_gate({"postern": {"users_file": users, "admin_users": None}, "listener main": {"scram_users": "late"}})
    write(f'"late" "{stand.scram("secret")}" acme rw\n')
    gate.reload()

    def taken():
        try:
            return login(gate, user="late", secret="secret").query("SELECT 1") == [["1"]]
        except (wire.ServerError, AssertionError):
            return False
    proc.wait_for("the new user to be let in", 15, taken)


def serial(gate, ca):
    context = ssl.create_default_context(cafile=ca)
    import socket
    with socket.create_connection(("127.0.0.1", gate.port()), timeout=20) as s:
        s.sendall(wire.SSL_REQUEST)
        assert s.recv(1) == b"S"
        with context.wrap_socket(s, server_hostname="localhost") as t:
            return t.getpeercert()["serialNumber"]


def test_certificate_is_changed(make_gate, stand, login):
    folder = stand.path("tls", f"own-{os.urandom(4).hex()}")
    os.makedirs(folder)
    crt, key = os.path.join(folder, "a.crt"), os.path.join(folder, "a.key")

    def install(name):
        made = stand.authority.server(f"{os.path.basename(folder)}-{name}", "ecdsa")
        shutil.copy(made[0], crt)
        shutil.copy(made[1], key)
        os.chmod(key, 0o600)
    install("one")
    gate = make_gate({"listener main": {"tls_cert": crt, "tls_key": key}})
    first = serial(gate, stand.authority.crt)
    old = login(gate)
    install("two")
    gate.reload()
    proc.wait_for("the new certificate", 15, lambda: serial(gate, stand.authority.crt) != first)
    assert old.query("SELECT 1") == [["1"]]


def test_unreadable_certificate_keeps_the_old_one(make_gate, stand, login):
    crt = stand.path("tls", f"broken-{os.urandom(4).hex()}.crt")
    shutil.copy(stand.server_rsa[0], crt)
    gate = make_gate({"listener main": {"tls_cert": crt, "tls_key": stand.server_rsa[1]}})
    first = serial(gate, stand.authority.crt)
    with open(crt, "w", encoding="ascii") as f:
        f.write("no certificate\n")
    said = refused_reload(gate, {"plan metered": {"queries_per_second": 7}})
    assert "tls_cert" in said and os.path.basename(crt) in said
    assert serial(gate, stand.authority.crt) == first
    assert login(gate).query("SELECT 1") == [["1"]]


def test_key_that_does_not_fit_its_certificate(make_gate, stand):
    gate = make_gate(start=False)
    gate.write({"listener main": {"tls_cert": stand.server_rsa[0], "tls_key": stand.client[1]}})
    done = gate.check()
    assert done.returncode == 1 and "tls_key" in done.stdout + done.stderr


BAD = {"postern": {"max_clients": "many", "log_level": "loud"},
       "plan metered": {"queries_per_second": "-5"},
       "database metered": {"cluster": "nowhere", "pool_mode": "statement"},
       "tenant metered": {"plan": "golden"}}


def test_every_fault_is_named_with_its_line(make_gate, login):
    gate = make_gate()
    c = login(gate, "metered")
    said = refused_reload(gate, {**BAD, "colour": {"red": "1"}})
    with open(gate.config, encoding="utf-8") as f:
        lines = f.read().splitlines()
    for key, found, allowed in (("max_clients", "many", "1000000"), ("log_level", "loud", "debug"),
                                ("queries_per_second", "-5", "10000000"),
                                ("pool_mode", "statement", "transaction"), ("plan", "golden", ""),
                                ("cluster", "nowhere", "")):
        number = next(n for n, text in enumerate(lines, 1) if text == f"{key} = {found}")
        row = [r for r in said.splitlines() if f"postern.ini:{number}:" in r]
        assert row and key in row[0] and found in row[0] and allowed in row[0], (key, said)
    assert "colour" in said
    assert refusals(c), "the old limit holds"
    assert c.status == "I"


def test_nothing_of_a_bad_configuration_is_taken(make_gate, console):
    gate = make_gate()
    refused_reload(gate, {"plan metered": {"queries_per_second": 7654321},
                          "postern": {"log_level": "loud"}})
    rows = console(gate).query("SHOW CONFIG")
    assert not any("7654321" in " ".join(map(str, r)) for r in rows)
    gate.reload({"postern": {"log_level": "info"}})
    proc.wait_for("the mended file to be taken", 15, lambda: any(
        "7654321" in " ".join(map(str, r)) for r in console(gate).query("SHOW CONFIG")))


def test_change_that_needs_a_restart_is_said(make_gate, login):
    gate = make_gate()
    before = len(gate.log())
    gate.reload({"postern": {"workers": 7}})
    gate.await_log(r"workers.*restart|restart.*workers", before)
    assert login(gate).query("SELECT 1") == [["1"]]


def test_listener_is_added_and_removed(make_gate, stand, login):
    gate = make_gate()
    port = proc.free_port()
    gate.reload({"listener extra": {"address": "127.0.0.1", "port": port, "tls_cert":
                 stand.server_rsa[0], "tls_key": stand.server_rsa[1]}})

    def opened():
        try:
            return wire.Client(("127.0.0.1", port), ca=stand.authority.crt).close() is None
        except OSError:
            return False
    proc.wait_for("the new listener", 15, opened)
    kept = login(gate)
    gate.reload({"listener extra": None})
    proc.wait_for("the listener to be gone", 15, lambda: not opened())
    assert kept.query("SELECT 1") == [["1"]]
    assert login(gate).query("SELECT 1") == [["1"]]


def test_log_file_is_opened_again(make_gate, login, stand):
    gate = make_gate()
    moved = gate.log_file + ".1"
    os.rename(gate.log_file, moved)
    gate.reload({"postern": {"log_level": "debug"}})
    proc.wait_for("a new log file", 15, lambda: os.path.exists(gate.log_file)
                  and os.path.getsize(gate.log_file) > 0)


def test_console_reload_does_as_sighup(make_gate, console):
    gate = make_gate()
    gate.write({"plan metered": {"queries_per_second": 4567}})
    c = console(gate)
    c.query("RELOAD")
    proc.wait_for("the new value", 15, lambda: any(
        "4567" in " ".join(map(str, r)) for r in c.query("SHOW CONFIG")))


def test_console_reload_of_a_bad_file_is_an_error(make_gate, console):
    gate = make_gate()
    gate.write({"postern": {"log_level": "loud"}})
    c = console(gate)
    with pytest.raises(wire.ServerError):
        c.query("RELOAD")
    assert c.query("SHOW VERSION")


def test_many_reloads_under_load(make_gate, login):
    import threading
    gate = make_gate()
    stop, wrong = threading.Event(), []

    def work():
        c = login(gate)
        n = 0
        while not stop.is_set():
            n += 1
            if c.query(f"SELECT {n}") != [[str(n)]]:
                wrong.append(n)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(15):
            before = len(gate.log())
            gate.reload({"database acme": {"pool_size": 3 + n % 3}, "plan standard":
                         {"queries_per_second": 400000 + n}})
            gate.await_log("is in force", before)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


# ---- postern --check, and starting with faults ----

def test_check_of_a_good_file(make_gate):
    gate = make_gate(start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_names_every_fault(make_gate):
    gate = make_gate(BAD, start=False)
    gate.write()
    done = gate.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert len(re.findall(r"postern\.ini:\d+: ", said)) >= 6, said
    for found in ("many", "loud", "-5", "nowhere", "statement", "golden"):
        assert found in said


@pytest.mark.parametrize("section,key,value", [
    ("listener oauth", "tls_cert", "no-such.crt"), ("listener oauth", "tls_key", "no-such.key"),
    ("issuer stand", "jwks_file", "no-such.json"), ("cluster main", "credentials", "no-such.txt"),
    ("cluster main", "tls_ca", "no-such-ca.crt"), ("postern", "users_file", "no-such-users.txt"),
    ("redis", "password_file", "no-such-password")])
def test_missing_files_are_faults(make_gate, stand, section, key, value):
    pair = {"tls_cert": stand.server_rsa[0], "tls_key": stand.server_rsa[1]}
    gate = make_gate({section: {**(pair if key in pair else {}), key: value}}, start=False)
    gate.write()
    done = gate.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1
    line = [r for r in said.splitlines() if re.search(r"postern\.ini:\d+: ", r) and key in r]
    assert line and value in line[0], said


def test_secret_that_others_may_read_is_a_fault(make_gate, stand):
    path = stand.path("gates", f"open-{os.urandom(4).hex()}.txt")
    with open(path, "w", encoding="ascii") as f:
        f.write('"acme_rw" "secret-content"\n')
    os.chmod(path, 0o644)
    gate = make_gate({"cluster main": {"credentials": path}}, start=False)
    gate.write()
    done = gate.check()
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "credentials" in said and "secret-content" not in said


def test_unknown_keys_and_sections_are_faults(make_gate):
    gate = make_gate({"postern": {"wrokers": "2"}, "lisener main": {"port": "1"}}, start=False)
    gate.write()
    said = gate.check()
    assert said.returncode == 1
    assert "wrokers" in said.stdout + said.stderr and "lisener" in said.stdout + said.stderr


def test_start_with_faults_exits_with_1(make_gate):
    gate = make_gate(BAD, start=False)
    gate.write()
    gate.launch()
    assert gate.process.wait(20) == 1
    assert len(re.findall(r"postern\.ini:\d+: ", gate.log())) >= 6
    gate.process = None


def test_start_without_a_file_exits_with_1(stand):
    done = proc.run([stand.binary, "--config", stand.path("no-such.ini")], check=False)
    assert done.returncode == 1 and "no-such.ini" in done.stdout + done.stderr


def test_port_that_is_taken_exits_with_1(make_gate, gate):
    second = make_gate({"listener main": {"address": "127.0.0.1", "port": gate.port()}}, start=False)
    second.write()
    second.launch()
    assert second.process.wait(20) == 1
    assert str(gate.port()) in second.log()
    second.process = None


def test_included_files_are_read(make_gate, login):
    it = make_gate(start=False)
    folder = os.path.join(it.folder, "more.d")
    os.makedirs(folder)
    with open(os.path.join(folder, "10-tenant.ini"), "w", encoding="ascii") as f:
        f.write("[tenant globex]\ndatabases = globex\ndatabase_role = ${tenant}_${role}\n")
    with open(os.path.join(folder, "20-fault.ini"), "w", encoding="ascii") as f:
        f.write("[plan odd]\nmax_connections = few\n")
    it.write({"tenant globex": None, "postern": {"include": "more.d"}})
    said = it.check()
    assert said.returncode == 1 and re.search(r"20-fault\.ini:2: .*few", said.stdout + said.stderr)
    os.unlink(os.path.join(folder, "20-fault.ini"))
    it.start()
    assert login(it, "globex").query("SELECT current_user") == [["globex_rw"]]
