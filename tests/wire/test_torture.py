"""A short form of the torture test; tests/torture/run.py is the long one."""
# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

from stand import proc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "torture"))
import run as torture  # noqa: E402


@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "broken"])
def test_torture(stand, make_gate, quiet):
    """64 clients on two pools of 5: with nothing but their own misdeeds, then with backends and
    nodes killed and the configuration reloaded under them."""
    gate = make_gate(torture.overrides())
    seed = int(os.environ.get("TORTURE_SEED", "1"))
    warm, end = torture.torment(stand, gate, stand.build, seconds=10, seed=seed, quiet=quiet,
                                stuck=20 * proc.PATIENCE)
    if "-fsanitize" not in gate_flags(stand.build):
        assert end < warm * 1.25 + 8192, f"memory grew from {warm} to {end} KiB"


def gate_flags(build):
    try:
        with open(os.path.join(build, "Makefile"), encoding="utf-8", errors="replace") as f:
            return "".join(line for line in f if line.startswith("SAN_CFLAGS"))
    except OSError:
        return ""
