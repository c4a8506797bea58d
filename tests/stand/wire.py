"""A small, plain client of protocol 3 that sends any bytes a test wants.

Nothing is hidden: every message that arrives is returned as (type, body), errors too.
Only the login helpers interpret anything.
"""
# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import hmac
import secrets
import select
import socket
import ssl
import struct
import time

from . import proc

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSS_REQUEST = struct.pack("!ii", 8, 80877104)
CANCEL_CODE = 80877102
V30 = 3 << 16
V32 = 3 << 16 | 2


class Closed(Exception):
    """The other side closed the connection where a message was due."""


class ServerError(Exception):
    """An ErrorResponse where none was expected."""

    def __init__(self, fields):
        super().__init__(f"{fields.get('S')} {fields.get('C')}: {fields.get('M')}"
                         + (f" ({fields['H']})" if "H" in fields else ""))
        self.fields = fields
        self.code = fields.get("C")
        self.message = fields.get("M")
        self.hint = fields.get("H")


# ---- messages a client sends ----

def message(kind, body=b""):
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def text(value):
    return value.encode() + b"\0"


def startup(parameters, version=V30):
    body = struct.pack("!i", version)
    for name, value in parameters.items():
        body += text(name) + text(value)
    body += b"\0"
    return struct.pack("!i", len(body) + 4) + body


def cancel_request(pid, key):
    return struct.pack("!iii", 12 + len(key), CANCEL_CODE, pid) + key


def password(value):
    return message("p", text(value))


def sasl_initial(mechanism, data):
    body = text(mechanism)
    body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    return message("p", body)


def query(sql):
    return message("Q", text(sql))


def function_call(oid, *args):
    """args: each as text, in bytes, or None."""
    body = struct.pack("!ih", oid, 0) + struct.pack("!h", len(args))
    for a in args:
        body += struct.pack("!i", -1) if a is None else struct.pack("!i", len(a)) + a
    return message("F", body + struct.pack("!h", 0))


def parse(sql, name="", types=()):
    return message("P", text(name) + text(sql) + struct.pack("!h", len(types))
                   + b"".join(struct.pack("!I", t) for t in types))


def bind(statement="", portal="", values=()):
    body = text(portal) + text(statement) + struct.pack("!hh", 0, len(values))
    for value in values:
        if value is None:
            body += struct.pack("!i", -1)
        else:
            value = value if isinstance(value, bytes) else str(value).encode()
            body += struct.pack("!i", len(value)) + value
    return message("B", body + struct.pack("!h", 0))


def describe(kind, name=""):
    return message("D", kind.encode() + text(name))


def execute(portal="", rows=0):
    return message("E", text(portal) + struct.pack("!i", rows))


def close(kind, name=""):
    return message("C", kind.encode() + text(name))


def sync():
    return message("S")


def flush():
    return message("H")


def terminate():
    return message("X")


def one(sql, values=(), name=""):
    """Parse, Bind, Execute of one statement, without Sync."""
    return parse(sql, name) + bind(name, values=values) + execute()


# ---- messages a server sends ----

def error_fields(body):
    fields = {}
    for part in body.split(b"\0"):
        if part:
            fields[chr(part[0])] = part[1:].decode(errors="replace")
    return fields


def row_values(body):
    count, at, out = struct.unpack_from("!h", body)[0], 2, []
    for _ in range(count):
        length = struct.unpack_from("!i", body, at)[0]
        at += 4
        if length < 0:
            out.append(None)
        else:
            out.append(body[at:at + length].decode(errors="replace"))
            at += length
    return out


def kinds(messages):
    """The types of messages as one string, without notices and parameters: "1T2DCZ"."""
    return "".join(k for k, _ in messages if k not in "NSA")


def rows(messages):
    return [row_values(body) for k, body in messages if k == "D"]


def errors(messages):
    return [error_fields(body) for k, body in messages if k == "E"]


class Client:
    """One connection. `tls`: None, "request" (SSLRequest first) or "direct"."""

    def __init__(self, address, tls="request", *, ca=None, alpn=("postgresql",), cert=None,
                 minimum=None, maximum=None, timeout=20):
        self.buffer = bytearray()
        self.parameters = {}
        self.key = None
        self.status = None
        self.negotiated = None
        self.timeout = timeout * proc.PATIENCE
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(self.timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout=self.timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if tls == "request":
                self.socket.sendall(SSL_REQUEST)
                answer = self.socket.recv(1)
                if answer != b"S":
                    raise Closed(f"SSLRequest was answered by {answer!r}")
            if tls:
                self.start_tls(ca, alpn if tls == "direct" else None, cert, minimum, maximum)
        except BaseException:
            self.socket.close()
            raise

    def start_tls(self, ca, alpn=None, cert=None, minimum=None, maximum=None):
        context = ssl.create_default_context(cafile=ca)
        if ca is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if cert:
            context.load_cert_chain(*cert)
        if minimum:
            context.minimum_version = minimum
        if maximum:
            context.maximum_version = maximum
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes as a program that is killed by its machine does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def until_closed(self):
        """All that still comes."""
        messages = []
        try:
            while True:
                messages.append(self.receive())
        except (Closed, ConnectionError):
            return messages

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def send_and_read(self, *parts):
        """Sends more than buffers on the way hold: reads meanwhile what comes back."""
        data = memoryview(b"".join(parts))
        deadline = time.monotonic() + self.timeout
        self.socket.setblocking(False)
        try:
            while data:
                wants = [self.socket]
                try:
                    data = data[self.socket.send(data[:65536]):]
                    wants = []
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                    pass
                try:
                    while part := self.socket.recv(65536):
                        self.buffer += part
                    raise Closed("closed while sending")
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                    pass
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(data)} bytes were not taken")
                if wants:
                    select.select(wants, wants, [], 1)
        finally:
            self.socket.settimeout(self.timeout)

    # ---- receiving ----

    def _fill(self, size):
        while len(self.buffer) < size:
            part = self.socket.recv(65536)
            if not part:
                raise Closed(f"closed; {self.buffer!r} was left over")
            self.buffer += part

    def receive(self):
        """The next message: (type, body). Closed when there is none any more."""
        self._fill(5)
        kind, length = self.buffer[:1].decode("latin-1"), struct.unpack_from("!i", self.buffer, 1)[0]
        if length < 4:
            raise Closed(f"a message {kind!r} of length {length}")
        self._fill(1 + length)
        body = bytes(self.buffer[5:1 + length])
        del self.buffer[:1 + length]
        if kind == "S":
            name, value = body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()
        elif kind == "K":
            self.key = (struct.unpack_from("!i", body)[0], body[4:])
        elif kind == "Z":
            self.status = body.decode()
        elif kind == "v":
            self.negotiated = body
        return kind, body

    def until(self, stop="Z"):
        """All messages up to and including the first of the types in `stop`."""
        out = []
        while True:
            out.append(self.receive())
            if out[-1][0] in stop:
                return out

    def expect(self, kind):
        """The body of the next message, which must be of that type (parameters and notices
        before it are passed over)."""
        while True:
            got, body = self.receive()
            if got == kind:
                return body
            if got == "E":
                raise ServerError(error_fields(body))
            if got not in "SN":
                raise AssertionError(f"expected {kind!r}, got {got!r}: {body!r}")

    def refusal(self):
        """The fields of the ErrorResponse that must come now, after which the connection must
        be closed."""
        while True:
            kind, body = self.receive()
            if kind == "E":
                break
            if kind not in "SNv":
                raise AssertionError(f"expected an error, got {kind!r}: {body!r}")
        if not self.is_closed():
            raise AssertionError("the connection stayed open after a FATAL error")
        return error_fields(body)

    def is_closed(self):
        """Waits for the end; False when a message comes instead."""
        try:
            self._fill(1)
            return False
        except (Closed, ConnectionError, ssl.SSLError):
            return True

    # ---- login ----

    def startup(self, user, database, version=V30, **parameters):
        self.send(startup({"user": user, "database": database, **parameters}, version))

    def login(self, user, database, secret, version=V30, **parameters):
        """From the startup message to ReadyForQuery, by whatever the server asks for."""
        self.startup(user, database, version, **parameters)
        self.authenticate(secret)
        self.until_ready()
        return self

    def authenticate(self, secret):
        """Answers the server's request up to AuthenticationOk."""
        while True:
            kind, body = self.receive()
            if kind == "v":
                continue
            if kind == "E":
                raise ServerError(error_fields(body))
            assert kind == "R", f"{kind!r} where an authentication request was due"
            method = struct.unpack_from("!i", body)[0]
            if method == 0:
                return
            if method == 3:
                self.send(password(secret))
            elif method == 10:
                self._scram(body[4:].split(b"\0"), secret)
                return
            else:
                raise AssertionError(f"authentication method {method}")

    def _scram(self, offered, secret):
        assert b"SCRAM-SHA-256" in offered, f"the server offers {offered}"
        nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        first = f"n=,r={nonce}"
        self.send(sasl_initial("SCRAM-SHA-256", f"n,,{first}".encode()))
        body = self.expect("R")
        assert struct.unpack_from("!i", body)[0] == 11
        server_first = body[4:].decode()
        values = dict(part.split("=", 1) for part in server_first.split(","))
        assert values["r"].startswith(nonce) and len(values["r"]) > len(nonce)
        salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), base64.b64decode(values["s"]),
                                     int(values["i"]))
        final = f"c=biws,r={values['r']}"
        signed = f"{first},{server_first},{final}".encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self.send(message("p", f"{final},p={base64.b64encode(proof).decode()}".encode()))
        body = self.expect("R")
        assert struct.unpack_from("!i", body)[0] == 12
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        wanted = base64.b64encode(hmac.digest(server_key, signed, "sha256")).decode()
        assert body[4:].decode() == f"v={wanted}", "the server does not know the password"
        assert struct.unpack_from("!i", self.expect("R"))[0] == 0

    def until_ready(self):
        messages = self.until("ZE")
        if messages[-1][0] == "E":
            raise ServerError(error_fields(messages[-1][1]))
        return messages

    # ---- queries ----

    def ask(self, *parts):
        """Sends, and returns everything up to ReadyForQuery."""
        self.send(*parts)
        return self.until("Z")

    def query(self, sql):
        """A simple query's rows; ServerError when it fails (the session is ready again)."""
        messages = self.ask(query(sql))
        for fields in errors(messages):
            raise ServerError(fields)
        return rows(messages)

    def extended(self, sql, values=(), name=""):
        """Parse, Bind, Execute, Sync: the rows."""
        messages = self.ask(one(sql, values, name), sync())
        for fields in errors(messages):
            raise ServerError(fields)
        return rows(messages)


def cancel(address, key, *, ca=None, tls="request"):
    """Sends a cancel request; returns when the other side has closed the connection."""
    pid, secret = key
    with Client(address, tls, ca=ca) as client:
        client.send(cancel_request(pid, secret))
        try:
            client.socket.recv(1)
        except (ConnectionError, ssl.SSLError):
            pass
