#!/usr/bin/env python3
"""What configure says the program is hardened with, the program has. Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import os
import re
import subprocess
import sys
from pathlib import Path

build = Path(os.environ.get("top_builddir", ".")).resolve()
makefile = (build / "Makefile").read_text()
hardened = re.search(r"^HARDENED =(.*)", makefile, re.M)[1].split()
count = failed = 0


def readelf(*options, of="postern"):
    return subprocess.run(["readelf", "-W", *options, build / of], capture_output=True, text=True, check=True).stdout


def are_all_marked(*words):
    """Our objects; the linker passes that on only where the C library's own are marked as well (not in Debian)."""
    notes = readelf("-n", of="libsession.a").split("File: ")[1:]
    return notes and all(word in each for each in notes for word in words)


def ok(good, name):
    global count, failed
    count += 1
    failed += not good
    print(f"{'' if good else 'not '}ok {count} - {name}")


if not hardened:
    ok(re.search(r"-fsanitize|--disable-hardening", makefile + (build / "config.log").read_text()), "nothing is hardened, which was asked for")
else:
    head, parts, dynamic = readelf("-h"), readelf("-l"), readelf("-d")
    symbols = readelf("--dyn-syms")
    optimized = not re.search(r"^CFLAGS =.*-O0", makefile, re.M)
    looks = {
        "stack": ("functions with buffers check their frames", "__stack_chk_fail" in symbols),
        "fortify": ("copies of the C library check their room", not optimized or re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", ""))),
        "pie": ("its place in memory is random", re.search(r"Type:\s+DYN", head)),
        "relro": ("the table of functions is read-only", "GNU_RELRO" in parts and re.search(r"BIND_NOW|\bNOW\b", dynamic)),
        "noexecstack": ("the stack holds no code", re.search(r"GNU_STACK.*\bRW\b", parts)),
        "cet": ("jumps land where they may (x86)", are_all_marked("IBT", "SHSTK")),
        "bti": ("jumps land where they may (ARM)", are_all_marked("BTI")),
    }
    for name, (what, good) in looks.items():
        if name in hardened:
            ok(bool(good), what)
print(f"1..{count}")
sys.exit(failed > 0)
