"""A server that says what a test wants, whenever it wants: what PostgreSQL will not be made to do."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import re
import socket
import struct
import threading

from stand import wire


def error(**fields):
    return wire.message("E", b"".join(k.encode() + wire.text(v) for k, v in fields.items()) + b"\0")


def notice(text):
    return wire.message("N", b"SNOTICE\0VNOTICE\0C00000\0M" + wire.text(text) + b"\0")


def parameter(name, value):
    return wire.message("S", wire.text(name) + wire.text(value))


def ready(status="I"):
    return wire.message("Z", status.encode())


def done(tag="SELECT 1"):
    return wire.message("C", wire.text(tag))


def row(*values):
    return wire.message("D", struct.pack("!h", len(values)) + b"".join(
        struct.pack("!i", len(v.encode())) + v.encode() for v in values))


def columns(*names):
    return wire.message("T", struct.pack("!h", len(names)) + b"".join(
        wire.text(n) + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for n in names))


def names_in(question):
    """Of the variables that the gateway's question is about."""
    return [bytes.fromhex(coded.decode()) if coded else plain for plain, coded in
            re.findall(rb"\((?:'([^']+)'|pg_catalog\.convert_from\(pg_catalog\.decode\('([^']+)','hex'\)[^)]*\)\))\)", question)]


def settings(question, value="x"):
    """The answer to the gateway's question about variables, the same value for each."""
    return columns("n", "v") + b"".join(row(n.decode(), value) for n in names_in(question)) + done() + ready()


AUTHENTICATED = wire.message("R", struct.pack("!i", 0))
PARAMETERS = parameter("server_version", "15.0") + parameter("client_encoding", "UTF8") + parameter("standard_conforming_strings", "on")
KEY = wire.message("K", struct.pack("!ii", 1, 2))


def cluster(server):
    """The settings of a cluster that is this server alone."""
    return {"hosts": f"{server.host}:{server.port}", "discovery": "off", "tls": "disable", "tls_ca": None, "tls_cert": None,
            "tls_key": None, "require_auth": "none", "monitor_user": None, "probe_interval": "60s", "connect_timeout": "2s"}


class FakeServer:
    """answer(type, body) gives the bytes to send for each message, or None to hang up. Without
    TLS, and without a password. It serves the gate's probes too: `probe` tells them apart."""

    def __init__(self, answer):
        self.answer = answer
        self.canceled = lambda body: None  # the request is over when it returns
        self.on_cancel = lambda c, body: self.canceled(body)  # the same, with its connection
        self.greets = lambda number: [AUTHENTICATED + PARAMETERS + KEY + ready()]  # what a login is told, in pieces
        self.lies = lambda kind, body: b""  # what is said in place of any answer; b"": the answer
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.host, self.port = self.listener.getsockname()
        self.role_settings = lambda number: done() + ready() # what the catalog says to connection `number`
        self.heard = []  # (number of the connection, type, body)
        self.cancels = []
        self.startups = []
        self.sockets = []  # of the connections that have logged in, in their order, but for the probe's
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def push(self, data):
        """Unasked, to the connection that has logged in last and is not a probe's."""
        self.sockets[-1].sendall(data)

    def hang_up(self):
        """On all that have logged in."""
        for c in self.sockets:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                c = self.listener.accept()[0]
                threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        with contextlib.suppress(OSError, EOFError), c:
            f = c.makefile("rb")
            while True:
                length, code = struct.unpack("!ii", self._read(f, 8))
                body = self._read(f, length - 8)
                if code not in (80877103, 80877104):
                    break
                c.sendall(b"N")
            if code == wire.CANCEL_CODE:
                self.cancels.append(body)
                self.on_cancel(c, body)
                return
            words = body.decode().split("\0")
            self.startups.append(dict(zip(words[::2], words[1::2])))
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = len(self.startups)
            for piece in self.greets(number):
                c.sendall(piece)
            probe = self.startups[number - 1].get("user", "").startswith("postern")
            if not probe:
                self.sockets.append(c)
            while True:
                kind = self._read(f, 1).decode()
                body = self._read(f, struct.unpack("!i", self._read(f, 4))[0] - 4)
                if kind == "X":
                    return
                lie = b"" if probe else self.lies(kind, body)
                if lie != b"":
                    out = lie
                # What the gateway asks each new connection of a pool about its role's settings.
                elif b"pg_db_role_setting" in body:
                    out = self.role_settings(number)
                elif probe or b"WHERE context " in body:
                    out = done() + ready()
                else:
                    self.heard.append((number, kind, body))
                    out = self.answer(kind, body)
                if out is None:
                    return
                c.sendall(out)

    @staticmethod
    def _read(f, n):
        data = f.read(n)
        if len(data) < n:
            raise EOFError
        return data
