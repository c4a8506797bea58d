#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random histories of transactions whose server connections are taken away: what is in the table is
all of a transaction or nothing of it, and what the client was told.

    tests/cuts/histories.py --build DIR [--count 10000] [--seed 1] [--threads 16]
    tests/cuts/histories.py --build DIR --leave 2000     batches that are cut, and whose client leaves

A history is a client: a script of simple queries that ignores every error (psql), one that is sent
in one piece, pipelines of the extended protocol with one Sync and with many (libpq, psycopg), and
what JDBC sends with autosave. Meanwhile server processes are ended (57P01), nodes are killed with
what lies before them (08006, 08007), and transactions stand still for too long (25P03)."""
import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cuts import TESTS, Lane  # noqa: E402

sys.path.insert(0, TESTS)

from answers import Peer, codes  # noqa: E402
from conversations import WIDTH  # noqa: E402
from stand import proc, wire  # noqa: E402
from stand.proc import StandError  # noqa: E402
from stand.stand import Stand  # noqa: E402

IDLE_MS = 150  # idle_in_transaction_session_timeout


class Transaction:
    def __init__(self, ids, commits):
        self.ids = ids
        self.commits = commits   # it ends with COMMIT
        self.told = "unknown"    # committed, not, unknown


def whole(sql, values=(), name=""):
    return wire.one(sql, values, name)


class History:
    """One client's life. Each step sends something and looks at what comes back."""

    def __init__(self, lane, number, seed):
        self.lane, self.number = lane, number
        self.random = random.Random(seed)
        self.style = self.random.choice(("script", "script", "blast", "pipeline", "syncs", "autosave", "rows"))
        self.transactions = []
        self.log = []
        self.next = 0
        self.peer = None

    def row(self):
        self.next += 1
        return self.number * WIDTH + self.next

    def insert(self, n):
        return f"INSERT INTO t VALUES ({n}, 'x')"

    def plan(self):
        ids = [self.row() for _ in range(self.random.randrange(1, 6))]
        t = Transaction(ids, self.random.random() < 0.9)
        self.transactions.append(t)
        return t

    def stall(self):
        kind = self.random.random()
        if kind < 0.01:
            time.sleep(IDLE_MS / 1000 * 1.4)
        elif kind < 0.3:
            time.sleep(self.random.random() * 0.004)

    def ask(self, *parts, units=1):
        """The answers to what is sent, one list for each ReadyForQuery; shorter when it has ended."""
        peer = self.peer
        at = len(peer.told)
        if not peer.say(b"".join(parts)):
            peer.ended = True
        ready = peer.ready()
        if not peer.take(lambda: peer.ready() - ready >= units):
            states = self.lane.states(peer)
            late = peer.take(lambda: peer.ready() - ready >= units, 30)
            raise StandError(f"{'late' if late else 'stuck'}: {peer.told[at:]}; {states}")
        answers = [[]]
        for t in peer.told[at:]:
            answers[-1].append(t)
            if t[0] == "Z":
                answers.append([])
        if not answers[-1]:
            answers.pop()
        self.log += answers
        return answers

    def ends(self, t, answer, sent=True):
        """What the answer to the end of a transaction says."""
        if answer and answer[-1][0] == "Z":
            if "C COMMIT" in answer and t.commits:
                t.told = "committed"
            elif "08007" not in codes(answer):
                t.told = "not"
        elif not sent:
            t.told = "not"

    # ---- the styles ----

    def script(self):
        """psql without ON_ERROR_STOP: it goes on whatever it is told."""
        t = self.plan()
        began = self.ask(wire.query("BEGIN"))[-1:]
        for n in t.ids:
            if self.peer.ended:
                t.told = "not"
                return
            self.stall()
            if self.random.random() < 0.05:
                self.ask(wire.query("SELECT 1/0"))
            if not self.peer.ended:
                self.ask(wire.query(self.insert(n)))
        if self.peer.ended:
            t.told = "not"
            return
        self.stall()
        self.ends(t, (self.ask(wire.query("COMMIT" if t.commits else "ROLLBACK")) or [[]])[-1])
        if began and codes(began[0]) and not self.peer.ended:
            t.told = "unknown"  # it never began, by what it was told

    def blast(self):
        """A whole script at once, two transactions one behind the other."""
        parts, ends, units = [], [], 0
        for _ in range(2):
            t = self.plan()
            parts += [wire.query("BEGIN"), *(wire.query(self.insert(n)) for n in t.ids),
                      wire.query("COMMIT" if t.commits else "ROLLBACK")]
            units += len(t.ids) + 2
            ends.append((t, units - 1))
        answers = self.ask(*parts, units=units)
        for t, unit in ends:
            self.ends(t, answers[unit] if unit < len(answers) else [])

    def pipeline(self):
        """One Sync for all."""
        t = self.plan()
        end = "COMMIT" if t.commits else "ROLLBACK"
        answers = self.ask(whole("BEGIN"), *(whole("INSERT INTO t VALUES ($1, $2)", (n, "y")) for n in t.ids), whole(end), wire.sync())
        self.ends(t, answers[-1] if answers else [])
        if self.peer.status != "I" and not self.peer.ended:
            self.ask(wire.query("ROLLBACK"))

    def syncs(self):
        """As psycopg's pipelines: a Sync behind each, nothing is waited for."""
        t = self.plan()
        parts = [whole("BEGIN"), wire.sync()]
        for n in t.ids:
            parts += [whole(self.insert(n)), wire.sync()]
            if self.random.random() < 0.05:
                parts += [wire.query("SELECT 2")]
        units = sum(p in (wire.sync(), wire.query("SELECT 2")) for p in parts) + 1
        answers = self.ask(*parts, whole("COMMIT" if t.commits else "ROLLBACK"), wire.sync(), units=units)
        self.ends(t, answers[-1] if len(answers) == units else [])
        if self.peer.status != "I" and not self.peer.ended:
            self.ask(wire.query("ROLLBACK"))

    def rows(self):
        """As libpq's single-row mode in a pipeline: Describe and Flush, with rows; more than a buffer of them."""
        t = self.plan()
        parts = [wire.query("BEGIN")]
        units = 1
        for n in t.ids:
            text = f"WITH w AS (INSERT INTO t VALUES ({n}, 'z') RETURNING id) SELECT id, repeat('r', 3000) FROM w, generate_series(1, 4)"
            parts += [wire.parse(text), wire.bind(), wire.describe("P"), wire.execute(), wire.flush()]
            if self.random.random() < 0.6:
                parts.append(wire.sync())
                units += 1
        answers = self.ask(*parts, whole("COMMIT" if t.commits else "ROLLBACK"), wire.sync(), units=units + 1)
        self.ends(t, answers[-1] if len(answers) == units + 1 else [])
        if self.peer.status != "I" and not self.peer.ended:
            self.ask(wire.query("ROLLBACK"))

    def autosave(self):
        """JDBC: BEGIN with the first statement, a savepoint before each, ROLLBACK TO behind an error."""
        t = self.plan()
        first = True
        for n in t.ids:
            self.stall()
            bad = self.random.random() < 0.1
            parts = [whole("BEGIN")] if first else []
            first = False
            parts += [whole("SAVEPOINT s", name=""), whole("INSERT INTO t VALUES (1)" if bad else self.insert(n))]
            answer = (self.ask(*parts, wire.sync()) or [[]])[-1]
            if self.peer.ended:
                t.told = "not"
                return
            if codes(answer):
                if bad and codes(answer) == ["23505"]:
                    answer = (self.ask(whole("ROLLBACK TO SAVEPOINT s"), wire.sync()) or [[]])[-1]
                    t.ids = [i for i in t.ids if i != n]
                if codes(answer):
                    if not self.peer.ended and self.peer.status != "I":
                        self.ask(whole("ROLLBACK"), wire.sync())
                    t.told = "not"
                    return
            else:
                self.ask(whole("RELEASE SAVEPOINT s"), wire.sync())
        if self.peer.ended:
            t.told = "not"
            return
        self.ends(t, (self.ask(whole("COMMIT" if t.commits else "ROLLBACK"), wire.sync()) or [[]])[-1])
        if self.peer.status != "I" and not self.peer.ended:
            self.ask(wire.query("ROLLBACK"))

    def live(self):
        self.peer = Peer(self.lane.gate.port(), self.number)
        try:
            self.peer.login("acme_rw", self.lane.name + "_few", self.lane.token)
            for _ in range(self.random.randrange(1, 4)):
                if self.peer.ended:
                    break
                getattr(self, self.style)()
        finally:
            self.peer.close()

    def check(self, there):
        """What is wrong with what is in the table, or None."""
        low = self.number * WIDTH
        for t in self.transactions:
            found = [n for n in t.ids if n in there]
            if found and found != t.ids:
                return f"{self.style}: a part of a transaction: {[n - low for n in found]} of {[n - low for n in t.ids]}"
            if t.told == "committed" and t.ids and not found:
                return f"{self.style}: told that it is committed, and it is not: {[n - low for n in t.ids]}"
            if t.told == "not" and found:
                return f"{self.style}: told that it is not committed, and it is: {[n - low for n in t.ids]}"
        return None


class Chaos(threading.Thread):
    """Ends server processes, kills nodes."""

    def __init__(self, lane, seed):
        super().__init__(daemon=True)
        self.lane, self.random = lane, random.Random(seed)
        self.over = threading.Event()
        self.counts = collections.Counter()
        self.failed = None
        self.admin = lane.connect_admin()

    def run(self):
        try:
            while not self.over.wait(self.random.random() * 0.03):
                self.step()
        except Exception as e:  # noqa: BLE001
            self.failed = f"{e!r}: {traceback.format_exc()}"
        finally:
            self.admin.close()

    def step(self):
        if self.random.random() < 0.06:
            node = self.random.choice(self.lane.nodes)
            if self.random.random() < 0.6:
                node.freeze()
                self.over.wait(self.random.random() * 0.02)
            node.kill()
            node.start()
            self.counts["nodes killed"] += 1
            return
        rows = self.admin.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'acme_rw' AND "
            f"datname = '{self.lane.name}' AND query NOT LIKE 'LISTEN%' ORDER BY random() LIMIT {self.random.choice((1, 1, 2, 4))}")
        self.counts["server processes ended"] += len(rows)


def run(lane, count, seed, threads):
    """(what happened, [what is wrong])"""
    lane.admin.query(f"ALTER DATABASE {lane.name} SET idle_in_transaction_session_timeout = '{IDLE_MS}ms'")
    chaos = Chaos(lane, seed)
    told, wrong, lock = collections.Counter(), [], threading.Lock()
    numbers = iter(range(lane.number + 1, lane.number + 1 + count))
    done = []

    def clients():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None or lane.gate.process.popen.poll() is not None:
                return
            history = History(lane, number, f"{seed}-{number}")
            try:
                history.live()
            except (wire.ServerError, wire.Closed, ConnectionError) as e:
                told[f"login: {getattr(e, 'code', type(e).__name__)}"] += 1
            except Exception as e:  # noqa: BLE001
                with lock:
                    wrong.append(f"history {number}, {history.style}: {e!r}\n{history.log[-8:]}\n{traceback.format_exc()}")
            with lock:
                done.append(history)

    chaos.start()
    pool = [threading.Thread(target=clients, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    chaos.over.set()
    chaos.join()
    lane.number += count + 1
    if chaos.failed:
        wrong.append(chaos.failed)
    lane.await_rest()
    there = {int(r[0]) for r in lane.admin.query("SELECT id FROM t")}
    for history in done:
        for t in history.transactions:
            told[t.told] += 1
        for answer in history.log:
            for code in codes(answer):
                told[code] += 1
        found = history.check(there)
        if found:
            wrong.append(f"history {history.number}: {found}\n" + "\n".join(map(str, history.log[-24:])))
    lane.admin.query(f"ALTER DATABASE {lane.name} RESET idle_in_transaction_session_timeout")
    told.update(chaos.counts)
    told["histories"] = len(done)
    return told, wrong


# ---- batches whose client leaves ----

def batch(rng, number):
    """Messages of one random batch and more."""
    ids = iter(range(number * WIDTH + 1, number * WIDTH + WIDTH))
    parts = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.randrange(12)
        if kind < 5:
            parts.append(whole(f"INSERT INTO t VALUES ({next(ids)}, 'x')"))
        elif kind == 5:
            parts.append(whole("INSERT INTO t VALUES ($1)", (next(ids),)))
        elif kind == 6:
            parts.append(whole(rng.choice(("SELECT 1", "SELECT 1/0", "INSERT INTO t VALUES (1)"))))
        elif kind == 7:
            parts.append(whole(rng.choice(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a"))))
        elif kind == 8:
            parts.append(wire.flush())
        elif kind == 9:
            parts.append(wire.query(f"INSERT INTO t VALUES ({next(ids)}, 'q')"))
        else:
            parts.append(wire.sync())
    return b"".join(parts)


def completes(data, k):
    """Five bytes more at k are the end of the message that k is within."""
    p = 0
    while p < k:
        end = p + 1 + int.from_bytes(data[p + 1:p + 5], "big")
        if k < end <= k + 5:
            return True
        p = end
    return False


def leave(lane, count, seed):
    """[what is wrong]: random batches, cut anywhere, whose client leaves."""
    wrong = []
    for i in range(count):
        rng = random.Random(f"{seed}-{i}")
        state = rng.getstate()
        left, how = {}, None
        mode = rng.choice(("transaction", "session"))
        state = rng.getstate()
        for side in ("server", "gate"):
            rng.setstate(state)
            lane.number += 1
            data = batch(rng, lane.number)
            k = rng.randrange(len(data) + 1)
            how = rng.choice(("close", "terminate", "reset"))
            if how == "terminate" and completes(data, k):
                how = "close"  # else a COMMIT would run as its client leaves, and a server that cannot tell its WARNING gives up
            peer = lane.log_in_directly(lane.number) if side == "server" else lane.log_in(lane.number, mode)
            pid = peer.key[0]
            peer.say(data[:k])
            if side == "server":
                lane.await_server(pid)
            else:
                lane.ping()
                lane.await_rest_or_read()
            if how == "terminate":
                peer.say(wire.terminate())
            peer.reset() if how == "reset" else peer.close()
            if side == "server" or mode == "session":
                proc.wait_for("the server process to go", 10, lambda: not lane.admin.query(
                    f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND datname = '{lane.name}'"))
            else:
                lane.others[mode].query("SELECT 'other'")
            lane.await_rest()
            left[side] = lane.rows(lane.number)
        if left["server"] != left["gate"]:
            wrong.append(f"batch {i}, {mode} mode, {how} at byte {k} of {data}: the server keeps {left['server']}, the gate's {left['gate']}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=os.path.join(os.path.dirname(TESTS), "build"))
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--leave", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=16)
    args = parser.parse_args()
    proc.exit_on_signals()
    folder = tempfile.mkdtemp(prefix="postern-histories-")
    os.chmod(folder, 0o755)
    stand = Stand(folder, args.build, workers=1)
    began = time.monotonic()
    lane = None
    wrong = []
    try:
        stand.start()
        lane = Lane(stand, "histories").start(nodes=2)
        if args.leave:
            wrong = leave(lane, args.leave, args.seed)
            print(f"{args.leave} batches", end="")
        else:
            told, wrong = run(lane, args.count, args.seed, args.threads)
            print(", ".join(f"{v} {k}" for k, v in sorted(told.items())), end="")
        print(f"; {time.monotonic() - began:.0f} s, {len(wrong)} wrong")
        for text in wrong[:10]:
            print(text)
        lane.end()
    finally:
        if lane:
            lane.close()
        stand.gates = []
        stand.stop()
        proc.stop_everything()
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
