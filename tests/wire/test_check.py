"""What a start, --check and a reload look at is one and the same: faults are named by all three,
all at once, each with its line and key; what is only unwise is a warning in all three.
"""
# SPDX-License-Identifier: Apache-2.0
import datetime
import os
import re
import resource
import shutil
import signal

import pytest

from stand import proc, wire
from wire.conftest import end_well

ELSEWHERE = "192.0.2.77"  # documentation's own: no machine has it


def open_to_all(folder):
    """Everybody may enter it."""
    folder.chmod(0o755)
    for parent in folder.parents:
        parent.chmod(0o755)
        if parent.name.startswith("pytest-of-"):
            return


def pair(stand, name, starts, ends):
    """A certificate with these dates, in days from now: (certificate, key)."""
    folder = stand.path("tls", f"{name}-{os.urandom(4).hex()}")
    os.makedirs(folder)
    key, request, crt = (os.path.join(folder, f) for f in ("s.key", "s.csr", "s.crt"))
    config = os.path.join(folder, "ca.cnf")
    with open(config, "w", encoding="ascii") as f:
        f.write("[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
                "default_md=sha256\npolicy=p\nrand_serial=yes\nx509_extensions=e\n"
                "[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:localhost\n")
    open(os.path.join(folder, "index"), "w", encoding="ascii").close()
    proc.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
              "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}"])
    now = datetime.datetime.now(datetime.timezone.utc)
    when = [(now + datetime.timedelta(days=d)).strftime("%Y%m%d%H%M%SZ") for d in (starts, ends)]
    proc.run(["openssl", "ca", "-batch", "-config", config, "-in", request, "-out", crt, "-keyfile",
              stand.authority.key, "-cert", stand.authority.crt, "-startdate", when[0], "-enddate",
              when[1]], cwd=folder)
    os.chmod(key, 0o600)
    return crt, key


def hs_set(stand, mode):
    path = stand.path("keys", f"hs-{os.urandom(4).hex()}.json")
    with open(path, "w", encoding="ascii") as f:
        f.write('{"keys":[{"kty":"oct","kid":"h","alg":"HS256","k":"%s"}]}' % ("A" * 64))
    os.chmod(path, mode)
    return path


def copied(source, mode):
    path = f"{source}-{os.urandom(4).hex()}"
    shutil.copy(source, path)
    os.chmod(path, mode)
    return path


def certificate(stand, name, starts, ends):
    crt, key = pair(stand, name, starts, ends)
    return {"listener main": {"tls_cert": crt, "tls_key": key}}


def user_of(stand, role):
    """A users file with one program, of that role of acme."""
    path = stand.path("gates", f"users-{os.urandom(4).hex()}.txt")
    with open(path, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(f'"one_batch" "{stand.scram("pw")}" acme {role}\n')
    return {"postern": {"users_file": path, "admin_users": None}}


PLAIN_NODES = {"tls": "disable", "tls_ca": None, "tls_cert": None, "tls_key": None}


def files():
    """The limit that a gate raises its own to."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def linked(path):
    """Another name of that file."""
    link = f"{path}-{os.urandom(4).hex()}"
    os.symlink(path, link)
    return link


# name: (overrides of the configuration, section, key, what the fault says)
FAULTS = {
    "certificate-expired": (lambda s: certificate(s, "old", -10, -1),
                            "listener main", "tls_cert", r"/CN=old has expired on 20"),
    "certificate-not-yet": (lambda s: certificate(s, "early", 2, 10),
                            "listener main", "tls_cert", r"/CN=early is not valid before 20"),
    "key-does-not-fit": (lambda s: {"listener main": {"tls_cert": s.server_rsa[0], "tls_key": s.client[1]}},
                         "listener main", "tls_key", "does not belong|cannot be used|key values mismatch"),
    "second-pair-expired": (lambda s: (lambda old: {"listener main": {
        "tls_cert": f"{s.server_rsa[0]}, {old[0]}", "tls_key": f"{s.server_rsa[1]}, {old[1]}"}})(
            pair(s, "second", -10, -1)), "listener main", "tls_cert", "/CN=second has expired"),
    "node-certificate-expired": (lambda s: (lambda old: {"cluster main": {"tls_cert": old[0], "tls_key": old[1]}})(
        pair(s, "nodes", -10, -1)), "cluster main", "tls_cert", "/CN=nodes has expired"),
    "node-key-does-not-fit": (lambda s: {"cluster main": {"tls_key": s.server_rsa[1]}},
                              "cluster main", "tls_key", "does not belong|cannot be used"),
    "authorities-expired": (lambda s: {"cluster main": {"tls_ca": pair(s, "ca", -10, -1)[0]}},
                            "cluster main", "tls_ca", "every certificate in it has expired"),
    "client-authorities-expired": (lambda s: {"listener main": {
        "tls_client_auth": "optional", "tls_client_ca": pair(s, "ca", -10, -1)[0]}},
                                   "listener main", "tls_client_ca", "every certificate in it has expired"),
    "http-unparsable": (lambda s: {"postern": {"http_listen": "nine-thousand"}},
                        "postern", "http_listen", "found \"nine-thousand\"; allowed: address:port"),
    "http-port": (lambda s: {"postern": {"http_listen": "127.0.0.1:99999"}},
                  "postern", "http_listen", "found \"127.0.0.1:99999\"; allowed"),
    "http-elsewhere": (lambda s: {"postern": {"http_listen": f"{ELSEWHERE}:9187"}},
                       "postern", "http_listen", f"found \"{ELSEWHERE}:9187\"; allowed: an address of this machine"),
    "http-no-name": (lambda s: {"postern": {"http_listen": "no-such-name.invalid:9187"}},
                     "postern", "http_listen", "found \"no-such-name.invalid:9187\".*allowed: an address"),
    "listener-elsewhere": (lambda s: {"listener main": {"address": f"127.0.0.1, {ELSEWHERE}"}},
                           "listener main", "address", f"found \"{ELSEWHERE}\"; allowed: an address of this machine"),
    "socket-without-folder": (lambda s: {"listener local": {"address": "/no/such/folder"}},
                              "listener local", "address", "found \"/no/such/folder\"; .*No such file"),
    "audit-without-folder": (lambda s: {"postern": {"audit_file": "/no/such/audit.jsonl"}},
                             "postern", "audit_file", "found \"/no/such/audit.jsonl\"; the folder /no/such: No such"),
    "audit-in-a-file": (lambda s: {"postern": {"audit_file": "/etc/passwd/audit.jsonl"}},
                        "postern", "audit_file", "/etc/passwd is no folder"),
    "audit-is-a-folder": (lambda s: {"postern": {"audit_file": "/tmp"}},
                          "postern", "audit_file", "found \"/tmp\"; this is a folder; allowed: a file"),
    "log-without-folder": (lambda s: {"postern": {"log_file": "/no/such/postern.log"}},
                           "postern", "log_file", "the folder /no/such"),
    "pid-without-folder": (lambda s: {"postern": {"pid_file": "/no/such/postern.pid"}},
                           "postern", "pid_file", "the folder /no/such"),
    "audit-required-without-one": (lambda s: {"postern": {"audit_file": None, "audit_required": "on"}},
                                   "postern", "audit_required", "allowed: both, or off"),
    "shared-secret-for-all": (lambda s: {"issuer stand": {"algorithms": "HS256", "jwks_file": hs_set(s, 0o644)}},
                              "issuer stand", "jwks_file", "shared secret, and others may read the file"),
    "keys-that-all-may-write": (lambda s: {"issuer stand": {"jwks_file": copied(s.jwks, 0o666)}},
                                "issuer stand", "jwks_file", "others may write the file"),
    "redis-password-for-all": (lambda s: {"redis": {"password_file": copied(s.redis.password_file, 0o644)}},
                               "redis", "password_file", "read or written by others"),
    "nobody-could-log-in": (lambda s: {"postern": {"users_file": None}, "issuer stand": None, "issuer other": None},
                            "postern", "users_file", r"no section \[issuer NAME\] either: nobody could log in"),
    "redis-password-for-nothing": (lambda s: {"redis": {"url": None, "password_file": s.redis.password_file}},
                                   "redis", "password_file", "found without a url"),
    "redis-authorities-for-nothing": (lambda s: {"redis": {"url": None, "password_file": None,
                                                           "ca_file": s.authority.crt}},
                                      "redis", "ca_file", "found without a url"),
    "user-of-no-allowed-role": (lambda s: user_of(s, "owner"), "postern", "users_file",
                                r"user one_batch: found role owner; \[tenant acme\] does not allow it"),
    "descriptors-all-reserved": (lambda s: {"postern": {"reserved_descriptors": 1000000}}, "postern", "reserved_descriptors",
                                 r"found 1000000; the limit of open files is \d+, and with \d+ reserved 0 are left"),
    "descriptors-of-the-gate-alone": (lambda s: {"postern": {"reserved_descriptors": files() - 5}}, "postern",
                                      "reserved_descriptors", "reserved 5 are left, of which the gate itself has [67] at least"),
    "binding-without-tls": (lambda s: {"cluster main": {**PLAIN_NODES, "channel_binding": "require"}},
                            "cluster main", "channel_binding", "found \"require\" with tls = disable"),
    "password-in-clear": (lambda s: {"cluster main": {**PLAIN_NODES, "require_auth": "password"}},
                          "cluster main", "require_auth", "found \"password\" alone"),
    "http-on-a-listener": (lambda s: {"listener main": {"address": "127.0.0.1", "port": 5999},
                                      "postern": {"http_listen": "127.0.0.1:5999"}},
                           "postern", "http_listen", r"found \"127.0.0.1:5999\", which is taken by \[listener main\]"),
    "tenant-of-no-token": (lambda s: {"tenant -x": {"databases": "acme"}, "postern": {"users_file": s.users_file}},
                           "tenant -x", None, "no token may name this tenant"),
    "log-is-the-configuration": (lambda s: {"postern": {"log_file": "postern.ini"}},
                                 "postern", "log_file", "which is the configuration itself too"),
    "pid-file-is-the-users-file": (lambda s: (lambda users: {"postern": {"users_file": users, "pid_file": linked(users)}})(
        copied(s.users_file, 0o600)), "postern", "pid_file", r"which is users_file of \[postern\] too"),
    "ready-file-is-a-key": (lambda s: (lambda key: {"postern": {"ready_file": key}, "cluster main": {"tls_key": key}})(
        copied(s.node_client[1], 0o600)), "postern", "ready_file", r"which is tls_key of \[cluster main\] too"),
    "user-unknown": (lambda s: {"postern": {"user": "no-such-user"}},
                     "postern", "user", "found \"no-such-user\"; allowed: a user of this system"),
}


def lines_about(said, section, key):
    return [r for r in said.splitlines()
            if re.search(rf"postern\.ini:\d+: \[{re.escape(section)}\]{' ' + key if key else ''}: ", r)]


def need_fault(said, section, key, words):
    rows = lines_about(said, section, key)
    assert rows, said
    assert any(re.search(words, r) for r in rows), said


@pytest.fixture(scope="module")
def running(module_gate):
    return module_gate()


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_by_check_start_and_reload(make_gate, running, stand, console, name):
    make, section, key, words = FAULTS[name]
    overrides = make(stand)
    gate = make_gate(overrides, start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 1, "--check passes it"
    need_fault(done.stderr, section, key, words)
    gate.launch()
    assert gate.process.wait(20) == 1, "a start takes it"
    with open(gate.stderr, encoding="utf-8") as f:
        need_fault(f.read(), section, key, words)
    gate.process = None
    # The running one is asked to take the same file.
    own = running.config
    try:
        running.config = gate.config
        shutil.copy(own, own + ".kept")
        shutil.copy(gate.config, own)
        admin, before = console(running), len(running.log())
        with pytest.raises(wire.ServerError) as e:
            admin.query("RELOAD")
        need_fault(e.value.fields["M"], section, key, words)
        running.await_log("reload refused", before)
        before = len(running.log())
        running.process.signal(signal.SIGHUP)
        running.await_log("reload refused", before)
        need_fault(running.log()[before:], section, key, words)
    finally:
        shutil.move(own + ".kept", own)
        running.config = own
    assert running.http("/health/live")[0] == 200


def test_all_faults_at_once_and_the_same_ones_three_times(make_gate, running, stand, console):
    """Of the file's own words, of what they name, of the machine: nothing hides anything."""
    old = pair(stand, "together", -10, -1)
    gate = make_gate({
        "postern": {"max_clients": "many", "audit_file": "/no/such/audit.jsonl", "http_listen": f"{ELSEWHERE}:1"},
        "listener main": {"tls_cert": old[0], "tls_key": old[1], "address": f"127.0.0.1, {ELSEWHERE}"},
        "issuer stand": {"algorithms": "HS256", "jwks_file": hs_set(stand, 0o644)},
        "cluster main": {"credentials": "no-such.txt"},
        "tenant metered": {"plan": "golden"}}, start=False)
    gate.write()
    done = gate.check()
    said = {"check": done.stderr}
    gate.launch()
    assert gate.process.wait(20) == 1
    gate.process = None
    with open(gate.stderr, encoding="utf-8") as f:
        said["start"] = f.read()
    shutil.copy(running.config, running.config + ".kept")
    try:
        shutil.copy(gate.config, running.config)
        with pytest.raises(wire.ServerError) as e:
            console(running).query("RELOAD")
        said["reload"] = e.value.fields["M"]
    finally:
        shutil.move(running.config + ".kept", running.config)

    def faults(text):
        return {re.sub(r"^.*postern\.ini", "postern.ini", r) for r in text.splitlines()
                if re.search(r"postern\.ini:\d+: \[", r) and "warning" not in r}

    def keys(text):
        return sorted(re.search(r"\] (\w+): ", r).group(1) for r in faults(text))
    assert keys(said["check"]) == ["address", "audit_file", "credentials", "http_listen", "jwks_file",
                                   "max_clients", "plan", "tls_cert"]
    assert faults(said["start"]) == faults(said["check"])
    # The running gate lies in a folder of its own, where relative names mean other files.
    assert keys(said["reload"]) == keys(said["check"])


# What is wrong with one setting: it is told once, in one way.
ONCE = {"tls_ciphers of two pairs": (lambda s: {"listener main": {
            "tls_cert": f"{s.server_rsa[0]}, {s.server_rsa[0]}", "tls_key": f"{s.server_rsa[1]}, {s.server_rsa[1]}",
            "tls_ciphers": "none-that-is-known"}}, "tls_ciphers"),
        "tls_client_ca of two pairs": (lambda s: {"listener main": {
            "tls_cert": f"{s.server_rsa[0]}, {s.server_rsa[0]}", "tls_key": f"{s.server_rsa[1]}, {s.server_rsa[1]}",
            "tls_client_auth": "optional", "tls_client_ca": "/no/such/ca.crt"}}, "tls_client_ca"),
        "url of another scheme": (lambda s: {"redis": {"url": "http://x"}}, "url"),
        "url with a password": (lambda s: {"redis": {"url": "redis://u:sesame@h"}}, "url")}


@pytest.mark.parametrize("name", ONCE)
def test_one_fault_is_told_once(make_gate, stand, name):
    make, key = ONCE[name]
    gate = make_gate(make(stand), start=False)
    gate.write()
    done = gate.check()
    assert len([r for r in done.stderr.splitlines() if f"] {key}: " in r]) == 1, done.stderr
    assert re.search(r": 1 fault$", done.stderr, re.MULTILINE), done.stderr
    assert "sesame" not in done.stderr


MISSING = [("postern", "users_file"), ("listener main", "tls_cert"), ("listener main", "tls_key"),
           ("listener main", "tls_client_ca"), ("issuer stand", "jwks_file"), ("redis", "password_file"),
           ("cluster main", "credentials"), ("cluster main", "tls_ca"), ("cluster main", "tls_cert"),
           ("cluster main", "tls_key")]


# Credentials may be a folder.
UNREADABLE = [(*row, what) for what in ("missing", "folder") for row in MISSING if (row[1], what) != ("credentials", "folder")]


@pytest.mark.parametrize("section, key, what", UNREADABLE, ids=lambda x: x.replace(" ", "-"))
def test_file_that_cannot_be_read_is_told_in_the_systems_words(make_gate, stand, tmp_path, section, key, what):
    path = "/no/such/file" if what == "missing" else str(tmp_path)
    crt, private = stand.server_rsa
    more = {"tls_client_auth": "optional"} if key == "tls_client_ca" else \
        {"tls_cert": crt, "tls_key": private} if section == "listener main" else {}
    gate = make_gate({section: {**more, key: path}}, start=False)
    gate.write()
    done = gate.check()
    need_fault(done.stderr, section, key, "No such file or directory" if what == "missing" else "Is a directory|not an ordinary file")
    assert len([r for r in done.stderr.splitlines() if f"] {key}: " in r]) == 1, done.stderr


def test_file_that_others_may_write_is_a_fault(make_gate):
    gate = make_gate(start=False)
    gate.write()
    os.chmod(gate.config, 0o646)
    done = gate.check()
    assert done.returncode == 1 and re.search(r"postern\.ini: found mode 0646: others may write", done.stderr)


def test_shared_secret_of_its_own_group_is_no_fault(make_gate, stand):
    gate = make_gate({"issuer stand": {"algorithms": "HS256", "jwks_file": hs_set(stand, 0o640)}}, start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("exists", [False, True], ids=["folder", "file"])
def test_audit_file_that_this_user_may_not_write(make_gate, tmp_path, exists):
    """Root may write everywhere: so as nobody, who may not read the rest either."""
    trail = tmp_path / "audit.jsonl"
    if exists:
        trail.write_text("")
        trail.chmod(0o600)
    open_to_all(tmp_path)
    gate = make_gate({"postern": {"audit_file": trail}}, start=False)
    gate.write()
    argv = [gate.binary, "--check", "--config", gate.config]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
    else:
        tmp_path.chmod(0o555)
        if exists:
            trail.chmod(0o400)
    done = proc.run(argv, check=False)
    assert done.returncode == 1
    need_fault(done.stderr, "postern", "audit_file",
               "it cannot be written: Permission denied" if exists else "the folder .*: Permission denied")


def test_what_the_stand_has_needs_no_advice(make_gate):
    gate = make_gate({"postern": {"user": "nobody"}} if os.geteuid() == 0 else None, start=False)
    gate.write()
    done = gate.check()
    rows = [r for r in done.stderr.splitlines() if "may not read" not in r and "may not write" not in r]
    assert done.returncode == 0 and not rows, done.stderr


def test_audit_trail_in_the_log_is_advised_against(make_gate):
    gate = make_gate({"postern": {"log_file": "both", "audit_file": "both"}}, start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 0 and re.search(r"warning.*log_file.*which is audit_file of \[postern\] too", done.stderr), done.stderr


def test_check_makes_no_file(make_gate):
    gate = make_gate(start=False)
    gate.write()
    before = sorted(os.listdir(gate.folder))
    assert gate.check().returncode == 0
    assert sorted(os.listdir(gate.folder)) == before


def test_check_of_a_file_that_is_in_force_finds_no_port_taken(running):
    running.write()
    done = running.check()
    assert done.returncode == 0, done.stderr


# ---- advice ----

def soon(stand):
    return certificate(stand, "soon", -10, 3), "listener main", "tls_cert", r"/CN=soon expires on 20"


def as_root(stand):
    return {"postern": {"user": None}}, "postern", "user", "the process stays root"


def role_of_a_token(stand):
    return {"listener main": {"scram_users": "*_batch, r*"}}, "listener main", "scram_users", "which takes rw too"


def more_clients_than_files(stand):
    return {"postern": {"max_clients": 1000000}}, "postern", "max_clients", r"found 1000000; the limit of open files is \d+"


def role_without_password(stand):
    return ({"cluster main": {"tls_cert": None, "tls_key": None}, "tenant metered": {"roles": "rw, nobody"}}, "tenant metered",
            "roles", "found nobody, in the database metered_nobody".replace("nobody,", '"nobody",'))


def much_memory(stand):
    return {"postern": {"memory_limit": "1024GB"}}, "postern", "memory_limit", "found 1 TB, more than the .* that the process may have"


def much_of_one_tenant(stand):
    return ({"postern": {"memory_limit": "64MB", "tenant_memory_limit": "65MB"}}, "postern", "tenant_memory_limit",
            r"found 65 MB, more than the 64 MB of all tenants together \(memory_limit\)")


def long_messages(stand):
    return ({"postern": {"memory_limit": "64MB", "max_message": "65MB"}}, "postern", "max_message",
            r"is 65 MB, more than the 64 MB that may be held for all clients together \(memory_limit\)")


def long_messages_of_one(stand):
    return ({"postern": {"tenant_memory_limit": "1536kB"}}, "postern", "max_message",
            r"is 16 MB, more than the 1.5 MB that may be held for a tenant \(tenant_memory_limit\)")


def tokens_in_clear(stand):
    return ({"listener plain": {"address": "0.0.0.0", "port": 0, "tls": "off"}}, "listener plain", "tls",
            'found "off" on 0.0.0.0: without TLS a token')


def password_for_two(stand):
    return ({"postern": {"salt_key_file": stand.users_file}}, "postern", "users_file", r"which is salt_key_file of \[postern\] too")


def monitor_without_password(stand):
    return ({"cluster main": {"tls_cert": None, "tls_key": None, "monitor_user": "watch"}}, "cluster main", "monitor_user",
            "found \"watch\": the cluster's credentials have no password")


ADVICE = [monitor_without_password, soon, as_root, role_of_a_token, more_clients_than_files, role_without_password, much_memory, much_of_one_tenant,
          long_messages, long_messages_of_one, tokens_in_clear, password_for_two]


@pytest.mark.parametrize("advice", ADVICE)
def test_advice_is_given_by_check_start_and_reload(make_gate, stand, console, advice):
    if advice is as_root and os.geteuid() != 0:
        pytest.skip("only as root")
    overrides, section, key, words = advice(stand)
    gate = make_gate(overrides, start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 0, done.stderr

    def warned(text):
        return any(("warning" in r and re.search(words, r)) for r in text.splitlines() if f"[{section}] {key}" in r)
    assert warned(done.stderr), done.stderr
    gate.start()
    assert warned(gate.log()), gate.log()
    before = len(gate.log())
    gate.reload()
    gate.await_log("is in force", before)
    assert warned(gate.log()[before:])
    notices = [wire.error_fields(body) for kind, body in console(gate).ask(wire.query("RELOAD")) if kind == "N"]
    assert any(re.search(words, n["M"]) and n["S"] == "WARNING" for n in notices), notices


@pytest.fixture
def plain_gate(stand, tmp_path):
    """One that names no file of the stand's, in a folder that everybody may enter."""
    from stand.gate import Gate
    open_to_all(tmp_path)
    home = tmp_path / "gate"
    home.mkdir()
    home.chmod(0o777)
    nobody = tmp_path / "nobody.txt"
    nobody.write_text("")
    nobody.chmod(0o600)
    if os.geteuid() == 0:
        shutil.chown(nobody, "nobody")
    gate = Gate(stand.binary, str(home), [
        ("postern", "", [("user", "nobody"), ("log_file", "postern.log"), ("audit_file", "audit.jsonl"),
                         ("http_listen", "127.0.0.1:0"), ("ready_file", "postern.ready"), ("workers", 1),
                         ("users_file", str(nobody))]),
        ("listener main", "", [("address", "127.0.0.1"), ("port", 0), ("tls", "off")]),
        ("tenant *", "", []),
        ("cluster main", "", [("hosts", f"127.0.0.1:{stand.postgres.port}"), ("tls", "disable"),
                              ("discovery", "off"), ("require_auth", "none")]),
        ("database *", "", [("cluster", "main")])])
    yield gate
    end_well(gate)


def test_root_that_becomes_a_user_can_reload(plain_gate):
    """Log and audit trail, which root has made, are opened anew by the user."""
    if os.geteuid() != 0:
        pytest.skip("only as root")
    gate = plain_gate.start(want_ready=False)
    gate.reload({"postern": {"log_level": "debug"}})
    gate.await_log("is in force|reload refused")
    assert "reload refused" not in gate.log()
    assert os.stat(gate.audit_file).st_uid == os.stat(gate.log_file).st_uid != 0


def test_what_the_user_may_not_read_is_advice(plain_gate, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only as root")
    secret = tmp_path / "users.txt"
    secret.write_text("")
    secret.chmod(0o600)
    plain_gate.write({"postern": {"users_file": secret}})
    done = plain_gate.check()
    assert done.returncode == 0, done.stderr
    assert re.search(r"warning: .*\[postern\] users_file: user nobody may not read .*users.txt \(Permission denied\)",
                     done.stderr), done.stderr
    assert len(re.findall("warning", done.stderr)) == 1, done.stderr


def test_user_that_root_becomes_is_no_advice(make_gate, stand):
    if os.geteuid() != 0:
        pytest.skip("only as root")
    gate = make_gate({"postern": {"user": "nobody"}}, start=False)
    gate.write()
    done = gate.check()
    assert done.returncode == 0 and "stays root" not in done.stderr, done.stderr
