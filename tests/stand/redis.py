"""Redis, with a password and without persistence, and a client of a few lines."""
# SPDX-License-Identifier: Apache-2.0
import os
import secrets
import socket

from .proc import Process, StandError, free_port, need

CONF = """\
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
dir "{folder}"
daemonize no
"""


class Redis:
    def __init__(self, folder, log):
        self.folder = folder
        self.log = log
        self.port = None
        self.process = None
        self.password = secrets.token_urlsafe(18)
        self.password_file = os.path.join(folder, "password")

    def start(self):
        program = need("redis-server", "redis-server")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if not os.path.exists(self.password_file):
            with open(self.password_file, "w", encoding="ascii",
                      opener=lambda p, f: os.open(p, f, 0o600)) as f:
                f.write(self.password + "\n")
        attempts = 5
        while True:
            port = self.port or free_port()
            conf = os.path.join(self.folder, "redis.conf")
            with open(conf, "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
                f.write(CONF.format(port=port, password=self.password, folder=self.folder))
            process = Process("Redis", [program, conf], self.log)
            try:
                process.ready(20, lambda: self._pings(port))
            except StandError:
                process.stop()
                attempts -= 1
                if self.port or attempts == 0:
                    raise
                continue
            self.port, self.process = port, process
            return

    def _pings(self, port):
        try:
            return self.command("PING", port=port) == "PONG"
        except (OSError, StandError):
            return False

    def command(self, *words, port=None):
        """One command on a connection of its own; arrays as lists, nil as None."""
        return self.commands(("AUTH", self.password), words, port=port)

    def commands(self, *lines, port=None):
        """The answer to the last of them, all on one connection; StandError with what is no answer."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=5) as s:
            f = s.makefile("rwb")
            for line in lines:
                f.write(b"*%d\r\n" % len(line))
                for word in line:
                    word = str(word).encode()
                    f.write(b"$%d\r\n%s\r\n" % (len(word), word))
                f.flush()
                answer = self._read(f)
            return answer

    def _read(self, f):
        line = f.readline().rstrip(b"\r\n").decode()
        kind, rest = line[:1], line[1:]
        if kind == "-":
            raise StandError(f"Redis: {rest}")
        if kind == "+":
            return rest
        if kind == ":":
            return int(rest)
        if kind == "$":
            return None if rest == "-1" else f.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return [self._read(f) for _ in range(int(rest))]
        raise StandError(f"Redis: unexpected answer {line!r}")

    def kill(self):
        if self.process:
            self.process.kill()
            self.process = None

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None
