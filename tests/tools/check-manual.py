#!/usr/bin/env python3
"""The options of the program: those that it takes, those that its --help tells and those of postern(1) are
the same. Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import os
import re
import subprocess
import sys
from pathlib import Path

top = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
program = Path(os.environ.get("top_builddir", ".")).resolve() / "postern"
OPTION = r"(?<![\w-])--[a-z][a-z-]+"
count = failed = 0


def same(found, wanted, name):
    global count, failed
    count += 1
    failed += found != wanted
    print(f"{'not ' if found != wanted else ''}ok {count} - {name}")
    for option in sorted(found ^ wanted):
        print(f"# {option} is only in {'the first' if option in found else 'the second'}")


def taken(source, nth):
    """Of a source's nth getopt table."""
    text = (top / "src" / source).read_text()
    rows = re.findall(r"struct option \w+\[\] = {(.*?)};", text, re.S)[nth]
    return {f"--{name}" for name in re.findall(r'{"([a-z-]+)", (?:required|no)_argument', rows)}


def told(*command):
    text = subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(OPTION, text)) | {"--help"}


def explained(section):
    """Of the paragraphs' tags; --help is explained once for all."""
    page = (top / "man/postern.1").read_text().replace("\\-", "-")
    part = re.search(rf"^\.S[HS] {section}\n(.*?)(?=^\.S[HS] )", page, re.M | re.S)[1]
    return {option for tag in re.findall(r"^\.TP\n(.*)", part, re.M) for option in re.findall(OPTION, tag)} | {"--help"}


for command, source, nth in ((), "main.c", 0), (("token",), "mint.c", 0), (("jwks",), "mintkeys.c", 0), (("scram",), "mintkeys.c", 1):
    name = " ".join(("postern", *command))
    same(told(*command), taken(source, nth), f"{name}: --help tells what it takes")
    same(explained(name if command else "OPTIONS"), told(*command), f"{name}: postern(1) explains what --help tells")
print(f"1..{count}")
sys.exit(failed > 0)
