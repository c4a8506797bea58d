"""psycopg 3, its synchronous and its asynchronous half (the first argument)."""
# SPDX-License-Identifier: Apache-2.0
import datetime
import decimal
import os
import re
import select
import socket
import sys
import threading
import uuid

import psycopg
from psycopg import sql as composing
from psycopg.types.json import Json

from harness import case, main, rows, settled

ASYNC = sys.argv[1:] == ["async"]


async def connect(**options):
    options.setdefault("connect_timeout", 20)
    if ASYNC:
        return await psycopg.AsyncConnection.connect("", **options)
    return psycopg.connect("", **options)


class Driver:
    async def open(self, options):
        connection = await connect(autocommit=True, **options)
        connection.cursor_factory = psycopg.AsyncCursor if ASYNC else psycopg.Cursor
        return connection

    async def run(self, connection, sql, values=None, **more):
        cursor = await settled(connection.execute(sql, values, **more))
        if cursor.description is None:
            return f"{cursor.statusmessage} {cursor.rowcount}"
        names = ",".join(f"{c.name}:{c.type_code}" for c in cursor.description)
        return f"({names}){rows(await settled(cursor.fetchall()))}"

    async def arg(self, connection, sql, values):
        return await self.run(connection, re.sub(r"\$\d+", "%s", sql.replace("%", "%%")), values)

    async def close(self, connection):
        await settled(connection.close())

    def error(self, e):
        if isinstance(e, psycopg.Error):
            text = str(e).strip().split("\n")[0]
            text = re.sub(r"^connection (failed: connection to server .*? failed: |failed: )", "", text)
            return f"!{type(e).__name__} {e.sqlstate} {text}"
        return f"!{type(e).__name__} {e}"


D = Driver()
run = D.run


async def failing(awaitable):
    try:
        return str(await settled(awaitable))
    except Exception as e:
        return D.error(e)


async def failing_call(function, *args):
    try:
        return str(await settled(function(*args)))
    except Exception as e:
        return D.error(e)


async def each(iterable):
    if hasattr(iterable, "__aiter__"):
        return [row async for row in iterable]
    return list(iterable)


class Both:
    """`with` and `async with` in one."""

    def __init__(self, manager):
        self.manager = manager

    async def __aenter__(self):
        if ASYNC:
            return await self.manager.__aenter__()
        return self.manager.__enter__()

    async def __aexit__(self, *args):
        if ASYNC:
            return await self.manager.__aexit__(*args)
        return self.manager.__exit__(*args)


@case("types round trip")
async def types():
    c = await D.open({})
    utc = datetime.timezone.utc
    values = ["text", 2 ** 60, 7, decimal.Decimal("12345.678901234567890"), b"\x00\x01\xff", [1, 2, None],
              ["a", "b,c", 'd"e'], True, None, 1.25, datetime.date(2024, 2, 29),
              datetime.datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=utc),
              datetime.timedelta(days=1, seconds=5), Json({"k": [1, None, "ü"]}), "世界😀",
              uuid.UUID(int=5)]
    out = []
    for v in values:
        for binary in (False, True):
            out.append(await failing(run(c, "SELECT %s", (v,), binary=binary)))
            out.append(await failing(run(c, "SELECT %b", (v,), binary=binary)))
    await D.close(c)
    return out


@case("prepared at once and by threshold")
async def prepared():
    c = await D.open({})
    out = []
    for prepare in (True, False, None):
        for _ in range(8):
            out.append(await run(c, "SELECT %s::int + 1", (5,), prepare=prepare))
    c.prepare_threshold = 0
    c.prepared_max = 5
    for i in range(30):
        out.append(await run(c, f"SELECT {i % 10} + %s::int", (i,)))
    await D.close(c)
    return sorted(set(out)) + [len(out)]


@case("300 prepared statements")
async def many():
    c = await D.open({})
    c.prepare_threshold = 0
    c.prepared_max = 1000
    total = 0
    for _ in range(3):
        for i in range(300):
            cursor = await settled(c.execute(f"SELECT {i} + %s::int", (1,)))
            total += (await settled(cursor.fetchone()))[0]
    await D.close(c)
    return [total]


@case("DEALLOCATE ALL under the driver's feet")
async def deallocate():
    c = await D.open({})
    c.prepare_threshold = 0
    out = []
    for _ in range(2):
        out.append(await failing(run(c, "SELECT 'x', %s::int", (1,))))
    out.append(await run(c, "DEALLOCATE ALL"))
    for _ in range(2):
        out.append(await failing(run(c, "SELECT 'x', %s::int", (1,))))
    out.append(await run(c, "DISCARD ALL"))
    for _ in range(2):
        out.append(await failing(run(c, "SELECT 'x', %s::int", (1,))))
    await D.close(c)
    return out


@case("transactions of the driver")
async def transactions():
    c = await connect()
    out = []
    await settled(c.execute("CREATE TEMP TABLE td (id int PRIMARY KEY) ON COMMIT DELETE ROWS"))
    await settled(c.commit())
    out.append(c.info.transaction_status.name)
    async with Both(c.transaction()):
        await settled(c.execute("INSERT INTO td VALUES (1)"))
        try:
            async with Both(c.transaction()):
                await settled(c.execute("INSERT INTO td VALUES (2)"))
                await settled(c.execute("INSERT INTO td VALUES (1)"))
        except psycopg.Error as e:
            out.append(D.error(e))
        out.append(await run(c, "SELECT id FROM td"))
        try:
            async with Both(c.transaction(force_rollback=True)):
                await settled(c.execute("INSERT INTO td VALUES (3)"))
                raise psycopg.Rollback()
        except psycopg.Rollback:
            out.append("rolled back")
        out.append(await run(c, "SELECT id FROM td"))
    out.append(c.info.transaction_status.name)
    await settled(c.execute("SELECT 1"))
    out.append(c.info.transaction_status.name)
    await failing(run(c, "SELECT 1/0"))
    out.append(c.info.transaction_status.name)
    await settled(c.rollback())
    out.append(c.info.transaction_status.name)
    await D.close(c)
    return out


@case("isolation of the driver")
async def isolation():
    c = await connect()
    out = []
    for level in psycopg.IsolationLevel:
        for setter, value in (("isolation_level", level), ("read_only", level.value == 4),
                              ("deferrable", True)):
            if ASYNC:
                await getattr(c, f"set_{setter}")(value)
            else:
                setattr(c, setter, value)
        out.append(await run(c, "SHOW transaction_isolation"))
        out.append(await run(c, "SHOW transaction_read_only"))
        await settled(c.commit())
    await D.close(c)
    return out


@case("pipeline")
async def pipeline():
    if not psycopg.Pipeline.is_supported():
        return ["not supported by this libpq"]
    c = await D.open({})
    out = []
    async with Both(c.pipeline()) as p:
        cursors = [await settled(c.execute("SELECT %s::int * 2", (i,))) for i in range(50)]
        await settled(p.sync())
        out.append(sum([(await settled(k.fetchone()))[0] for k in cursors]))
        out.append(await failing(run(c, "SELECT 1/0")))
        await failing_call(p.sync)
        out.append(await failing(run(c, "SELECT 'on'")))
    async with Both(c.pipeline()):
        async with Both(c.transaction()):
            await settled(c.execute("SET LOCAL work_mem = '5MB'"))
            out.append(await run(c, "SHOW work_mem"))
        out.append(await run(c, "SHOW work_mem"))
    try:
        async with Both(c.pipeline()):
            await settled(c.execute("SELECT 1"))
            await settled(c.execute("SELECT no_such"))
            await settled(c.execute("SELECT 2"))
    except psycopg.Error as e:
        out.append(D.error(e))
    out.append(await run(c, "SELECT 'after'"))
    await D.close(c)
    return out


@case("executemany")
async def executemany():
    c = await connect()
    cursor = c.cursor()
    await settled(cursor.execute("CREATE TEMP TABLE tm (id int PRIMARY KEY, v text) ON COMMIT DROP"))
    await settled(cursor.executemany("INSERT INTO tm VALUES (%s, %s)", [(i, f"v{i}") for i in range(500)]))
    out = [cursor.rowcount, await run(c, "SELECT count(*), sum(id) FROM tm")]
    await settled(cursor.executemany("INSERT INTO tm VALUES (%s, 'r') RETURNING id", [(1000,), (1001,)],
                                     returning=True))
    out.append(await settled(cursor.fetchone()))
    cursor.nextset()
    out.append(await settled(cursor.fetchone()))
    out.append(await failing_call(cursor.executemany, "INSERT INTO tm VALUES (%s, 'd')", [(2000,), (1,), (2001,)]))
    await settled(c.rollback())
    await D.close(c)
    return out


@case("copy")
async def copy():
    c = await D.open({})
    await run(c, "DROP TABLE IF EXISTS t_copy3")
    await run(c, "CREATE TABLE t_copy3 (id int, v text, b bytea)")
    out = []
    cursor = c.cursor()
    async with Both(cursor.copy("COPY t_copy3 FROM STDIN")) as copying:
        for i in range(3000):
            await settled(copying.write_row((i, f"row {i} ü", b"\x00" + bytes([i % 256]))))
    out.append(cursor.rowcount)
    async with Both(cursor.copy("COPY t_copy3 (id, v) FROM STDIN (FORMAT binary)")) as copying:
        copying.set_types(["int4", "text"])
        for i in range(100):
            await settled(copying.write_row((10000 + i, "binary")))
    async with Both(cursor.copy("COPY (SELECT id, v FROM t_copy3 ORDER BY id) TO STDOUT")) as copying:
        got = await each(copying.rows())
        out += [len(got), got[0], got[-1]]
    try:
        async with Both(cursor.copy("COPY t_copy3 FROM STDIN")) as copying:
            await settled(copying.write_row((1, "lost", None)))
            raise ValueError("the program fails")
    except Exception as e:
        out.append(D.error(e))
    try:
        async with Both(cursor.copy("COPY t_copy3 FROM STDIN")) as copying:
            await settled(copying.write("no number\tx\t\\N\n"))
    except Exception as e:
        out.append(D.error(e))
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_copy3"))
    out.append(await run(c, "DROP TABLE t_copy3"))
    await D.close(c)
    return out


@case("server-side cursor")
async def server_cursor():
    c = await connect()
    out = []
    async with Both(c.cursor("named")) as cursor:
        cursor.itersize = 100
        await settled(cursor.execute("SELECT g FROM generate_series(1, %s) g", (1000,)))
        out.append(sum([r[0] for r in await each(cursor)]))
    async with Both(c.cursor("scrolled", scrollable=True)) as cursor:
        await settled(cursor.execute("SELECT g FROM generate_series(1, 100) g"))
        out.append(await settled(cursor.fetchmany(3)))
        await settled(cursor.scroll(10))
        out.append(await settled(cursor.fetchone()))
    cursor = c.cursor("held", withhold=True)
    await settled(cursor.execute("SELECT g FROM generate_series(1, 10) g"))
    await settled(c.commit())
    out.append(await settled(cursor.fetchmany(4)))
    await settled(c.commit())
    out.append(await settled(cursor.fetchall()))
    await settled(cursor.close())
    await settled(c.commit())
    await D.close(c)
    return out


@case("stream of single rows")
async def stream():
    c = await D.open({})
    out = [sum([r[0] for r in await each(c.cursor().stream("SELECT generate_series(1, %s)", (2000,)))])]
    try:
        await each(c.cursor().stream("SELECT 1/(5 - g) FROM generate_series(1, 9) g"))
    except psycopg.Error as e:
        out.append(D.error(e))
    out.append(await run(c, "SELECT 'on'"))
    await D.close(c)
    return out


@case("listen and notify", two=True)
async def listen():
    a, b = await D.open({}), await D.open({})
    out = []
    await run(a, "LISTEN ch")
    await run(b, "NOTIFY ch, 'one'")
    await run(b, "SELECT pg_notify('ch', 'two')")

    async def collect():
        generator = a.notifies()
        while len(out) < 2:
            n = await generator.__anext__() if ASYNC else next(generator)
            out.append((n.channel, n.payload))
        if ASYNC:
            await generator.aclose()
        else:
            generator.close()
    await collect()
    await run(a, "UNLISTEN *")
    out.append(await run(a, "SELECT 'on'"))
    await D.close(a)
    await D.close(b)
    return out


@case("notification to oneself through a handler")
async def handler():
    c = await D.open({})
    out = []
    c.add_notify_handler(lambda n: out.append((n.channel, n.payload)))
    await run(c, "LISTEN h")
    await run(c, "NOTIFY h, 'x'")
    await run(c, "SELECT 1")
    await D.close(c)
    return out or ["none"]


@case("backend pid")
async def pid():
    c = await D.open({})
    out = await run(c, "SELECT pg_backend_pid() = %s", (c.info.backend_pid,))
    await D.close(c)
    return [out]


@case("notices")
async def notices():
    c = await D.open({})
    out = []
    c.add_notice_handler(lambda d: out.append((d.severity, d.sqlstate, d.message_primary)))
    await run(c, "DO $$ BEGIN RAISE NOTICE 'n %', 1; RAISE WARNING 'w'; END $$")
    await run(c, "DROP TABLE IF EXISTS no_such")
    await run(c, "COMMIT")
    await D.close(c)
    return out


@case("cancel")
async def cancel():
    c = await D.open({})
    out = []
    for _ in range(3):
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        out.append(await failing(run(c, "SELECT pg_sleep(30)")))
        timer.join()
        out.append(await run(c, "SELECT 'on'"))
    c.cancel()
    out.append(await run(c, "SELECT 'not cancelled' FROM pg_sleep(0.3)"))
    await D.close(c)
    return out


@case("parameter status")
async def status():
    c = await D.open({"application_name": "psy", "options": "-c IntervalStyle=iso_8601"})
    names = ("server_version", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "application_name",
             "standard_conforming_strings", "is_superuser")
    out = [f"{n}={c.info.parameter_status(n)}" for n in names]
    await run(c, "SET TimeZone = 'Asia/Tokyo'")
    out.append(await run(c, "SELECT '2024-02-29 12:00+00'::timestamptz, (interval '1 day 2 hours')::text"))
    out += [c.info.parameter_status("TimeZone"), c.info.encoding, c.info.server_version]
    await D.close(c)
    return out


@case("client encoding")
async def encoding():
    c = await D.open({"client_encoding": "LATIN1"})
    out = [c.info.encoding, await run(c, "SELECT 'ü', octet_length(%s::text)", ("ü",)),
           await failing(run(c, "SELECT U&'\\4E16'"))]
    await run(c, "SET client_encoding = 'UTF8'")
    out += [c.info.encoding, await run(c, "SELECT '世'")]
    await D.close(c)
    return out


@case("large value both ways")
async def large():
    c = await D.open({})
    text = "0123456789abcdef" * (5 * 65536)
    data = bytes(range(256)) * 20000
    cursor = await settled(c.execute("SELECT length(%s), %s::text, %b::bytea", (text, text, data), binary=True))
    row = await settled(cursor.fetchone())
    await D.close(c)
    return [row[0], row[1] == text, row[2] == data]


@case("several statements in one query")
async def several():
    c = await D.open({})
    cursor = await settled(c.execute("SELECT 1; SET work_mem = '5MB'; SELECT 2"))
    out = [await settled(cursor.fetchone()), cursor.nextset(), cursor.statusmessage, cursor.nextset(),
           await settled(cursor.fetchone()), cursor.nextset()]
    out.append(await run(c, "SHOW work_mem"))
    out.append(await failing(run(c, "SELECT 1; SELECT %s", (1,), prepare=True)))
    out.append(await failing(run(c, "SET work_mem = '6MB'; SELECT 1/0")))
    out.append(await run(c, "SHOW work_mem"))
    await D.close(c)
    return [str(o) for o in out]


@case("composed SQL and errors in detail")
async def composed():
    c = await D.open({})
    await run(c, "DROP TABLE IF EXISTS \"Odd Table\"")
    await run(c, composing.SQL("CREATE TABLE {} (id int PRIMARY KEY)").format(composing.Identifier("Odd Table")))
    out = []
    for _ in range(2):
        try:
            out.append(await run(c, 'INSERT INTO "Odd Table" VALUES (%s)', (1,)))
        except psycopg.Error as e:
            out.append([type(e).__name__, e.diag.constraint_name, e.diag.message_detail, e.diag.table_name])
    await run(c, 'DROP TABLE "Odd Table"')
    await D.close(c)
    return out


@case("two-phase commit of the driver")
async def tpc():
    name = "psycopg async" if ASYNC else "psycopg"
    out = []
    for n, end in enumerate(("tpc_commit", "tpc_rollback")):
        c, d = await connect(), await connect()
        await settled(c.tpc_begin(c.xid(n, name, "b")))
        await settled(c.execute("SELECT 1"))
        await settled(c.tpc_prepare())
        await D.close(c)  # and another program finishes it
        found = [x for x in await settled(d.tpc_recover()) if x.gtrid == name]
        await settled(d.rollback())
        out += [[(x.format_id, x.gtrid, x.bqual) for x in found]]
        out += [await failing_call(getattr(d, end), found[0]), await failing_call(getattr(d, end), found[0])]
        await D.close(d)
    return out


# As programs do it: a new statement object for each execution.

@case("like a program: new statements, autocommit on")
async def program_on():
    c = await D.open({})
    await run(c, "DROP TABLE IF EXISTS t_program")
    await run(c, "CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    out = []
    for i in range(30):
        cursor = c.cursor()
        await settled(cursor.execute("INSERT INTO t_program VALUES (%s, %s)", (i, f"v{i}")))
        async with Both(c.cursor()) as cursor:
            await settled(cursor.execute("SELECT v FROM t_program WHERE id = %s", (i,), prepare=i % 3 == 0))
            out.append(await settled(cursor.fetchone()))
        if i % 10 == 5:
            out.append(await failing(run(c, "INSERT INTO t_program VALUES (%s, 'again')", (i,))))
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_program"))
    await run(c, "DROP TABLE t_program")
    await D.close(c)
    return out


@case("like a program: new statements, autocommit off")
async def program_off():
    c = await connect()
    await run(c, "DROP TABLE IF EXISTS t_program")
    await run(c, "CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    await settled(c.commit())
    out = []
    for i in range(30):
        async with Both(c.cursor()) as cursor:
            await settled(cursor.execute("INSERT INTO t_program VALUES (%s, %s)", (i, f"v{i}")))
        async with Both(c.cursor()) as cursor:
            await settled(cursor.execute("SELECT v FROM t_program WHERE id = %s", (i,), prepare=i % 3 == 0))
            out.append(await settled(cursor.fetchone()))
        if i % 10 == 5:
            out.append(await failing(run(c, "INSERT INTO t_program VALUES (%s, 'again')", (i,))))
            out.append(await failing(run(c, "SELECT 'refused'")))
        if i % 4 == 3:
            await settled(c.rollback())
        elif i % 2:
            await settled(c.commit())
    await settled(c.commit())
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_program"))
    await run(c, "DROP TABLE t_program")
    await settled(c.commit())
    await D.close(c)
    return out


@case("a copy that fails while its rows are sent")
async def copy_fails():
    out = []
    for auto in (True, False):
        c = await (D.open({}) if auto else connect())
        await run(c, "DROP TABLE IF EXISTS t_fails")
        await run(c, "CREATE TABLE t_fails (id int PRIMARY KEY, v text)")
        if not auto:
            await settled(c.commit())
        for behind in (1, 50, 5000, 30000):
            try:
                async with Both(c.cursor().copy("COPY t_fails FROM STDIN")) as copying:
                    for i in (1, 1, *range(2, behind + 2)):
                        await settled(copying.write(f"{i}\ta row of some length, so that there are many messages {i}\n"))
                out.append("went well")
            except psycopg.Error as e:
                # (which row of those under way it is told of first is the driver's luck)
                out.append(D.error(e))
            if not auto:
                await settled(c.rollback())
            out.append(await run(c, "SELECT 'on', count(*) FROM t_fails"))
        await run(c, "DROP TABLE t_fails")
        if not auto:
            await settled(c.commit())
        await D.close(c)
    return out


def without_a_word(c):
    with socket.socket(fileno=os.dup(c.fileno())) as s:
        s.shutdown(socket.SHUT_RDWR)


@case("a client that leaves in the middle")
async def leaves():
    c = await D.open({})
    await run(c, "DROP TABLE IF EXISTS t_leaves")
    await run(c, "CREATE TABLE t_leaves (id int PRIMARY KEY)")
    await D.close(c)
    out = []

    async def left():
        look = await connect()
        await run(look, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE")
        out.append(await run(look, "SELECT count(*) FROM t_leaves"))
        await D.close(look)
    for silent in (True, False):
        c = await connect()
        await run(c, "INSERT INTO t_leaves VALUES (1), (2)")
        if silent:
            without_a_word(c)
        await D.close(c)
        await left()
        # Before the Sync of a batch, of which the server has done a part.
        c = await D.open({})
        pg = c.pgconn
        pg.enter_pipeline_mode()
        for i in range(3):
            pg.send_query_params(b"INSERT INTO t_leaves VALUES ($1::int)", [str(i).encode()])
        pg.send_flush_request()
        while pg.flush():
            select.select([], [pg.socket], [], 1)
        while pg.is_busy():
            select.select([pg.socket], [], [], 20)
            pg.consume_input()
        out.append(pg.get_result().command_status)
        if silent:
            without_a_word(c)
        pg.finish()
        await left()
    c = await D.open({})
    try:
        async with Both(c.cursor().copy("COPY t_leaves FROM STDIN")) as copying:
            for i in range(20000):
                await settled(copying.write(f"{i}\n"))
            without_a_word(c)
            for i in range(20000, 90000):
                await settled(copying.write(f"{i}\n"))
        out.append("went well")
    except Exception as e:
        out.append(type(e).__name__)
    await left()
    await D.close(c)
    c = await D.open({})
    await run(c, "DROP TABLE t_leaves")
    await D.close(c)
    return out


if __name__ == "__main__":
    main(D)
