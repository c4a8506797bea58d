#!/usr/bin/env python3
"""What is shipped around the gate, read as what it is: who reaches the database and Redis, which password
is where, which rights a user of Redis has, and what the image stands on. Speaks TAP.
SPDX-License-Identifier: Apache-2.0"""
import configparser
import os
import re
import sys
from pathlib import Path

try:
    import yaml
except ImportError:
    print("1..0 # SKIP python3-yaml is not installed")
    sys.exit(0)

top = Path(os.environ.get("top_srcdir", Path(__file__).resolve().parents[2]))
kubernetes = top / "deploy/kubernetes"
count = failed = 0


def ok(faults, name):
    global count, failed
    count += 1
    failed += bool(faults)
    print(f"{'not ' if faults else ''}ok {count} - {name}")
    for fault in faults:
        print(f"# {fault}")


def documents(path):
    """All objects of a file. A key that is there twice is a mistake that YAML's own reader passes over."""
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value if key.value != "<<"]
            if len(keys) != len({str(key) for key in keys}):
                raise yaml.YAMLError(f"a key twice in {keys}")
            return super().construct_mapping(node, deep)
    return [d for d in yaml.load_all(path.read_text(), Strict) if d]


def policies(path):
    return {d["metadata"]["name"]: d["spec"] for d in documents(path) if d.get("kind") == "NetworkPolicy"}


def port_faults(policy, port, wanted, what):
    """Who may come to the port: exactly those. A rule without `from` lets in everybody, one without
    `ports` opens all of them."""
    found = []
    for rule in policy.get("ingress", []):
        ports = rule.get("ports")
        if ports is None or any(p.get("port") == port and "endPort" not in p for p in ports):
            found += rule.get("from") or ["everybody"]
    faults = [f"{what}: {peer} is let in" for peer in found if peer not in wanted]
    faults += [f"{what}: {peer} is not let in" for peer in wanted if peer not in found]
    if "Ingress" not in policy.get("policyTypes", []):
        faults.append(f"{what}: is no policy for what comes in")
    return faults


GATES = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postern"}},
         "podSelector": {"matchLabels": {"app.kubernetes.io/name": "postern"}}}
CLUSTER = {"podSelector": {"matchExpressions": [
    {"key": "app", "operator": "In", "values": ["yb-tserver", "yb-master"]}]}}


def database_faults():
    spec = policies(kubernetes / "database/networkpolicy.yaml")
    tserver, master = spec["tserver-only-from-the-gate"], spec["master-only-from-the-cluster"]
    faults = port_faults(tserver, 5433, [GATES, CLUSTER], "YSQL")
    faults += port_faults(master, 7100, [CLUSTER], "the masters")
    for policy in (tserver, master):
        for rule in policy["ingress"]:
            for peer in rule["from"]:
                if "namespaceSelector" in peer and "podSelector" not in peer:
                    faults.append(f"all pods of a namespace are let in: {peer}")
    return faults


def redis_policy_faults():
    gates = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "postern"}}}
    return port_faults(policies(kubernetes / "redis/redis.yaml")["redis"], 6379, [gates], "Redis")


def label_faults():
    """No rule in force lets in what anybody may call himself, and the entry for sidecars is there to be
    enabled, with the reason: for one namespace by its name."""
    faults = []
    for path in sorted(kubernetes.rglob("*.yaml")):
        for name, spec in policies(path).items():
            for rule in spec.get("ingress", []):
                for peer in rule.get("from", []):
                    if "postern/sidecar" in str(peer):
                        faults.append(f"{path.relative_to(top)}: {name} lets in who labels himself a sidecar")
    for name in ("database/networkpolicy.yaml", "redis/redis.yaml"):
        text = (kubernetes / name).read_text()
        entry = re.search(r"# Sidecars: disabled.*?\n((?: +# .*\n)+)", text)
        lines = re.sub(r"^ +# ", "", entry[0], flags=re.M) if entry else ""
        selector = re.findall(r"matchLabels: \{ (\S+?): ", lines)
        if selector != ["kubernetes.io/metadata.name", "postern/sidecar"]:
            faults.append(f"{name}: no disabled entry for the sidecars of one namespace: {selector}")
    return faults


# ---- Redis ----

def rule_of(line):
    """(name, whether a digest stands for the password, commands, keys) of a "user" line."""
    words = line.split()
    assert words[0] == "user"
    secrets = [w for w in words[2:] if w[0] in "#>" or w == "nopass"]
    return (words[1], all(w[0] == "#" for w in secrets) and "on" in words or "off" in words,
            [w for w in words[2:] if w[0] in "+-"], [w for w in words[2:] if w[0] == "~" or w in ("allkeys", "resetkeys")])


def users_of(text):
    return {line.split()[1]: line for line in text.splitlines() if line.startswith("user ")}


# What the gateway's sources say in its name: src/gate/redis.c, and the scripts of src/gate/lease.c.
def said_commands():
    lease, redis = ((top / "src/gate" / name).read_text() for name in ("lease.c", "redis.c"))
    said = set(re.findall(r"redis\.call\('(\w+)'", lease))
    said |= {w for w in re.findall(r'TEXT\("([A-Z]{3,})"\)', redis) if w not in ("AUTH", "SELECT")}
    return {w.lower() for w in said}


users = users_of((top / "deploy/redis/users.conf").read_text())


def user_faults():
    faults, said = [], said_commands()
    if sorted(users) != ["default", "gateway", "sidecar-acme"] or users["default"] != "user default off":
        faults.append(f"users: {sorted(users)}, and default is not off")
    for name, without, keys in (("gateway", set(), ["~{postern:*"]),
                                ("sidecar-acme", {"eval"}, ["~{postern:acme}:q", "~{postern:acme}:c", "~{postern:}:probe"])):
        _, is_digest, commands, found = rule_of(users[name])
        if commands[0] != "-@all" or "resetchannels" not in users[name].split():
            faults.append(f"{name}: does not begin with nothing")
        if {c[1:] for c in commands[1:] if c[0] == "+"} != said - without or any(c[0] == "-" for c in commands[1:]):
            faults.append(f"{name}: has {commands}, needs {sorted(said - without)}")
        if found != keys:
            faults.append(f"{name}: reaches {found}")
        if not is_digest:
            faults.append(f"{name}: its password stands there")
    return faults


def key_faults():
    """The keys are shaped so that a pattern can be one tenant's: prefix, tenant, kind."""
    limiter, redis = ((top / "src/gate" / name).read_text() for name in ("limiter.c", "redis.c"))
    return [f"{shape} is not how a key is made" for shape, text in
            (('"{%s:" TEXT_FMT "}:q"', limiter), ('"{%s:" TEXT_FMT "}:c"', limiter), ('"{%s:}:probe"', redis))
            if shape not in text]


def example_faults():
    """The Secrets and the stand for compose have the same rules, and Redis listens with TLS only."""
    secret = next(d for d in documents(kubernetes / "secrets.example.yaml")
                  if d["metadata"] == {"name": "redis", "namespace": "postern"})["stringData"]
    faults = []
    if users_of(secret["users.conf"]) != {name: users[name] for name in ("default", "gateway")}:
        faults.append("secrets.example.yaml: other users, or with other rights")
    if f"# {users['sidecar-acme']}" not in secret["users.conf"]:
        faults.append("secrets.example.yaml: another user for sidecars")
    setup = (top / "docker/setup.sh").read_text()
    if users["gateway"].replace("#SHA256", "#$digest") not in setup or "user default off" not in setup:
        faults.append("docker/setup.sh: other users, or with other rights")
    for name, text in (("secrets.example.yaml", secret["redis.conf"]), ("docker/setup.sh", setup)):
        for line in ("port 0", "tls-port 6379", "include /etc/redis/users.conf"):
            if line not in [row.strip() for row in text.splitlines()]:
                faults.append(f"{name}: Redis has no {line}")
        if "requirepass" in text:
            faults.append(f"{name}: a password for the user default")
    return faults


def settings(path):
    ini = configparser.ConfigParser(strict=True, interpolation=None, inline_comment_prefixes=None)
    ini.read_string(path.read_text())
    return ini


def clear_text_faults():
    """No configuration that is shipped sends a password in clear text, or as who may do all."""
    faults = []
    for path in sorted([*(top / "docker").glob("*.ini"), *kubernetes.rglob("*.ini")]):
        redis = settings(path)["redis"]
        wanted = "sidecar-acme" if path.parent.name == "sidecar" else "gateway"
        if not re.fullmatch(rf"rediss://{wanted}@[^/]+", redis["url"]):
            faults.append(f"{path.relative_to(top)}: {redis['url']}")
        if "password_in_clear" in redis or "ca_file" not in redis:
            faults.append(f"{path.relative_to(top)}: without an authority, or in clear text")
    return faults


def secret_faults():
    """The gateways' password, and the users of Redis, are in no namespace but postern."""
    faults = []
    for d in documents(kubernetes / "secrets.example.yaml"):
        where, text = d["metadata"]["namespace"], str(d["stringData"])
        if where != "postern" and ("users.conf" in d["stringData"] or "gateway" in text):
            faults.append(f"{d['metadata']['name']} of {where} has what is the gateways'")
        if where != "postern" and "SIDECAR" not in d["stringData"].get("redis-password", "SIDECAR"):
            faults.append(f"{where} has a password that is not the sidecar's")
    return faults


# ---- the image ----

def image_faults():
    text = (top / "docker/Dockerfile").read_text()
    base = re.search(r"^ARG BASE=debian:trixie-slim@sha256:[0-9a-f]{64}$", text, re.M)
    froms = re.findall(r"^FROM (\S+)", text, re.M)
    faults = [] if base else ["the base has no digest"]
    faults += [f"FROM {name}" for name in froms if name != "${BASE}"]
    if "libhiredis1.1.0" not in text or "libhiredis_ssl" not in text:
        faults.append("nothing makes sure of TLS to Redis")
    return faults


everything = sorted([*kubernetes.rglob("*.yaml"), top / "docker/compose.yaml"])
for path in everything:
    try:
        parsed, fault = documents(path), []
    except yaml.YAMLError as e:
        parsed, fault = [], [str(e)]
    ok(fault or ([] if parsed else ["there is nothing in it"]), f"{path.relative_to(top)}: is YAML")
ok(database_faults(), "the database lets in the gates of one namespace, and itself")
ok(redis_policy_faults(), "Redis lets in the gates of its namespace")
ok(label_faults(), "nobody gets in by what he calls himself; sidecars are to be enabled by name")
ok(user_faults(), "users of Redis: what a gateway does and no more, a tenant's keys alone for its sidecars")
ok(key_faults(), "keys of Redis: a tenant's are its own by their beginning")
ok(example_faults(), "the same users in the Secrets and in the stand for compose")
ok(clear_text_faults(), "no password of Redis goes in clear text")
ok(secret_faults(), "the gateways' password is in the gateways' namespace alone")
ok(image_faults(), "the image stands on a digest, and speaks TLS to Redis")
print(f"1..{count}")
sys.exit(failed > 0)
