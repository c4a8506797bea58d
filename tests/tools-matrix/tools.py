"""The tools: what each needs and how its program is called."""
# SPDX-License-Identifier: Apache-2.0
import os
import platform
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = os.path.join(HERE, "node_modules")
TOP = os.path.dirname(os.path.dirname(HERE))
# git ignores /build*/.
OUT = os.path.join(TOP, "build-tools")

PYTHON = "/usr/bin/python3"
JARS = ("/usr/share/java/HikariCP.jar", "/usr/share/java/postgresql.jar",
        "/usr/share/java/slf4j-api.jar", "/usr/share/java/slf4j-nop.jar")

# name: (Debian's packages, source); the packages of node/ are in package.json.
TOOLS = {
    "knex": ([], "node/knex.js"),
    "pg-boss": ([], "node/pg-boss.js"),
    "graphile-worker": ([], "node/graphile-worker.js"),
    "typeorm": ([], "node/typeorm.js"),
    "sequelize": ([], "node/sequelize.js"),
    "drizzle": ([], "node/drizzle.js"),
    "kysely": ([], "node/kysely.js"),
    "node-pg-migrate": ([], "node/node-pg-migrate.js"),
    "slonik": ([], "node/slonik.js"),
    "postgraphile": ([], "node/postgraphile.js"),
    "alembic": (["python3-alembic", "python3-psycopg2"], "python/alembic_tool.py"),
    "activerecord": (["ruby", "ruby-activerecord", "ruby-pg"], "ruby/activerecord.rb"),
    "minion": (["libminion-perl", "libmojo-pg-perl"], "perl/minion.pl"),
    "hikaricp": (["default-jdk-headless", "libhikaricp-java", "libpostgresql-jdbc-java",
                  "libslf4j-java"], "java/Hikari.java"),
}
TOOLS = {name: row for name, row in TOOLS.items() if os.path.exists(os.path.join(HERE, row[1]))}


def node():
    """The tools ask for a newer Node than some systems have: one of the npm registry's."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return os.path.join(MODULES, f"node-linux-{machine}", "bin", "node")


def needs_npm(names):
    return any(TOOLS[name][1].startswith("node/") for name in names) and \
        not (os.path.exists(node()) and os.path.exists(os.path.join(MODULES, ".package-lock.json")))


def missing_packages(names):
    absent = []
    for package in sorted({p for name in names for p in TOOLS[name][0]}):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if not done.stdout.endswith(" installed"):
            absent.append(package)
    return absent


def missing(names):
    return bool(missing_packages(names)) or needs_npm(names)


def build(name):
    """The command that runs the tool's program, built if it must be."""
    source = os.path.join(HERE, TOOLS[name][1])
    os.makedirs(OUT, exist_ok=True)
    if source.endswith(".js"):
        return [node(), "--no-warnings", source]
    if source.endswith(".py"):
        return [PYTHON, source]
    if source.endswith(".rb"):
        return ["ruby", source]
    if source.endswith(".pl"):
        return ["perl", source]
    if source.endswith(".java"):
        classes = os.path.join(OUT, name + ".classes")
        subprocess.run(["javac", "-cp", ":".join(JARS), "-d", classes, source], check=True,
                       timeout=300)
        return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp",
                ":".join((*JARS, classes)), "Hikari"]
    raise SystemExit(f"{name}: {source} cannot be built")
