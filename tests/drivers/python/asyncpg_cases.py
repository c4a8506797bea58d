"""asyncpg: everything is a prepared statement, and the connection is reset in a pool."""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import datetime
import decimal
import os
import re
import ssl
import uuid

import asyncpg

from harness import case, main, rows

TLS = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])


def arguments(options):
    """asyncpg has no `options`: each -c is a variable of the startup message."""
    server = dict(options)
    for one in server.pop("options", "").split("-c "):
        if one.strip():
            name, _, value = one.strip().partition("=")
            server[name] = value
    return {"ssl": TLS, "timeout": 20, "server_settings": server,
            "host": os.environ["PGHOST"], "port": int(os.environ["PGPORT"])}


class Driver:
    async def open(self, options):
        return await asyncpg.connect(**arguments(options))

    async def run(self, connection, sql, values=()):
        if not values and not sql.upper().startswith(("SELECT", "SHOW", "FETCH", "EXECUTE", "INSERT")):
            return await connection.execute(sql)
        result = await connection.fetch(sql, *values)
        names = ",".join(result[0].keys()) if result else ""
        return f"({names}){rows(result)}"

    async def arg(self, connection, sql, values):
        return await self.run(connection, sql, values)

    async def close(self, connection):
        await connection.close(timeout=10)

    def error(self, e):
        # The driver numbers its statements over all connections.
        text = re.sub(r"__asyncpg_\w+?_[0-9a-f]+__", "(its)", str(e).splitlines()[0] if str(e) else "")
        return f"!{type(e).__name__} {getattr(e, 'sqlstate', '')} {text}"


D = Driver()
run = D.run


async def failing(awaitable):
    try:
        return str(await awaitable)
    except (Exception, asyncio.CancelledError) as e:
        return D.error(e)


@case("types round trip")
async def types():
    c = await D.open({})
    utc = datetime.timezone.utc
    values = [("text", "x'y"), ("int8", 2 ** 60), ("numeric", decimal.Decimal("12345.678901234567890")),
              ("bytea", b"\x00\x01\xff"), ("int[]", [1, 2, None]), ("text[]", ["a", "b,c", 'd"e']), ("bool", True),
              ("float8", 1.25), ("date", datetime.date(2024, 2, 29)), ("text", None), ("text", "世界😀"),
              ("timestamptz", datetime.datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=utc)),
              ("interval", datetime.timedelta(days=1, seconds=5)), ("uuid", uuid.UUID(int=5)),
              ("jsonb", '{"k": [1, null]}'), ("int4range", asyncpg.Range(1, 5)), ("point", asyncpg.Point(1, 2))]
    out = [await failing(run(c, f"SELECT $1::{t}", (v,))) for t, v in values]
    await D.close(c)
    return out


@case("composite and enum types")
async def composite():
    # The driver asks the server about a type it does not know, in a query of its own.
    c = await D.open({})
    await c.execute("DROP TYPE IF EXISTS t_pair; DROP TYPE IF EXISTS t_mood; CREATE TYPE t_pair AS (a int, b text);"
                    " CREATE TYPE t_mood AS ENUM ('sad', 'happy')")
    out = [await failing(run(c, "SELECT ROW(1, 'x')::t_pair, ARRAY[ROW(2, 'y')::t_pair]")),
           await failing(run(c, "SELECT $1::t_pair", ((5, "five"),))),
           await failing(run(c, "SELECT $1::t_mood, ARRAY['sad']::t_mood[]", ("happy",)))]
    await c.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=lambda s: "decoded " + s)
    out.append(await run(c, "SELECT '1'::jsonb"))
    await c.execute("DROP TYPE t_pair; DROP TYPE t_mood")
    await D.close(c)
    return out


@case("prepared statements")
async def prepared():
    c = await D.open({})
    s = await c.prepare("SELECT $1::int + 1 AS n, $2::text AS v")
    out = [str(s.get_parameters()), str([(a.name, a.type.name) for a in s.get_attributes()])]
    for i in range(5):
        out.append(rows(await s.fetch(i, "x")))
    out.append(await failing(c.prepare("SELECT nothing")))
    out.append(await failing(s.fetch(1)))
    out.append(await failing(s.fetch("x", "y")))
    out.append(rows(await s.fetch(9, "still")))
    out.append(await failing(s.explain(1, "x")) != "")
    await D.close(c)
    return out


@case("300 prepared statements")
async def many():
    c = await asyncpg.connect(**arguments({}), statement_cache_size=100)
    total = 0
    for _ in range(3):
        for i in range(300):
            total += await c.fetchval(f"SELECT {i} + $1::int", 1)
    kept = [await c.prepare(f"SELECT {i} * $1::int") for i in range(300)]
    for s in kept:
        total += await s.fetchval(2)
    await D.close(c)
    return [total]


@case("no cache of statements")
async def no_cache():
    c = await asyncpg.connect(**arguments({}), statement_cache_size=0)
    out = [await run(c, "SELECT $1::int", (i,)) for i in range(3)]
    out.append(await failing(run(c, "SELECT 1/$1::int", (0,))))
    out.append(await run(c, "SELECT $1::int", (4,)))
    await D.close(c)
    return out


@case("cached statement after DDL", two=True)
async def ddl():
    c = await D.open({})
    d = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_addl; CREATE TABLE t_addl (id int); INSERT INTO t_addl VALUES (1)")
    out = [await run(c, "SELECT * FROM t_addl"), await run(c, "SELECT * FROM t_addl")]
    await d.execute("ALTER TABLE t_addl ADD COLUMN v text DEFAULT 'new'")
    out += [await failing(run(c, "SELECT * FROM t_addl")), await failing(run(c, "SELECT * FROM t_addl"))]
    async with c.transaction():
        out.append(await run(c, "SELECT * FROM t_addl"))
    await d.execute("ALTER TABLE t_addl ALTER COLUMN id TYPE bigint")
    tr = c.transaction()
    await tr.start()
    out.append(await failing(run(c, "SELECT * FROM t_addl")))
    await tr.rollback()
    out.append(await failing(run(c, "SELECT * FROM t_addl")))
    await c.execute("DROP TABLE t_addl")
    await D.close(c)
    await D.close(d)
    return out


@case("statement kept by the program after DDL")
async def ddl_kept():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_kept; CREATE TABLE t_kept (id int); INSERT INTO t_kept VALUES (1)")
    s = await c.prepare("SELECT * FROM t_kept")
    out = [rows(await s.fetch())]
    await c.execute("ALTER TABLE t_kept ADD COLUMN v text DEFAULT 'new'")
    out += [await failing(s.fetch()), await failing(s.fetch())]
    await c.execute("DROP TABLE t_kept")
    out.append(await failing(s.fetch()))
    await D.close(c)
    return out


@case("transactions of the driver")
async def transactions():
    c = await D.open({})
    out = []
    await c.execute("DROP TABLE IF EXISTS t_atr; CREATE TABLE t_atr (id int PRIMARY KEY)")
    async with c.transaction():
        await c.execute("INSERT INTO t_atr VALUES (1)")
        try:
            async with c.transaction():
                await c.execute("INSERT INTO t_atr VALUES (2)")
                await c.execute("INSERT INTO t_atr VALUES (1)")
        except asyncpg.PostgresError as e:
            out.append(D.error(e))
        out.append(c.is_in_transaction())
    out.append(await run(c, "SELECT id FROM t_atr"))
    tr = c.transaction(isolation="serializable", readonly=True, deferrable=True)
    await tr.start()
    out.append(await run(c, "SHOW transaction_isolation"))
    out.append(await failing(c.execute("INSERT INTO t_atr VALUES (9)")))
    out.append(await failing(run(c, "SELECT 1")))
    await tr.rollback()
    out.append(c.is_in_transaction())
    await c.execute("DROP TABLE t_atr")
    await D.close(c)
    return out


@case("cursor with a prefetch")
async def cursor():
    c = await D.open({})
    out = [await failing(anext(c.cursor("SELECT 1").__aiter__()))]
    async with c.transaction():
        out.append(sum([r[0] async for r in c.cursor("SELECT generate_series(1, $1::int)", 1000, prefetch=37)]))
        k = await c.cursor("SELECT generate_series(1, 100)")
        out += [rows(await k.fetch(3)), await k.forward(10), rows([await k.fetchrow()])]
        first = await c.cursor("SELECT generate_series(1, 10) AS a")
        second = await c.cursor("SELECT generate_series(11, 20) AS b")
        for _ in range(3):
            out += [rows([await first.fetchrow()]), rows([await second.fetchrow()])]
    await D.close(c)
    return out


@case("executemany")
async def executemany():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_many; CREATE TABLE t_many (id int PRIMARY KEY, v text)")
    await c.executemany("INSERT INTO t_many VALUES ($1, $2)", [(i, f"v{i}") for i in range(2000)])
    out = [await run(c, "SELECT count(*), sum(id) FROM t_many")]
    out.append(await failing(c.executemany("INSERT INTO t_many VALUES ($1, 'd')", [(5000,), (1,), (5001,)])))
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_many"))
    await c.execute("DROP TABLE t_many")
    await D.close(c)
    return out


@case("copy")
async def copy():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_acopy; CREATE TABLE t_acopy (id int, v text)")
    out = [await c.copy_records_to_table("t_acopy", records=[(i, f"row {i}") for i in range(5000)])]

    async def source():
        for i in range(100):
            yield f"{90000 + i},csv\n".encode()
    out.append(await c.copy_to_table("t_acopy", source=source(), format="csv"))
    got = bytearray()

    async def sink(data):
        got.extend(data)
    out.append(await c.copy_from_query("SELECT * FROM t_acopy WHERE id >= $1 ORDER BY id", 4990, output=sink))
    out.append(bytes(got[:60]))
    out.append(await failing(c.copy_records_to_table("t_acopy", records=[(1, 2)])))

    async def bad():
        yield b"not a number,x\n"
    out.append(await failing(c.copy_to_table("t_acopy", source=bad(), format="csv")))

    async def broken():
        yield b"1,x\n"
        raise RuntimeError("the source broke")
    out.append(await failing(c.copy_to_table("t_acopy", source=broken(), format="csv")))
    out.append(await run(c, "SELECT count(*) FROM t_acopy"))
    await c.execute("DROP TABLE t_acopy")
    await D.close(c)
    return out


@case("listen and notify", two=True)
async def listen():
    a, b = await D.open({}), await D.open({})
    heard = asyncio.Queue()
    await a.add_listener("achan", lambda c, pid, channel, payload: heard.put_nowait((channel, payload)))
    await b.execute("NOTIFY achan, 'one'")
    await b.execute("SELECT pg_notify('achan', 'two')")
    out = [await asyncio.wait_for(heard.get(), 15), await asyncio.wait_for(heard.get(), 15)]
    await a.reset()
    await b.execute("NOTIFY achan, 'unheard'")
    out.append(await run(a, "SELECT 'on'"))
    out.append(heard.qsize())
    await D.close(a)
    await D.close(b)
    return out


@case("backend pid")
async def pid():
    c = await D.open({})
    out = [await c.fetchval("SELECT pg_backend_pid() = $1", c.get_server_pid())]
    await D.close(c)
    return out


@case("pool with reset", two=True)
async def pool():
    p = await asyncpg.create_pool(**arguments({}), min_size=2, max_size=4)
    out = []

    async def work(i):
        async with p.acquire() as c:
            await c.execute("SET work_mem = '9MB'")
            await c.execute("CREATE TEMP TABLE tpool (id int)")
            await c.execute("DROP TABLE tpool")
            return await c.fetchval("SELECT $1::int", i)
    out.append(await asyncio.gather(*[work(i) for i in range(20)]))
    out.append(await p.fetchval("SHOW work_mem"))
    await p.close()
    return out


@case("timeout and cancellation")
async def timeout():
    c = await D.open({})
    out = []
    for _ in range(3):
        out.append(await failing(c.execute("SELECT pg_sleep(30)", timeout=0.3)))
        out.append(await run(c, "SELECT 'on'"))
    task = asyncio.ensure_future(c.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.3)
    task.cancel()
    out.append(await failing(task))
    out.append(await run(c, "SELECT 'on again'"))
    async with c.transaction():
        out.append(await failing(c.execute("SELECT pg_sleep(30)", timeout=0.3)))
        out.append(await failing(c.execute("SELECT 1")))
        await c.execute("ROLLBACK; BEGIN")
    await D.close(c)
    return out


@case("several statements in one query")
async def several():
    c = await D.open({})
    out = [await c.execute("SELECT 1; SET work_mem = '5MB'; SELECT 2"), await run(c, "SHOW work_mem"),
           await failing(c.fetch("SELECT 1; SELECT 2")), await failing(c.execute("SET work_mem = '6MB'; SELECT 1/0")),
           await run(c, "SHOW work_mem")]
    await D.close(c)
    return out


@case("settings that the driver knows")
async def settings():
    c = await D.open({"application_name": "apg", "options": "-c TimeZone=Asia/Tokyo -c jit=off"})
    s = c.get_settings()
    out = [getattr(s, n) for n in ("application_name", "client_encoding", "TimeZone", "DateStyle", "server_encoding",
                                   "integer_datetimes", "IntervalStyle", "standard_conforming_strings")]
    await c.execute("SET TimeZone = 'Europe/Rome'")
    out += [s.TimeZone, str(c.get_server_version()), await run(c, "SHOW jit")]
    await D.close(c)
    return out


@case("notices")
async def notices():
    c = await D.open({})
    out = []
    c.add_log_listener(lambda _, m: out.append((m.severity, m.sqlstate, m.message)))
    await c.execute("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
    await c.execute("COMMIT")
    await asyncio.sleep(0)
    await D.close(c)
    return out


@case("large value both ways")
async def large():
    c = await D.open({})
    text, data = "0123456789abcdef" * (5 * 65536), bytes(range(256)) * 20000
    row = await c.fetchrow("SELECT length($1::text), $1::text, $2::bytea", text, data)
    out = [row[0], row[1] == text, row[2] == data]
    await D.close(c)
    return out


@case("empty query")
async def empty():
    c = await D.open({})
    out = [await failing(c.execute("")), await failing(c.fetch("")), await failing(c.fetch("-- nothing")),
           await run(c, "SELECT 1")]
    await D.close(c)
    return out


# As programs do it: a new statement for each execution, which the driver names and caches.

@case("like a program: new statements, autocommit on")
async def program_on():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    out = []
    for i in range(30):
        await c.execute("INSERT INTO t_program VALUES ($1, $2)", i, f"v{i}")
        s = await c.prepare("SELECT v FROM t_program WHERE id = $1")
        out.append(await s.fetchval(i))
        del s
        if i % 10 == 5:
            out.append(await failing(c.execute("INSERT INTO t_program VALUES ($1, 'again')", i)))
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_program"))
    await c.execute("DROP TABLE t_program")
    await D.close(c)
    return out


@case("like a program: new statements, autocommit off")
async def program_off():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    out = []
    transaction = c.transaction()
    await transaction.start()
    for i in range(30):
        await c.execute("INSERT INTO t_program VALUES ($1, $2)", i, f"v{i}")
        s = await c.prepare("SELECT v FROM t_program WHERE id = $1")
        out.append(await s.fetchval(i))
        del s
        bad = i % 10 == 5
        if bad:
            out.append(await failing(c.execute("INSERT INTO t_program VALUES ($1, 'again')", i)))
            out.append(await failing(c.fetchval("SELECT 'refused'")))
        if i % 4 == 3 or bad:
            await transaction.rollback()
        elif i % 2:
            await transaction.commit()
        else:
            continue
        transaction = c.transaction()
        await transaction.start()
    await transaction.commit()
    out.append(await run(c, "SELECT count(*), sum(id) FROM t_program"))
    await c.execute("DROP TABLE t_program")
    await D.close(c)
    return out


@case("a copy that fails while its rows are sent")
async def copy_fails():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)")
    out = []
    for behind in (1, 50, 5000, 50000):
        out.append(await failing(c.copy_records_to_table("t_fails", records=[(i, "behind it") for i in (1, 1, *range(2, behind + 2))])))
        out.append(await run(c, "SELECT 'on', count(*) FROM t_fails"))
        async with c.transaction():
            await c.execute("SAVEPOINT s")
            out.append(await failing(c.copy_records_to_table("t_fails", records=[(i, "x") for i in (1, 1, *range(2, behind + 2))])))
            await c.execute("ROLLBACK TO s")
            out.append(await run(c, "SELECT 'and on', count(*) FROM t_fails"))
    await c.execute("DROP TABLE t_fails")
    await D.close(c)
    return out


@case("a client that leaves in the middle")
async def leaves():
    c = await D.open({})
    await c.execute("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY, v text)")
    await D.close(c)
    out = []

    async def left():
        look = await D.open({})
        async with look.transaction():
            await look.execute("LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE")
            out.append(await run(look, "SELECT count(*) FROM t_leaves"))
        await D.close(look)
    for end in (lambda c: c.terminate(), lambda c: c.close()):
        c = await D.open({})
        await c.execute("BEGIN")
        await c.execute("INSERT INTO t_leaves VALUES (1), (2)")
        gone = end(c)
        if gone is not None:
            await gone
        await left()
    # A batch of which a part is on its way, and no Sync.
    c = await D.open({})

    def batch():
        for i in range(20000):
            if i == 10000:
                c._transport.abort()
            yield i, "a row of some length, so that the driver does not keep it to itself"
    try:
        await asyncio.wait_for(c.executemany("INSERT INTO t_leaves VALUES ($1, $2)", batch()), 20)
        out.append("went well")
    except Exception as e:
        out.append(type(e).__name__)
    await left()
    c = await D.open({})

    async def source():
        for i in range(50000):
            if i == 20000:
                c._transport.abort()
            yield f"{i}\tx\n".encode()
    try:
        await asyncio.wait_for(c.copy_to_table("t_leaves", source=source()), 20)
        out.append("went well")
    except Exception as e:
        out.append(type(e).__name__)
    await left()
    c = await D.open({})
    await c.execute("DROP TABLE t_leaves")
    await D.close(c)
    return out


if __name__ == "__main__":
    main(D)
