# SPDX-License-Identifier: Apache-2.0
"""No token goes over a network in clear text: with tls = allow it is asked for without TLS on this machine only."""
import json
import os
import subprocess
import sys

import pytest

# In a network of its own, where the loopback has an address that is none of its own.
ELSEWHERE = r"""
import fcntl, json, os, socket, struct, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from stand import wire
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
address = lambda a: struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(a))
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))          # SIOCSIFFLAGS: up
fcntl.ioctl(s, 0x8916, address("10.98.76.54"))                    # SIOCSIFADDR
gate = subprocess.Popen([sys.argv[2], "--config", sys.argv[3]], stderr=subprocess.DEVNULL)
told = {}
try:
    for host in ("127.0.0.1", "10.98.76.54"):
        for user in sys.argv[5:]:
            for _ in range(500):
                try:
                    c = wire.Client((host, int(sys.argv[4])), None)
                    break
                except ConnectionError:
                    time.sleep(0.01)
            c.startup(user, "acme")
            kind, body = c.receive()
            told[f"{host} {user}"] = "E" + wire.error_fields(body)["C"] if kind == "E" else kind + str(struct.unpack("!i", body[:4])[0])
            c.close()
finally:
    gate.terminate()
    gate.wait()
print(json.dumps(told))
"""


@pytest.mark.parametrize("tls", ["allow", "off"])
def test_token_is_not_asked_for_in_clear_text(make_gate, stand, tls):
    gate = make_gate({"listener main": {"tls": tls}})
    gate.write({"listener main": {"tls": tls, "address": "0.0.0.0", "port": "5432"}})  # nobody else is in that network
    gate.stop()
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    user, nobody = stand.scram_user, "nosuch_batch"
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", ELSEWHERE, tests, gate.binary, gate.config, "5432", "acme_rw", user, nobody],
                          capture_output=True, text=True, timeout=60, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip("no network namespaces here")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"127.0.0.1 acme_rw": "R3", "10.98.76.54 acme_rw": "E28000",
                                       f"127.0.0.1 {user}": "R10", f"10.98.76.54 {user}": "R10",
                                       f"127.0.0.1 {nobody}": "R10", f"10.98.76.54 {nobody}": "R10"}


def test_loopback_is_this_machine(make_gate, login):
    with login(make_gate({"listener main": {"tls": "allow"}}), tls=None) as c:
        assert c.query("SELECT 1") == [["1"]]
