#!/usr/bin/env python3
"""The house rules that a machine can see: floors, mirrored headers, banned functions, sizes,
licence lines. Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import os
import re
import sys
from pathlib import Path

top = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
FLOORS = {"base": 1, "io": 2, "conf": 2, "pg": 2, "gate": 3, "upstream": 3, "session": 4, "admin": 5}
TOP_FLOORS = {"worker": 6, "listeners": 7, "reload": 7, "control": 7}  # whatever else is on top is the program itself
BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|strtok|atoi|gets)\s*\(")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
FILE_LINES, FILE_LINES_MAX = 600, 800
FUNCTION_LINES, FUNCTION_LINES_MAX, TEST_LINES_MAX = 60, 80, 100
count = failed = 0


def ok(faults, name):
    global count, failed
    count += 1
    failed += bool(faults)
    print(f"{'not ' if faults else ''}ok {count} - {name}")
    for fault in faults:
        print(f"# {fault}")


# Programs that stand beside the gate: other languages, clients of their own.
BESIDE = ("corpus", "torture", "drivers", "node_modules")


def files(*suffixes):
    for folder in ("src", "include", "tests"):
        for path in sorted((top / folder).rglob("*")):
            if path.suffix in suffixes and not set(BESIDE) & set(path.parts):
                yield path.relative_to(top)


def text_of(path):
    return (top / path).read_text(encoding="utf-8", errors="replace")


def code_of(path):
    """Without comments and strings, the lines kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank,
                  text_of(path), flags=re.S)


def place(name):
    """Folder and floor of "folder/file.h" or "file.h"; None for what is not ours."""
    parts = name.split("/")
    if len(parts) == 1:
        stem = parts[0].rsplit(".", 1)[0]
        return "", TOP_FLOORS.get(stem, 8)
    return (parts[0], FLOORS[parts[0]]) if parts[0] in FLOORS else None


def floors():
    faults = []
    for path in files(".c", ".h", ".def"):
        if path.parts[0] == "tests":
            continue
        here = place("/".join(path.parts[1:]))
        if here is None:
            faults.append(f"{path}: a folder that is on no floor")
            continue
        for name in INCLUDE.findall(text_of(path)):
            if name == "config.h":
                continue
            there = place(name)
            if there is None or not (top / "include" / name).exists():
                faults.append(f"{path}: includes {name}, which is not in include/")
            elif there[1] > here[1]:
                faults.append(f"{path}: includes {name} from a floor above")
            elif there[1] == here[1] and there[0] != here[0]:
                faults.append(f"{path}: includes {name} from beside it")
    return faults


def mirror():
    faults, used = [], set()
    for path in files(".c", ".h", ".def"):
        used.update(INCLUDE.findall(text_of(path)))
    for path in files(".h", ".def"):
        if path.parts[0] != "include":
            if path.parts[0] == "src":
                faults.append(f"{path}: headers live in include/")
            continue
        name = "/".join(path.parts[1:])
        if not (top / "src" / path.relative_to("include").parent).is_dir():
            faults.append(f"{path}: there is no such folder in src/")
        if name not in used:
            faults.append(f"{path}: nobody includes it")
    if (top / "include/main.h").exists():
        faults.append("include/main.h: there is no header for main.c")
    return faults


def externs():
    return [f"{path}:{code[:m.start()].count(chr(10)) + 1}: an extern variable"
            for path in files(".h") for code in [code_of(path)]
            for m in re.finditer(r"^\s*extern\b(?!\s*\")", code, re.M)]


def banned():
    return [f"{path}:{code[:m.start()].count(chr(10)) + 1}: {m[1]}()"
            for path in files(".c", ".h") for code in [code_of(path)] for m in BANNED.finditer(code)]


def long_files():
    faults = []
    for path in files(".c", ".h", ".py"):
        lines = text_of(path).count("\n")
        if lines > FILE_LINES_MAX:
            faults.append(f"{path}: {lines} lines")
        elif lines > FILE_LINES:
            print(f"# note: {path} has {lines} lines")
    return faults


def long_functions():
    """A function is what stands between braces in the first column."""
    faults = []
    for path in files(".c"):
        name, begin = "", None
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if begin is None and re.match(r"[A-Za-z_].*\w\s*\(", line):
                name = re.findall(r"(\w+)\s*\(", line)[-1]
            if line.startswith("{"):
                begin = number
            elif line.startswith("}") and begin is not None:
                lines = number - begin + 1
                most = TEST_LINES_MAX if path.parts[0] == "tests" else FUNCTION_LINES_MAX
                if lines > most:
                    faults.append(f"{path}:{begin}: {name}() has {lines} lines")
                elif lines > FUNCTION_LINES:
                    print(f"# note: {path}:{begin}: {name}() has {lines} lines")
                begin = None
    return faults


def licences():
    paths = list(files(".c", ".h", ".def", ".py", ".sh"))
    paths += [Path(p) for p in ("Makefile.am", "configure.ac", "autogen.sh", "quickstart", "run-tests")]
    return [f"{path}: no SPDX line among the first 12" for path in paths
            if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(text_of(path).splitlines()[:12])]


ok(floors(), "no include goes up or sideways")
ok(mirror(), "include/ mirrors src/")
ok(externs(), "no extern variables in headers")
ok(banned(), "no banned functions")
ok(long_files(), f"no file is over {FILE_LINES_MAX} lines")
ok(long_functions(), f"no function is over {FUNCTION_LINES_MAX} lines (a test's: {TEST_LINES_MAX})")
ok(licences(), "every file names its licence")
print(f"1..{count}")
sys.exit(bool(failed))
