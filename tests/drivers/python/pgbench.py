"""pgbench: its query modes, its scripts, its pipelines. What it counts is not told, only that
every transaction was done and what the tables hold afterwards."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import subprocess
import tempfile
import time

from harness import case, main

BIN = next(d for d in ("/usr/lib/postgresql/15/bin", "/usr/bin")
           if os.access(os.path.join(d, "pgbench"), os.X_OK))


class Driver:
    """pgbench has no way to show rows: the common cases are not for it."""

    def error(self, e):
        return str(e)


def pgbench(*arguments, scripts=()):
    """Transactions done and failed, and what it complained of. Each client has a thread of its
    own: pgbench prepares while it waits, so two in one thread want two server connections."""
    if "-c" in arguments:
        arguments = [*arguments, "-j", arguments[arguments.index("-c") + 1]]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, text in enumerate(scripts):
            path = os.path.join(folder, f"{i}.sql")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            files += ["-f", path]
        done = subprocess.run([os.path.join(BIN, "pgbench"), "-n", *arguments, *files],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=40, check=False)
    found = re.findall(r"^number of (?:transactions actually processed|failed transactions): \S+", done.stdout, re.M)
    errors = re.findall(r"(?:ERROR|FATAL|error): .*", done.stderr)
    return f"{done.returncode} {found} {sorted(set(errors))}"


def sql(text):
    done = subprocess.run(["psql", "-XqAt", "-c", text], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=40, check=False)
    return (done.stdout + done.stderr).strip()


def sums():
    return sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),"
               " (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history),"
               " (SELECT count(*) FROM pgbench_history)")


def fresh():
    return pgbench("-i", "-q", "-s", "1").split(" ")[0]


@case("initialization")
def initialization():
    return [fresh(), sql("SELECT count(*) FROM pgbench_accounts"),
            pgbench("-i", "-q", "-I", "dtGvpf", "-s", "1").split(" ")[0],
            sql("SELECT count(*), min(aid), max(aid) FROM pgbench_accounts")]


for mode in ("simple", "extended", "prepared"):
    def tpcb(mode=mode):
        return [fresh(), pgbench("-M", mode, "-c", "4", "-t", "50"), sums()]

    def select(mode=mode):
        return pgbench("-M", mode, "-S", "-c", "4", "-t", "200")

    def reconnecting(mode=mode):
        return pgbench("-M", mode, "-S", "-C", "-c", "2", "-t", "10")

    def variables(mode=mode):
        return pgbench("-M", mode, "-c", "3", "-t", "30", scripts=[
            "\\set n random(1, 1000)\nBEGIN;\nSET LOCAL work_mem = '5MB';\nSELECT :n + 1 AS next \\gset\n"
            "SELECT 1/(CASE WHEN :next = :n + 1 THEN 1 ELSE 0 END);\nCOMMIT;\n"])

    def session(mode=mode):
        # Every client has its own variable, temporary table and lock.
        return pgbench("-M", mode, "-c", "3", "-t", "20", scripts=[
            "SELECT set_config('my.client', (:client_id)::text, false);\n"
            "CREATE TEMP TABLE IF NOT EXISTS mine (id int);\n"
            "TRUNCATE mine;\nINSERT INTO mine VALUES (:client_id);\n"
            "SELECT 1/(CASE WHEN id = :client_id THEN 1 ELSE 0 END) FROM mine;\n"
            "SELECT 1/count(*) FROM mine WHERE current_setting('my.client') <> '';\n"])

    case(f"tpcb-like, {mode}")(tpcb)
    case(f"select-only, {mode}")(select)
    case(f"a connection for each transaction, {mode}")(reconnecting)
    case(f"variables of the script, {mode}")(variables)
    case(f"state of the session, {mode}", two=True)(session)

for mode in ("extended", "prepared"):
    def pipeline(mode=mode):
        return pgbench("-M", mode, "-c", "4", "-t", "50", scripts=[
            "\\set aid random(1, 100000)\n\\startpipeline\n" +
            "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n" * 20 + "\\endpipeline\n"])

    def pipeline_transaction(mode=mode):
        return [fresh(), pgbench("-M", mode, "-c", "4", "-t", "25", scripts=[
            "\\set aid random(1, 100000)\n\\startpipeline\nBEGIN;\n"
            "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n"
            "UPDATE pgbench_branches SET bbalance = bbalance + 1;\n"
            "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, 1, now());\n"
            "COMMIT;\n\\endpipeline\n"]), sums()]

    def pipeline_error(mode=mode):
        return pgbench("-M", mode, "-c", "1", "-t", "3", scripts=[
            "\\startpipeline\nSELECT 1;\nSELECT 1/0;\nSELECT 2;\n\\endpipeline\n"])

    case(f"pipeline, {mode}")(pipeline)
    case(f"pipeline with a transaction, {mode}")(pipeline_transaction)
    case(f"pipeline with an error, {mode}")(pipeline_error)


@case("retries of serialization failures")
def retries():
    text = pgbench("-M", "prepared", "-c", "4", "-t", "20", "--max-tries=0", "-b", "tpcb-like")
    return text


@case("several scripts by weight")
def weighed():
    return pgbench("-M", "prepared", "-c", "4", "-t", "30", "-b", "simple-update@2", "-b", "select-only@5")


# As load is made by programs: a connection for each transaction, transactions and none.

for mode in ("simple", "extended", "prepared"):
    def program(mode=mode):
        sql("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id serial PRIMARY KEY, n int)")
        out = []
        for body in ("INSERT INTO t_program (n) VALUES (:n);\n", "BEGIN;\nINSERT INTO t_program (n) VALUES (:n);\nINSERT INTO t_program (n) VALUES (:n);\nCOMMIT;\n",
                     "BEGIN;\nINSERT INTO t_program (n) VALUES (:n);\nROLLBACK;\n"):
            for connects in ([], ["-C"]):
                out.append(pgbench("-M", mode, *connects, "-c", "2", "-t", "10", scripts=["\\set n random(1, 9)\n" + body]))
        return out + [sql("SELECT count(*), sum(n) BETWEEN 1 AND 999 FROM t_program"), sql("DROP TABLE t_program")]

    # (two clients want two server connections)
    case(f"like a program: new statements, autocommit on and off, {mode}", two=True)(program)


@case("a client that leaves in the middle", two=True)
def leaves():
    sql("DROP TABLE IF EXISTS t_leaves")
    sql("CREATE TABLE t_leaves (id int, v text)")
    out = []
    insert = "INSERT INTO t_leaves VALUES (1, '" + "x" * 200 + "');\n"
    for head, tail in (("\\startpipeline\n", "\\endpipeline\n"), ("BEGIN;\n", "COMMIT;\n")):
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as f:
            # More than libpq keeps to itself, so that the server has begun.
            f.write(head + insert * 900 + "\\sleep 60 s\n" + tail)
            f.flush()
            p = subprocess.Popen([os.path.join(BIN, "pgbench"), "-n", "-M", "extended", "-t", "1", "-f", f.name],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            begun = False
            for _ in range(200):
                begun = "could not obtain lock" in sql("BEGIN; LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE NOWAIT")
                if begun:
                    break
                time.sleep(0.05)
            p.kill()
            p.wait()
        out += [begun, sql("BEGIN; LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE; SELECT count(*) FROM t_leaves; COMMIT")]
    return out + [sql("DROP TABLE t_leaves")]


if __name__ == "__main__":
    os.environ["DRIVERS_CASES"] = os.devnull
    main(Driver())
