"""What a process costs: CPU time, system calls, memory, and pgbench's count of transactions."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

from stand.proc import StandError

TICK = os.sysconf("SC_CLK_TCK")


def cpu_us(pid):
    """CPU time of all threads of a process so far, user and system. The scheduler's own
    account in nanoseconds where the kernel shows it, clock ticks where it does not."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
        return total / 1000
    except OSError:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e6 / TICK


def memory_kib(pid):
    """Proportional set size: pages shared with other processes count by their share."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.MULTILINE)[1])


# ---- pgbench ----

PROGRESS = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps,.*?(\d+) failed")


class Pgbench:
    """A run of pgbench that is halted and continued from outside, and ends when it is told to.

    Each progress line gives a time to the millisecond and the rate since the line before, and so
    an exact count, halts included. The clients have all logged in before the first line."""

    def __init__(self, argv, env):
        self.log = self.pending = ""
        self.last, self.since = None, 0
        # A session of its own: the group of a shell that ends with a halted process in it gets
        # SIGHUP from the kernel, and we with it.
        self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      start_new_session=True)
        os.set_blocking(self.popen.stderr.fileno(), False)

    def halt(self):
        self.popen.send_signal(signal.SIGSTOP)

    def go(self):
        self.since = time.time()
        self.popen.send_signal(signal.SIGCONT)

    def transactions(self):
        """Waits for the first progress line since go(): the transactions since this was last
        asked, lines that were printed meanwhile included."""
        count = 0.0
        while True:
            now, tps = self.progress()
            if self.last is not None:
                count += tps * (now - self.last)
            self.last = now
            if now >= self.since:
                return count

    def progress(self, seconds=30):
        """(time, transactions a second since the line before) of the next progress line."""
        deadline = time.monotonic() + seconds
        while True:
            line, found, rest = self.pending.partition("\n")
            if found:
                self.pending = rest
                self.log += line + "\n"
                m = PROGRESS.match(line)
                if m:
                    if int(m[3]):
                        raise StandError(f"pgbench had failed transactions:\n{self.log}")
                    return float(m[1]), float(m[2])
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.popen.stderr], [], [], left)[0]:
                raise StandError(f"pgbench made no progress:\n{self.log}")
            part = os.read(self.popen.stderr.fileno(), 65536)
            if not part:
                raise StandError(f"pgbench ended early:\n{self.log}{self.pending}")
            self.pending += part.decode(errors="replace")

    def end(self):
        """Stops it; errors of clients that had nothing to do with stopping are errors of ours."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
            self.go()
        self.popen.wait(20)
        self.popen.stderr.close()
        if re.search(r"\berror:|aborted", self.log):
            raise StandError(f"pgbench complained:\n{self.log}")

    def finish(self):
        """Lets it end in order, as when its time is up, so that its log of transactions is whole."""
        self.popen.send_signal(signal.SIGALRM)
        status = self.popen.wait(20)
        while part := os.read(self.popen.stderr.fileno(), 65536):
            self.pending += part.decode(errors="replace")
        self.popen.stderr.close()
        self.log += self.pending
        if status or re.search(r"\berror:|aborted", self.log) or \
                any(int(m[3]) for m in PROGRESS.finditer(self.log)):
            raise StandError(f"pgbench failed:\n{self.log}")


class Several:
    """Runs of pgbench that are one load: each with clients and a token of its own."""

    def __init__(self, runs):
        self.runs = runs

    def halt(self):
        for run in self.runs:
            run.halt()

    def go(self):
        for run in self.runs:
            run.go()

    def transactions(self):
        return sum(run.transactions() for run in self.runs)

    def end(self):
        for run in self.runs:
            run.end()


# ---- system calls ----

CALLS = ("epoll_wait", "epoll_pwait", "epoll_ctl", "recvfrom", "recvmsg", "read", "readv", "sendto",
         "sendmsg", "write", "writev", "futex", "clock_gettime", "getpid", "poll", "ppoll",
         "mmap", "munmap", "madvise", "brk", "getsockopt", "setsockopt", "ioctl", "fcntl")


def perf_works():
    """Whether `perf stat` may count system calls here (root, or perf_event_paranoid -1)."""
    if not shutil.which("perf"):
        return False
    done = subprocess.run(["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "true"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    m = re.search(r"^(\d+),", done.stderr, re.MULTILINE)
    return done.returncode == 0 and m is not None and int(m[1]) > 0


def strace_works(folder):
    """Whether strace may attach to a process that it did not start."""
    if not shutil.which("strace"):
        return False
    with subprocess.Popen(["sh", "-c", "while sleep 0.01; do :; done"]) as busy:
        try:
            counter = StraceCount(busy.pid, folder)
            counter.start()
            time.sleep(0.2)
            return bool(counter.stop())
        except StandError:
            return False
        finally:
            busy.terminate()


class PerfCount:
    """Counts system calls of a process without slowing it down much, between start and stop."""

    def __init__(self, pid, folder):
        self.folder = tempfile.mkdtemp(dir=folder)
        self.ctl, self.ack = (os.path.join(self.folder, n) for n in ("ctl", "ack"))
        self.out = os.path.join(self.folder, "out")
        os.mkfifo(self.ctl)
        os.mkfifo(self.ack)
        events = ["raw_syscalls:sys_enter"]
        known = "/sys/kernel/tracing/events/syscalls"
        if not os.path.isdir(known):
            known = "/sys/kernel/debug/tracing/events/syscalls"
        events += [f"syscalls:sys_enter_{call}" for call in CALLS
                   if os.path.isdir(f"{known}/sys_enter_{call}")]
        self.popen = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-o", self.out, "-D", "-1", "-e", ",".join(events),
             "-p", str(pid), "--control", f"fifo:{self.ctl},{self.ack}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Perf opens both ends; open ours without waiting for each other.
        self.ctl_fd = os.open(self.ctl, os.O_RDWR)
        self.ack_fd = os.open(self.ack, os.O_RDWR | os.O_NONBLOCK)

    def _say(self, word):
        os.write(self.ctl_fd, word.encode() + b"\n")
        if not select.select([self.ack_fd], [], [], 10)[0]:
            raise StandError(f"perf stat did not answer to {word!r}")
        os.read(self.ack_fd, 64)

    def start(self):
        self._say("enable")

    def stop(self):
        """{call: count}; "all" is the sum of everything."""
        self._say("disable")
        self.popen.send_signal(signal.SIGINT)
        self.popen.wait(10)
        os.close(self.ctl_fd)
        os.close(self.ack_fd)
        counts = {}
        with open(self.out, encoding="utf-8") as f:
            for line in f:
                fields = line.split(",")
                if len(fields) > 2 and "sys_enter" in fields[2]:
                    name = fields[2].rpartition("sys_enter")[2].lstrip("_") or "all"
                    counts[name] = int(fields[0]) if fields[0].isdigit() else 0
        shutil.rmtree(self.folder, ignore_errors=True)
        if not counts.get("all"):
            raise StandError("perf stat counted no system calls")
        return counts


class StraceCount:
    """The same by strace, which slows the process down many times: the last resort."""

    def __init__(self, pid, folder):
        self.pid = pid
        fd, self.out = tempfile.mkstemp(dir=folder)
        os.close(fd)
        self.popen = None

    def start(self):
        self.popen = subprocess.Popen(
            ["strace", "-c", "-f", "-o", self.out, "-p", str(self.pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # strace says "attached" once it is.
        if not select.select([self.popen.stderr], [], [], 10)[0]:
            raise StandError("strace did not attach")

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
        self.popen.communicate(timeout=10)
        counts = {}
        with open(self.out, encoding="utf-8") as f:
            for line in f:
                fields = line.split()
                if len(fields) >= 5 and fields[3].isdigit():
                    counts["all" if fields[-1] == "total" else fields[-1]] = int(fields[3])
        os.unlink(self.out)
        if not counts.get("all"):
            raise StandError("strace counted no system calls")
        return counts
