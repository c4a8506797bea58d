"""Guesses at passwords take their turn, however many ask at once, and nobody else waits for them."""
# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest

from stand import wire

FREE, EVERY = 20, 0.5  # of a user from one address: include/gate/throttle.h
GUESSES = 60


def guess(gate, stand, user, failed):
    try:
        with wire.Client(("127.0.0.1", gate.port()), "request", ca=stand.authority.crt) as c:
            c.login(user, "postern", "a guess")
    except wire.ServerError as e:
        failed.append(e.fields["C"])


@pytest.mark.parametrize("who", ["the administrator", "nobody"])
def test_guesses_at_once_are_no_faster_than_one_after_the_other(make_gate, login, stand, who):
    """Whoever is guessed at comes in meanwhile from where nobody guesses."""
    gate = make_gate({"postern": {"workers": 2, "login_timeout": "30s"}, "listener main": {"address": "127.0.0.1, ::1"}})
    user = stand.admin_user if who == "the administrator" else "nosuch"
    failed, began = [], time.monotonic()
    threads = [threading.Thread(target=guess, args=(gate, stand, user, failed)) for _ in range(GUESSES)]
    for t in threads:
        t.start()
    gate.await_log("too many guesses wait for their turn")
    if "::1" in gate.ports["main"]:
        with wire.Client(("::1", gate.ports["main"]["::1"]), "request", ca=stand.authority.crt) as c:
            assert c.login(stand.admin_user, "postern", stand.admin_password).query("SHOW VERSION")
    assert login(gate).query("SELECT 1") == [["1"]]
    for t in threads:
        t.join()
    took = time.monotonic() - began
    refused = gate.log().count("too many guesses wait for their turn")
    assert failed == ["28P01"] * GUESSES, "all are told the same"
    assert GUESSES - refused <= FREE + took / EVERY + 1
    assert GUESSES - refused >= FREE, "that many are judged at once"


def test_who_is_right_is_never_slowed_down(make_gate, stand):
    gate = make_gate()
    for _ in range(3 * FREE):
        with wire.Client(("127.0.0.1", gate.port()), "request", ca=stand.authority.crt) as c:
            c.login(stand.admin_user, "postern", stand.admin_password)
    assert "too many guesses" not in gate.log()


def test_program_with_a_token_that_has_expired_holds_nobody_up(make_gate, login, connect, stand):
    """Tokens are not guessed: what fails is answered later, and counts for nobody else at its address."""
    gate = make_gate()
    for n in range(FREE + 1):
        with connect(gate) as c:
            c.startup("acme_rw", "acme")
            c.expect("R")
            c.send(wire.password("expired"))
            assert c.refusal()["C"] == "28P01"
    assert login(gate).query("SELECT 1") == [["1"]]
    assert login(gate, "postern", user=stand.admin_user, secret=stand.admin_password).query("SHOW VERSION")
