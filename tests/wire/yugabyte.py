"""A tserver that speaks as YugabyteDB does, where that differs from PostgreSQL.

It stands before the stand's PostgreSQL and passes messages on. What YugabyteDB answers otherwise is
put into a text of SQL before it goes on, so that transactions, pipelines and skipped messages stay
as the server has them. docs/yugabytedb.md says where each difference is from.
"""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import re
import secrets
import select
import socket
import struct
import threading
from dataclasses import dataclass, field

import fake
from stand import wire

SCHEMA = "yb"


@dataclass(frozen=True)
class Release:
    """What differs between releases. listen: "ignored" (a warning), "off" (0A000) or "on"."""
    name: str
    version: str
    listen: str
    advisory_locks: bool

    @property
    def database(self):
        return "yb_" + re.sub(r"\W", "_", self.name)


RELEASES = {row.name: row for row in (
    Release("2024.2", "11.2-YB-2024.2.6.1-b0", "ignored", False),
    Release("2025.1", "15.2-YB-2025.1.4.0-b0", "ignored", True),
    Release("2025.2", "15.12-YB-2025.2.3.0-b0", "off", True))}

# pg_locks is a view over yb_lock_status(), which asks every node; a lock that is younger than
# yb_locks_min_txn_age is left out of the answer.
LOCK_STATUS = """
CREATE TABLE yb.settings (lock_status text);
INSERT INTO yb.settings VALUES ('refused');
CREATE FUNCTION yb.lock_status() RETURNS TABLE (locktype text, pid int)
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
  DECLARE mode text; BEGIN
    SELECT s.lock_status INTO mode FROM yb.settings s;
    IF mode = 'refused' THEN
      RAISE insufficient_privilege USING MESSAGE = 'permission denied: user must must be a superuser'
        ' or a member of the yb_db_admin role to view lock status';
    ELSIF mode = 'unavailable' THEN
      RAISE invalid_parameter_value USING MESSAGE = 'lock status is unavailable';
    END IF; -- 'young': there is nothing old enough to be told
  END $$;
CREATE VIEW yb.pg_locks AS SELECT * FROM yb.lock_status();
"""
NO_ADVISORY_LOCKS = """
CREATE FUNCTION yb.no_advisory_locks() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  RAISE feature_not_supported USING MESSAGE = 'advisory locks are not yet implemented';
END $$;
CREATE FUNCTION yb.pg_advisory_lock(bigint) RETURNS void LANGUAGE sql AS 'SELECT yb.no_advisory_locks()';
CREATE FUNCTION yb.pg_try_advisory_lock(bigint) RETURNS bool LANGUAGE sql AS
  'SELECT yb.no_advisory_locks() IS NULL';
CREATE FUNCTION yb.pg_advisory_unlock(bigint) RETURNS bool LANGUAGE sql AS
  'SELECT yb.no_advisory_locks() IS NULL';
CREATE FUNCTION yb.pg_advisory_unlock_all() RETURNS void LANGUAGE sql AS 'SELECT yb.no_advisory_locks()';
"""
# A session's locks are rows of a table of the cluster, not entries in the server's own lock table:
# DISCARD ALL does not see them. They are gone with the server process, as a lease that ends.
ADVISORY_LOCKS = """
CREATE TABLE yb.session_locks (key bigint PRIMARY KEY, pid int);
CREATE FUNCTION yb.pg_try_advisory_lock(bigint) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  DELETE FROM yb.session_locks l WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid);
  INSERT INTO yb.session_locks VALUES ($1, pg_backend_pid()) ON CONFLICT DO NOTHING;
  RETURN EXISTS (SELECT FROM yb.session_locks WHERE key = $1 AND pid = pg_backend_pid());
END $$;
CREATE FUNCTION yb.pg_advisory_lock(bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  WHILE NOT yb.pg_try_advisory_lock($1) LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$;
CREATE FUNCTION yb.pg_advisory_unlock(bigint) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  DELETE FROM yb.session_locks WHERE key = $1 AND pid = pg_backend_pid();
  RETURN FOUND;
END $$;
CREATE FUNCTION yb.pg_advisory_unlock_all() RETURNS void LANGUAGE sql SECURITY DEFINER AS
  'DELETE FROM yb.session_locks WHERE pid = pg_backend_pid()';
"""

LOCKS = re.compile(rb"\bpg_catalog\.pg_locks\b")
ADVISORY = re.compile(rb"(?<![.\w])(?:pg_catalog\.)?(pg_(?:try_)?advisory_(?:lock|unlock|unlock_all)\s*\()")
EVENTS = re.compile(rb"^\s*(LISTEN|UNLISTEN|NOTIFY)\b", re.IGNORECASE)
IGNORED = re.compile(rb"M(\w+) not supported yet and will be ignored\0")


def prepare(stand, release):
    """The database of a release, which acme's roles may use."""
    sql = stand.postgres.sql
    if sql(f"SELECT 1 FROM pg_database WHERE datname = '{release.database}'"):
        return
    sql(f"CREATE DATABASE {release.database}")
    sql(f"GRANT CONNECT, TEMPORARY ON DATABASE {release.database} TO acme_rw;"
        "GRANT CREATE, USAGE ON SCHEMA public TO acme_rw;"
        f"CREATE SCHEMA {SCHEMA}; GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;" + LOCK_STATUS +
        (ADVISORY_LOCKS if release.advisory_locks else NO_ADVISORY_LOCKS) +
        f"GRANT SELECT ON {SCHEMA}.pg_locks TO PUBLIC", release.database)


def read(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def raising(level, sqlstate, message):
    """A statement that says just that."""
    message = message.replace("'", "''")
    return f"DO $yb$ BEGIN RAISE {level} USING ERRCODE = '{sqlstate}', MESSAGE = '{message}'; END $yb$".encode()


@dataclass
class Fault:
    """The next `times` texts with these words are answered by this error."""
    words: bytes
    sqlstate: str
    message: str
    times: int = 1


@dataclass
class State:
    """Of one connection."""
    ignored: bytes = None  # the command whose warning has just been passed on
    local: bool = False    # SET LOCAL is under way


@dataclass
class Tserver:
    """One node. The gate reaches it without TLS and without a password."""
    stand: object
    release: Release
    faults: list = field(default_factory=list)
    texts: list = field(default_factory=list)  # all SQL that came, but for the monitor's
    refusal: tuple = None  # (SQLSTATE, message) for every login
    manager: bool = False  # YSQL Connection Manager is before it

    def __post_init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.host, self.port = self.listener.getsockname()
        self.logins = 0
        self.open = set()
        self.keys = {}  # the connection manager's: (process id and key) -> the server's own
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in list(self.open):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def fail(self, words, sqlstate, message, times=1):
        self.faults.append(Fault(words.encode(), sqlstate, message, times))

    def lock_status(self, mode):
        """What pg_locks says from now on: refused, unavailable, young."""
        self.stand.postgres.sql(f"UPDATE {SCHEMA}.settings SET lock_status = '{mode}'", self.release.database)

    def count(self, words):
        return sum(words.encode() in text for text in self.texts)

    # ---- one connection ----

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                s = self.listener.accept()[0]
                self.open.add(s)
                threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _upstream(self):
        return wire.Client(("127.0.0.1", self.stand.postgres.port), "request", ca=self.stand.authority.crt)

    def _serve(self, s):
        try:
            with contextlib.suppress(OSError, EOFError, wire.Closed), s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connection(s)
        finally:
            self.open.discard(s)

    def _connection(self, s):
        while True:
            length, code = struct.unpack("!ii", read(s, 8))
            body = read(s, length - 8)
            if code not in (80877103, 80877104):
                break
            s.sendall(b"N")
        if code == wire.CANCEL_CODE:
            with self._upstream() as up:
                up.send(struct.pack("!ii", length, code) + self.keys.get(body, body))
                with contextlib.suppress(OSError):
                    up.socket.recv(1)
            return
        words = body.decode().split("\0")
        parameters = dict(zip(words[::2], words[1::2]))
        parameters.pop("", None)
        user = parameters.get("user", "")
        is_monitor = user.startswith("postern")
        if not is_monitor:
            self.logins += 1
            if self.refusal:
                s.sendall(fake.error(S="FATAL", V="FATAL", C=self.refusal[0], M=self.refusal[1]))
                return
        with self._upstream() as up:
            up.send(wire.startup(parameters, code))
            try:
                up.authenticate(self.stand.postgres.passwords[user])
            except wire.ServerError as e:
                s.sendall(fake.error(**{k: v for k, v in e.fields.items() if k in "SVCMDH"}))
                return
            s.sendall(wire.message("R", struct.pack("!i", 0)))
            state = State()
            while True:
                here, _, _ = select.select([s] if up.buffer or up.socket.pending() else [s, up.socket], [], [],
                                           0 if up.buffer or up.socket.pending() else None)
                if s in here:
                    kind = read(s, 1).decode()
                    body = read(s, struct.unpack("!i", read(s, 4))[0] - 4)
                    up.send(wire.message(kind, body if is_monitor else self._asked(state, kind, body)))
                if up.socket in here or up.buffer or up.socket.pending():
                    s.sendall(self._answered(state, *up.receive()))

    def _answered(self, state, kind, body):
        """The message that goes back to the gate."""
        if kind == "S" and body.startswith(b"server_version\0"):
            body = b"server_version\0" + wire.text(self.release.version)
        elif kind == "N" and IGNORED.search(body):
            state.ignored = IGNORED.search(body)[1]
        elif kind == "C" and state.ignored and body == b"DO\0":
            body, state.ignored = state.ignored + b"\0", None
        elif kind == "K" and self.manager:
            own = struct.pack("!i", len(self.keys) + 1) + secrets.token_bytes(4)
            self.keys[own] = body
            body = own
        elif kind == "S" and self.manager and state.local:
            return b""  # what SET LOCAL changes is reported by nobody
        elif kind == "Z":
            state.local = False
        return wire.message(kind, body)

    def _asked(self, state, kind, body):
        """The message that goes on to PostgreSQL."""
        state.local = state.local or (kind in "QP" and b"SET LOCAL" in body)
        if kind == "Q":
            return self._text(body[:-1]) + b"\0"
        if kind == "P":
            name, sql, rest = body.split(b"\0", 2)
            return b"\0".join((name, self._text(sql), rest))
        return body

    def _text(self, sql):
        self.texts.append(sql)
        for fault in self.faults:
            if fault.words in sql:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return raising("EXCEPTION", fault.sqlstate, fault.message)
        event = EVENTS.match(sql)
        if event and self.release.listen == "ignored":
            word = event[1].decode().upper()
            return raising("WARNING", "01000", f"{word} not supported yet and will be ignored")
        if event and self.release.listen == "off":
            return raising("EXCEPTION", "0A000", "LISTEN/NOTIFY is disabled")
        return ADVISORY.sub(rb"yb.\1", LOCKS.sub(b"yb.pg_locks", sql))
