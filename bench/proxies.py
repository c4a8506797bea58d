"""The stand of the bench: one PostgreSQL and Redis, and the proxies in front of them."""
# SPDX-License-Identifier: Apache-2.0
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from stand import proc
from stand.postgres import Postgres
from stand.proc import Process, StandError, run
from stand.redis import Redis
from stand.stand import Stand

POOL = 20
ROLE = "acme_rw"
DATABASE = "acme"

# What the stand allows, and plaintext: both proxies reach the database without TLS.
HBA = """\
local all all peer
host  all all 127.0.0.1/32 scram-sha-256
host  all all ::1/128      scram-sha-256
"""


class Database(Postgres):
    def build(self):
        super().build()
        self._file(os.path.join(self.folder, "data"), "pg_hba.conf", HBA)


class BenchStand(Stand):
    """A stand without nodes: nothing lies between a proxy and the database."""

    def start(self, pgbench_scale=1, say=lambda text: None):
        self._certificates()
        self.postgres = Database(self.postgres.folder, self.authority, self.postgres.log, self.ipv6)
        self.postgres.build()
        self.postgres.start()
        self.postgres.populate()
        self.postgres.pgbench_tables(pgbench_scale)
        self.nodes = []
        self.redis = Redis(self.path("redis"), self.path("log", "redis.log"))
        self.redis.start()
        self._identities()
        say(f"PostgreSQL on port {self.postgres.port}, Redis on port {self.redis.port}")
        return self

    def certificate(self, kind):
        return self.server_rsa if kind == "rsa" else self.server_ecdsa


def say(text):
    print(text, flush=True)


def in_stand(build, do):
    """do(stand, load average before) with a stand that is not started yet; all that was started is ended.
    The exit status."""
    proc.exit_on_signals()
    # A shell that starts us in the background has SIGINT ignored, and so would what we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tempfile.mkdtemp(prefix="postern-bench-")
    os.chmod(folder, 0o755)
    stand = BenchStand(folder, build, workers=1)
    try:
        do(stand, os.getloadavg())
    except (StandError, OSError, subprocess.SubprocessError) as e:
        print(f"FAILED: {e}", file=sys.stderr)
        return 1
    finally:
        proc.stop_everything()
        if stand.elsewhere:
            shutil.rmtree(stand.elsewhere, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


class Proxy:
    """What the bench needs to know of one: pid, port and the password its clients give."""

    prepared = True
    note = ""
    secrets = ()  # one for each part of its clients

    def client_environment(self, stand, tls, secret=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(PGHOST="localhost", PGHOSTADDR="127.0.0.1", PGPORT=str(self.port), PGUSER=ROLE,
                   PGDATABASE=DATABASE, PGPASSWORD=secret or self.secrets[0], PGGSSENCMODE="disable",
                   PGSSLMODE="verify-full" if tls else "disable",
                   PGSSLROOTCERT=stand.authority.crt)
        return env


def leave_out_unknown(gate):
    """An earlier build knows fewer settings than the stand writes."""
    gate.write()
    told = run([gate.binary, "--check", "--config", gate.config], check=False).stderr
    for section, key in re.findall(r"\[(.+?)\] (\w+): unknown key", told):
        gate.write({section: {key: None}})


class Postern(Proxy):
    def __init__(self, stand, name, *, workers=1, limits=True, certificate="ecdsa", build=None,
                 subjects=1, share=None, more=None):
        self.name = name
        binary = os.path.join(os.path.abspath(build), "postern") if build else stand.binary
        crt, key = stand.certificate(certificate)
        plan = {} if limits else {"max_connections": 0, "connections_per_second": 0,
                                  "queries_per_second": 0}
        self.gate = stand.gate({
            "postern": {"workers": workers, "audit_file": None, "max_clients": 20000, **(more or {})},
            "listener main": {"address": "127.0.0.1", "tls": "allow", "tls_cert": crt,
                              "tls_key": key},
            "listener oauth": None, "listener local": None,
            "redis": {} if limits else None,
            "plan standard": plan,
            "database acme": {"pool_size": POOL, "share": share},
            "cluster main": {"hosts": f"127.0.0.1:{stand.postgres.port}", "tls": "disable",
                             "tls_ca": None, "tls_cert": None, "tls_key": None,
                             "discovery": "off", "probe_interval": "5s"}})
        self.secrets = [stand.token("acme", "rw", sub=f"subject {n}") for n in range(subjects)]
        self.gate.binary = binary
        self.version = run([binary, "--version"]).stdout.strip()
        if build:
            leave_out_unknown(self.gate)
        self.gate.start()
        self.pid, self.port = self.gate.pid, self.gate.port()

    def stop(self):
        status = self.gate.stop()
        if status:
            raise StandError(f"{self.name} ended with status {status}:\n"
                             f"{proc.tail(self.gate.stderr)}{proc.tail(self.gate.log_file)}")


class PgBouncer(Proxy):
    """From PATH, or from the root of another distribution, run with its own loader."""

    def __init__(self, stand, name, argv, version, certificate="ecdsa", auth="plain"):
        self.name, self.version, self.auth = name, version, auth
        self.prepared = version >= (1, 21)
        if not self.prepared:
            self.note = "no prepared statements in transaction mode before 1.21"
        self.secrets = [stand.postgres.passwords[ROLE]]
        # Not root: PgBouncer refuses that. The stand knows of a folder that lets postgres in.
        self.folder = tempfile.mkdtemp(prefix="pgbouncer-", dir=stand.elsewhere or stand.folder)
        os.chmod(self.folder, 0o755)
        user = "postgres" if os.geteuid() == 0 else None
        crt, key = stand.certificate(certificate)
        for source, target in ((crt, "server.crt"), (key, "server.key"),
                               (stand.authority.crt, "ca.crt")):
            shutil.copy(source, self._path(target))
        self._write("users.txt", f'"{ROLE}" "{self.secrets[0]}"\n')
        attempts = 5
        while True:
            self.port = proc.free_port()
            self._write("pgbouncer.ini", self._configuration(stand))
            for path in (self.folder, *glob.glob(self._path("*"))):
                if user:
                    row = pwd.getpwnam(user)
                    os.chown(path, row.pw_uid, row.pw_gid)
            self.process = Process(name, [*argv, self._path("pgbouncer.ini")], self._path("log"),
                                   cwd=self.folder, user=user)
            self.pid = self.process.pid
            try:
                self.process.ready(20, lambda: "process up" in proc.tail(self._path("log")))
                return
            except StandError:
                self.process.stop()
                attempts -= 1
                if not attempts:
                    raise

    def _configuration(self, stand):
        more = "max_prepared_statements = 500\n" if self.prepared else ""
        return f"""\
[databases]
{DATABASE} = host=127.0.0.1 port={stand.postgres.port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = {self.auth}
auth_file = {self._path("users.txt")}
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 20000
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = {self._path("server.crt")}
client_tls_key_file = {self._path("server.key")}
server_tls_sslmode = disable
{more}"""

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _write(self, name, text):
        with open(self._path(name), "w", encoding="ascii",
                  opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(text)

    def stop(self):
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def pgbouncer_version(argv):
    m = re.search(r"PgBouncer (\d+)\.(\d+)", run([*argv, "--version"]).stdout)
    if not m:
        raise StandError(f"{' '.join(argv)} does not tell its version")
    return int(m[1]), int(m[2])


def find_pgbouncers(program=None, root=None, path=True):
    """[(name, argv, version)]: the one in PATH, a program that is given, one in a root of its
    own; the same version only once."""
    found = {}
    candidates = []
    if path:
        on_path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        candidates += [[on_path]] if on_path else []
    if program:
        candidates.append([program])
    if root:
        root = os.path.abspath(root)
        loaders = glob.glob(os.path.join(root, "lib*/ld-linux-*.so.*"))
        if not loaders:
            raise StandError(f"{root}: no loader in lib*/")
        libraries = [d for pattern in ("lib/*-linux-gnu*", "usr/lib/*-linux-gnu*")
                     for d in glob.glob(os.path.join(root, pattern))]
        candidates.append([loaders[0], "--library-path", ":".join(libraries),
                           os.path.join(root, "usr/sbin/pgbouncer")])
    for argv in candidates:
        version = pgbouncer_version(argv)
        found.setdefault(version, (f"PgBouncer {version[0]}.{version[1]}", argv, version))
    return list(found.values())
