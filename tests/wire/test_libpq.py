"""Clients of PostgreSQL 18: libpq's newest, from the folder that POSTERN_LIBPQ names (see
tests/versions/install), with protocol 3.2 and its long cancel keys.

Without POSTERN_LIBPQ there is nothing here to collect."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import subprocess

import pytest

from conftest import conninfo
from stand import proc, wire


@pytest.fixture
def newest(stand, token):
    """newest(gate, database, sql, ...): psql by the libpq of 18, started."""
    def get(gate, database, sql, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(PGPASSWORD=token(), LD_LIBRARY_PATH=os.environ["POSTERN_LIBPQ"])
        return subprocess.Popen(["psql", "-XqAt", conninfo(stand, gate, "acme_rw", database, **more), "-c", sql],
                                env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return get


def finished(psql):
    try:
        out, err = psql.communicate(timeout=20 * proc.PATIENCE)
    finally:
        psql.kill()
        psql.wait()
    return psql.returncode, out.strip(), err


@pytest.mark.parametrize("least,most", [("3.0", "3.0"), ("3.0", "3.2"), ("3.2", "3.2"), ("3.2", "latest")])
def test_protocol_versions(gate, newest, database, least, most):
    psql = newest(gate, database, "SELECT 'by ' || 18", min_protocol_version=least, max_protocol_version=most)
    assert finished(psql) == (0, "by 18", "")


@pytest.mark.parametrize("version", ["3.0", "3.2"])
def test_cancel_by_either_kind_of_key(gate, newest, database, running, version):
    mark = f"canceled_{os.urandom(4).hex()}"
    psql = newest(gate, database, f"SELECT pg_sleep(60) AS {mark}", min_protocol_version=version,
                  max_protocol_version=version)
    try:
        running(mark)
        psql.send_signal(signal.SIGINT)
        status, _, said = finished(psql)
        assert status != 0 and "canceling statement due to user request" in said
    finally:
        psql.kill()
        psql.wait()


def test_direct_tls(gate, newest, database):
    psql = newest(gate, database, "SELECT 'at once'", sslnegotiation="direct", min_protocol_version="3.2",
                  max_protocol_version="3.2")
    assert finished(psql) == (0, "at once", "")


def test_key_of_the_gateway_and_of_the_server_are_both_long(stand, gate, login, database):
    """Past the gate a server of 18 gives such keys too; others agree on 3.0."""
    c = login(gate, database, version=wire.V32)
    assert c.negotiated is None and len(c.key[1]) > 4
    node = stand.nodes[0]
    with wire.Client((node.host, node.port), "request", ca=stand.authority.crt) as direct:
        direct.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"], wire.V32)
        assert (len(direct.key[1]) > 4) == (stand.postgres.version >= 18)
