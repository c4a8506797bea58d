"""Other clients of the same pool, so that a case's client meets another server connection in
each transaction, or its own as another client has left it: with variables of its own, another
encoding, statements and an open transaction in between."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from stand import wire  # noqa: E402

# Each in a transaction of its own; what they set stays set for this client.
SETTINGS = ("SET work_mem = '77kB'", "SET search_path = pg_catalog", "SET DateStyle = 'German'",
            "SET TimeZone = 'Asia/Tokyo'", "SET client_encoding = 'LATIN1'",
            "SET application_name = 'stirrer'", "SET default_transaction_isolation = 'serializable'",
            "SET ROLE acme_ro", "SET my.variable = 'the stirrer''s'")
HOLD, PAUSE = 0.004, 0.003


class Stirrer:
    """`with Stirrer(env, count):` env as a driver's program gets it."""

    def __init__(self, env, count):
        self.env = env
        self.over = threading.Event()
        self.transactions = 0
        self.threads = [threading.Thread(target=self.stir, args=(n,), daemon=True)
                        for n in range(count)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for t in self.threads:
            t.join(30)

    def client(self):
        env = self.env
        return wire.Client((env["PGHOST"], int(env["PGPORT"])), ca=env["PGSSLROOTCERT"]).login(
            env["PGUSER"], env["PGDATABASE"], env["PGPASSWORD"])

    def stir(self, n):
        while not self.over.is_set():
            try:
                with self.client() as c:
                    self.work(c, n)
            except (OSError, wire.Closed, wire.ServerError):
                # A pool of one is somebody's alone for a while.
                time.sleep(0.05)

    def work(self, c, n):
        for sql in SETTINGS:
            c.query(sql)
        c.ask(wire.parse("SELECT 'the stirrer', $1::text", "s1"), wire.sync())
        while not self.over.is_set():
            c.query("BEGIN")
            c.ask(wire.bind("s1", values=[str(n)]), wire.execute(), wire.sync())
            time.sleep(HOLD)
            c.query("COMMIT")
            self.transactions += 1
            time.sleep(PAUSE)
