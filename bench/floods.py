"""Floods of each kind: what those who are in notice of them, beside the same flood at a neighbour."""
# SPDX-License-Identifier: Apache-2.0
import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

from stand import proc, wire
from stand.postgres import bin_folder
from stand.proc import StandError

from . import measure, report
from .proxies import DATABASE, ROLE, PgBouncer, Postern, find_pgbouncers, in_stand, say

# kind: attempts a second, connections at once, whether PgBouncer has the like
KINDS = {
    "silence": (1000, 2000, True),
    "handshakes": (800, 100, True),
    "half-handshakes": (1500, 1000, True),
    "tokens": (1000, 1000, False),
    "guesses": (1000, 1000, True),
    "http": (500, 200, False),
    "unread": (40, 40, False),
    "half-messages": (200, 300, False),
}
PHASES = ("none", "beside", "here")  # no flood, one at the neighbour, one here
CLIENTS = 8
GETTING_STRONG = 1.0  # seconds from a flood's begin to what is measured
LOGIN_EVERY = 0.2
LAG = re.compile(r", lag ([\d.]+) ms")
ON_TIME = 20.0  # milliseconds of lag
PATIENT = 20    # seconds that are waited for that

# Less than the floods hold. The flood's clients are another tenant's: those of one's own take one's pool.
LIMITS = {"max_pending_logins": 1000, "message_timeout": "3s", "memory_limit": "64MB"}


class Load:
    """The clients who are in: pgbench, so many transactions a second, and a log of each."""

    def __init__(self, stand, proxy, rate):
        self.prefix = stand.path(f"load-{proxy.pid}-{time.monotonic_ns()}")
        self.run = measure.Pgbench(
            [os.path.join(bin_folder(), "pgbench"), "-n", "-S", "-c", str(CLIENTS), "-T", "3600", "-P", "1",
             "--progress-timestamp", f"--rate={rate}", "-l", f"--log-prefix={self.prefix}"],
            proxy.client_environment(stand, False))
        self.all_is_well()

    def all_is_well(self):
        """Waits for a second in which the load has made up for what it was behind; StandError when a
        transaction has failed."""
        for _ in range(PATIENT):
            self.run.go()
            self.run.transactions()
            if float(LAG.findall(self.run.log)[-1]) < ON_TIME:
                return

    def finish(self):
        """[(when it was due, microseconds from then to its end)] of all transactions."""
        self.run.finish()
        rows = []
        for path in glob.glob(f"{self.prefix}.*"):
            with open(path, encoding="ascii") as f:
                for line in f:
                    fields = line.split()
                    took = int(fields[2])
                    rows.append((int(fields[4]) + (int(fields[5]) - took) / 1e6, took))
            os.unlink(path)
        return rows

    def end(self):
        if self.run.popen.poll() is None:
            self.run.popen.send_signal(signal.SIGKILL)
            self.run.popen.wait()


class Flood:
    """A process that floods one proxy."""

    def __init__(self, order):
        self.popen = subprocess.Popen([sys.executable, "-m", "bench.flooder"], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)
        self.write(json.dumps(order))
        if not self.line():
            raise StandError("the flood did not begin")

    def write(self, text):
        self.popen.stdin.write(text.encode() + b"\n")
        self.popen.stdin.flush()

    def line(self):
        return proc.first_line(self.popen.stdout, 20)

    def counts(self):
        self.write("")
        line = self.line()
        if not line:
            raise StandError("the flood has ended")
        return {**json.loads(line), "cpu": measure.cpu_us(self.popen.pid) / 1e6}

    def end(self):
        self.popen.stdin.close()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


def new_logins(proxy, stand, until):
    """New clients by TLS who log in and ask, one after the other: ([milliseconds], [what went wrong])."""
    took, failed = [], []
    while (began := time.monotonic()) < until:
        try:
            with wire.Client(("127.0.0.1", proxy.port), "request", ca=stand.authority.crt, timeout=5) as c:
                c.login(ROLE, DATABASE, proxy.secrets[0]).query("SELECT 1")
                took.append((time.monotonic() - began) * 1000)
                c.send(wire.terminate())
        except (OSError, wire.Closed, wire.ServerError) as e:
            failed.append(str(e) or type(e).__name__)
        time.sleep(max(0.0, min(began + LOGIN_EVERY, until) - time.monotonic()))
    return took, failed


def latencies(rows, begin, end):
    """Of what was due in that time; and how many ended in it."""
    took = sorted(us / 1000 for due, us in rows if begin <= due < end)
    if not took:
        raise StandError("the clients who are in did nothing in a phase")
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "max": took[-1],
            "tps": sum(begin <= due + us / 1e6 < end for due, us in rows) / (end - begin)}


class Floods:
    def __init__(self, args, stand):
        self.args, self.stand = args, stand
        self.samples, self.versions = [], {}

    def order(self, kind, proxy):
        rate, width, _ = KINDS[kind]
        order = {"kind": kind, "port": proxy.port, "rate": rate * self.args.strength, "width": width,
                 "addresses": self.args.addresses, "user": ROLE, "database": DATABASE}
        if kind == "http":
            order["http_port"] = proxy.gate.port("http")
        if kind == "guesses" and isinstance(proxy, Postern):
            order["user"] = self.stand.scram_user
        if kind == "tokens":
            head, _, signature = proxy.secrets[0].rpartition(".")
            order["secret"] = f"{head}.{signature[::-1]}"
        if kind in ("unread", "half-messages"):
            order.update(user="globex_rw", database="globex", secret=self.stand.token("globex", "rw"))
        return order

    def phase(self, kind, phase, proxy, neighbour):
        """One flood, or none: what came of it, without the load's latencies."""
        flood = None
        try:
            if phase != "none":
                flood = Flood(self.order(kind, proxy if phase == "here" else neighbour))
            time.sleep(GETTING_STRONG)
            before, cpu = flood and flood.counts(), measure.cpu_us(proxy.pid)
            began, begin = time.monotonic(), time.time()
            took, failed = new_logins(proxy, self.stand, began + self.args.seconds)
            end, lasted = time.time(), time.monotonic() - began
            out = {"begin": begin, "end": end, "logins": took, "failed_logins": failed,
                   "gate_cpu": (measure.cpu_us(proxy.pid) - cpu) / 1e6 / lasted}
            if flood:
                after = flood.counts()
                out["flood"] = {what: (after[what] - before[what]) / lasted for what in after if what != "open"}
                out["flood"]["open"] = after["open"]
                if out["flood"]["attempts"] == 0 and out["flood"]["open"] == 0:
                    raise StandError(f"{kind}: the flood did nothing")
            return out
        finally:
            if flood:
                flood.end()

    def kind(self, kind, make):
        """All rounds of one kind at one sort of proxy; newly started, two of them."""
        proxy, neighbour = make(), make()
        self.versions[proxy.name] = proxy.version
        load = Load(self.stand, proxy, self.args.rate)
        done = []
        try:
            for round_ in range(self.args.rounds):
                # Another one begins in each round, and each comes after each.
                turn = round_ % len(PHASES)
                order = PHASES[turn:] + PHASES[:turn]
                for phase in order if round_ % 2 == 0 else reversed(order):
                    load.all_is_well()
                    done.append({"kind": kind, "proxy": proxy.name, "round": round_, "phase": phase,
                                 **self.phase(kind, phase, proxy, neighbour)})
            load.all_is_well()
            rows = load.finish()
        finally:
            load.end()
        for s in done:
            s.update(latencies(rows, s["begin"], s["end"]))
            flood = s.get("flood")
            told = f"; flood {flood['attempts']:.0f}/s, answered {flood['answered']:.0f}/s" if flood else ""
            say(f"   {kind:16} {proxy.name:15} round {s['round'] + 1} {s['phase']:6} p50 {s['p50']:6.2f} "
                f"p99 {s['p99']:6.2f} max {s['max']:6.1f} ms{told}")
        self.samples += done
        proxy.stop()
        neighbour.stop()

    def all(self):
        # What costs the proxy most, and the flood least.
        def postern():
            return Postern(self.stand, "Postern", workers=self.args.workers, certificate="rsa", more=LIMITS)

        peers = [] if self.args.no_path else find_pgbouncers()[:1]
        for kind in self.args.only:
            self.kind(kind, postern)
            for name, argv, version in peers if KINDS[kind][2] else []:
                auth = "scram-sha-256" if kind == "guesses" else "plain"
                self.kind(kind, lambda p=(name, argv, version), auth=auth:
                          PgBouncer(self.stand, *p, certificate="rsa", auth=auth))


def options():
    p = argparse.ArgumentParser(prog="bench/floods", description="What floods do to those who are in.")
    p.add_argument("--build", required=True, help=argparse.SUPPRESS)
    p.add_argument("--out", help="directory for floods.md and floods.json")
    p.add_argument("--only", metavar="KIND", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    p.add_argument("--rounds", type=int, default=6, help="of each phase of each kind")
    p.add_argument("--seconds", type=float, default=3, help="of one phase")
    p.add_argument("--rate", type=int, default=1000, help="transactions a second of those who are in")
    p.add_argument("--strength", type=float, default=1, help="times the attempts a second of the floods")
    p.add_argument("--addresses", type=int, default=100,
                   help="that the floods come from; 0: from that of those who are in and of the new logins")
    p.add_argument("--workers", type=int, default=1, help="of Postern")
    p.add_argument("--no-path", action="store_true", help="leave the pgbouncer of PATH out")
    a = p.parse_args()
    a.only = a.only.split(",")
    if set(a.only) - set(KINDS):
        p.error(f"--only takes {', '.join(KINDS)}, with commas between")
    if a.rounds < 1 or a.seconds <= 0 or a.rate < 1 or a.strength <= 0 or a.workers < 1 or \
            not 0 <= a.addresses <= 50000:
        p.error("--rounds, --seconds, --rate, --strength and --workers must be greater than 0, --addresses up to 50000")
    return a


def run(args, stand, load):
    stand.start(pgbench_scale=1, say=lambda text: say(f"   {text}"))
    floods = Floods(args, stand)
    floods.all()
    stand.stop()
    result = {"machine": report.machine(load), "rounds": args.rounds, "seconds": args.seconds, "rate": args.rate,
              "strength": args.strength, "workers": args.workers, "addresses": args.addresses,
              "versions": floods.versions, "samples": floods.samples}
    report.write(result, report.floods(result), args.out, "floods")


def main():
    args = options()
    return in_stand(args.build, lambda stand, load: run(args, stand, load))


if __name__ == "__main__":
    sys.exit(main())
