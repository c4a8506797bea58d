"""Clients that do nothing, log in again and again, or fetch much: a process of their own.

    python3 -m bench.clients idle N     logs in N times, asks one question each, says "ready" and
                                        holds the connections until its input ends
    python3 -m bench.clients logins N   N logins one after the other, each closed at once

Where to and as whom are libpq's variables; PGSSLMODE=disable is plain.
"""
# SPDX-License-Identifier: Apache-2.0
import os
import resource
import sys

from stand import wire


def client():
    env = os.environ
    tls = env["PGSSLMODE"] != "disable"
    c = wire.Client((env["PGHOSTADDR"], int(env["PGPORT"])), "request" if tls else None,
                    ca=env["PGSSLROOTCERT"], timeout=60)
    return c.login(env["PGUSER"], env["PGDATABASE"], env["PGPASSWORD"])


def main():
    what, count = sys.argv[1], int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if what == "logins":
        for _ in range(count):
            with client() as c:
                c.send(wire.terminate())
        return
    held = [client() for _ in range(count)]
    for c in held:
        assert c.query("SELECT 1") == [["1"]]
    print("ready", flush=True)
    sys.stdin.read()


main()
