"""The command line, the rows, the rounds."""
# SPDX-License-Identifier: Apache-2.0
import argparse
import os
import subprocess
import sys
import time

from stand import proc
from stand.postgres import bin_folder
from stand.proc import StandError

from . import measure, report
from .proxies import POOL, PgBouncer, Postern, find_pgbouncers, in_stand, say

LOADS = [(tls, mode, clients) for tls in (False, True) for mode in ("simple", "prepared")
         for clients in (16, 64)]


class Load:
    """pgbench at one proxy, in turns. What is measured lies between two progress lines, each of
    which comes when a turn begins, and so spans the turn and nothing else."""

    def __init__(self, proxy, run, counter):
        self.proxy, self.run, self.counter = proxy, run, counter
        self.count_all = self.cpu = self.busy = 0
        self.before = None  # (CPU time, seconds in turns) at the last line
        self.in_turns = 0.0
        self.calls = {}

    def take_turn(self, seconds, action):
        began = time.monotonic()
        self.run.go()
        self.transactions = self.run.transactions()
        self.ran = self.in_turns + time.monotonic() - began
        action(self)
        time.sleep(seconds)
        self.run.halt()
        self.in_turns += time.monotonic() - began

    def measured(self):
        now = measure.cpu_us(self.proxy.pid), self.ran
        if self.before:
            self.count_all += self.transactions
            self.cpu += now[0] - self.before[0]
            self.busy += now[1] - self.before[1]
        self.before = now

    def count(self):
        self.counter.start()

    def counted(self):
        self.calls = {call: n / self.transactions for call, n in self.counter.stop().items() if n}

    def result(self):
        out = {"cpu": self.cpu / self.count_all, "tps": self.count_all / self.busy}
        if self.calls:
            out["calls"] = self.calls.pop("all")
            out["by_call"] = self.calls
        return out


class Bench:
    def __init__(self, args, stand):
        self.args = args
        self.stand = stand
        self.calls = None
        if not args.no_calls:
            self.calls = measure.PerfCount if measure.perf_works() else \
                measure.StraceCount if measure.strace_works(stand.folder) else None
            if not self.calls:
                say("   system calls are not counted: neither perf nor strace may do it here")
        self.samples = []  # {what, tls, mode, clients, proxy, round, ...values}
        self.pgbouncers = find_pgbouncers(args.pgbouncer, args.pgbouncer_root, not args.no_path)
        if not self.pgbouncers and not args.before:
            raise StandError("no pgbouncer was found: install the package pgbouncer, or see "
                             "--pgbouncer and --pgbouncer-root")
        if args.smoke:
            del self.pgbouncers[:-1]
        self.names = []
        self.kept = []

    def note(self, **values):
        self.samples.append(values)

    # ---- transactions ----

    def pgbench(self, proxy, tls, mode, clients):
        """A run with all clients logged in, halted."""
        part = clients // len(proxy.secrets)
        run = measure.Several([measure.Pgbench(
            [os.path.join(bin_folder(), "pgbench"), "-n", "-S", "-M", mode, "-c", str(part),
             "-j", str(min(2, part)), "-T", "3600", "-P", "1", "--progress-timestamp"],
            proxy.client_environment(self.stand, tls, secret)) for secret in proxy.secrets])
        try:
            run.transactions()
            run.halt()
        except BaseException:
            run.end()
            raise
        return run

    def slices(self, loads, key):
        """Lets the proxies take turns of a fraction of a second, so that what else the machine
        does falls on all of them alike. CPU time first, system calls in one more turn."""
        turns = [lambda load: load.measured()] * (1 + self.args.slices)
        if loads[0].counter:
            turns += [lambda load: load.count(), lambda load: load.counted()]
        for number, action in enumerate(turns):
            for load in loads if number % 2 == 0 else reversed(loads):
                load.take_turn(self.args.slice, action)
        for load in loads:
            values = load.result()
            self.note(what="load", **key, proxy=load.proxy.name, **values)
            calls = f", {values['calls']:5.2f} calls" if "calls" in values else ""
            say(f"   round {key['round'] + 1} {'TLS' if key['tls'] else 'plain':5} "
                f"{key['mode']:8} {key['clients']:3}  {load.proxy.name:20} "
                f"{values['cpu']:6.2f} us{calls}, {values['tps']:6.0f} tps")

    def loads(self):
        a = self.args
        if a.smoke:
            proxies = list(self.fresh())
        else:
            proxies = [PgBouncer(self.stand, *p) for p in self.pgbouncers]
            proxies.append(Postern(self.stand, "Postern"))
            if a.before:
                proxies.append(Postern(self.stand, report.BEFORE, build=a.before))
        extra = {}
        if not a.only_one:
            two = Postern(self.stand, "Postern, 2 workers", workers=2)
            free = Postern(self.stand, "Postern, no limits", limits=False)
            proxies += [two, free]
            extra[free.name] = {(False, "simple", 16), (False, "prepared", 16)}
            for share in ("identity", "role"):
                many = Postern(self.stand, f"Postern, 4 subjects, share = {share}", subjects=4, share=share)
                proxies.append(many)
                extra[many.name] = {load for load in a.loads if not load[0]}
        for round_ in range(a.rounds):
            for load in a.loads:
                tls, mode, clients = load
                chosen = [p for p in proxies if (mode != "prepared" or p.prepared) and
                          load in extra.get(p.name, a.loads)]
                running = []
                try:
                    for p in chosen:
                        # The calls hardly vary, so three rounds of them are enough.
                        counter = self.calls(p.pid, self.stand.folder) \
                            if self.calls and round_ < 3 else None
                        running.append(Load(p, self.pgbench(p, tls, mode, clients), counter))
                    self.slices(running, {"tls": tls, "mode": mode, "clients": clients,
                                          "round": round_})
                finally:
                    for one in running:
                        one.run.end()
        for p in proxies:
            self.describe(p)
            if not a.smoke:
                p.stop()

    def describe(self, p):
        if p.name not in [n["name"] for n in self.names]:
            self.names.append({"name": p.name, "version": p.version, "prepared": p.prepared,
                               "note": p.note})

    # ---- memory, logins, bulk: a fresh process for each ----

    def fresh(self, certificate="ecdsa"):
        """Each of the proxies in turn, newly started. In a smoke test they serve for all."""
        if self.args.smoke:
            if not self.kept:
                self.kept = [PgBouncer(self.stand, *p) for p in self.pgbouncers]
                self.kept.append(Postern(self.stand, "Postern"))
            yield from self.kept
            return
        for name, argv, version in self.pgbouncers:
            p = PgBouncer(self.stand, name, argv, version, certificate=certificate)
            self.describe(p)
            yield p
            p.stop()
        p = Postern(self.stand, "Postern", certificate=certificate)
        self.describe(p)
        yield p
        p.stop()

    def helper(self, proxy, tls, what, count):
        return subprocess.Popen([sys.executable, "-m", "bench.clients", what, str(count)],
                                env=proxy.client_environment(self.stand, tls),
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def idle(self):
        """Memory of N idle clients: that with 1.1 N, less that with the first 0.1 N, which have
        brought the process to its working size."""
        for tls in (False, True):
            for p in self.fresh():
                first = self.helper(p, tls, "idle", max(1, self.args.idle // 10))
                if not proc.first_line(first.stdout, 120):
                    raise StandError(f"{p.name}: the idle clients did not get ready")
                before = measure.memory_kib(p.pid)
                more = self.helper(p, tls, "idle", self.args.idle)
                if not proc.first_line(more.stdout, 300):
                    raise StandError(f"{p.name}: the idle clients did not get ready")
                kib = (measure.memory_kib(p.pid) - before) / self.args.idle
                for h in (first, more):
                    h.stdin.close()
                    h.wait(60)
                self.note(what="idle", tls=tls, proxy=p.name, kib=kib)
                say(f"   {'TLS' if tls else 'plain':5} idle client   {p.name:20} {kib:6.2f} KiB")

    def logins(self):
        rounds = min(5, self.args.rounds)
        for certificate in ("ecdsa",) if self.args.smoke else ("rsa", "ecdsa"):
            for p in self.fresh(certificate):
                for round_ in range(-1, rounds):
                    before = measure.cpu_us(p.pid)
                    if self.helper(p, True, "logins", self.args.logins).wait(120) != 0:
                        raise StandError(f"{p.name}: logins failed")
                    each = (measure.cpu_us(p.pid) - before) / self.args.logins
                    if round_ >= 0:  # the first warms up
                        self.note(what="login", certificate=certificate, proxy=p.name,
                                  round=round_, cpu=each)
                say(f"   TLS login, {certificate:5} {p.name:20} {each:7.0f} us")

    def copy(self):
        rows = max(1, self.args.copy_mb * 1000)
        sql = (f"COPY (SELECT repeat('x', 999) FROM generate_series(1, {rows})) TO STDOUT")
        for tls in (False, True):
            for p in self.fresh():
                env = p.client_environment(self.stand, tls)
                for round_ in range(min(3, self.args.rounds)):
                    before = measure.cpu_us(p.pid)
                    subprocess.run(["psql", "-Xqc", sql], env=env, stdout=subprocess.DEVNULL,
                                   check=True, timeout=300)
                    per_gb = (measure.cpu_us(p.pid) - before) / 1e6 / (rows / 1e6)
                    self.note(what="copy", tls=tls, proxy=p.name, round=round_, cpu=per_gb)
                say(f"   {'TLS' if tls else 'plain':5} COPY out      {p.name:20} "
                    f"{per_gb:6.2f} s/GB")


def options():
    p = argparse.ArgumentParser(prog="bench/run", description="Postern beside PgBouncer.")
    p.add_argument("--build", required=True, help=argparse.SUPPRESS)
    p.add_argument("--out", help="directory for results.md and results.json")
    p.add_argument("--pgbouncer", metavar="PATH", help="another pgbouncer than that in PATH")
    p.add_argument("--pgbouncer-root", metavar="DIR",
                   help="a root directory (debootstrap makes one) with another pgbouncer")
    p.add_argument("--before", metavar="DIR", help="the build directory of another Postern (an earlier commit's) "
                   "that takes part in the loads")
    p.add_argument("--no-path", action="store_true", help="leave the pgbouncer in PATH out")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--slices", type=int, default=5, help="turns of each proxy in a round")
    p.add_argument("--slice", type=float, default=0.4, help="seconds of one turn")
    p.add_argument("--only", metavar="WHAT", default="loads,idle,logins,copy",
                   help="some of loads,idle,logins,copy")
    p.add_argument("--load", metavar="TLS/MODE/CLIENTS", action="append",
                   help="only this load, as plain/simple/16 or tls/prepared/64; may be repeated")
    p.add_argument("--only-one", action="store_true",
                   help="Postern with one worker and limits only")
    p.add_argument("--no-calls", action="store_true", help="do not count system calls")
    p.add_argument("--idle", type=int, default=1500, help="idle clients")
    p.add_argument("--logins", type=int, default=300, help="logins of a round")
    p.add_argument("--copy-mb", type=int, default=500, help="megabytes of a COPY")
    p.add_argument("--smoke", action="store_true",
                   help="everything once and short: shows that the bench works, measures nothing")
    a = p.parse_args()
    if a.smoke:
        a.rounds, a.slices, a.idle, a.logins, a.copy_mb = 1, 1, 20, 5, 1
        a.only_one = True
        a.load = a.load or ["plain/simple/4", "tls/prepared/16"]
    a.only = a.only.split(",")
    if set(a.only) - {"loads", "idle", "logins", "copy"}:
        p.error("--only takes loads, idle, logins and copy, with commas between")
    if a.rounds < 1 or a.slices < 1 or a.slice <= 0 or a.idle < 1 or a.logins < 1:
        p.error("--rounds, --slices, --slice, --idle and --logins must be greater than 0")
    if os.geteuid() != 0 and ("idle" in a.only or not a.no_calls):
        p.error("Postern keeps others from reading its memory and calls: run this as root, or with "
                "--no-calls --only loads,logins,copy")
    loads = []
    for text in a.load or []:
        try:
            tls, mode, clients = text.split("/")
            loads.append(({"plain": False, "tls": True}[tls], mode, int(clients)))
            if mode not in ("simple", "extended", "prepared") or loads[-1][2] < 1:
                raise ValueError
        except (ValueError, KeyError):
            p.error(f"--load {text}: should be like plain/simple/16 or tls/prepared/64")
    a.loads = loads or LOADS
    return a


def compare(args, stand, load):
    stand.start(pgbench_scale=1, say=lambda text: say(f"   {text}"))
    bench = Bench(args, stand)
    for what in args.only:
        getattr(bench, what)()
    for proxy in bench.kept:
        proxy.stop()
    stand.stop()
    result = {"machine": report.machine(load), "pool": POOL, "rounds": args.rounds, "slices": args.slices,
              "slice": args.slice, "counted_by": bench.calls and bench.calls.__name__,
              "proxies": bench.names, "samples": bench.samples}
    report.write(result, report.table(result), args.out, "results")


def main():
    args = options()
    return in_stand(args.build, lambda stand, load: compare(args, stand, load))


if __name__ == "__main__":
    sys.exit(main())
