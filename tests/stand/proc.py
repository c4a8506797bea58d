"""Processes: started in a group of their own, awaited by what they do, ended by pid."""
# SPDX-License-Identifier: Apache-2.0
import atexit
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import time

# How much longer everything may take; builds with sanitizers are slow.
PATIENCE = float(os.environ.get("STAND_PATIENCE", "1"))

_running = []


class StandError(Exception):
    """Something the stand needs did not happen; the text says what, with the log's tail."""


def wait_for(what, seconds, question):
    """Asks until the answer is true and returns it; StandError after `seconds`."""
    deadline = time.monotonic() + seconds * PATIENCE
    pause = 0.002
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise StandError(f"{what}: not within {seconds * PATIENCE:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def tail(path, lines=25):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError as e:
        return f"({e})\n"


def free_port(host="127.0.0.1"):
    """A port that the system has just chosen, for servers that cannot bind port 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def has_ipv6():
    try:
        free_port("::1")
        return True
    except OSError:
        return False


def conninfo(**words):
    """libpq's connection string; None leaves a word out."""
    def quoted(value):
        if re.fullmatch(r"[^\s'\\\\]+", value):
            return value
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return " ".join(f"{k}={quoted(str(v))}" for k, v in words.items() if v is not None)


def started_at(pid):
    """Start time of a process in clock ticks, so that a pid used again is not taken for it;
    None when there is no such process, or only its remains."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def await_exit(pids):
    """Until server processes of this machine have gone: before 14 pg_terminate_backend() cannot wait."""
    for pid in pids:
        wait_for(f"process {pid} to end", 15, lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


def run(argv, *, stdin=None, env=None, check=True, cwd=None, timeout=120, user=None):
    """Runs a command to its end; its output as text. StandError with it when it fails."""
    done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=env, cwd=cwd, timeout=timeout * PATIENCE,
                          **identity(user))
    if check and done.returncode != 0:
        raise StandError(f"{' '.join(map(str, argv[:4]))}...: exit {done.returncode}\n"
                         f"{done.stdout}{done.stderr}")
    return done


def identity(user):
    """Popen's arguments to run as another user when we are root; otherwise none."""
    if user is None or os.geteuid() != 0:
        return {}
    row = pwd.getpwnam(user)
    return {"user": row.pw_uid, "group": row.pw_gid, "extra_groups": []}


def user_id(user):
    """(uid, gid) to own files that `user` must read; ours when we are not root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    row = pwd.getpwnam(user)
    return row.pw_uid, row.pw_gid


class Process:
    """One process of the stand. It outlives us only when `forget()` was called."""

    def __init__(self, name, argv, log, *, env=None, cwd=None, stdout=None, how=signal.SIGTERM,
                 user=None):
        self.name = name
        self.log = log
        self.how = how
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or out,
                                          stderr=out, env=env, cwd=cwd, start_new_session=True,
                                          **identity(user))
        self.pid = self.popen.pid
        self.start = started_at(self.pid)
        _running.append(self)

    def alive(self):
        return self.popen.poll() is None

    def need_alive(self):
        if not self.alive():
            raise StandError(f"{self.name} ended with status {self.popen.returncode}; its log:\n"
                             f"{tail(self.log)}")
        return True

    def ready(self, seconds, question):
        """Waits until the question is answered; fails at once when the process ends."""
        try:
            return wait_for(f"{self.name} to get ready", seconds,
                            lambda: self.need_alive() and question())
        except StandError as e:
            text = str(e)
            if "its log" not in text:
                text += f"; its log:\n{tail(self.log)}"
            raise StandError(text) from None

    def signal(self, sig):
        self.popen.send_signal(sig)

    def wait(self, seconds):
        """Exit status, or StandError when it is still there after `seconds`."""
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise StandError(f"{self.name} did not end within {seconds * PATIENCE:.0f} s; its log:\n"
                             f"{tail(self.log)}") from None

    def stop(self, seconds=15):
        """Ends it: politely, then by force. Returns the exit status."""
        if self in _running:
            _running.remove(self)
        if not self.alive():
            return self.popen.returncode
        self.signal(signal.SIGCONT)
        self.signal(self.how)
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.popen.wait()

    def kill(self):
        """Ends it without any chance to say good-bye."""
        if self in _running:
            _running.remove(self)
        if self.alive():
            self.signal(signal.SIGKILL)
        return self.popen.wait()

    def forget(self):
        if self in _running:
            _running.remove(self)
        self.popen.returncode = 0  # not our child any more: silences the destructor's warning


def first_line(pipe, seconds):
    """The first line a process prints to a pipe, or "" when it ends or takes too long."""
    fd = pipe.fileno()
    deadline = time.monotonic() + seconds * PATIENCE
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return ""
        byte = os.read(fd, 1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def stop_everything():
    for process in reversed(list(_running)):
        try:
            process.stop()
        except OSError:
            pass


def end_by_record(records, seconds=20):
    """Ends processes of an earlier run: [{name, pid, start, how}]. A pid that belongs to
    another process by now is left alone. Returns the names of those that had to be killed."""
    forced = []
    for r in records:
        pid = r["pid"]

        def ours(pid=pid, start=r["start"]):
            return started_at(pid) == start

        if not ours():
            continue
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, r["how"])
        try:
            wait_for(f"{r['name']} to end", seconds, lambda: not ours())
        except StandError:
            forced.append(r["name"])
            os.kill(pid, signal.SIGKILL)
            wait_for(f"{r['name']} to be killed", seconds, lambda: not ours())
    return forced


def need(program, package):
    found = shutil.which(program)
    if not found:
        raise StandError(f"{program} was not found: install the package {package}")
    return found


def exit_on_signals():
    """Turns the signals that end us into an exit, so that everything started is ended too."""
    def leave(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


atexit.register(stop_everything)


def resident(pid, field="VmRSS"):
    """KiB of memory: now, or VmHWM, at most so far."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field))


def is_sanitized(pid):
    """Sanitizers keep freed memory for a while: the size of a process with one says nothing."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        maps = f.read()
    return "libasan" in maps or "libtsan" in maps
