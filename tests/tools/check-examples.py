#!/usr/bin/env python3
"""The examples that people copy, held against the tree: configurations against settings.def,
links against files, what is shipped against docs/files.mk. Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import os
import re
import sys
from pathlib import Path

top = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
ROW = re.compile(r'^SETTING\((\w+), (\w+), (\w+), ("[^"]*"|REQUIRED), "([^"]*)"', re.M)
REFERS = {("tenant", "plan"): "plan", ("database", "cluster"): "cluster"}
count = failed = 0


def ok(faults, name):
    global count, failed
    count += 1
    failed += bool(faults)
    print(f"{'not ' if faults else ''}ok {count} - {name}")
    for fault in faults:
        print(f"# {fault}")


def read_settings():
    settings = {}
    rows = ROW.findall((top / "include/conf/settings.def").read_text())
    for section, key, kind, default, limits in rows:
        settings.setdefault(section, {})[key] = (kind, default, limits)
    return settings


def ini_faults(text, settings, whole):
    """Faults of one example; a whole one must also have all that is required and referred to."""
    faults, sections, kind, here = [], {}, None, {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in ";#":
            continue
        if header := re.fullmatch(r"\[(\w+)(?: (\S+))?\]", line):
            kind, here = header[1], {}
            sections.setdefault(kind, {})[header[2] or ""] = here
            if kind not in settings:
                faults.append(f"line {number}: no section {line}")
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            faults.append(f"line {number}: neither a section nor a setting")
        elif kind and (kind, key) != ("postern", "include"):
            row = settings.get(kind, {}).get(key)
            here[key] = value
            if not row:
                faults.append(f"line {number}: [{kind}] has no {key}")
            elif row[0] == "ENUM" and value not in row[2].split("|"):
                faults.append(f"line {number}: {key} is not one of {row[2]}")
    for kind, named in sections.items() if whole else ():
        for name, given in named.items():
            for key, row in settings.get(kind, {}).items():
                if row[1] == "REQUIRED" and key not in given:
                    faults.append(f"[{kind} {name}] lacks {key}")
                other = REFERS.get((kind, key))
                if other and given.get(key, "") and given[key] not in sections.get(other, {}):
                    faults.append(f"[{kind} {name}] names [{other} {given[key]}], which is not there")
    return faults


def build_faults(block, page):
    """What some builds refuse is said beside the example."""
    if "rediss://" not in block or re.search(r"hiredis\b.*\b0\.14", page, re.S):
        return []
    return ["rediss:// without a word of the builds that refuse it (hiredis 0.14, Debian 12)"]


def link_faults(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    return [f"{target} is not there" for target in targets if not (page.parent / target).exists()]


def listing_faults(folders):
    """Files that a release archive would lack, and files that it would look for in vain."""
    listed = set(re.findall(r"(?<![\w/])(?:docker|deploy|docs)/[\w./-]+\w",
                            (top / "docs/files.mk").read_text()))
    there = {str(path.relative_to(top)) for folder in folders
             for path in (top / folder).rglob("*") if path.is_file()}
    there = {path for path in there if not path.startswith("docker/state/")} - {"docs/files.mk"}
    return ([f"{path} is not in docs/files.mk" for path in sorted(there - listed)] +
            [f"{path} is in docs/files.mk only" for path in sorted(listed - there)])


PROBES = {"startupProbe": "/health/startup", "livenessProbe": "/health/live",
          "readinessProbe": "/health/ready"}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def container_of(manifest):
    """The lines of the gate's own container: those below its name that are indented further."""
    lines = manifest.splitlines()
    for start, line in enumerate(lines):
        if line.strip() == "- name: postern":
            depth = len(line) - len(line.lstrip())
            end = next((n for n in range(start + 1, len(lines)) if lines[n].strip() and
                        len(lines[n]) - len(lines[n].lstrip()) <= depth), len(lines))
            return "\n".join(lines[start:end])
    return ""


def probe_faults(path):
    """A pod that the kubelet can start, that it ends only when the process hangs, and that leaves
    its Service before it is told to end and has the time to drain."""
    manifest, faults = path.read_text(), []
    gate = container_of(manifest)
    ini = path.parent / "postern.ini"
    ini = (ini if ini.exists() else top / "deploy/kubernetes/base/postern.ini").read_text()
    for probe, url in PROBES.items():
        found = re.search(rf"{probe}:\n +httpGet: {{ path: (\S+), port: (\w+) }}", gate)
        if not found or found.groups() != (url, "http"):
            faults.append(f"{probe} is not {url} on the port http")
    port = re.search(r"name: http, containerPort: (\d+)", gate)
    listens = re.search(r"^http_listen = (\S+):(\d+)$", ini, re.M)
    if not port or not listens or listens[2] != port[1] or listens[1] not in ("0.0.0.0", "[::]"):
        faults.append("the kubelet does not reach http_listen")
    tries = re.search(r"failureThreshold: (\d+)", gate.partition("startupProbe:")[2].partition("Probe:")[0])
    if not tries or int(tries[1]) < 30:
        faults.append("startupProbe gives up too soon")
    is_sidecar = "restartPolicy: Always" in gate  # ends after the programs that use it
    sleep = re.search(r'preStop:\n +exec: { command: \["sleep", "(\d+)"\] }', gate)
    if not sleep and not is_sidecar:
        faults.append("no preStop: logins would be refused until the Service has noticed")
    drain = seconds(re.search(r"^drain_timeout = (\S+)$", ini, re.M)[1])
    grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)[1])
    if grace <= (int(sleep[1]) if sleep else 0) + drain:
        faults.append("terminationGracePeriodSeconds is not longer than preStop and drain_timeout")
    return faults


settings = read_settings()
ok([] if len(settings) >= 8 else ["include/conf/settings.def was not understood"], "settings.def")
for path in sorted([*top.glob("docker/*.ini"), *top.glob("deploy/**/*.ini")]):
    ok(ini_faults(path.read_text(), settings, True), path.relative_to(top))
pages = sorted([*top.glob("*.md"), *top.glob("docs/*.md"), *top.glob("docker/*.md"),
                *top.glob("deploy/**/*.md")])
for page in pages:
    for number, block in enumerate(re.findall(r"```ini\n(.*?)```", page.read_text(), re.S), 1):
        ok(ini_faults(block, settings, page.name == "README.md") + build_faults(block, page.read_text()),
           f"{page.relative_to(top)}: example {number}")
    ok(link_faults(page), f"{page.relative_to(top)}: links")
manifests = [path for path in sorted(top.glob("deploy/**/*.yaml"))
             if "image:" in container_of(path.read_text())]
ok([] if len(manifests) >= 3 else ["the gate's manifests were not found"], "deploy: manifests")
for path in manifests:
    ok(probe_faults(path), f"{path.relative_to(top)}: probes")
ok(listing_faults(["docker", "deploy", "docs"]), "docs/files.mk")
print(f"1..{count}")
sys.exit(failed > 0)
