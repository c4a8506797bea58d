"""Short forms of tests/cuts: conversations that are cut and compared with the server, and histories
whose connections are taken away. The long forms are tests/cuts/cuts.py and tests/cuts/histories.py."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

from stand import proc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cuts"))
import cuts  # noqa: E402
import histories  # noqa: E402

# One of each kind of message and state; all of them are for the long form.
NAMES = ("block", "savepoints", "named", "flushes", "extended_block", "failed_block_extended", "copy_simple_in_block",
         "copy_extended_fails_under_way", "copy_flushed_duplicate", "functions", "listens", "long_bind_40000",
         "violates_the_protocol", "sync_in_a_copy", "sync_behind_a_copy_that_has_failed")


@pytest.fixture(scope="module")
def lane(stand):
    it = cuts.Lane(stand, "wire_cuts").start()
    try:
        yield it
        it.end()
    finally:
        it.close()


@pytest.mark.parametrize("mode", cuts.MODES)
@pytest.mark.parametrize("event", cuts.ALONE)
def test_conversations_that_are_cut_are_answered_as_by_the_server(lane, event, mode):
    """At the end of each message and in the middle of each, with something happening there."""
    every = 2 if event == "none" else 5
    for name in NAMES[share(event + mode, every)::every]:
        count, wrong = cuts.run(lane, name, (mode,), (event,), middle=True)
        assert count and not wrong, "\n".join(wrong[:3])


def share(text, every):
    """Other conversations for other events; cuts.py does all with all."""
    return sum(text.encode()) % every


@pytest.mark.parametrize("event", cuts.TOGETHER)
def test_sessions_cut_everywhere_and_one_event_for_all(lane, event):
    count, wrong = cuts.run(lane, "block_of_both_kinds", ("transaction",), (event,), 0)
    assert count and not wrong, "\n".join(wrong[:3])


def test_all_of_a_transaction_or_nothing_in_random_histories(stand):
    """Nodes are killed, server processes ended, transactions stand still for too long."""
    lane = cuts.Lane(stand, "wire_histories").start(nodes=2)
    try:
        count = int(os.environ.get("POSTERN_HISTORIES", "150"))
        told, wrong = histories.run(lane, count, os.environ.get("POSTERN_SEED", "1"), 8)
        assert told["histories"] == count and told["committed"] and told["not"], told
        assert not wrong, "\n".join(wrong[:3])
        lane.end()
    finally:
        lane.close()


def test_what_is_left_of_a_batch_whose_client_leaves(lane):
    """A random batch, cut at any byte, then Terminate, close or a reset: as the server leaves it."""
    wrong = histories.leave(lane, int(40 / max(1, proc.PATIENCE)), 1)
    assert not wrong, "\n".join(wrong[:3])
