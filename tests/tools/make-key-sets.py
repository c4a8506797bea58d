#!/usr/bin/env python3
"""Writes tests/unit/key-sets: for each provider of tests/stand/providers.py its key set, and tokens,
one a line: "accepted TOKEN" or "refused TOKEN why". The private keys are thrown away.
SPDX-License-Identifier: Apache-2.0"""
import sys
import tempfile
from pathlib import Path

top = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(top / "tests"))

from stand.providers import PROVIDERS, Provider  # noqa: E402

target = top / "tests/unit/key-sets"
target.mkdir(exist_ok=True)
with tempfile.TemporaryDirectory() as folder:
    for name in PROVIDERS:
        # Good from 2023 to 2096, around the time that the unit tests take for now.
        p = Provider(name, folder, now=1700000000, lifetime=2300000000)
        p.write(target / f"{name}.json")
        lines = [f"accepted {p.accepted}", *(f"refused {token} {why}" for why, token in p.refused.items())]
        (target / f"{name}.tokens").write_text("\n".join(lines) + "\n")
        settings = [f"{key} = {p.issuer[key]}" for key in ("issuer", "audience", "algorithms", "tenant_claim", "roles_claim")]
        (target / f"{name}.ini").write_text(f"[issuer {name}]\n" + "\n".join(settings) + f"\njwks_file = {name}.json\n")
