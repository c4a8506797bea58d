"""pg_dump, pg_restore, pg_dumpall and the other programs of the client package: the dump through
the gate must be the dump past it, byte for byte."""
# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import re
import subprocess
import tempfile

from harness import case, main

SCHEMA = '''
DROP SCHEMA IF EXISTS dumped CASCADE;
DROP SCHEMA IF EXISTS "Odd Schema" CASCADE;
CREATE SCHEMA dumped;
CREATE SCHEMA "Odd Schema";
SET search_path = dumped;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE seq START 42;
CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL DEFAULT 'x', at timestamptz DEFAULT '2024-02-29 12:00+00');
CREATE TABLE child (id positive, parent int REFERENCES parent, m mood, data bytea, j jsonb, f float8, a int[],
    PRIMARY KEY (id), CHECK (id < 1000000));
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (500);
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
CREATE INDEX child_m ON child (m) WHERE id > 5;
CREATE VIEW v AS SELECT p.name, count(*) AS n FROM parent p JOIN child c ON c.parent = p.id GROUP BY 1;
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one;
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a + 1';
CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION tf();
COMMENT ON TABLE parent IS 'it is a comment; SELECT 1; ü 世界';
CREATE TABLE "Odd Schema"."Odd ""Table""" ("a b" int, "select" text);
INSERT INTO "Odd Schema"."Odd ""Table""" SELECT g, repeat('ü', g) FROM generate_series(1, 50) g;
INSERT INTO parent (name) SELECT 'name ' || g FROM generate_series(1, 200) g;
INSERT INTO child SELECT g, g % 200 + 1, (ARRAY['sad','ok','happy'])[g % 3 + 1]::mood, decode(md5(g::text), 'hex'),
    jsonb_build_object('k', g, 'text', E'line\\nbreak\\ttab \\\\ back'), g / 7.0, ARRAY[g, NULL, g * 2] FROM generate_series(1, 3000) g;
INSERT INTO parted SELECT g, 'p' || g FROM generate_series(1, 1000) g;
GRANT SELECT ON parent TO acme_ro;
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON parent USING (id > 0);
'''


class Driver:
    def error(self, e):
        return str(e)


def command(*argv, stdin=None):
    return subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=40, check=False)


def prepare():
    done = command("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=SCHEMA.encode())
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode())
    return ["made"]


def tidy(data):
    return re.sub(rb"(?m)^\\(un)?restrict .*\n", b"", data)


def told(data, stderr=b""):
    error = re.sub(rb"server at .*? failed", b"server failed", stderr)
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()} {error.decode().strip()}"


def dump(*arguments):
    done = command("pg_dump", "-n", "dumped", "-n", "Odd Schema", *arguments)
    return f"{done.returncode} " + told(tidy(done.stdout), done.stderr)


@case("schema of the dump is made")
def schema():
    return prepare()


for what, options in (("plain", []), ("schema only", ["-s"]), ("data only", ["-a"]), ("inserts", ["--inserts"]),
                      ("column inserts, several rows", ["--column-inserts", "--rows-per-insert=100"]), ("clean", ["-c", "--if-exists"]),
                      ("no owner, no privileges", ["-O", "-x"]), ("one table", ["-t", "dumped.child"]),
                      ("serializable, deferrable", ["--serializable-deferrable"]), ("row security", ["--enable-row-security"]),
                      ("latin encoding", ["-E", "SQL_ASCII"]), ("lock timeout", ["--lock-wait-timeout=5000"]),
                      ("with a role", ["--role=acme_rw"]), ("extra float digits", ["--extra-float-digits=0"]),
                      ("quoted identifiers", ["--quote-all-identifiers"]), ("load via the root", ["--load-via-partition-root"])):
    case(f"dump: {what}")(lambda options=options: [dump(*options)])


@case("dump: the whole database")
def whole():
    # (pgbench's tables may be there: two dumps that differ in nothing but their time are one.)
    done = command("pg_dump", "-s", "-T", "pgbench_*", "-T", "public.*")
    return [f"{done.returncode} " + told(tidy(done.stdout), done.stderr)]


def restored(form, *more):
    """Dumped in a form, dropped, restored, dumped again."""
    out = prepare()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dump")
        done = command("pg_dump", "-n", "dumped", "-n", "Odd Schema", "-F", form, "-f", path, *more)
        out.append(f"{done.returncode} {done.stderr.decode().replace(folder, '(folder)')}")
        done = command("pg_restore", "-l", path)
        out.append(str(len(re.findall(rb"(?m)^\d+;", done.stdout))))
        before = dump()
        command("psql", "-Xqc", 'DROP SCHEMA dumped CASCADE; DROP SCHEMA "Odd Schema" CASCADE')
        restore = ["pg_restore", "-d", os.environ["PGDATABASE"], "--exit-on-error"]
        if form == "d":
            restore += ["-j", "1" if os.environ.get("DRIVERS_ONE") == "1" else "2"]
        else:
            restore += ["--single-transaction"]
        done = command(*restore, path)
        out.append(f"{done.returncode} {done.stderr.decode().replace(folder, '(folder)')}")
        out.append("the same" if dump() == before else "not the same")
    return out


case("custom format and pg_restore")(lambda: restored("c"))
case("tar format and pg_restore")(lambda: restored("t"))
case("directory format and pg_restore")(lambda: restored("d"))
case("directory format by parallel jobs", two=True)(lambda: restored("d", "-j", "2"))


@case("restore of a plain dump through psql")
def plain():
    out = prepare()
    done = command("pg_dump", "-n", "dumped", "-n", "Odd Schema", "--clean", "--if-exists")
    before = dump()
    done = command("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-1", "-f", "-", stdin=done.stdout)
    out.append(f"{done.returncode} {done.stderr.decode()}")
    out.append("the same" if dump() == before else "not the same")
    done = command("psql", "-XAtc", "SHOW search_path; SELECT current_setting('row_security'), current_setting('statement_timeout')")
    # pg_dump empties search_path in its session: the next one must not meet it.
    out.append(done.stdout.decode())
    return out


@case("vacuumdb, reindexdb, clusterdb")
def maintenance():
    out = []
    for argv in (["vacuumdb", "-t", "dumped.child", "-z"], ["reindexdb", "-t", "dumped.child"], ["clusterdb", "-t", "dumped.child"]):
        done = command(*argv, "-q", os.environ["PGDATABASE"])
        out.append(f"{done.returncode} {done.stderr.decode().replace(os.environ['PGDATABASE'], 'acme')}")
    return out


@case("pg_isready")
def ready():
    done = command("pg_isready", "-q")
    return [str(done.returncode)]


@case("what was made is dropped")
def dropped():
    done = command("psql", "-Xqc", 'DROP SCHEMA dumped CASCADE; DROP SCHEMA "Odd Schema" CASCADE')
    return [str(done.returncode)]


@case("a copy that fails while its rows are sent")
def copy_fails():
    """pg_restore sends the rest of the rows of a table that is there already."""
    out = []
    out += prepare()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dump")
        done = command("pg_dump", "-Fc", "-n", "dumped", "-f", path)
        out.append(str(done.returncode))
        for more in ([], ["-1"]):
            done = command("pg_restore", "-d", os.environ["PGDATABASE"], "--data-only", "-t", "child", "-t", "parent", *more, path)
            out.append(f"{done.returncode} {re.sub(r'TOC entry .*', 'TOC entry', done.stderr.decode())}")
            out.append(command("psql", "-XAtc", "SELECT (SELECT count(*) FROM dumped.child), (SELECT count(*) FROM dumped.parent)").stdout.decode())
    command("psql", "-Xqc", 'DROP SCHEMA dumped CASCADE; DROP SCHEMA "Odd Schema" CASCADE')
    return out


@case("a client that leaves in the middle")
def leaves():
    out = [str(command("psql", "-Xqc", "DROP TABLE IF EXISTS t_leaves", "-c", "CREATE TABLE t_leaves (id int, v text)").returncode)]
    out.append(str(command("psql", "-Xqc", "INSERT INTO t_leaves SELECT g, repeat(md5(g::text), 5) FROM generate_series(1, 60000) g").returncode))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dump")
        out.append(str(command("pg_dump", "-Fc", "-Z0", "-t", "t_leaves", "-f", path).returncode))
        size = os.path.getsize(path)
        command("psql", "-Xqc", "TRUNCATE t_leaves")
        for part in (0.5, 0.9):
            p = subprocess.Popen(["pg_restore", "-1", "--data-only", "-d", os.environ["PGDATABASE"]], stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with open(path, "rb") as f:
                # (it has read all but what the pipe holds when this returns)
                p.stdin.write(f.read(int(size * part)))
                p.stdin.flush()
            p.kill()
            p.wait()
            p.stdin.close()
            out.append(command("psql", "-XAtc", "BEGIN; LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE; SELECT count(*) FROM t_leaves").stdout.decode().split()[-1])
    command("psql", "-Xqc", "DROP TABLE t_leaves")
    return out


if __name__ == "__main__":
    os.environ["DRIVERS_CASES"] = os.devnull
    main(Driver())
