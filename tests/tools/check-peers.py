#!/usr/bin/env python3
"""Whether every test that docs/peers-bugs.md, docs/found-in-use.md, docs/security.md and docs/yugabytedb.md name exists.
Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import os
import re
import sys
from pathlib import Path

top = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
count = failed = 0


def ok(good, name):
    global count, failed
    count += 1
    failed += not good
    print(f"{'' if good else 'not '}ok {count} - {name}")


def text(path):
    return path.read_text(encoding="utf-8") if path.exists() else ""


pages = [text(top / "docs" / page) for page in ("peers-bugs.md", "found-in-use.md")]
tried = text(top / "docs/security.md").partition("| attack |")[2].partition("\n\n")[0]
lines = [line for page in (*pages, tried) for line in page.splitlines() if line.startswith("| ")]
rows = [line for line in lines if not line.startswith("| what happened")]
ok(all(page.count("\n| ") > 15 for page in pages), "the lists are there")
for row in rows:
    what, _, tests = [cell.strip() for cell in row.strip("|").split("|")]
    what = what[:100]
    named = re.findall(r"`([^`]+)`", tests)
    ok(named, f"{what}: has a test")
    for name in named:
        if "/" in name and "::" not in name:
            ok((top / name).exists(), name)
        elif "::" in name:
            file, function = name.split("::")
            ok(f"\ndef {function}(" in text(top / "tests" / "wire" / file), name)
        else:
            file, _, words = name.partition(": ")
            ok(words.strip('"') and words.strip('"') in text(top / "tests" / "unit" / file), name)
named = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text(top / "docs" / "yugabytedb.md"))))
ok(len(named) > 15, "the differences of YugabyteDB have tests")
for file, function in named:
    there = text(top / "tests" / "wire" / file)
    ok(f"\ndef {function}(" in there if function else there, f"{file}::{function}")
print(f"1..{count}")
sys.exit(failed > 0)
