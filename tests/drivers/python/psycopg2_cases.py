"""psycopg2."""
# SPDX-License-Identifier: Apache-2.0
import io
import os
import re
import select
import socket
import threading
import time

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from harness import case, main, one_line, rows

DSN = {"connect_timeout": 20}


class Driver:
    def open(self, options):
        connection = psycopg2.connect("", **DSN, **options)
        connection.autocommit = True
        return connection

    def run(self, connection, sql, values=None):
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            if cursor.description is None:
                return f"{cursor.statusmessage} {cursor.rowcount}"
            names = ",".join(f"{c.name}:{c.type_code}" for c in cursor.description)
            return f"({names}){rows(cursor.fetchall())}"

    def arg(self, connection, sql, values):
        return self.run(connection, re.sub(r"\$\d+", "%s", sql.replace("%", "%%")), values)

    def close(self, connection):
        connection.close()

    def error(self, e):
        if isinstance(e, psycopg2.Error):
            text = str(e).strip().split("\n")[0]
            text = re.sub(r'^connection to server .*? failed: ', "", text)
            return f"!{e.pgcode} {text}"
        return f"!{type(e).__name__} {e}"


D = Driver()


def connect(**options):
    return psycopg2.connect("", **DSN, **options)


def fetch(connection, sql, values=None):
    return D.run(connection, sql, values)


def failing(function, *args):
    try:
        return str(function(*args))
    except Exception as e:
        return D.error(e)


@case("types round trip")
def types():
    import datetime
    import decimal
    c = D.open({})
    values = ["text", 2 ** 60, decimal.Decimal("12345.678901234567890"), b"\x00\x01\xff", [1, 2, None],
              ["a", "b,c", 'd"e'], True, None, 1.25, datetime.date(2024, 2, 29),
              datetime.datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=datetime.timezone.utc),
              datetime.timedelta(days=1, seconds=5), psycopg2.extras.Json({"k": [1, None, "ü"]}), "世界😀"]
    out = [fetch(c, "SELECT %s", (v,)) for v in values]
    with c.cursor() as cursor:
        cursor.execute("SELECT 1::int8, 1.5::numeric, '{1,NULL}'::int[], '{\"a\": 1}'::jsonb,"
                       " '2024-02-29 12:00+00'::timestamptz, 'f0000000-0000-4000-8000-00000000000f'::uuid")
        out.append([type(v).__name__ for v in cursor.fetchone()])
    c.close()
    return out


@case("transactions of the driver")
def transactions():
    c = connect()
    out = []
    with c, c.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS t_drv; CREATE TABLE t_drv (id int PRIMARY KEY)")
    with c, c.cursor() as cursor:
        cursor.execute("INSERT INTO t_drv VALUES (1)")
    out.append(c.get_transaction_status())
    try:
        with c, c.cursor() as cursor:
            cursor.execute("INSERT INTO t_drv VALUES (1)")
    except psycopg2.Error as e:
        out.append(D.error(e))
    out.append(c.get_transaction_status())
    with c.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t_drv")
        out.append(cursor.fetchone())
    out.append(c.get_transaction_status())
    c.rollback()
    out.append(c.get_transaction_status())
    with c, c.cursor() as cursor:
        cursor.execute("DROP TABLE t_drv")
    c.close()
    return out


@case("isolation of the driver")
def isolation():
    c = connect()
    out = []
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"):
        c.set_session(isolation_level=level, readonly=level == "SERIALIZABLE", deferrable=False)
        with c, c.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")
            out.append(cursor.fetchone())
            cursor.execute("SHOW transaction_read_only")
            out.append(cursor.fetchone())
    c.close()
    c = connect()
    c.set_session(isolation_level="SERIALIZABLE", readonly=True, autocommit=True)
    out.append(fetch(c, "SHOW transaction_isolation"))
    out.append(failing(fetch, c, "CREATE TABLE never (id int)"))
    c.close()
    return out


@case("client encoding")
def encoding():
    c = D.open({"client_encoding": "LATIN1"})
    out = [c.encoding, fetch(c, "SELECT 'ü', octet_length(%s)", ("ü",)), fetch(c, "SHOW client_encoding")]
    c.set_client_encoding("UTF8")
    out += [c.encoding, fetch(c, "SHOW client_encoding"), fetch(c, "SELECT '世'")]
    c.set_client_encoding("WIN1252")
    out += [c.encoding, fetch(c, "SELECT '€'")]
    out.append(failing(fetch, c, "SELECT U&'\\4E16'"))
    c.close()
    return out


@case("parameters that the server reports")
def parameters():
    c = D.open({"application_name": "reported"})
    names = ("server_version", "client_encoding", "server_encoding", "DateStyle", "TimeZone",
             "integer_datetimes", "standard_conforming_strings", "is_superuser",
             "session_authorization", "IntervalStyle", "application_name",
             "default_transaction_read_only", "in_hot_standby", "search_path")
    out = [f"{n}={c.get_parameter_status(n)}" for n in names]
    fetch(c, "SET TimeZone = 'Asia/Tokyo'")
    fetch(c, "SET DateStyle = 'SQL, DMY'")
    fetch(c, "SET application_name = 'later'")
    out += [f"{n}={c.get_parameter_status(n)}" for n in ("TimeZone", "DateStyle", "application_name")]
    fetch(c, "BEGIN")
    fetch(c, "SET LOCAL TimeZone = 'Asia/Seoul'")
    out.append(c.get_parameter_status("TimeZone"))
    fetch(c, "ROLLBACK")
    out.append(c.get_parameter_status("TimeZone"))
    out.append((c.server_version, c.protocol_version))
    c.close()
    return out


@case("listen and notify", two=True)
def listen():
    a, b = D.open({}), D.open({})
    out = [fetch(a, "LISTEN news")]
    fetch(b, "NOTIFY news, 'one'")
    fetch(b, "SELECT pg_notify('news', 'zwei ü')")
    pid = fetch(b, "SELECT pg_backend_pid()").strip("[]")
    end = time.monotonic() + 15
    while len(a.notifies) < 2 and time.monotonic() < end:
        select.select([a], [], [], 1)
        a.poll()
    out += [(n.channel, n.payload) for n in a.notifies]
    fetch(a, "UNLISTEN news")
    fetch(b, "NOTIFY news, 'nobody hears'")
    fetch(a, "SELECT 1")
    out.append(len(a.notifies))
    a.close()
    b.close()
    return out


@case("notification comes from the own backend pid")
def own_notification():
    c = D.open({})
    fetch(c, "LISTEN own")
    fetch(c, "NOTIFY own")
    c.poll()
    out = [(n.channel, n.pid == c.get_backend_pid(), n.payload) for n in c.notifies]
    c.close()
    return out


@case("backend pid")
def backend_pid():
    c = D.open({})
    with c.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        same = cursor.fetchone()[0] == c.get_backend_pid()
    c.close()
    return [same]


@case("notices")
def notices():
    c = D.open({})
    fetch(c, "DROP TABLE IF EXISTS no_such_table")
    fetch(c, "DO $$ BEGIN RAISE NOTICE 'a notice: %', 1; RAISE WARNING 'a warning'; END $$")
    fetch(c, "SET client_min_messages = 'error'")
    fetch(c, "DO $$ BEGIN RAISE NOTICE 'unheard'; END $$")
    fetch(c, "COMMIT")
    fetch(c, "RESET client_min_messages")
    fetch(c, "COMMIT")
    out = list(c.notices)
    c.close()
    return out


@case("error's fields")
def error_fields():
    c = D.open({})
    fetch(c, "DROP TABLE IF EXISTS t_fields")
    fetch(c, "CREATE TABLE t_fields (id int PRIMARY KEY, v text CONSTRAINT c_fields CHECK (v <> 'bad'))")
    out = []
    for sql in ("INSERT INTO t_fields VALUES (1, 'bad')", "INSERT INTO t_fields VALUES (NULL, 'x')",
                "SELECT nothing FROM t_fields", "SELECT lenght('x')",
                "DO $$ BEGIN RAISE 'm' USING DETAIL = 'd', HINT = 'h', TABLE = 't', ERRCODE = 'ZZ999'; END $$"):
        try:
            fetch(c, sql)
        except psycopg2.Error as e:
            d = e.diag
            out.append([getattr(d, n) for n in sorted(dir(d)) if not n.startswith("_")])
    fetch(c, "DROP TABLE t_fields")
    c.close()
    return out


@case("copy in and out")
def copy():
    c = connect()
    cursor = c.cursor()
    cursor.execute("DROP TABLE IF EXISTS t_copy; CREATE TABLE t_copy (id int, v text)")
    lines = "".join(f"{i}\trow {i} ü\n" for i in range(5000))
    cursor.copy_expert("COPY t_copy FROM STDIN", io.StringIO(lines))
    out = [cursor.rowcount, c.get_transaction_status()]
    back = io.StringIO()
    cursor.copy_expert("COPY (SELECT * FROM t_copy ORDER BY id) TO STDOUT", back)
    out.append(back.getvalue() == lines)
    cursor.copy_from(io.StringIO("9999\t\\N\n"), "t_copy")
    cursor.execute("SELECT count(*), count(v) FROM t_copy")
    out.append(cursor.fetchone())
    out.append(failing(cursor.copy_expert, "COPY t_copy FROM STDIN", io.StringIO("x\ty\n")))
    c.rollback()
    cursor.execute("SELECT 1")
    out.append(cursor.fetchone())
    c.rollback()
    c.close()
    return out


@case("copy with a fault in the reader")
def copy_fault():
    c = D.open({})
    fetch(c, "DROP TABLE IF EXISTS t_fault")
    fetch(c, "CREATE TABLE t_fault (id int)")

    class Bad(io.StringIO):
        def read(self, size=-1):
            raise RuntimeError("the reader failed")
    cursor = c.cursor()
    out = [failing(cursor.copy_expert, "COPY t_fault FROM STDIN", Bad())]
    out.append(fetch(c, "SELECT count(*) FROM t_fault"))
    fetch(c, "DROP TABLE t_fault")
    c.close()
    return out


@case("large value both ways")
def large():
    c = D.open({})
    value = "0123456789abcdef" * (5 * 65536)
    with c.cursor() as cursor:
        cursor.execute("SELECT length(%s), md5(%s), %s", (value, value, value))
        row = cursor.fetchone()
    out = [row[0], row[1], row[2] == value]
    data = bytes(range(256)) * 20000
    with c.cursor() as cursor:
        cursor.execute("SELECT %s::bytea", (psycopg2.Binary(data),))
        out.append(bytes(cursor.fetchone()[0]) == data)
    c.close()
    return out


@case("server-side cursor")
def server_side():
    c = connect()
    out = []
    with c.cursor(name="stream") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT g FROM generate_series(1, 1000) g")
        out.append(sum(r[0] for r in cursor))
    with c.cursor(name="scrolled", scrollable=True) as cursor:
        cursor.execute("SELECT g FROM generate_series(1, 100) g")
        out.append(cursor.fetchmany(3))
        cursor.scroll(10)
        out.append(cursor.fetchone())
        cursor.scroll(0, mode="absolute")
        out.append(cursor.fetchone())
    c.commit()
    c.close()
    return out


@case("server-side cursor with hold")
def server_side_hold():
    c = connect()
    cursor = c.cursor(name="held", withhold=True)
    cursor.execute("SELECT g FROM generate_series(1, 10) g")
    c.commit()
    out = [cursor.fetchmany(4)]
    with c.cursor() as other:
        other.execute("SELECT 'between'")
    c.commit()
    out.append(cursor.fetchall())
    cursor.close()
    c.commit()
    c.close()
    return out


@case("several statements in one query")
def multi():
    c = D.open({})
    out = [fetch(c, "SELECT 1; SELECT 2; SELECT 3"),
           failing(fetch, c, "SELECT 1; SELECT 1/0; SELECT 3"),
           fetch(c, "BEGIN; SET LOCAL work_mem = '5MB'; SHOW work_mem"),
           fetch(c, "COMMIT; SHOW work_mem"),
           fetch(c, "SET work_mem = '6MB'; SET lock_timeout = 5; SELECT 1"),
           fetch(c, "SHOW work_mem"), fetch(c, "SHOW lock_timeout"),
           failing(fetch, c, "SET work_mem = '7MB'; SELECT 1/0"), fetch(c, "SHOW work_mem")]
    c.close()
    return out


@case("cancel")
def cancel():
    c = D.open({})
    out = []
    for _ in range(3):
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        out.append(failing(fetch, c, "SELECT pg_sleep(30)"))
        timer.join()
        out.append(fetch(c, "SELECT 'on'"))
    c.cancel()
    out.append(fetch(c, "SELECT 'nothing was cancelled' FROM pg_sleep(0.3)"))
    c.close()
    return out


@case("cancel in a transaction")
def cancel_in_transaction():
    c = connect()
    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    out = [failing(fetch, c, "SELECT pg_sleep(30)"), c.get_transaction_status()]
    timer.join()
    out.append(failing(fetch, c, "SELECT 1"))
    c.rollback()
    out.append(fetch(c, "SELECT 1"))
    c.rollback()
    c.close()
    return out


@case("asynchronous connection")
def asynchronous():
    c = psycopg2.connect("", async_=True, **DSN)

    def wait():
        while True:
            state = c.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            if state == psycopg2.extensions.POLL_WRITE:
                select.select([], [c.fileno()], [], 20)
            else:
                select.select([c.fileno()], [], [], 20)
    wait()
    cursor = c.cursor()
    cursor.execute("SELECT count(*) FROM generate_series(1, 100000)")
    wait()
    out = [cursor.fetchone()]
    cursor.execute("SELECT 1/0")
    out.append(failing(wait))
    cursor.execute("SELECT 2")
    wait()
    out.append(cursor.fetchone())
    c.close()
    return out


@case("reset of the connection")
def reset():
    c = connect()
    with c.cursor() as cursor:
        cursor.execute("SET work_mem = '5MB'")
        c.commit()
        c.reset()
        cursor.execute("SHOW work_mem")
        out = [cursor.fetchone()]
    c.rollback()
    c.close()
    return out


@case("large object")
def large_object():
    c = connect()
    o = c.lobject(0, "wb")
    o.write(b"x" * 300000)
    o.close()
    o2 = c.lobject(o.oid, "rb")
    out = [len(o2.read())]
    o2.close()
    c.lobject(o.oid).unlink()
    c.commit()
    c.close()
    return out


@case("two-phase commit of the driver")
def tpc():
    c, d = connect(), connect()
    out = []
    for n, end in enumerate(("tpc_commit", "tpc_rollback")):
        x = c.xid(n, "psycopg2", "b")
        c.tpc_begin(x)
        c.cursor().execute("SELECT 1")
        c.tpc_prepare()
        c.reset()  # as a program that has ended
        found = [y for y in d.tpc_recover() if y.gtrid == "psycopg2"]
        d.reset()
        out += [[(y.format_id, y.gtrid, y.bqual) for y in found], str(getattr(d, end)(found[0])),
                failing(d.tpc_commit, x)]
    c.close()
    d.close()
    return out


@case("execute_batch and execute_values")
def batches():
    c = connect()
    cursor = c.cursor()
    cursor.execute("CREATE TEMP TABLE t_batch (id int, v text) ON COMMIT DROP")
    psycopg2.extras.execute_batch(cursor, "INSERT INTO t_batch VALUES (%s, %s)", [(i, str(i)) for i in range(500)])
    psycopg2.extras.execute_values(cursor, "INSERT INTO t_batch VALUES %s", [(i, "v") for i in range(500)])
    cursor.execute("SELECT count(*), sum(id) FROM t_batch")
    out = [cursor.fetchone()]
    c.commit()
    c.close()
    return out


@case("many short connections")
def short():
    out = set()
    for i in range(20):
        c = D.open({"application_name": f"short {i}"})
        out.add(fetch(c, "SELECT current_setting('application_name')") == f"(current_setting:25)[short {i}]")
        c.close()
    return sorted(out)


# As programs do it: a new statement object for each execution.

@case("like a program: new statements, autocommit on")
def program_on():
    c = D.open({})
    fetch(c, "DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    out = []
    for i in range(30):
        fetch(c, "INSERT INTO t_program VALUES (%s, %s)", (i, f"v{i}"))
        out.append(fetch(c, "SELECT v FROM t_program WHERE id = %s", (i,)))
        if i % 10 == 5:
            out.append(failing(fetch, c, "INSERT INTO t_program VALUES (%s, 'again')", (i,)))
    out.append(fetch(c, "SELECT count(*), sum(id) FROM t_program; DROP TABLE t_program"))
    c.close()
    return out


@case("like a program: new statements, autocommit off")
def program_off():
    c = connect()
    fetch(c, "DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    c.commit()
    out = []
    for i in range(30):
        fetch(c, "INSERT INTO t_program VALUES (%s, %s)", (i, f"v{i}"))
        out.append(fetch(c, "SELECT v FROM t_program WHERE id = %s", (i,)))
        if i % 10 == 5:
            out.append(failing(fetch, c, "INSERT INTO t_program VALUES (%s, 'again')", (i,)))
            out.append(failing(fetch, c, "SELECT 'refused'"))
        if i % 4 == 3:
            c.rollback()
        elif i % 2:
            c.commit()
    c.commit()
    out.append(fetch(c, "SELECT count(*), sum(id) FROM t_program"))
    fetch(c, "DROP TABLE t_program")
    c.commit()
    c.close()
    return out


@case("a copy that fails while its rows are sent")
def copy_fails():
    out = []
    for auto in (True, False):
        c = connect()
        c.autocommit = auto
        fetch(c, "DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)")
        if not auto:
            c.commit()
        for rows_behind in (1, 50, 5000, 100000):
            text = "1\tx\n1\tx\n" + "".join(f"{i}\tbehind it\n" for i in range(2, rows_behind + 2))
            out.append(failing(c.cursor().copy_expert, "COPY t_fails FROM STDIN", io.StringIO(text)))
            if not auto:
                c.rollback()
            out.append(fetch(c, "SELECT 'on', count(*) FROM t_fails"))
        fetch(c, "DROP TABLE t_fails")
        if not auto:
            c.commit()
        c.close()
    return out


@case("a client that leaves in the middle")
def leaves():
    c = D.open({})
    fetch(c, "DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)")
    c.close()
    out = []

    def gone(connection):
        """Without a word."""
        with socket.socket(fileno=os.dup(connection.fileno())) as s:
            s.shutdown(socket.SHUT_RDWR)
        connection.close()

    def left():
        look = connect()
        fetch(look, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE")
        out.append(fetch(look, "SELECT count(*) FROM t_leaves"))
        look.close()
    for end in (gone, lambda connection: connection.close()):
        c = connect()
        fetch(c, "INSERT INTO t_leaves VALUES (1), (2)")
        end(c)
        left()

    class Leaves(io.StringIO):
        """Some rows, then no client."""
        def read(self, size=-1):
            if self.tell() > 50000:
                with socket.socket(fileno=os.dup(c.fileno())) as s:
                    s.shutdown(socket.SHUT_RDWR)
            return super().read(size)
    c = D.open({})
    try:
        c.cursor().copy_expert("COPY t_leaves FROM STDIN", Leaves("".join(f"{i}\n" for i in range(100000))))
        out.append("went well")
    except psycopg2.Error as e:
        out.append(e.pgcode)
    left()
    c = D.open({})
    fetch(c, "DROP TABLE t_leaves")
    c.close()
    return out


if __name__ == "__main__":
    main(D)
