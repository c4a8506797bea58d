"""Lets the Nth thing that can fail in a reload fail, N = 1, 2, ... in one running process, until there
is none left: each refuses the reload, and not one descriptor, file, port or answer is other than before.

Needs a build with --enable-faults; other builds do not collect this file (conftest.py).
"""
# SPDX-License-Identifier: Apache-2.0
import os
import socket

import outside
import pytest
from test_reload_whole import Bench

from stand import proc, wire

# What has to be among the faults that were told: the walk has been everywhere.
STEPS = ["postern.ini cannot be read", "more.d cannot be read", "jwks_file", "users_file", "credentials",
         "tls_ca", "tls_cert", "tls_key", "password_file", "[listener extra] address",
         "[listener socket] address", "[listener stale] address", "http_listen", "log_file", "audit_file",
         "ready_file"]


class Walk(Bench):
    """One process, and the number of the call that is to fail."""

    def __init__(self, make_gate, stand, console, login):
        self.armed = stand.path("gates", f"fault-{os.urandom(4).hex()}")
        self.arm(0)
        super().__init__(make_gate, stand, console, login,
                         env={**os.environ, "POSTERN_RELOAD_FAULT": self.armed})
        self.base = {k: v if v is None else dict(v) for k, v in self.gate.overrides.items()}
        self.wanted = self.change()
        self.gate.write(self.wanted)

    def arm(self, n):
        with open(self.armed, "w", encoding="ascii") as f:
            f.write(f"{n}\n")

    def faults(self):
        with open(self.gate.stderr, encoding="utf-8") as f:
            return f.read().count("fault injected")

    def reload(self):
        """What it was refused for, or None."""
        failed = wire.errors(self.console.ask(wire.query("RELOAD")))
        return failed[0]["M"] if failed else None

    def is_taken(self):
        """All of it, and nothing else."""
        settings = str(self.console.query("SHOW CONFIG"))
        assert "elsewhere" in settings and "7654321" in settings and "moved.log" in settings
        ports = {address for _, address in outside.listening(self.gate.pid)}
        for port in (self.port, self.http_port):
            assert f"0100007F:{port:04X}" in ports
        for name in ("socket", "stale"):
            assert os.path.join(self.own[name], ".s.PGSQL.6543") in ports

    def go_back(self, login):
        self.arm(0)
        # Their database has moved: all but the console are told, and so is the last of their connections.
        proc.wait_for("the sessions of before to be gone", 20, lambda: len(
            self.console.query("SHOW CLIENTS")) == 1 and not self.console.query("SHOW SERVERS"))
        self.gate.overrides = {k: v if v is None else dict(v) for k, v in self.base.items()}
        self.gate.write()
        assert self.reload() is None
        for name in ("moved.log", "moved.jsonl"):
            os.unlink(os.path.join(self.gate.folder, name))
        self.leave_socket(os.path.join(self.own["stale"], ".s.PGSQL.6543"))
        assert self.gate._read_ports()
        self.client.close()
        self.client = login(self.gate)
        self.client.query("SELECT 1")
        self.gate.write(self.wanted)


def test_a_reload_that_fails_at_any_step_changes_nothing(make_gate, stand, console, login, elsewhere):
    b, told, tolerated = Walk(make_gate, stand, console, login), [], 0
    before, descriptors = b.look(), b.steady()
    for n in range(1, 5000):
        injected = b.faults()
        b.arm(n)
        refused = b.reload()
        if refused is None:
            b.is_taken()
            if b.faults() == injected:
                break
            tolerated += 1 # tried again, and then all went well
            b.go_back(login)
            before, descriptors = b.look(), b.steady()
            continue
        assert b.faults() == injected + 1
        told.append(refused)
        b.compare(before, descriptors)
        if n % 20 == 0:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", b.port))
            assert login(b.gate).query("SELECT current_database()") == [["acme"]]
            descriptors = b.steady()
    assert refused is None and len(told) > 50, "it never came to an end"
    print(f"{len(told)} refused, {tolerated} tolerated")
    for step in STEPS:
        assert any(step in text for text in told), step
    with wire.Client(("127.0.0.1", b.port), tls=None) as c:
        c.login("acme_rw", "acme", stand.token("acme"))
        assert c.query("SELECT current_database()") == [["elsewhere"]]
    b.gate.log_file = os.path.join(b.gate.folder, "moved.log")
