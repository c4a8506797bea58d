"""One PostgreSQL (15 unless POSTERN_PG_BIN names another): the data set that all nodes of the stand serve."""
# SPDX-License-Identifier: Apache-2.0
import glob
import os
import re
import secrets
import shutil
import signal
import socket
import struct

from .proc import Process, StandError, await_exit, free_port, run, user_id

TENANTS = ("acme", "globex", "metered")
ROLES = ("rw", "ro")
MONITOR = "postern_monitor"
MONITOR_DB = "yugabyte"

HBA = """\
# TYPE    DATABASE USER                ADDRESS        METHOD
# Roles that log in to the database in other ways, for tests of the gate's upstream side.
hostssl   all      acme_md5            127.0.0.1/32   md5
hostssl   all      acme_password       127.0.0.1/32   password
hostssl   all      acme_cert           127.0.0.1/32   cert map=gate
hostssl   all      all                 127.0.0.1/32   scram-sha-256
hostssl   replication all              127.0.0.1/32   scram-sha-256
hostssl   all      all                 ::1/128        scram-sha-256
host      all      all                 all            reject
"""

# What a tserver answers; the columns are those of YugabyteDB.
YB_SERVERS = """
CREATE TABLE fake_yb_servers (host text, port int8, node_type text, cloud text, region text,
  zone text, public_ip text, uuid text, universe_uuid text);
CREATE FUNCTION yb_servers(OUT host text, OUT port int8, OUT num_connections int8,
  OUT node_type text, OUT cloud text, OUT region text, OUT zone text, OUT public_ip text,
  OUT uuid text, OUT universe_uuid text) RETURNS SETOF record LANGUAGE sql STABLE AS
$$ SELECT host, port, 0::int8, node_type, cloud, region, zone, public_ip, uuid, universe_uuid
   FROM fake_yb_servers $$;
GRANT SELECT ON fake_yb_servers TO {monitor};
"""


def server_folder():
    """Where the server's programs are: POSTERN_PG_BIN, or what is installed."""
    wanted = os.environ.get("POSTERN_PG_BIN")
    if wanted:
        if not os.path.exists(os.path.join(wanted, "initdb")):
            raise StandError(f"POSTERN_PG_BIN={wanted}: there is no initdb")
        return os.path.abspath(wanted)
    return bin_folder()


def bin_folder():
    """The installed programs: those of clients are always these."""
    for folder in ("/usr/lib/postgresql/15/bin", *sorted(glob.glob("/usr/lib/postgresql/*/bin"))):
        if os.path.exists(os.path.join(folder, "initdb")):
            return folder
    raise StandError("initdb was not found: install the package postgresql-15")


class Postgres:
    """max_connections 300 as a tserver has; TLS and scram-sha-256 for every host connection."""

    def __init__(self, folder, authority, log, ipv6):
        self.folder = folder
        self.authority = authority
        self.log = log
        self.ipv6 = ipv6
        self.port = None
        self.process = None
        self.superuser = "postgres"
        self.passwords = {"postgres": secrets.token_urlsafe(18)}
        self.bin = bin_folder()
        self.server = server_folder()
        # The major version: 15.
        self.version = int(re.search(r"\) (\d+)", run([os.path.join(self.server, "postgres"),
                                                       "--version"]).stdout)[1])

    def is_newer_than_programs(self):
        """Newer than the clients' programs, which are those that are installed."""
        return self.version > int(os.path.basename(os.path.dirname(self.bin)))

    def build(self):
        """initdb and configuration; the server is not started."""
        uid, gid = user_id("postgres")
        os.makedirs(self.folder, mode=0o700)
        self._let_in()
        secret = os.path.join(self.folder, "password")
        with open(secret, "w", encoding="ascii") as f:
            f.write(self.passwords["postgres"])
        for path in (self.folder, secret):
            os.chmod(path, 0o700)
            os.chown(path, uid, gid)
        data = os.path.join(self.folder, "data")
        run([os.path.join(self.server, "initdb"), "-k", "--no-sync", "-D", data, "-U", "postgres",
             "-E", "UTF8", "--locale=C", "--auth-host=scram-sha-256", "--auth-local=peer",
             "--pwfile", secret], cwd=self.folder, user="postgres")
        os.unlink(secret)
        crt, key = self.authority.server("backend", "ecdsa", common_name="stand-in tserver")
        for source, name in ((crt, "server.crt"), (key, "server.key"), (self.authority.crt, "ca.crt")):
            target = os.path.join(data, name)
            shutil.copy(source, target)
            os.chmod(target, 0o600)
            os.chown(target, uid, gid)
        self._file(data, "pg_hba.conf", HBA)
        self._file(data, "pg_ident.conf", "gate postern-gate acme_cert\n")
        addresses = "127.0.0.1, ::1" if self.ipv6 else "127.0.0.1"
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="ascii") as f:
            f.write(f"""
listen_addresses = '{addresses}'
unix_socket_directories = ''
max_connections = 300
max_prepared_transactions = 20
shared_buffers = 128MB
wal_level = logical
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum_naptime = 1h
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_ca_file = 'ca.crt'
password_encryption = 'scram-sha-256'
log_line_prefix = '%m [%p] %u@%d '
timezone = 'UTC'
log_timezone = 'UTC'
""")

    def _let_in(self):
        """The server runs as a user who may not be let into a checkout."""
        program = os.path.join(self.server, "postgres")
        if run(["test", "-x", program], check=False, user="postgres").returncode != 0:
            copy = os.path.join(self.folder, "server")
            shutil.copytree(os.path.dirname(self.server), copy, symlinks=True)
            for folder, _, _ in os.walk(copy):
                os.chmod(folder, 0o755)
            self.server = os.path.join(copy, os.path.basename(self.server))

    def _file(self, data, name, text):
        with open(os.path.join(data, name), "w", encoding="ascii") as f:
            f.write(text)

    def start(self):
        data = os.path.join(self.folder, "data")
        attempts = 5
        while True:
            # After the first start the port stays: the nodes point to it.
            port = self.port or free_port()
            process = Process("PostgreSQL", [os.path.join(self.server, "postgres"), "-D", data,
                                             "-p", str(port)],
                              self.log, cwd=self.folder, how=signal.SIGINT, user="postgres")
            pid_file = os.path.join(data, "postmaster.pid")
            try:
                process.ready(60, lambda: self._is_ready(pid_file, port))
            except StandError:
                process.stop()
                attempts -= 1
                if self.port or attempts == 0:
                    raise
                continue
            self.port, self.process = port, process
            return

    def _is_ready(self, pid_file, port):
        try:
            with open(pid_file, encoding="ascii") as f:
                if "ready" not in f.read():
                    return False
            with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                s.sendall(struct.pack("!ii", 8, 80877103))
                return s.recv(1) == b"S"
        except OSError:
            return False

    def stop(self):
        if self.process:
            self.process.stop(30)
            self.process = None

    def environment(self, role, database):
        """libpq's variables for a connection past the gate."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(PGHOST="localhost", PGHOSTADDR="127.0.0.1", PGPORT=str(self.port), PGUSER=role,
                   PGDATABASE=database, PGPASSWORD=self.passwords[role],
                   PGSSLMODE="verify-full", PGSSLROOTCERT=self.authority.crt)
        return env

    def sql(self, text, database="postgres", role="postgres"):
        """Runs SQL past the gate; rows as lists of text."""
        done = run(["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-"], stdin=text,
                   env=self.environment(role, database))
        return [line.split("\t") for line in done.stdout.splitlines()]

    def terminate(self, pid):
        """Ends a server process and waits until it has gone."""
        self.sql(f"SELECT pg_terminate_backend({pid})")
        await_exit([pid])

    def populate(self):
        """Tenants' databases and roles, and the monitor with its yb_servers()."""
        statements = []

        def role(name, extra=""):
            self.passwords[name] = secrets.token_urlsafe(18)
            statements.append(f"CREATE ROLE {name} LOGIN PASSWORD '{self.passwords[name]}' {extra};")

        role(MONITOR)
        for tenant in TENANTS:
            for kind in ROLES:
                role(f"{tenant}_{kind}")
            statements.append(f"CREATE DATABASE {tenant};")
            statements.append(f"REVOKE CONNECT, TEMPORARY ON DATABASE {tenant} FROM PUBLIC;")
            statements.append(f"GRANT CONNECT, TEMPORARY ON DATABASE {tenant} TO {tenant}_rw;")
            statements.append(f"GRANT CONNECT ON DATABASE {tenant} TO {tenant}_ro;")
        statements.append("SET password_encryption = 'md5';")
        role("acme_md5", "IN ROLE acme_ro")
        statements.append("RESET password_encryption;")
        role("acme_password", "IN ROLE acme_ro")
        role("acme_replication", "IN ROLE acme_ro REPLICATION")
        statements.append("CREATE ROLE acme_cert LOGIN IN ROLE acme_ro;")
        statements.append(f"CREATE DATABASE {MONITOR_DB};")
        statements.append(f"REVOKE CONNECT ON DATABASE {MONITOR_DB}, postgres, template1 FROM PUBLIC;")
        # The database postgres has no yb_servers(): it plays the plain PostgreSQL.
        statements.append(f"GRANT CONNECT ON DATABASE {MONITOR_DB}, postgres TO {MONITOR};")
        for tenant in TENANTS:
            statements.append(f"\\connect {tenant}")
            statements.append(f"""
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO {tenant}_rw;
GRANT USAGE ON SCHEMA public TO {tenant}_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE {tenant}_rw GRANT SELECT ON TABLES TO {tenant}_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE {tenant}_rw GRANT SELECT ON SEQUENCES TO {tenant}_ro;
SET ROLE {tenant}_rw;
CREATE TABLE greeting (id int PRIMARY KEY, words text NOT NULL);
INSERT INTO greeting VALUES (1, 'hello from {tenant}');
RESET ROLE;
""")
        statements.append(f"\\connect {MONITOR_DB}")
        statements.append(YB_SERVERS.format(monitor=MONITOR))
        self.sql("\n".join(statements))

    def pgbench_tables(self, scale=1):
        """pgbench's tables in acme, owned by acme_rw."""
        run([os.path.join(self.bin, "pgbench"), "-i", "-q", "-s", str(scale)],
            env=self.environment("acme_rw", "acme"), timeout=600)

    def set_servers(self, rows):
        """What yb_servers() answers from now on: [(host, port, node_type, zone)]."""
        values = ", ".join(
            f"('{host}', {port}, '{kind}', 'stand', 'local', '{zone}', '', '{n:032x}', '{1:032x}')"
            for n, (host, port, kind, zone) in enumerate(rows, 1))
        self.sql(f"BEGIN; DELETE FROM fake_yb_servers; INSERT INTO fake_yb_servers VALUES {values};"
                 f" COMMIT;", MONITOR_DB)
