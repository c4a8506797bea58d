"""A pool over several workers is one pool: `pool_size` counts for the whole process, and nobody waits
where it has room, whichever worker a session is on."""
# SPDX-License-Identifier: Apache-2.0
import random
import threading
import time

import pytest

from stand import proc, wire

WORKERS = [2, 4]
ROLE = "acme_rw"


def backends(stand):
    rows = stand.postgres.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                              f"AND usename = '{ROLE}' AND pid <> pg_backend_pid()")
    return {row[0] for row in rows}


def make(make_gate, workers, size=20, database="acme", postern=None, **more):
    return make_gate({"postern": {"workers": workers, **(postern or {})},
                      f"database {database}": {"pool_size": size, "shards": workers, "wait_limit": "20s", **more}})


COLUMNS = ("tenant database role mode cl_active cl_waiting sv_active sv_idle sv_login sv_cleaning size sessions "
           "maxwait_us waited_us lent worker").split()


def pools(admin, database="acme"):
    """SHOW POOLS: the rows of a database as dictionaries."""
    rows = [dict(zip(COLUMNS, row)) for row in admin.query("SHOW POOLS")]
    return [row for row in rows if row["database"] == database]


class Watch(threading.Thread):
    """The most server connections that the server itself has counted."""

    def __init__(self, stand):
        super().__init__(daemon=True)
        self.stand, self.before, self.most = stand, backends(stand), 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            self.most = max(self.most, len(backends(self.stand) - self.before))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


@pytest.mark.parametrize("workers", WORKERS)
def test_ten_programs_that_listen_and_query(make_gate, login, stand, console, workers):
    """Each has one connection that LISTENs and one that queries: logins take turns over the workers,
    so with two of them all pins are on one."""
    gate = make(make_gate, workers)
    with Watch(stand) as watch:
        programs = [(login(gate), login(gate)) for _ in range(10)]
        for n, (listener, _) in enumerate(programs):
            listener.query(f"LISTEN channel_{n}")
        began = time.monotonic()
        for _, worker in programs:
            worker.query("BEGIN")  # all at once: half of the pool is pinned, this is the other half
        for n, (_, worker) in enumerate(programs):
            assert worker.query(f"SELECT {n}") == [[str(n)]]
            worker.query("COMMIT")
        # New clients of every worker, too.
        late = [login(gate) for _ in range(2 * workers)]
        for n, c in enumerate(late):
            assert c.query(f"SELECT {n}") == [[str(n)]]
        assert time.monotonic() - began < 15 * proc.PATIENCE, "nobody waits for its limit"
        for n, (listener, worker) in enumerate(programs):
            worker.query(f"NOTIFY channel_{n}, 'hello'")
            assert listener.until("A")[-1][0] == "A"
    assert 10 < watch.most <= 20
    (row,) = pools(console(gate))
    assert row["size"] == "20" and int(row["sv_active"]) == 10
