"""psql itself: a process for each connection, told what to do through a pipe."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import signal
import subprocess
import tempfile
import time

from harness import case, main

PSQL = ["psql", "-XqAt", "-P", "null=NULL", "-P", "fieldsep=,", "-v", "VERBOSITY=verbose", "-v",
        "SHOW_CONTEXT=never"]


def tidy(text):
    """Without what changes with the build or the pipe: LOCATION, psql's own prefix."""
    text = re.sub(r"^LOCATION: .*\n?", "", text, flags=re.M)
    text = re.sub(r"connection to server at .*? failed: ", "", text)
    text = re.sub(r"psql:\S+?:\d+: ", "", text)
    return text.strip("\n")


class Psql:
    """One process; `say` sends lines and reads to the marker behind them."""

    def __init__(self, options=None, arguments=()):
        # (a DSN of keywords, whose values psql takes quoted)
        dsn = " ".join(f"{k}='{v}'" for k, v in (options or {}).items())
        self.p = subprocess.Popen([*PSQL, *arguments, "-f", "-", dsn or "connect_timeout=20"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, bufsize=0)
        self.begun = self.say("\\echo")

    def say(self, text):
        out = b""
        try:
            self.p.stdin.write(f"{text}\n\\echo --marker--\n".encode())
            while not out.endswith(b"--marker--\n"):
                more = os.read(self.p.stdout.fileno(), 65536)
                if not more:
                    self.p.wait()
                    raise OSError(tidy(out.decode()))
                out += more
        except BrokenPipeError:
            raise OSError(tidy(self.p.stdout.read().decode())) from None
        return tidy(out.decode()[:-len("--marker--\n")])

    def end(self):
        try:
            self.p.stdin.close()
            self.p.wait(15)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.p.kill()
            self.p.wait()
        self.p.stdout.close()


class Driver:
    def open(self, options):
        return Psql(options)

    def run(self, psql, sql):
        return psql.say(sql if sql.endswith(";") else sql + "\n;")

    def arg(self, psql, sql, values):
        # psql 15 has no \bind: its variables, quoted by it, are its parameters.
        for i, v in enumerate(values, 1):
            sql = sql.replace(f"${i}", f":'p{i}'")
            quoted = v.replace("\\", "\\\\").replace("'", "\\'")
            psql.say(f"\\set p{i} '{quoted}'")
        return self.run(psql, sql)

    def close(self, psql):
        psql.end()

    def error(self, e):
        return f"!{type(e).__name__} {e}"


D = Driver()


def script(text, *arguments, seconds=40, **env):
    """A run of psql on its own: all it printed, and its exit status."""
    done = subprocess.run([*PSQL, *arguments], input=text, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=seconds, check=False,
                          env={**os.environ, **env})
    return f"{tidy(done.stdout)} ({done.returncode})"


@case("-c with several statements")
def several():
    return [script("", "-c", "SELECT 1; SELECT 2; SELECT 3"),
            script("", "-c", "SELECT 1; SELECT 1/0; SELECT 3"),
            script("", "-c", "BEGIN; SET LOCAL work_mem = '5MB'; SHOW work_mem; COMMIT; SHOW work_mem"),
            script("", "-c", "SET work_mem = '5MB'; SELECT 1/0", "-c", "SHOW work_mem"),
            script("", "-c", "SET work_mem = '5MB'", "-c", "SHOW work_mem", "-c", "VACUUM")]


@case("several statements sent as one")
def glued():
    return script("SELECT 1\\; SELECT 2\\; SET work_mem = '6MB'\\; SHOW work_mem;\nSHOW work_mem;\n"
                  "BEGIN\\; CREATE TEMP TABLE x (id int) ON COMMIT DROP\\; INSERT INTO x VALUES (1)\\; TABLE x;\n"
                  "COMMIT\\; SELECT 'after';\nSELECT 1\\; SELEC 2;\nSELECT 1/0\\; SELECT 2;\nSELECT 'on';\n")


@case("options in the environment")
def environment():
    return [script("SHOW statement_timeout; SHOW search_path; SHOW application_name; SHOW TimeZone;"
                   " SHOW DateStyle; SHOW geqo; SHOW client_encoding;",
                   PGOPTIONS="-c statement_timeout=31s -c search_path=pg_catalog --work-mem=5MB",
                   PGAPPNAME="env app", PGTZ="Europe/Rome", PGDATESTYLE="German", PGGEQO="off",
                   PGCLIENTENCODING="LATIN1"),
            script("SHOW statement_timeout; SHOW search_path; SHOW application_name; SHOW TimeZone;"
                   " SHOW DateStyle; SHOW geqo; SHOW client_encoding;"),
            script("SHOW search_path", PGOPTIONS="-c search_path=a\\ b,\\\"C\\ d\\\""),
            script("SELECT 1", PGOPTIONS="-c no_such=1"),
            script("SELECT 1", PGOPTIONS="-X"),
            script("SELECT 1", PGTZ="No/Where"),
            script("SELECT 1", PGCLIENTENCODING="NOCODE")]


@case("connection information")
def connection_information():
    text = script("\\conninfo\n\\encoding\n\\echo :DBNAME :USER :ENCODING :SERVER_VERSION_NAME\n")
    text = re.sub(r'database "acme\w*"', "database (its)", text)
    return re.sub(r"acme(_\w+)? acme_rw", "(its) acme_rw",
                  re.sub(r'on host .*?at port "\d+"', "on (its)", text))


@case("describe commands")
def describe():
    return script("DROP TABLE IF EXISTS t_psql;\nCREATE TABLE t_psql (id serial PRIMARY KEY, v text DEFAULT 'x' NOT NULL);\n"
                  "COMMENT ON TABLE t_psql IS 'seen';\n\\d t_psql\n\\d+ t_psql\n\\dt t_psql\n\\dn\n\\du acme*\n"
                  "\\dp t_psql\n\\df no_such\n\\dT no_such\n\\sf pg_catalog.age(timestamptz)\nDROP TABLE t_psql;\n")


@case("list of databases")
def databases():
    return script("\\l acme\n\\db\n\\dx\n\\dRp\n")


@case("gdesc, gexec, gset, crosstabview")
def gcommands():
    return script("SELECT 1 AS a, 'x'::text AS b, NULL::jsonb AS c \\gdesc\n"
                  "SELECT 'SELECT ' || g FROM generate_series(1, 5) g \\gexec\n"
                  "SELECT 42 AS answer, 'q' AS other \\gset\n\\echo :answer :other\n"
                  "SELECT 'r' || g % 2 AS r, 'c' || g % 3 AS c, g FROM generate_series(1, 6) g \\crosstabview\n"
                  "SELECT 1/0 \\gdesc\nSELECT no_such \\gdesc\nSELECT 'on' \\g\n")


@case("watch until an error")
def watch():
    text = script("CREATE TEMP SEQUENCE w;\nSELECT 12 / (4 - nextval('w')) \\watch 0.05\nSELECT 'on';\n")
    return re.sub(r"^.*\(every .*\)\n+", "", text, flags=re.M)


@case("copy in binary, to a program, with a query")
def copy_binary():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows")
        return script("CREATE TEMP TABLE t_binary (id int, v bytea, t timestamptz);\n"
                      "INSERT INTO t_binary SELECT g, decode(md5(g::text), 'hex'), to_timestamp(g) FROM generate_series(1, 3000) g;\n"
                      f"\\copy t_binary TO '{path}' WITH (FORMAT binary)\n\\copy t_binary FROM '{path}' WITH (FORMAT binary)\n"
                      "SELECT count(*), count(DISTINCT v), max(t) FROM t_binary;\n"
                      f"\\! head -c 11 '{path}' | od -c | head -1\n"
                      "\\copy (SELECT id FROM t_binary ORDER BY id LIMIT 2) TO PROGRAM 'cat'\n"
                      f"\\copy t_binary FROM '{path}' WITH (FORMAT csv)\nSELECT 'on';\n")


@case("input from several files")
def files():
    with tempfile.TemporaryDirectory() as folder:
        a, b = os.path.join(folder, "a.sql"), os.path.join(folder, "b.sql")
        with open(a, "w", encoding="utf-8") as f:
            f.write(f"CREATE TEMP TABLE t_files (id int);\nINSERT INTO t_files VALUES (1);\n\\i {b}\n")
        with open(b, "w", encoding="utf-8") as f:
            f.write("INSERT INTO t_files VALUES (2);\nSELECT count(*) FROM t_files;\n")
        return [script("", "-f", a, "-f", b), script("", "-1", "-f", a, "-c", "SELECT 1/0", "-f", b)]


@case("FETCH_COUNT")
def fetch_count():
    return script("\\set FETCH_COUNT 100\nSELECT count(*) FROM (SELECT g FROM generate_series(1, 1000) g) s;\n"
                  "SELECT g FROM generate_series(1, 1000) g;\nSELECT 1/(5 - g) FROM generate_series(1, 9) g;\nSELECT 'on';\n")


@case("ON_ERROR_ROLLBACK and ON_ERROR_STOP")
def on_error():
    return [script("\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT 1;\nSELECT 1/0;\nSELECT 2;\nCOMMIT;\nSELECT 3;\n"),
            script("SELECT 1;\nSELECT 1/0;\nSELECT 2;\n", "-v", "ON_ERROR_STOP=1", "-f", "-"),
            script("SELECT 1;\nSELECT 1/0;\nSELECT 2;\n", "-1", "-f", "-"),
            script("\\set AUTOCOMMIT off\nSELECT 1;\nSET work_mem = '5MB';\nROLLBACK;\nSHOW work_mem;\nCOMMIT;\n")]


@case("copy from and to files")
def copy():
    return script("DROP TABLE IF EXISTS t_copy;\nCREATE TABLE t_copy (id int, v text);\n"
                  "COPY t_copy FROM STDIN;\n1\tone\n2\t\\N\n3\tgrüße\n\\.\n"
                  "\\copy t_copy TO STDOUT\n\\copy t_copy (id) TO STDOUT WITH (FORMAT csv, HEADER)\n"
                  "COPY (SELECT v FROM t_copy ORDER BY id) TO STDOUT;\n"
                  "COPY t_copy FROM STDIN;\nx\tbad\n\\.\n"
                  "\\copy t_copy FROM '/no/such/file'\n\\copy t_copy FROM PROGRAM 'seq -f ''%g,row'' 1000 21000' WITH (FORMAT csv)\n"
                  "SELECT count(*), md5(string_agg(v, ',' ORDER BY id)) FROM t_copy;\n"
                  "COPY t_copy FROM '/etc/passwd';\nCOPY (SELECT 1) TO STDOUT\\; SELECT 'behind';\n"
                  "DROP TABLE t_copy;\nSELECT 'on';\n")


@case("large objects")
def large_objects():
    text = script("\\lo_import /etc/hostname 'a comment'\n\\echo :LASTOID\nSELECT loid FROM (SELECT lo_unlink(:LASTOID) AS loid) s;\n")
    return re.sub(r"\d{4,}", "(oid)", text)


@case("notification is printed", two=True)
def notification():
    a, b = Psql(), Psql()
    out = [a.say("LISTEN heard;")]
    b.say("NOTIFY heard, 'to all';")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        text = a.say("SELECT 'asked';")
        if "to all" in text:
            out.append(re.sub(r"PID \d+", "PID (its)", text))
            break
        time.sleep(0.05)
    a.end()
    b.end()
    return out


@case("interrupt cancels")
def interrupt():
    # psql ends when it is interrupted in a script.
    out = []
    for _ in range(2):
        p = Psql()
        p.p.stdin.write(b"SELECT 'sleeps';\nSELECT pg_sleep(30);\n")
        seen = b""
        while b"sleeps" not in seen:
            seen += os.read(p.p.stdout.fileno(), 100)
        time.sleep(0.3)
        p.p.send_signal(signal.SIGINT)
        try:
            out.append(p.say("SELECT 'on';"))
        except OSError as e:
            out.append(str(e))
        p.end()
    return out


@case("reconnect with \\c")
def reconnect():
    return script("SET work_mem = '5MB';\n\\c\nSHOW work_mem;\nSELECT 'on';\n")


@case("client encoding")
def encoding():
    return script("\\encoding LATIN1\nSHOW client_encoding;\nSELECT octet_length('x');\n\\encoding UTF8\nSELECT 'ü世';\n"
                  "\\encoding NOCODE\nSHOW client_encoding;\n")


@case("a query that ends its own backend")
def terminated():
    # (one's own backend may be ended; the message is the server's)
    text = script("SELECT pg_terminate_backend(pg_backend_pid());\nSELECT 'again';\n", "-v", "VERBOSITY=terse")
    return text


@case("startup file of variables and prompts")
def prompts():
    return script("\\echo `echo shell`\n\\if true\nSELECT 'then';\n\\else\nSELECT 'else';\n\\endif\n"
                  "\\x on\nSELECT 1 AS a, 2 AS b;\n\\errverbose\nSELECT 1/0;\n\\errverbose\n")


# As scripts do it: with and without AUTOCOMMIT, statements prepared and dropped on the way.

PROGRAM = "DROP TABLE IF EXISTS t_program;\nCREATE TABLE t_program (id int PRIMARY KEY, v text);\n"


def statements(i):
    return (f"PREPARE one AS INSERT INTO t_program VALUES ($1, $2);\nEXECUTE one ({i}, 'v{i}');\nDEALLOCATE one;\n"
            f"SELECT v FROM t_program WHERE id = {i} \\gset\n\\echo :v\nSELECT id, v FROM t_program WHERE id = {i} \\gdesc\n")


@case("like a program: new statements, autocommit on")
def program_on():
    text = PROGRAM
    for i in range(20):
        text += statements(i)
        if i % 10 == 5:
            text += f"INSERT INTO t_program VALUES ({i}, 'again');\n"
    return script(text + "SELECT count(*), sum(id) FROM t_program;\nDROP TABLE t_program;\n")


@case("like a program: new statements, autocommit off")
def program_off():
    text = PROGRAM + "\\set AUTOCOMMIT off\n"
    for i in range(20):
        text += statements(i)
        if i % 10 == 5:
            text += f"INSERT INTO t_program VALUES ({i}, 'again');\nSELECT 'refused';\n"
        text += "ROLLBACK;\n" if i % 4 == 3 else "COMMIT;\n" if i % 2 or i % 10 == 5 else ""
    text += "\\set ON_ERROR_ROLLBACK on\n"
    for i in range(30, 36):
        text += statements(i) + f"INSERT INTO t_program VALUES ({i}, 'again');\n"
    return script(text + "COMMIT;\nSELECT count(*), sum(id) FROM t_program;\nDROP TABLE t_program;\nCOMMIT;\n")


@case("a copy that fails while its rows are sent")
def copy_fails():
    out = []
    for auto in ("on", "off"):
        for behind in (1, 50, 5000, 60000):
            lines = "1\n1\n" + "".join(f"{i}\n" for i in range(2, behind + 2))
            with tempfile.NamedTemporaryFile("w") as f:
                f.write(lines)
                f.flush()
                out.append(script("DROP TABLE IF EXISTS t_fails;\nCREATE TABLE t_fails (id int PRIMARY KEY);\n"
                                  f"\\set AUTOCOMMIT {auto}\n\\copy t_fails FROM '{f.name}'\nROLLBACK;\nSELECT 'on', count(*) FROM t_fails;\n"
                                  f"COPY t_fails FROM STDIN;\n{lines}\\.\nROLLBACK;\nSELECT 'and on', count(*) FROM t_fails;\nDROP TABLE t_fails;\nCOMMIT;\n"))
    return out


@case("a client that leaves in the middle")
def leaves():
    out = [script("DROP TABLE IF EXISTS t_leaves;\nCREATE TABLE t_leaves (id int PRIMARY KEY);\n")]

    def left():
        out.append(script("BEGIN;\nLOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE;\nSELECT count(*) FROM t_leaves;\nCOMMIT;\n"))
    for how in (signal.SIGKILL, signal.SIGTERM):
        p = Psql()
        p.say("BEGIN;\nINSERT INTO t_leaves VALUES (1), (2);")
        p.p.send_signal(how)
        p.p.wait()
        left()
        p = Psql()
        p.p.stdin.write(("COPY t_leaves FROM STDIN;\n" + "".join(f"{i}\n" for i in range(20000))).encode())
        p.p.send_signal(how)
        p.p.wait()
        left()
    out.append(script("DROP TABLE t_leaves;\n"))
    return out


if __name__ == "__main__":
    main(D)
