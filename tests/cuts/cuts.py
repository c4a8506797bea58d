#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every conversation, cut at every byte, with something happening there: compared with the server.

    tests/cuts/cuts.py --build DIR [--lanes 2] [--only WORD] [--events a,b] [--modes transaction,session]
    tests/cuts/cuts.py --build DIR --sample 6      only positions that near to a message's boundaries

A case sends the first bytes of a conversation, waits until the gate has them and all answers that
they bring are there, lets the event happen, sends the rest, and looks at
  * the answers: types, columns, rows, tags, SQLSTATEs, ReadyForQuery;
  * the table, which must agree with what was told, transaction by transaction;
  * another session of the same pool of 1, which must get its own answer, and the session itself;
  * the server's processes, none of which may be left at work.

Events of the server's own world are compared with the server itself, cut in the same place: none,
cancel, terminate (session mode), close, reset, and Terminate. For the others there is an oracle:
what is documented of a loss (docs/clients.md), and of sessions that the gate ends, whose answers
are those of the undisturbed conversation up to one FATAL."""
import argparse
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import conversations  # noqa: E402
from answers import (LOSSES, STUCK, Peer, answered, check_ended, check_limit, check_loss, check_rows,  # noqa: E402
                     column_names, middles, positions, units, whole_before)
from stand import proc, wire  # noqa: E402
from stand.nodes import Node  # noqa: E402
from stand.proc import StandError  # noqa: E402
from stand.stand import Stand  # noqa: E402

ALONE = ("none", "cancel", "terminate", "node", "close", "reset", "leave", "kill")
TOGETHER = ("reload", "drain", "expire", "idle", "limit")
EVENTS = ALONE + TOGETHER
MODES = ("transaction", "session")
MANY = 40            # sessions of one event that meets all of them
FEW = 8              # server connections that the histories share
REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
                     r"check failed|do not follow the protocol", re.IGNORECASE)


# ---- one gate and one database, for one process of ours ----

class Lane:
    def __init__(self, stand, name):
        self.stand = stand
        self.name = name
        self.number = conversations.BASE
        self.gate = None
        self.nodes = []
        self.references = {}
        self.pace = 1  # seconds that the logins of many sessions took
        ended = stand.postgres.sql(f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        proc.await_exit(row[0] for row in ended) # before 13 DROP DATABASE cannot end them itself
        stand.postgres.sql(f"DROP DATABASE IF EXISTS {name}")
        stand.postgres.sql(f"CREATE DATABASE {name} OWNER acme_rw")
        stand.postgres.sql("CREATE TABLE t (id int PRIMARY KEY, words text); INSERT INTO t VALUES (1, 'there')", name, "acme_rw")
        self.admin = self.connect_admin()
        self.token = stand.token("acme")

    def connect_admin(self):
        """Past the gate, as superuser."""
        return wire.Client(("127.0.0.1", self.stand.postgres.port), "request", ca=self.stand.authority.crt,
                           timeout=60).login("postgres", self.name, self.stand.postgres.passwords["postgres"])

    def start(self, nodes=1):
        self.nodes = [Node(self.stand.node_program, f"node {n} of {self.name}", f"127.0.0.1:{self.stand.postgres.port}",
                           self.stand.path("log", f"{self.name}.log"), "zone1") for n in range(nodes)]
        for node in self.nodes:
            node.start()
        self.node = self.nodes[0]
        self.gate = self.stand.gate(self.settings(), name=f"gates/{self.name}")
        self.begin()
        return self

    def settings(self):
        name = self.name
        out = {"postern": {"workers": 1, "drain_timeout": "20s"}, "redis": {"url": None, "password_file": None, "prefix": None, "away": None},
               "listener main": {"tls": "allow", "address": "127.0.0.1"},
               "cluster main": {"hosts": ", ".join(f"127.0.0.1:{n.port}" for n in self.nodes), "discovery": "off", "probe_interval": "100ms",
                                "connect_timeout": "2s"},
               "tenant acme": {"databases": f"acme, {name}, {name}_session, {name}_few, {name}_many, {name}_many_session"}}
        for suffix, mode, size in (("", "transaction", 1), ("_session", "session", 6), ("_many", "transaction", MANY), ("_few", "transaction", FEW),
                                   ("_many_session", "session", MANY + 2)):
            out[f"database {name}{suffix}"] = {"cluster": "main", "dbname": name, "pool_mode": mode, "pool_size": size,
                                               "shards": 1, "wait_limit": "60s"}
        return out

    def begin(self):
        """The gate, and the sessions that stay."""
        self.gate.start()
        self.console = wire.Client(("127.0.0.1", self.gate.port()), "request", ca=self.stand.authority.crt,
                                   timeout=20).login(self.stand.admin_user, "postern", self.stand.admin_password)
        self.pinger = self.log_in(0, "transaction")
        self.others = {mode: self.log_in(0, mode) for mode in MODES}

    def end(self):
        for c in [self.console, self.pinger, *self.others.values()]:
            c.close()
        status = self.gate.stop()
        text = self.gate.log()
        found = REPORTS.search(text)
        if status or found:
            at = found.start() if found else len(text)
            raise StandError(f"the gate ended with status {status}: {text[max(0, at - 500):at + 3000]}")

    def close(self):
        if self.gate and self.gate.process:
            self.gate.stop()
        for node in self.nodes:
            node.stop()
        self.admin.close()

    # ---- sessions ----

    def log_in(self, number, mode, many=False, token=None):
        c = Peer(self.gate.port(), number)
        database = self.name + ("_many" if many else "") + ("" if mode == "transaction" else "_session")
        c.login("acme_rw", database, token or self.token)
        return c

    def log_in_directly(self, number):
        c = Peer(self.stand.postgres.port, number, "request", self.stand.authority.crt)
        return c.login("acme_rw", self.name, self.stand.postgres.passwords["acme_rw"])

    def ping(self):
        """The gate's one worker has handled all that reached it before."""
        self.pinger.ask(wire.sync())

    def next(self, name):
        self.number += 1
        return conversations.make(name, self.number)

    # ---- what is left ----

    def rows(self, number):
        low = number * conversations.WIDTH
        return sorted(int(r[0]) - low for r in self.admin.query(
            f"SELECT id FROM t WHERE id BETWEEN {low} AND {low + conversations.WIDTH - 1}"))

    def processes(self, more=""):
        return self.admin.query("SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE usename = 'acme_rw' "
                                f"AND datname = '{self.name}' {more}")

    def terminate(self, pid=None):
        """Ends the server processes of the lane, or one; returns when they have gone."""
        which = f"pid = {pid}" if pid else f"datname = '{self.name}' AND usename = 'acme_rw' AND pid <> {self.others['session'].key[0]}"
        ended = self.admin.query(f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}")
        proc.await_exit(row[0] for row in ended)

    def await_rest(self):
        """No server process of ours is at work or in a transaction."""
        proc.wait_for("server processes to come to rest", STUCK, lambda: not self.processes("AND state <> 'idle'"))

    def await_rest_or_read(self):
        """Every server process of ours waits for the gate."""
        seen = 0
        while seen < 2:
            seen = seen + 1 if all(r[2] == "ClientRead" for r in self.processes()) else 0

    def await_server(self, pid):
        """Past the gate: the process waits for its client."""
        seen = 0
        while seen < 3:
            rows = self.admin.query(f"SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}")
            seen = seen + 1 if not rows or rows[0][0] == "ClientRead" else 0
            time.sleep(0.004)

    def pools(self):
        messages = self.console.ask(wire.query("SHOW POOLS"))
        names = column_names(next(body for kind, body in messages if kind == "T"))
        return [dict(zip(names, row)) for row in wire.rows(messages)]

    def heal(self):
        """Sessions that the events have ended are replaced."""
        for mode, c in self.others.items():
            try:
                c.query("SELECT 1")
            except (wire.Closed, wire.ServerError, ConnectionError, TimeoutError):
                c.close()
                self.others[mode] = self.log_in(0, mode)

    def states(self, c):
        """What the gate says about a session and the pools, for the story of one that is stuck."""
        with wire.Client(("127.0.0.1", self.gate.port()), "request", ca=self.stand.authority.crt) as console:
            console.login(self.stand.admin_user, "postern", self.stand.admin_password)
            port = c.socket.getsockname()[1]
            clients = [r for r in console.query("SHOW CLIENTS") if any(str(v).endswith(f":{port}") for v in r)]
            return clients, [r for r in console.query("SHOW POOLS") if self.name + "_few" in r], console.query("SHOW NODES")

    def kill(self, c):
        """KILL of the session, by its address, if it has not ended by itself."""
        port = c.socket.getsockname()[1]
        messages = self.console.ask(wire.query("SHOW CLIENTS"))
        names = column_names(next(body for kind, body in messages if kind == "T"))
        for row in wire.rows(messages):
            row = dict(zip(names, row))
            if row["address"].endswith(f":{port}"):
                self.console.ask(wire.query(f"KILL {row['id']}"))
                return


# ---- the server itself ----

class Reference:
    """What the server does with a conversation and an event behind m messages (and a part of one)."""

    def __init__(self, lane, name):
        self.lane, self.name = lane, name
        self.known = {}
        c = lane.next(name)
        peer = lane.log_in_directly(c.number)
        self.count = [0]
        self.status = ["I"]
        due = 0
        for part in c.parts:
            peer.say(part)
            due += c.in_step and part[:1] in b"QFS"
            if not (c.breaks and part is c.parts[-1]):
                peer.take(lambda: peer.ready() >= due or part[:1] not in b"QFS" or not c.in_step, 2)
                lane.await_server(peer.key[0])
            else:
                peer.take(lambda: False)
            peer.take_what_is_there()
            self.count.append(len(peer.told))
            self.status.append(next((t[2] for t in reversed(peer.told) if t[0] == "Z"), "I"))
        self.told = list(peer.told)
        self.ended = peer.ended
        if not c.breaks and peer.ready() != c.units:
            raise StandError(f"{name}: {peer.ready()} ReadyForQuery, not {c.units}: {peer.told}")
        peer.close()
        lane.await_rest()
        self.rows = lane.rows(c.number)

    def outcome(self, event, k):
        """(told, ended, rows)"""
        lane = self.lane
        c = lane.next(self.name)
        m, part = whole_before(c, k)
        if event == "none":
            return self.told, self.ended, self.rows
        key = (event, m, part and (event != "leave" or k)) # Terminate becomes a part of what it comes into
        if key in self.known:
            return self.known[key]
        data = b"".join(c.parts)
        peer = lane.log_in_directly(c.number)
        pid = peer.key[0]
        peer.say(data[:k])
        peer.take(lambda: len(peer.told) >= self.count[m])
        if not peer.ended:
            lane.await_server(pid)
            if event == "cancel":
                wire.cancel(("127.0.0.1", lane.stand.postgres.port), peer.key, ca=lane.stand.authority.crt)
                lane.await_server(pid)
            elif event == "terminate":
                lane.terminate(pid)
                peer.take(lambda: False)
            elif event == "close":
                peer.close()
            elif event == "reset":
                peer.reset()
            elif event == "leave":
                peer.say(wire.terminate())
                peer.close()
        if event == "cancel":
            peer.say(data[k:])
            peer.take(lambda: self.ended is False and peer.ready() >= c.units)
            peer.close()
        proc.wait_for("the server process to go", 10, lambda: not lane.admin.query(
            f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))
        self.known[key] = list(peer.told), peer.ended, lane.rows(c.number)
        return self.known[key]


# ---- a case ----

class Case:
    def __init__(self, lane, mode, event, name, k, ref):
        self.lane, self.mode, self.event, self.name, self.k, self.ref = lane, mode, event, name, k, ref
        self.c = lane.next(name)
        self.data = b"".join(self.c.parts)
        self.m, self.part = whole_before(self.c, k)
        self.peer = None
        self.wrong = None

    def begin(self, many=False, token=None):
        self.peer = self.lane.log_in(self.c.number, self.mode, many, token)
        self.peer.say(self.data[:self.k])
        if not self.peer.take(lambda: len(self.peer.told) >= self.ref.count[self.m]):
            self.wrong = "the first part was not answered"

    def go_on(self):
        self.peer.take_what_is_there()
        self.peer.say(self.data[self.k:])
        due = len(units(self.ref.told))
        if not self.peer.take(lambda: not self.ref.ended and self.c.in_step and self.peer.ready() >= due or
                              not self.c.in_step and self.peer.told[-1:] == self.ref.told[-1:] and
                              len(self.peer.told) >= len(self.ref.told), None if self.c.in_step else 1) and self.c.in_step:
            self.wrong = self.wrong or "stuck"

    def begun(self):
        """Units of which something was sent before the event."""
        sent = self.c.parts[:self.m]
        within = self.part or (sent and sent[-1][:1] not in b"QFS")
        return sum(p[:1] in b"QFS" for p in sent) + bool(within) if self.c.in_step else 99

    def session_goes_on(self):
        """The session that was not ended can still be used."""
        peer = self.peer
        if peer.ended or self.ref.ended:
            return None
        try:
            if peer.status != "I":
                peer.ask(wire.query("ROLLBACK"))
            answer = peer.query(f"SELECT 'goes on {self.c.number}'")
        except (wire.Closed, ConnectionError, TimeoutError, wire.ServerError) as e:
            if isinstance(e, wire.ServerError) and e.code in LOSSES:
                return None # told with the next request
            return f"the session did not go on: {e!r}"
        return None if answer == [[f"goes on {self.c.number}"]] else f"the session got {answer}"

    def other_goes_on(self):
        """Another session of the pool of 1."""
        other = self.lane.others[self.mode]
        for n in range(3):
            try:
                answer = other.query(f"SELECT 'other {self.c.number}'")
                return None if answer == [[f"other {self.c.number}"]] else f"another session got {answer}"
            except wire.ServerError as e:
                if self.event not in ("terminate", "node") or e.code not in LOSSES:
                    return f"another session got {e}"
            except (wire.Closed, ConnectionError, TimeoutError) as e:
                if self.event not in ("terminate", "node"):
                    return f"another session: {e!r}"
                other.close()
                other = self.lane.others[self.mode] = self.lane.log_in(0, self.mode)
        return "another session got no connection"

    def story(self):
        return (f"{self.name}, {self.mode} mode, {self.event} at byte {self.k} (message {self.m}"
                f"{', within' if self.part else ''}): {self.wrong}\n  told:   {self.peer.told if self.peer else None} "
                f"{'(closed) ' + self.peer.why if self.peer and self.peer.ended else ''}\n  normal: {self.ref.told}")


BEFORE = ("1", "2", "G") # what is told of a COPY before it fails


def run_alone(case):
    lane, event, ref = case.lane, case.event, case.ref
    case.begin()
    peer = case.peer
    lane.ping()
    if peer.ended and not ref.ended:
        case.wrong = "ended before the event"
    elif event == "cancel":
        wire.cancel(("127.0.0.1", lane.gate.port()), peer.key, tls=None)
    elif event == "terminate":
        if case.mode == "session" and case.m and case.c.parts[case.m - 1][:1] not in b"QFS":
            lane.await_server(peer.key[0]) # what is answered is not seen before the Sync
        lane.terminate()
        lane.ping()
    elif event == "node":
        lane.node.kill()
        lane.ping()
        lane.node.start()
        proc.wait_for("the node", 10, lambda: "ok" in str(lane.console.query("SHOW NODES")) or "up" in str(lane.console.query("SHOW NODES")))
    elif event == "close":
        peer.close()
    elif event == "reset":
        peer.reset()
    elif event == "leave":
        peer.say(wire.terminate())
        peer.close()
    elif event == "kill" and not peer.ended:
        lane.kill(peer)
        lane.ping()
    leaves = event in ("close", "reset", "leave")
    if not leaves:
        case.go_on()
    case.wrong = case.wrong or compare(case, leaves)


def waited_for_connection(case, rows):
    """What it had asked for was not sent yet when the session was ended, which told it of nothing."""
    return case.mode == "transaction" and not check_rows(case.c, case.ref, case.peer.told, rows, True, case.begun())


def met_what_waited(case, told, rows):
    """A cancel that met a request while it waited for the connection, which the server's own never do: nothing of it has
    run, and where it was a BEGIN with more behind it the session has ended."""
    ref, got = case.ref, case.peer.told
    n = len(got) - 1
    if got[-1:] == ["E FATAL 57014"]:
        return got[:n] == ref.told[:n] and ref.told[n:n + 1] == ["C BEGIN"] and \
            not check_rows(case.c, ref, got, rows, True, case.begun())
    if "E ERROR 57014" not in got:
        return False
    return "E ERROR 57014" not in told or [m for m in got if m not in BEFORE] == [m for m in told if m not in BEFORE]


def compare(case, leaves):
    lane, ref, peer, c = case.lane, case.ref, case.peer, case.c
    wrong = None
    if not leaves:
        wrong = case.session_goes_on()
        peer.close()
    wrong = wrong or case.other_goes_on()
    if wrong:
        return wrong
    if case.mode == "session":
        proc.wait_for("the session's server process to go", STUCK, lambda: not lane.processes(f"AND pid = {peer.key[0]}"))
    else:
        lane.await_rest()
    rows = lane.rows(c.number)
    exact = case.event in ("none", "cancel", "close", "reset", "leave") or (case.event == "terminate" and case.mode == "session")
    if exact:
        told, ended, there = ref.outcome(case.event, case.k)
        if case.event == "cancel" and case.mode == "transaction" and met_what_waited(case, told, rows):
            return None
        if rows != there:
            return f"the table has {rows}, the server's {there}"
        if case.event == "terminate" and answered(peer.told) == answered(told) and peer.ended == ended:
            return None
        if not leaves and (peer.told != told or peer.ended != ended):
            return f"the server told: {told}{' (closed)' if ended else ''}"
        return None
    if case.event in ("terminate", "node"):
        return check_rows(c, ref, peer.told, rows, peer.ended, case.begun()) or check_loss(c, ref, peer.told, peer.ended, case.k, case.mode)
    if case.event == "kill":
        told, ended, there = ref.outcome("close", case.k)
        if not peer.ended:
            return "it was not ended"
        return check_ended(c, ref, peer.told, peer.ended, ("57P01",)) or (
            None if rows == there or waited_for_connection(case, rows) else f"the table has {rows}, the server's {there}")
    return None


def await_end_of_last(lane, event, token):
    """A session that began to wait behind all others has been ended by its clock: theirs have run out too."""
    last = lane.log_in(0, "transaction" if event == "expire" else "session", True, token)
    if event == "idle":
        last.ask(wire.query("BEGIN"))
    if not last.take(lambda: False, STUCK + 3 * lane.pace):
        raise StandError(f"{event}: a session was not ended; {lane.states(last)}")
    last.close()
    lane.ping()


def run_together(lane, mode, event, name, ks, ref):
    """One event for many sessions at once, each cut elsewhere."""
    # It lives within the leeway of 30 s for as long as the logins may need.
    token = lane.stand.token("acme", lifetime=-28 + 3 * lane.pace) if event == "expire" else None
    if event == "idle":
        reload(lane, {"postern": {"idle_transaction_timeout": "300ms"}})
    cases = [Case(lane, mode, event, name, k, ref) for k in ks]
    began = time.monotonic()
    for case in cases:
        case.begin(True, token)
    lane.pace = math.ceil(time.monotonic() - began)
    lane.ping()
    if event == "reload":
        reload(lane, {f"database {lane.name}_many": {"prepared_statements": 40 + lane.number % 50}})
    elif event == "limit":
        reload(lane, {"plan standard": {"queries_per_second": 20, "queries_burst": 1}})
    elif event == "drain":
        for c in [lane.pinger, *lane.others.values()]:
            c.close()
        lane.gate.process.signal(signal.SIGTERM)
        lane.gate.await_log("drain|shutting down|SIGTERM", 0)
    elif event in ("expire", "idle"):
        await_end_of_last(lane, event, token)
    for case in cases:
        if event == "limit" and not case.peer.ended:
            lane.ping()
        case.go_on()
        case.rest = None if event == "drain" else case.session_goes_on() if event == "reload" else None
        case.peer.close()
    if event == "drain":
        lane.console.close()
        lane.gate.process.popen.wait(STUCK * 4)
        lane.gate.stop()
        found = REPORTS.search(lane.gate.log())
        if found:
            cases[0].wrong = lane.gate.log()[max(0, found.start() - 500):found.start() + 3000]
        os.unlink(lane.gate.log_file)
        lane.begin()
    elif event == "idle":
        reload(lane, {"postern": {"idle_transaction_timeout": "0s"}})
    elif event == "limit":
        reload(lane, {"plan standard": {"queries_per_second": 500000, "queries_burst": 0}})
    lane.await_rest()
    allowed = {"drain": ("57P01",), "expire": ("28000",), "idle": ("57P05", "25P03")}.get(event, ())
    for case in cases:
        rows = lane.rows(case.c.number)
        peer = case.peer
        if event == "reload":
            wrong = case.rest or (None if (peer.told, rows) == (ref.told, ref.rows) else f"the table has {rows}")
        elif event == "limit":
            wrong = check_rows(case.c, ref, peer.told, rows, peer.ended, case.begun()) or check_limit(case.c, ref, peer.told, peer.ended)
        else:
            wrong = check_rows(case.c, ref, peer.told, rows, peer.ended, case.begun()) or \
                check_ended(case.c, ref, peer.told, peer.ended, allowed)
        case.wrong = case.wrong or wrong
    return cases


def reload(lane, changes):
    since = len(lane.gate.log())
    lane.gate.reload(changes)
    lane.gate.await_log("is in force", since)


# ---- all of it ----

def run(lane, name, modes, events, near=None, middle=False):
    """All cases of a conversation; (how many, [what was wrong])."""
    if name not in lane.references:
        lane.references[name] = Reference(lane, name)
    ref = lane.references[name]
    ks = middles(conversations.make(name)) if middle else positions(conversations.make(name), near)
    count, wrong = 0, []
    for mode in modes:
        for event in (event for event in events if event not in conversations.make(name).without):
            done = []
            lane.heal()
            if event in TOGETHER:
                few = positions(conversations.make(name), 0 if event == "limit" else min(3 if near is None else near, 3))
                for i in range(0, len(few), MANY):
                    done += run_together(lane, mode, event, name, few[i:i + MANY], ref)
            else:
                few = positions(conversations.make(name), 1) if event == "node" and not middle else ks
                for k in few:
                    case = Case(lane, mode, event, name, k, ref)
                    try:
                        run_alone(case)
                    except (StandError, wire.Closed, wire.ServerError, OSError) as e:
                        case.wrong = f"{e!r}\n{traceback.format_exc()}"
                    done.append(case)
                    if case.wrong:
                        wrong.append(case.story())
                    if case.wrong and lane.gate.process.popen.poll() is not None:
                        return count + len(done), [*wrong, f"the gate has ended: {lane.gate.log()[-3000:]}"]
            count += len(done)
            if event in TOGETHER:
                wrong += [case.story() for case in done if case.wrong]
    busy = [r for r in lane.pools() if any(r.get(k, "0") != "0" for k in ("cl_active", "cl_waiting", "sv_active", "sv_cleaning"))
            and "session" not in str(r)]
    if busy:
        wrong.append(f"{name}: pools are not at rest: {busy}")
    return count, wrong


def work(stand, n, names, modes, events, near, out):
    lane = None
    try:
        lane = Lane(stand, f"cuts{n}").start()
        while True:
            name = names.get()
            if name is None:
                break
            began = time.monotonic()
            try:
                out.put((name, *run(lane, name, modes, events, near), time.monotonic() - began))
            except Exception:  # noqa: BLE001
                out.put((name, 0, [f"{name}: {traceback.format_exc()}"], time.monotonic() - began))
                if lane.gate.process.popen.poll() is not None:
                    lane.begin()
        lane.end()
        out.put((None, 0, [], 0))
    except Exception:  # noqa: BLE001
        out.put((None, 0, [traceback.format_exc()], 0))
    finally:
        if lane:
            lane.close()
        proc.stop_everything()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=os.path.join(os.path.dirname(TESTS), "build"))
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--events", default=",".join(EVENTS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--sample", type=int)
    parser.add_argument("--most", type=int, default=5, help="how much is printed of what is wrong with one conversation")
    args = parser.parse_args()
    proc.exit_on_signals()
    folder = tempfile.mkdtemp(prefix="postern-cuts-")
    os.chmod(folder, 0o755)
    stand = Stand(folder, args.build, workers=1)
    began = time.monotonic()
    total = bad = 0
    try:
        stand.start()
        names = [n for n in conversations.ALL if re.search(args.only, n)]
        queue, out = multiprocessing.Queue(), multiprocessing.Queue()
        for name in names + [None] * args.lanes:
            queue.put(name)
        lanes = [multiprocessing.Process(target=work, args=(stand, n, queue, args.modes.split(","), args.events.split(","), args.sample, out))
                 for n in range(args.lanes)]
        for lane in lanes:
            lane.start()
        left = args.lanes
        while left:
            name, count, wrong, seconds = out.get()
            left -= name is None
            total += count
            bad += len(wrong)
            if name or wrong:
                print(f"{name}: {count} cases, {seconds:.0f} s, {len(wrong)} wrong", flush=True)
            for text in wrong[:args.most]:
                print(text, flush=True)
        for lane in lanes:
            lane.join()
    finally:
        stand.gates = []
        stand.stop()
        proc.stop_everything()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(names)} conversations, {total} cases, {time.monotonic() - began:.0f} s, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
