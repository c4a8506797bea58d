# SPDX-License-Identifier: Apache-2.0
"""A session ends with its token: behind its transaction, and at the latest when expiry_grace is over."""
import threading

import pytest

from stand import proc, wire


def brief(stand, seconds=2):
    """A token whose session expires in so many seconds: tokens live for the leeway of 30 s beyond their exp."""
    return stand.token("acme", lifetime=seconds - 30)


def code_at_end(c, seconds=30):
    c.socket.settimeout(seconds * proc.PATIENCE)
    return [f["C"] for f in wire.errors(c.until_closed())]


@pytest.fixture(scope="module")
def strict(module_gate):
    return module_gate({"issuer stand": {"expiry_grace": "1s"}})


def test_session_between_two_transactions_ends(strict, stand, login, database):
    assert code_at_end(login(strict, database, secret=brief(stand))) == ["28000"]


def test_transaction_may_finish_within_the_grace(make_gate, stand, login, database):
    gate = make_gate({"issuer stand": {"expiry_grace": "10min"}})
    c, witness = login(gate, database, secret=brief(stand)), login(gate, database, secret=brief(stand))
    c.query("BEGIN")
    assert code_at_end(witness) == ["28000"]  # its clock has run out, and c's with it
    assert c.query("SELECT 'still'") == [["still"]]
    c.send(wire.query("COMMIT"))
    assert code_at_end(c) == ["28000"]


ENDLESS = {
    "open transaction": [wire.query("BEGIN")],
    "statement": [wire.query("SELECT pg_sleep(600)")],
    "statement in a transaction": [wire.query("BEGIN"), wire.query("SELECT pg_sleep(600)")],
    "COPY": [wire.query("COPY {table} FROM STDIN"), wire.message("d", b"1\tx\n")],
    "half a message": [wire.query("SELECT 'a long text'")[:9]],
    "batch without Sync": [wire.one("SELECT 1"), wire.flush()],
}


@pytest.mark.parametrize("what", ENDLESS)
def test_grace_is_the_end_whatever_the_session_is_at(strict, stand, login, table, database, what):
    c = login(strict, database, secret=brief(stand))
    c.send(*[wire.query(f"COPY {table} FROM STDIN") if b"{table}" in part else part for part in ENDLESS[what]])
    assert code_at_end(c)[-1:] == ["28000"]
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]
    proc.wait_for("nothing to run for it any more", 10, lambda: stand.postgres.sql(
        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'") == [])


@pytest.mark.parametrize("text", ["COMMIT AND CHAIN", "SELECT 1"])
def test_traffic_without_end_does_not_outlive_it(strict, stand, login, database, text):
    """In a transaction that is chained, or in one that never ends."""
    c = login(strict, database, secret=brief(stand))
    if stand.postgres.version < 12 and text == "COMMIT AND CHAIN":
        text = "COMMIT; BEGIN" # there is no other way yet
    c.query("BEGIN")
    with pytest.raises((wire.ServerError, ConnectionError, wire.Closed)) as caught:
        while True:
            c.query(text)
    assert not isinstance(caught.value, wire.ServerError) or caught.value.code == "28000"


def test_pipeline_without_end_does_not_outlive_it(strict, stand, login, database):
    c = login(strict, database, secret=brief(stand))
    codes = []
    reader = threading.Thread(target=lambda: codes.extend(code_at_end(c)), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            c.send(wire.one("SELECT 1") * 20)
            c.send(wire.flush())
    except OSError:
        pass
    reader.join(30 * proc.PATIENCE)
    assert not reader.is_alive() and codes[-1:] in (["28000"], [])


def test_only_logins_are_checked_where_that_is_said(make_gate, stand, login, database):
    gate = make_gate({"issuer stand": {"expiry": "ignore"}})
    strict = make_gate({"issuer stand": {"expiry_grace": "0s"}})
    secret = brief(stand)
    c, witness = login(gate, database, secret=secret), login(strict, database, secret=secret)
    assert code_at_end(witness) == ["28000"]
    assert c.query("SELECT 'goes on'") == [["goes on"]]
    with pytest.raises(wire.ServerError) as caught:
        login(gate, database, secret=secret)
    assert caught.value.code == "28P01"
