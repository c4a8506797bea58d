"""The drivers: what each needs and how its program is built and called."""
# SPDX-License-Identifier: Apache-2.0
import glob
import os
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
# git ignores /build*/.
OUT = os.path.join(TOP, "build-drivers")

PYTHON = ["/usr/bin/python3"]
POSTGRES = ["postgresql-15", "postgresql-client-15", "python3"]
NODE = ["nodejs"]
GO = ["golang-go"]
RUST = ["cargo", "librust-tokio-postgres-dev", "librust-tokio-openssl-dev"]
JDK = ["default-jdk-headless", "libpostgresql-jdbc-java"]

# name: (Debian's packages, source or program, arguments)
DRIVERS = {
    "psql": (POSTGRES, "python/psql.py", []),
    "libpq": (["gcc", "libc6-dev", "libpq-dev"], "libpq/cases.c", ["-lpq"]),
    "psycopg2": (["python3-psycopg2"], "python/psycopg2_cases.py", []),
    "psycopg3": (["python3-psycopg"], "python/psycopg3_cases.py", ["sync"]),
    "psycopg3-async": (["python3-psycopg"], "python/psycopg3_cases.py", ["async"]),
    "asyncpg": (["python3-asyncpg"], "python/asyncpg_cases.py", []),
    "node-postgres": (NODE, "node/pg.js", ["pg"]),
    "pgjdbc": (JDK, "java/Cases.java", []),
    "pgx": ([*GO, "golang-github-jackc-pgx-v4-dev"], "go/pgx", []),
    "lib-pq": ([*GO, "golang-github-lib-pq-dev"], "go/libpq", []),
    "pgbench": (POSTGRES, "python/pgbench.py", []),
    "pg_dump": (POSTGRES, "python/pg_dump.py", []),
    "sqlalchemy": (["python3-sqlalchemy", "python3-psycopg2"], "python/sqlalchemy_cases.py", []),
    "django": (["python3-django", "python3-psycopg2"], "python/django_cases.py", []),
    "postgres.js": (NODE, "node/postgres.js", []),
    "yugabytedb-pg": (NODE, "node/pg.js", ["@yugabytedb/pg"]),
    "php-pdo": (["php-cli", "php-pgsql"], "php/cases.php", []),
    "perl-dbd-pg": (["libdbd-pg-perl"], "perl/cases.pl", []),
    "ruby-pg": (["ruby", "ruby-pg"], "ruby/cases.rb", []),
    "odbc": (["gcc", "libc6-dev", "odbc-postgresql", "unixodbc-dev"], "odbc/cases.c",
             ["-lodbc", "-lpthread"]),
    "tokio-postgres": (RUST, "rust/cases.rs", []),
}
DRIVERS = {name: row for name, row in DRIVERS.items() if os.path.exists(os.path.join(HERE, row[1]))}


def packages(names):
    return sorted({p for name in names for p in DRIVERS[name][0]})


def missing_packages(names):
    absent = []
    for package in packages(names):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        if not done.stdout.endswith(" installed") and not by_other_means(package):
            absent.append(package)
    return absent


def by_other_means(package):
    """A tool that is there without Debian's package."""
    program = {"cargo": "cargo", "nodejs": "node", "default-jdk-headless": "javac"}.get(package)
    return program is not None and any(
        os.access(os.path.join(folder, program), os.X_OK)
        for folder in os.environ.get("PATH", "").split(":"))


def needs_npm(names):
    return any(DRIVERS[name][1].startswith("node/") for name in names) and \
        not os.path.exists(os.path.join(HERE, "node_modules", "pg", "package.json"))


def missing(names):
    return bool(missing_packages(names)) or needs_npm(names)


def make(argv, **more):
    done = subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=900, check=False, **more)
    if done.returncode != 0:
        raise SystemExit(f"FAILED: {' '.join(argv[:6])}...\n{done.stdout[-6000:]}")
    return done.stdout


def build(name):
    """The command that runs the driver's cases, built if it must be."""
    _, source, arguments = DRIVERS[name]
    path = os.path.join(HERE, source)
    os.makedirs(OUT, exist_ok=True)
    binary = os.path.join(OUT, name)
    if source.endswith(".py"):
        return [*PYTHON, path, *arguments]
    if source.endswith(".js"):
        return ["node", path, *arguments]
    if source.endswith(".c"):
        flags = ["-I/usr/include/postgresql"] if name == "libpq" else []
        make(["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-I", os.path.join(HERE, "libpq"),
              *flags, "-o", binary, path, *arguments])
        return [binary]
    if source.endswith(".java"):
        classes = binary + ".classes"
        jar = glob.glob("/usr/share/java/postgresql.jar")[0]
        make(["javac", "-cp", jar, "-d", classes, path])
        return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-cp",
                f"{jar}:{classes}", "Cases"]
    if source.startswith("go/"):
        go_path = os.path.join(OUT, "go")
        link = os.path.join(go_path, "src", "drivers")
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.islink(link):
            os.symlink(os.path.join(HERE, "go"), link)
        env = dict(os.environ, GO111MODULE="off", GOPATH=f"{go_path}:/usr/share/gocode",
                   GOFLAGS="", GOCACHE=os.path.join(OUT, "go-cache"))
        make(["go", "build", "-o", binary, f"drivers/{os.path.basename(source)}"],
             env=env, cwd=link)
        return [binary]
    if source.endswith(".rs"):
        return [rust(binary)]
    if source.endswith(".php"):
        return ["php", "-d", "display_errors=stderr", path]
    if source.endswith(".pl"):
        return ["perl", path]
    if source.endswith(".rb"):
        return ["ruby", path]
    raise SystemExit(f"{name}: nobody knows how to build {source}")


def rust(binary):
    """Debian's crates only: cargo takes them from its registry in /usr/share."""
    target = binary + ".target"
    make(["cargo", "build", "--offline", "--quiet", "--target-dir", target],
         cwd=os.path.join(HERE, "rust"))
    return os.path.join(target, "debug", "cases")
