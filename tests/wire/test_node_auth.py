# SPDX-License-Identifier: Apache-2.0
"""How a node may ask for the proof of who logs in ([cluster] require_auth, channel_binding), with a real
server: server connections, and the monitor's."""
import pytest

from stand import proc


@pytest.fixture
def hba(stand):
    """hba(method): how the server asks acme_rw and the monitor, until the end of the test."""
    path = stand.path("postgres", "data", "pg_hba.conf")
    with open(path, encoding="ascii") as f:
        before = f.read()

    def write(text):
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        stand.postgres.sql("SELECT pg_reload_conf()")
        proc.wait_for("the rules to be read", 10, lambda: stand.postgres.sql(
            "SELECT 1 FROM pg_hba_file_rules WHERE error IS NOT NULL") == [])
    yield lambda method: write(f"hostssl all acme_rw all {method}\nhost all acme_rw all {method}\n" + before)
    write(before)


def serves(gate, login):
    with login(gate) as c:
        return c.query("SELECT 'served'") == [["served"]]


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_proof_is_bound_to_the_certificate(make_gate, login, binding):
    gate = make_gate({"cluster main": {"channel_binding": binding}})
    assert serves(gate, login)
    proc.wait_for("the monitor to have logged in", 10, lambda: gate.http("/health/ready")[0] == 200)


@pytest.mark.parametrize("method", ["trust", "password"])
def test_node_that_does_not_ask_for_a_proof_is_refused(make_gate, login, hba, method):
    hba(method)
    bare = {"tls_cert": None, "tls_key": None}  # a certificate that the node asks for would be a proof
    gate = make_gate({"cluster main": bare, "database acme": {"wait_limit": "1s"}})
    with pytest.raises(Exception) as caught:
        serves(gate, login)
    assert caught.value.code in ("08004", "28000", "08001"), caught.value
    gate.await_log("which require_auth of its cluster does not allow")
    allowed = make_gate({"cluster main": {**bare, "require_auth": {"trust": "none", "password": "password"}[method]}})
    assert serves(allowed, login)
