"""What the matrices of drivers and of tools have in common: programs that print `name<TAB>result`,
each line with a deadline, on a stand, and differences that are known."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# No case may take longer, nor a program's start.
CASE_SECONDS = float(os.environ.get("STAND_PATIENCE", "1")) * 45


def read_environment(path):
    names = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if "=" in line and not line.startswith("#"):
                name, _, value = line.strip().partition("=")
                names[name] = "".join(shlex.split(value))
    return names


def environment(names, database):
    """What a program is told to connect with, libpq's variables: directly where database is None,
    else a name in DIR/env of one of the gate's databases."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "DRIVERS_"))}
    env.update(LC_ALL="C.UTF-8", TZ="UTC", PGSSLMODE="verify-full", PGCONNECT_TIMEOUT="20",
               PYTHONDONTWRITEBYTECODE="1")
    if database is None:
        env.update(PGHOST=names["DIRECT_HOST"], PGPORT=names["DIRECT_PORT"],
                   PGUSER=names["DIRECT_USER"], PGPASSWORD=names["DIRECT_PASSWORD"],
                   PGDATABASE=names["DIRECT_DB"], PGSSLROOTCERT=names["DIRECT_SSLROOTCERT"])
    else:
        env.update(PGHOST=names["GATE_HOST"], PGPORT=names["GATE_PORT"],
                   PGUSER=names["DIRECT_USER"], PGPASSWORD=names["ACME_TOKEN"],
                   PGDATABASE=names[database], PGSSLROOTCERT=names["GATE_SSLROOTCERT"])
    return env


class Program:
    """Its lines with a deadline; what it started ends with it."""

    def __init__(self, argv, env, folder):
        self.errors = tempfile.TemporaryFile()
        self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=self.errors, env=env, cwd=folder,
                                      start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        self.lines.put(None)

    def line(self, seconds):
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return False

    def end(self):
        try:
            status = self.popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            status = "was killed"
        self.kill()
        return status

    def kill(self):
        """The program and all that it has started and not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, 9)
        self.popen.wait()

    def said(self):
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", "replace").strip()
        return text[-2000:]


def run_mode(name, argv, env, only, verbose, folder):
    """{case: result}; a program that hangs or dies goes on behind the case that did it."""
    results = {}
    starts = broken = 0
    while True:
        env = dict(env, DRIVERS_SKIP="|".join(results), DRIVERS_ONLY="|".join(only))
        program = Program(argv, env, folder)
        starts += 1
        at = None
        while True:
            line = program.line(CASE_SECONDS)
            if line is False:
                program.kill()
                results[at or f"(start {starts})"] = f"(!no result within {CASE_SECONDS:.0f} s)"
                break
            if line is None:
                status = program.end()
                if at is None and status == 0:
                    if verbose and program.said():
                        print(program.said(), file=sys.stderr)
                    return results
                results[at or f"(start {starts})"] = f"(!program ended: {status})"
                print(f"   {name}: {at}: ended with {status}: {program.said()}", file=sys.stderr)
                break
            if line.startswith("> "):
                at = line[2:]
            elif "\t" in line:
                case, _, result = line.partition("\t")
                results[case] = result
                at = None
            else:
                print(f"   {name}: {line}", file=sys.stderr)
        broken = broken + 1 if at is None else 0
        if starts > 25 or broken > 1:
            return results


class Documented:
    """documented.txt: (driver, case, mode) -> reason; a driver or a mode may be `*`, and a mode that ends in
    `?` is one in which the difference need not show each time."""

    def __init__(self, path):
        self.rows, self.seen, self.chances = {}, set(), set()
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    driver, name, mode, reason = [p.strip() for p in line.split("\t") if p.strip()]
                    key = (driver, name, mode.rstrip("?"))
                    self.rows[key] = reason
                    if mode.endswith("?"):
                        self.chances.add(key)

    def reason(self, driver, name, mode):
        mode = "transaction" if mode == "pool of one" else mode
        for key in ((d, name, m) for d in (driver, "*") for m in (mode, "*")):
            if key in self.rows:
                self.seen.add(key)
                return self.rows[key]
        return None

    def unseen(self):
        return [", ".join(key) for key in self.rows if key not in self.seen | self.chances]


def shorten(direct, got, width=300):
    """Both texts from shortly before they part."""
    at = next((i for i, (a, b) in enumerate(zip(direct, got)) if a != b),
              min(len(direct), len(got)))
    start = max(0, at - 100)
    dots = "..." if start else ""
    return dots + direct[start:start + width], dots + got[start:start + width]


def stand(directory, up):
    argv = [os.path.join(TOP, "quickstart"), "--keep", "--no-show", "--dir", directory]
    if not up:
        argv = [os.path.join(TOP, "quickstart"), "--down", "--dir", directory]
    subprocess.run(argv, check=True, timeout=900, stdout=sys.stderr)
