"""One flood: a process of its own, which attempts so many a second and counts what comes of it.

    python3 -m bench.flooder

The first line of its input tells what to do, as JSON: kind, port, http_port, rate (attempts a
second), width (connections at once), addresses (how many it comes from; 0: from 127.0.0.1), and
for kinds that log in user, database, secret. It says "ready" when it has begun; each line more is
answered by the counts so far; it ends with its input.
"""
# SPDX-License-Identifier: Apache-2.0
import base64
import json
import os
import resource
import secrets
import select
import socket
import ssl
import sys
import time

from stand import wire

IN, OUT, NOTHING = select.EPOLLIN, select.EPOLLOUT, 0
ANSWER = 10.0  # seconds that an answer is waited for
HOLD = 5.0     # that one who waits for nothing stays
STEP = 0.002   # that the loop sleeps at most


class Late(Exception):
    """What was waited for did not come in time."""


# Each kind is a generator for one connection, which says what it waits for, (events, seconds), is
# told whether that came, and says "answered" once for each time that the other side did what it was asked for.

def wait(events, seconds=ANSWER):
    if not (yield events, seconds):
        raise Late


def tried(call, *args):
    """A call on a socket that may have to wait."""
    while True:
        try:
            return call(*args)
        except (BlockingIOError, ssl.SSLWantReadError):
            events = OUT if call.__name__ == "send" else IN
        except ssl.SSLWantWriteError:
            events = OUT
        yield from wait(events)


def send(s, data):
    while data:
        data = data[(yield from tried(s.send, data)):]


def receive(s, size=65536):
    part = yield from tried(s.recv, size)
    if not part:
        raise ConnectionError
    return part


def stay(s, seconds=HOLD):
    """Until the other side closes, or says why it will."""
    yield from wait(IN, seconds)
    yield from receive(s)


def kind_of_answer(s):
    """Of the next message, which is read with all that comes with it."""
    return (yield from receive(s))[:1]


def ask_for_tls(s):
    yield from send(s, wire.SSL_REQUEST)
    if (yield from receive(s, 1)) != b"S":
        raise ConnectionError


def client_hello(context):
    """As it goes over the wire."""
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()


class Kinds:
    def __init__(self, order):
        self.order = order
        self.tls = ssl.create_default_context()
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.hello = client_hello(self.tls)

    def silence(self, s, _number):
        try:
            yield from stay(s)
        except ConnectionError:
            pass
        yield "answered"

    def handshakes(self, s, _number):
        yield from ask_for_tls(s)
        t = self.tls.wrap_socket(s.dup(), do_handshake_on_connect=False)
        try:
            yield from tried(t.do_handshake)
            yield "answered"
        finally:
            t.close()

    def half_handshakes(self, s, number):
        yield from ask_for_tls(s)
        if number % 4 == 0:
            yield from send(s, self.hello[:100])
            yield from stay(s)
        yield from send(s, self.hello)
        yield from receive(s)
        yield "answered"

    def startup(self, s):
        yield from send(s, wire.startup({"user": self.order["user"], "database": self.order["database"]}))
        if (yield from kind_of_answer(s)) != b"R":
            raise ConnectionError

    def tokens(self, s, _number):
        """All is right but the signature."""
        yield from self.startup(s)
        yield from send(s, wire.password(self.order["secret"]))
        if (yield from kind_of_answer(s)) == b"E":
            yield "answered"

    def guesses(self, s, _number):
        yield from self.startup(s)
        nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        yield from send(s, wire.sasl_initial("SCRAM-SHA-256", f"n,,n=,r={nonce}".encode()))
        said = yield from receive(s)
        values = dict(part.split("=", 1) for part in said[9:].decode().split(","))
        proof = base64.b64encode(secrets.token_bytes(32)).decode()
        yield from send(s, wire.message("p", f"c=biws,r={values['r']},p={proof}".encode()))
        if (yield from kind_of_answer(s)) == b"E":
            yield "answered"

    def http(self, s, number):
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        if number % 4 == 0:
            yield from send(s, request[:30])
            yield from stay(s)
        elif number % 4 == 1:
            for at in range(len(request)):
                yield from send(s, request[at:at + 1])
                yield (NOTHING, 0.1)
        else:
            yield from send(s, request)
        if b" 200 " not in (yield from receive(s)):
            raise ConnectionError
        try:
            while True:
                yield from receive(s)
        except ConnectionError:
            yield "answered"

    def log_in(self, s):
        yield from self.startup(s)
        yield from send(s, wire.password(self.order["secret"]))
        said = b""
        while not said.endswith(b"Z\0\0\0\5I"):
            said += yield from receive(s)
            if said[:1] == b"E":
                raise ConnectionError

    def unread(self, s, number):
        """Gigabytes of rows, of which one half read nothing and the others a little now and then."""
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield from self.log_in(s)
        yield from send(s, wire.query("SELECT generate_series(1, 5000000), repeat('x', 1000)"))
        yield from wait(IN)
        yield "answered"
        for _ in range(10):
            if number % 2:
                yield from receive(s, 2048)
            yield (NOTHING, 0.1)

    def half_messages(self, s, number):
        """A Query of 1 MB of which too little comes for a server connection, one of which more comes, or a
        Parse, which is held."""
        yield from self.log_in(s)
        kind, part = [("Q", 16000), ("Q", 200000), ("P", 200000)][number % 3]
        whole = wire.query("SELECT 1 -- " + "x" * 10 ** 6) if kind == "Q" else wire.parse("SELECT " + "x" * 10 ** 6)
        yield from send(s, whole[:part])
        yield "answered"
        yield from stay(s)


class Connection:
    def __init__(self, flood, number):
        self.flood = flood
        self.socket = socket.socket()
        if addresses := flood.order["addresses"]:
            host = number % addresses
            self.socket.bind((f"127.0.{1 + host // 250}.{1 + host % 250}", 0))
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.events = None
        flood.open[self.fd] = self
        self.steps = self.run(number)
        self.go_on(None)

    def run(self, number):
        order = self.flood.order
        try:
            self.socket.connect(("127.0.0.1", order["http_port" if order["kind"] == "http" else "port"]))
        except BlockingIOError:
            yield from wait(OUT)
        yield from getattr(self.flood.kinds, order["kind"].replace("-", "_"))(self.socket, number)

    def go_on(self, came):
        counts = self.flood.counts
        try:
            said = self.steps.send(came)
            while said == "answered":
                counts["answered"] += 1
                said = next(self.steps)
        except (StopIteration, Late):
            self.close()
        except OSError:
            counts["closed"] += 1
            self.close()
        else:
            self.deadline = time.monotonic() + said[1]
            if self.events is None:
                self.flood.epoll.register(self.fd, said[0])
            elif self.events != said[0]:
                self.flood.epoll.modify(self.fd, said[0])
            self.events = said[0]

    def close(self):
        del self.flood.open[self.fd]
        self.socket.close()


class Flood:
    def __init__(self, order):
        self.order = order
        self.kinds = Kinds(order)
        self.counts = {"attempts": 0, "answered": 0, "closed": 0, "open": 0}
        self.epoll = select.epoll()
        self.open = {}

    def run(self):
        rate, width = self.order["rate"], self.order["width"]
        print("ready", flush=True)
        self.epoll.register(0, IN)
        before, due, looked = time.monotonic(), 0.0, 0.0
        while True:
            now = time.monotonic()
            due = min(due + (now - before) * rate, max(1.0, rate * 0.1))
            before = now
            while due >= 1 and len(self.open) < width:
                due -= 1
                self.counts["attempts"] += 1
                Connection(self, self.counts["attempts"])
            for fd, _ in self.epoll.poll(STEP):
                if fd:
                    if fd in self.open:
                        self.open[fd].go_on(True)
                elif not self.told():
                    return
            if now - looked > 0.05:
                looked = now
                for c in list(self.open.values()):
                    if c.deadline <= now:
                        c.go_on(False)

    def told(self):
        """Answers a line of the input; False at its end."""
        if not os.read(0, 4096):
            return False
        self.counts["open"] = len(self.open)
        print(json.dumps(self.counts), flush=True)
        return True


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(10)
    Flood(json.loads(sys.stdin.readline())).run()


main()
