#!/usr/bin/env python3
"""The torture test: builds the stand, lets the clients of tests/torture loose on a gate, breaks
connections and nodes under them, and looks at what is left.

    tests/torture/run.py --build DIR [--seconds 600] [--seed S] [--clients 64] [--quiet]
    tests/torture/run.py --build DIR --direct      the same clients past the gate: checks the checker

--quiet breaks nothing: then no client may see any failure that it did not cause itself.
"""
# SPDX-License-Identifier: Apache-2.0
import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)

from stand import proc, wire  # noqa: E402
from stand.proc import StandError  # noqa: E402
from stand.stand import Stand  # noqa: E402

TENANTS = ("acme", "globex")
POOL = 5
SESSIONS = 40  # server connections for the third of the clients that is in session mode
REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
                     r"check failed|Assertion", re.IGNORECASE)


def overrides(**more):
    """A gate with a listener for plaintext too and a pool of 5 for each of two tenants."""
    out = {"listener main": {"tls": "allow"},
           "cluster main": {"probe_interval": "200ms", "connect_timeout": "2s"}, **more}
    for tenant in TENANTS:
        out[f"tenant {tenant}"] = {"databases": f"{tenant}, torture_{tenant}"}
        out[f"database torture_{tenant}"] = {
            "cluster": "main", "dbname": tenant, "pool_mode": "transaction", "pool_size": POOL,
            "wait_limit": "120s", "cancel_timeout": "5s", "prepared_statements": 20}
    out[f"tenant {TENANTS[0]}"]["databases"] += ", torture_session"
    out["database torture_session"] = {
        "cluster": "main", "dbname": TENANTS[0], "pool_mode": "session", "pool_size": SESSIONS,
        "wait_limit": "120s", "cancel_timeout": "5s"}
    return out


def prepare(stand):
    """Tables; and what other tests have left running at the end of a lost connection goes."""
    for tenant in TENANTS:
        stand.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state <> 'idle' "
                           f"AND usename = '{tenant}_rw' AND backend_type = 'client backend'")
        stand.postgres.sql("DROP TABLE IF EXISTS torture_log;"
                           "CREATE UNLOGGED TABLE torture_log (client int, words text)",
                           tenant, f"{tenant}_rw")


class Chaos:
    """Takes connections, nodes and settings away while the clients run."""

    def __init__(self, stand, gate, seed):
        self.stand, self.gate = stand, gate
        self.random = random.Random(seed)
        self.counts = {"backends killed": 0, "reloads": 0, "nodes killed": 0, "nodes frozen": 0,
                       "nodes cut while frozen": 0}
        self.down = self.frozen = None

    def step(self):
        """One misfortune; how many seconds until the next."""
        roles = ", ".join(f"'{tenant}_rw'" for tenant in TENANTS)
        if self.frozen:
            if self.random.randrange(3) == 0:
                self.frozen.kill()  # what lay before it is lost
                self.down = self.frozen
                self.counts["nodes cut while frozen"] += 1
            else:
                self.frozen.thaw()
            self.frozen = None
            return self.random.uniform(0.02, 0.6)
        if self.down:
            self.down.start()
            self.down = None
            return self.random.uniform(0.5, 1.5)
        kind = self.random.randrange(20)
        if kind == 0:
            self.down = self.random.choice(self.stand.nodes)
            self.down.kill()
            self.counts["nodes killed"] += 1
            return self.random.uniform(0.1, 1)
        if kind == 1:
            self.frozen = self.random.choice(self.stand.nodes)
            self.frozen.freeze()
            self.counts["nodes frozen"] += 1
            return self.random.uniform(0.02, 1)
        if kind < 5:
            self.gate.reload({"database torture_acme": {
                "prepared_statements": self.random.choice((10, 20, 30))}})
            self.counts["reloads"] += 1
        else:
            self.stand.postgres.sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ({roles})"
                f" ORDER BY random() LIMIT {self.random.choice((1, 1, 1, 3))}")
            self.counts["backends killed"] += 1
        return self.random.uniform(0.02, 0.6)

    def end(self):
        if self.frozen:
            self.frozen.thaw()
            self.frozen = None
        if self.down:
            self.down.start()
            self.down = None


def arguments(stand, build, port, *, clients, seconds, seed, folder, more=()):
    argv = [os.path.join(build, "tests", "torture", "torture"), "--port", str(port), "--clients",
            str(clients), "--seconds", str(seconds), "--seed", str(seed), "--server",
            str(stand.postgres.version), *more]
    for tenant in TENANTS:
        path = os.path.join(folder, f"torture-{tenant}.token")
        with open(path, "w", encoding="ascii") as f:
            f.write(stand.token(tenant) + "\n")
        direct = "--trust" in argv
        argv += ["--user", f"{tenant}_rw", "--db", tenant if direct else f"torture_{tenant}",
                 "--token-file", path]
    if not direct:
        argv += ["--user", f"{TENANTS[0]}_rw", "--db", "torture_session", "--token-file",
                 os.path.join(folder, f"torture-{TENANTS[0]}.token"), "--session"]
    return argv


def run_clients(argv, seconds, log, step=None, watch=None):
    """Runs the clients to their end; the exit status and what they printed."""
    with open(log, "wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + (seconds + 60) * max(1, proc.PATIENCE)
        try:
            while True:
                pause = step() if step else 0.5
                if watch:
                    watch()
                try:
                    process.wait(pause)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise StandError("the clients do not come to an end") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    with open(log, encoding="utf-8", errors="replace") as f:
        return process.returncode, f.read()


def pools(stand, gate):
    """SHOW POOLS: the rows of ours as dictionaries."""
    with wire.Client(("127.0.0.1", gate.port()), "request", ca=stand.authority.crt) as c:
        c.login(stand.admin_user, "postern", stand.admin_password)
        messages = c.ask(wire.query("SHOW POOLS"))
        body = next(body for kind, body in messages if kind == "T")
        names, at = [], 2
        for _ in range(int.from_bytes(body[:2], "big")):
            end = body.index(b"\0", at)
            names.append(body[at:end].decode())
            at = end + 19
        rows = [dict(zip(names, row)) for row in wire.rows(messages)]
    return [r for r in rows if any(str(v).startswith("torture_") for v in r.values())]


def aftermath(stand, gate):
    """What must be so when all clients have gone; StandError when it is not."""
    gate.process.need_alive()
    found = REPORTS.search(gate.log())
    if found:
        raise StandError(gate.log()[max(0, found.start() - 500):found.start() + 6000])
    proc.wait_for("connections to become idle in SHOW POOLS", 15,
                  lambda: all(r[k] == "0" for r in pools(stand, gate)
                              for k in ("cl_active", "cl_waiting", "sv_active", "sv_cleaning")))
    roles = ", ".join(f"'{tenant}_rw'" for tenant in TENANTS)
    bad = stand.postgres.sql(f"SELECT pid, state, query FROM pg_stat_activity WHERE usename IN ({roles})"
                             " AND backend_type = 'client backend' AND state <> 'idle'")
    if bad:
        raise StandError(f"backends that are not idle: {bad}")
    locks = stand.postgres.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    if locks != [["0"]]:
        raise StandError(f"advisory locks were left: {locks}")
    # By the gate's own account: other gates of the same stand may hold connections of these roles.
    many = [r for r in pools(stand, gate)
            if sum(int(r[k]) for k in ("sv_active", "sv_idle", "sv_login", "sv_cleaning"))
            > (SESSIONS if "torture_session" in r.values() else POOL)]
    if many:
        raise StandError(f"more server connections than the pool may have: {many}")


def torment(stand, gate, build, *, clients=64, seconds=20, seed=1, quiet=False, folder=None,
            say=print, stuck=20):
    """Clients on a running gate. StandError when anything was wrong."""
    prepare(stand)
    chaos = None if quiet else Chaos(stand, gate, seed)
    memory, began = [], time.monotonic()

    def watch():
        gate.process.need_alive()
        memory.append((time.monotonic() - began, proc.resident(gate.pid)))

    more = ["--stuck", str(stuck)] + ([] if quiet else ["--chaos"])
    argv = arguments(stand, build, gate.port(), clients=clients, seconds=seconds, seed=seed,
                     folder=folder or gate.folder, more=more)
    try:
        status, text = run_clients(argv, seconds, os.path.join(gate.folder, "torture.out"),
                                   chaos.step if chaos else None, watch)
    finally:
        if chaos:
            chaos.end()
    say(text.strip()[-20000:])
    if chaos:
        say(", ".join(f"{n} {what}" for what, n in chaos.counts.items()))
    if status:
        raise StandError(f"the clients ended with status {status}:\n{text[-20000:]}")
    aftermath(stand, gate)
    warm = [m for at, m in memory if at >= seconds / 3]
    if warm:
        say(f"memory: {warm[0]} KiB after {seconds / 3:.0f} s, {max(warm)} at most, {warm[-1]} at the end")
        return warm[0], warm[-1]
    return 0, 0


def direct(stand, build, args, folder):
    """Past the gate: whatever is reported now is the checker's own fault."""
    hba = os.path.join(stand.postgres.folder, "data", "pg_hba.conf")
    with open(hba, "r+", encoding="ascii") as f:
        rest = f.read()
        f.seek(0)
        f.write("host acme,globex acme_rw,globex_rw 127.0.0.1/32 trust\n" + rest)
    stand.postgres.sql("SELECT pg_reload_conf()")
    prepare(stand)
    argv = arguments(stand, build, stand.postgres.port, clients=args.clients, seconds=args.seconds,
                     seed=args.seed, folder=folder, more=["--trust", "--tls-every", "0"])
    status, text = run_clients(argv, args.seconds, os.path.join(folder, "torture.out"))
    print(text)
    return status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=os.path.join(os.path.dirname(TESTS), "build"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stuck", type=float, default=20)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the logs")
    args = parser.parse_args()
    proc.exit_on_signals()
    folder = tempfile.mkdtemp(prefix="postern-torture-")
    os.chmod(folder, 0o755)
    stand = Stand(folder, args.build, workers=args.workers)
    gate = None
    try:
        stand.start()
        if args.direct:
            return direct(stand, args.build, args, folder)
        gate = stand.gate(overrides(), name="gate").start()
        torment(stand, gate, os.path.abspath(args.build), clients=args.clients,
                seconds=args.seconds, seed=args.seed, quiet=args.quiet, stuck=args.stuck)
        status = gate.stop()
        found = REPORTS.search(gate.log())
        if status or found:
            raise StandError(f"the gate ended with status {status}\n"
                             f"{gate.log()[max(0, found.start() - 500):found.start() + 6000] if found else ''}")
        print(f"passed: seed {args.seed}")
        return 0
    except StandError as e:
        print(f"FAILED: seed {args.seed}: {e}", file=sys.stderr)
        if gate:
            print(proc.tail(gate.stderr, 60), proc.tail(gate.log_file, 30), file=sys.stderr)
        return 1
    finally:
        stand.gates = [] if gate and not gate.process else stand.gates
        try:
            stand.stop()
        except StandError as e:
            print(e, file=sys.stderr)
        proc.stop_everything()
        if args.keep:
            print(f"logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
