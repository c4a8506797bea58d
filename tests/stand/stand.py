"""All of it together: certificates, PostgreSQL, nodes, Redis, keys, users, gates."""
# SPDX-License-Identifier: Apache-2.0
import json
import os
import re
import secrets
import shutil
import tempfile

from . import proc, tokens
from .certs import Authority
from .gate import Gate
from .nodes import Node
from .postgres import MONITOR, MONITOR_DB, Postgres
from .proc import StandError, run
from .redis import Redis

METERED_QPS = 20
MARKER = ".postern-stand"
PARTS = ("tls", "keys", "log", "gate", "gates", "nodes", "redis", "postgres", "sockets")


def _write(path, text, mode=0o644):
    with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, mode)) as f:
        f.write(text)
    os.chmod(path, mode)


class Stand:
    """Builds itself in `folder` (made when it is not there) from the programs in `build`."""

    def __init__(self, folder, build, *, workers=2):
        self.folder = os.path.abspath(folder)
        self.build = os.path.abspath(build)
        self.binary = os.environ.get("POSTERN_BINARY") or os.path.join(self.build, "postern")
        self.node_program = os.environ.get("STAND_NODE") or \
            os.path.join(self.build, "tests", "tools", "node")
        self.workers = workers
        self.ipv6 = proc.has_ipv6()
        self.gates = []
        self.gate_count = 0
        self.elsewhere = None
        os.makedirs(self.folder, exist_ok=True)
        for part in PARTS:
            os.makedirs(self.path(part), exist_ok=True)
        os.rmdir(self.path("postgres"))
        _write(self.path(MARKER), "made by Postern's test stand\n")

    def path(self, *names):
        return os.path.join(self.folder, *names)

    # ---- building ----

    def start(self, pgbench_scale=None, say=lambda text: None):
        self._certificates()
        say("certificates")
        self.postgres.build()
        self.postgres.start()
        self.postgres.populate()
        if pgbench_scale:
            self.postgres.pgbench_tables(pgbench_scale)
        say(f"PostgreSQL on port {self.postgres.port}")
        self.nodes = []
        for n in (1, 2, 3):
            node = Node(self.node_program, f"node {n}", f"127.0.0.1:{self.postgres.port}",
                        self.path("log", f"node{n}.log"), f"zone{n}")
            node.start()
            self.nodes.append(node)
        self.list_nodes()
        say("nodes on ports " + ", ".join(str(n.port) for n in self.nodes))
        self.redis = Redis(self.path("redis"), self.path("log", "redis.log"))
        self.redis.start()
        say(f"Redis on port {self.redis.port}")
        self._identities()
        say("signing keys, users, credentials")
        return self

    def _certificates(self):
        self.authority = Authority(self.path("tls"))
        self.server_rsa = self.authority.server("server-rsa", "rsa")
        self.server_ecdsa = self.authority.server("server-ecdsa", "ecdsa")
        self.node_client = self.authority.client("node-client", "postern-gate")
        self.client = self.authority.client("client", "acme application")
        folder = self.path("postgres")
        if not self._postgres_may_enter():
            folder = self.elsewhere = tempfile.mkdtemp(prefix="postern-pg-")
            os.chmod(folder, 0o755)
            folder = os.path.join(folder, "postgres")
        self.postgres = Postgres(folder, self.authority, self.path("log", "postgres.log"), self.ipv6)

    def _postgres_may_enter(self):
        """The server refuses to run as root, and its user may not be let into our folder."""
        return run(["test", "-x", self.folder], check=False, user="postgres").returncode == 0

    def list_nodes(self):
        """Lets yb_servers() name the nodes as they are now."""
        self.postgres.set_servers([(n.host, n.port, "primary", n.zone) for n in self.nodes])

    def _identities(self):
        self.signing_key = tokens.Key(self.path("keys", "signing.pem"), "stand-es", "ES256")
        self.rsa_key = tokens.Key(self.path("keys", "signing-rsa.pem"), "stand-rs", "RS256")
        self.jwks = self.path("keys", "jwks.json")
        self._key_set(self.signing_key, self.rsa_key)
        self.scram_user, self.scram_password = "acme_batch", secrets.token_urlsafe(12)
        self.admin_user, self.admin_password = "admin", secrets.token_urlsafe(12)
        self.users_file = self.path("gate", "users.txt")
        _write(self.users_file, f"""\
# user          verifier (postern scram makes it)   tenant  roles  [plan]
"{self.scram_user}"  "{self.scram(self.scram_password)}"  acme  rw,ro  standard
"{self.admin_user}"  "{self.scram(self.admin_password)}"  -  -
""", 0o600)
        self.credentials = self.path("gate", "credentials.txt")
        rows = [f'"{role}" "{password}"' for role, password in self.postgres.passwords.items()
                if role != self.postgres.superuser]
        _write(self.credentials, "\n".join(rows) + "\n", 0o600)

    def _key_set(self, *keys):
        """The issuer's public keys: by the gate's own program when it is built."""
        if not os.path.exists(self.binary):
            tokens.write_jwks(self.jwks, keys)
            return
        argv = [self.binary, "jwks"]
        for key in keys:
            argv += ["--key", key.path, "--kid", key.kid, "--alg", key.alg]
        _write(self.jwks, run(argv).stdout)

    def scram(self, password):
        """A verifier: by the gate's own program when it is built."""
        if not os.path.exists(self.binary):
            return tokens.scram_verifier(password)
        return run([self.binary, "scram"], stdin=password + "\n").stdout.strip()

    # ---- tokens ----

    def token(self, tenant, role="rw", /, lifetime=86400, key=None, header=None, **more):
        """A token of the stand's issuer, signed without the gate's help."""
        return tokens.token(key or self.signing_key, tokens.claims(tenant, role, lifetime, **more),
                            header)

    def mint(self, tenant, role="rw", lifetime="24h", pad=None):
        """The same by `postern token`, as a user of the gate would have it."""
        argv = [self.binary, "token", "--key", self.signing_key.path, "--kid", self.signing_key.kid,
                "--alg", self.signing_key.alg, "--issuer", tokens.ISSUER,
                "--audience", tokens.AUDIENCE, "--tenant", tenant, "--role", role,
                "--lifetime", lifetime, "--subject", f"{tenant}-application"]
        if pad:
            argv += ["--pad", str(pad)]
        return run(argv).stdout.strip()

    # ---- gates ----

    def sections(self, folder, fixed_ports=False):
        """The configuration of a gate in `folder`, as Gate takes it."""
        def rel(path):
            return os.path.relpath(path, folder)

        def port(host="127.0.0.1"):
            return proc.free_port(host) if fixed_ports else 0

        certificate = [
            ("tls_cert", ", ".join(rel(c[0]) for c in (self.server_rsa, self.server_ecdsa))),
            ("tls_key", ", ".join(rel(c[1]) for c in (self.server_rsa, self.server_ecdsa)))]
        programs = ("scram_users", "*_batch", "Names of programs that cannot hold a token, whether or not there is such a user.")
        addresses = "127.0.0.1, ::1" if self.ipv6 else "127.0.0.1"
        sockets = self.path("sockets", os.path.basename(folder))
        os.makedirs(sockets, exist_ok=True)

        def database(tenant, mode, size):
            return [("cluster", "main"), ("dbname", tenant), ("pool_mode", mode),
                    ("pool_size", size)]

        tenants = [
            (f"tenant {name}",
             "Which databases a tenant's tokens may name, which role each claim stands for,\n"
             "and the plan." if name == "acme" else "",
             [("databases", bases), ("database_role", "${tenant}_${role}"), ("plan", plan),
              ("roles", roles)])
            for name, bases, plan, roles in (
                ("acme", "acme, acme_session, acme_pool1", "standard",
                 "rw, ro, md5, password, cert, replication"),
                ("globex", "globex, globex_session", "standard", "rw, ro"),
                ("metered", "metered", "metered", "rw, ro"))]
        return [
            ("postern",
             "One gate in front of a cluster of three nodes. `postern --check --config FILE` reads\n"
             "this file as a reload (SIGHUP) would and names every fault.",
             [("workers", self.workers), ("log_level", "info"), ("log_file", "postern.log"),
              ("audit_file", "audit.jsonl"), ("http_listen", f"127.0.0.1:{port()}"),
              ("pid_file", "postern.pid"), ("ready_file", "postern.ready"),
              ("users_file", rel(self.users_file),
               "Programs that cannot hold a token log in as one of these, by SCRAM-SHA-256."),
              ("admin_users", self.admin_user, "Who may use the console, the database `postern`."),
              ("drain_timeout", "10s")]),
            ("redis", "Where the gates of a fleet share their limits.",
             [("url", f"redis://127.0.0.1:{self.redis.port}/0"),
              ("password_file", rel(self.redis.password_file)),
              # A test's gates share nothing unless they are told to.
              ("prefix", None if folder == self.path("gate") else os.path.basename(folder)),
              ("away", "share", "While Redis is away each gate holds to its share of the limits.")]),
            ("listener main", "Tokens come as the password, inside TLS.",
             [("address", addresses), ("port", port()), ("tls", "require"), *certificate, programs]),
            ("listener oauth",
             "The same for clients that speak OAUTHBEARER (libpq 18 and later).",
             [("address", "127.0.0.1"), ("port", port()), ("tls", "require"), *certificate,
              ("auth", "oauthbearer"), programs]),
            ("listener local", "A socket for programs beside the gate; no TLS is needed there.",
             [("address", sockets), ("port", 5432), ("tls", "off"), programs]),
            ("issuer stand", "Whose tokens are taken, and by which keys.",
             [("issuer", tokens.ISSUER), ("audience", tokens.AUDIENCE), ("tenants", "*"),
              ("jwks_file", rel(self.jwks)), ("algorithms", "ES256, RS256"),
              ("tenant_claim", "tenant"), ("roles_claim", "roles")]),
            ("plan standard", "Limits that are really checked and that nobody here reaches.",
             [("max_connections", 100000), ("connections_per_second", 100000),
              ("queries_per_second", 500000)]),
            ("plan metered", "Limits that are soon reached.",
             [("max_connections", 50), ("queries_per_second", METERED_QPS)]),
            *tenants,
            ("cluster main",
             "The nodes to start from; yb_servers() tells of the others. The gate logs in with\n"
             "the roles' own passwords and checks each node's certificate.",
             [("hosts", ", ".join(f"{n.host}:{n.port}" for n in self.nodes)),
              ("tls", "verify-full"), ("tls_ca", rel(self.authority.crt)),
              ("tls_cert", rel(self.node_client[0])), ("tls_key", rel(self.node_client[1])),
              ("credentials", rel(self.credentials)), ("monitor_user", MONITOR),
              ("monitor_database", MONITOR_DB), ("discovery_interval", "2s"),
              ("probe_interval", "500ms"), ("connect_timeout", "2s")]),
            ("database acme", "What a client may name in its DSN. One database, three ways.",
             database("acme", "transaction", 20)),
            ("database acme_session", "", database("acme", "session", 80)),
            ("database acme_pool1", "", database("acme", "transaction", 1)),
            ("database globex", "", database("globex", "transaction", 20)),
            ("database globex_session", "", database("globex", "session", 80)),
            ("database metered", "", database("metered", "transaction", 5)),
        ]

    def gate(self, overrides=None, *, name=None, fixed_ports=False):
        """A gate that is not started yet. Its name is a folder under gates/."""
        self.gate_count += 1
        if name is None:
            folder = self.path("gates", f"g{self.gate_count}")
        else:
            folder = self.path(name)
        os.makedirs(folder, exist_ok=True)
        gate = Gate(self.binary, folder, self.sections(folder, fixed_ports), overrides)
        gate.sockets = self.path("sockets", os.path.basename(folder))
        self.gates.append(gate)
        return gate

    # ---- the end, and what outlives us ----

    def stop(self):
        """Ends everything; StandError when a gate did not end well."""
        bad = []
        for gate in self.gates:
            status = gate.stop()
            if status:
                bad.append(f"{gate.folder}: exit status {status}\n{proc.tail(gate.stderr)}")
        for node in getattr(self, "nodes", []):
            node.stop()
        for part in ("redis", "postgres"):
            if hasattr(self, part):
                getattr(self, part).stop()
        if self.elsewhere:
            shutil.rmtree(self.elsewhere, ignore_errors=True)
        if bad:
            raise StandError("a gate did not end well:\n" + "\n".join(bad))

    def processes(self):
        """Everything that runs, in the order in which it must end."""
        out = [g.process for g in self.gates if g.process]
        out += [n.process for n in self.nodes if n.process]
        return out + [self.redis.process, self.postgres.process]

    def leave_running(self):
        """Writes down what runs, for --down, and lets go of it."""
        rows = [{"name": p.name, "pid": p.pid, "start": p.start, "how": int(p.how)}
                for p in self.processes()]
        _write(self.path("stand.json"), json.dumps(
            {"processes": rows, "elsewhere": self.elsewhere}, indent=1) + "\n", 0o600)
        for process in self.processes():
            process.forget()


def is_running(folder):
    """Whether a stand that was left running in the folder is still there."""
    try:
        with open(os.path.join(folder, "stand.json"), encoding="utf-8") as f:
            rows = json.load(f)["processes"]
    except FileNotFoundError:
        return False
    return any(proc.started_at(r["pid"]) == r["start"] for r in rows)


def end(folder):
    """Ends a stand that was left running; the names of what had to be killed."""
    record = os.path.join(folder, "stand.json")
    try:
        with open(record, encoding="utf-8") as f:
            kept = json.load(f)
    except FileNotFoundError:
        raise StandError(f"{folder}: no stand was left running here") from None
    forced = proc.end_by_record(kept["processes"])
    if kept["elsewhere"] and re.search(r"/postern-pg-[^/]+$", kept["elsewhere"]):
        shutil.rmtree(kept["elsewhere"], ignore_errors=True)
    os.unlink(record)
    return forced


def clear(folder):
    """Makes room for a new stand in a folder that is empty or held one before."""
    if os.path.isdir(folder) and os.listdir(folder) and \
            not os.path.exists(os.path.join(folder, MARKER)):
        raise StandError(f"{folder}: is not empty and holds no earlier stand")
    if is_running(folder):
        raise StandError(f"{folder}: a stand is running here; end it with --down --dir {folder}")
    for part in PARTS:
        shutil.rmtree(os.path.join(folder, part), ignore_errors=True)
