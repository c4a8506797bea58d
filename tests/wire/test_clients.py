"""The clients people use, in both pool modes."""
# SPDX-License-Identifier: Apache-2.0
import pytest


def test_psql_reads_and_writes(gate, psql, database, table):
    done = psql(gate, database, f"INSERT INTO {table} VALUES (1, 'one') RETURNING words")
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr
    done = psql(gate, database, f"SELECT words, current_user, current_database() FROM {table}")
    assert (done.returncode, done.stdout) == (0, "one|acme_rw|acme\n"), done.stderr


def test_psql_describes_a_table(gate, psql, database, table):
    done = psql(gate, database, f"\\d {table}")
    assert done.returncode == 0 and "words" in done.stdout, done.stderr


def test_psql_variables_and_several_statements(gate, psql, database):
    done = psql(gate, database, stdin="\\set n 41\nSELECT :n + 1; SELECT 'two'; SELECT 1/0;\n"
                                      "SELECT 'after';\n")
    assert done.stdout == "42\ntwo\nafter\n"
    assert "division by zero" in done.stderr


def test_psql_several_statements_in_one_message(gate, psql, database):
    done = psql(gate, database, "SELECT 1; SELECT 2; SELECT 3")
    assert done.stdout.split()[-1] == "3", done.stderr


def test_libpq_through_psycopg2(gate, psycopg2_connect, database, table):
    with psycopg2_connect(gate, database) as c, c.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} SELECT n, 'w' || n FROM generate_series(1, 100) n")
        cursor.execute(f"SELECT words FROM {table} WHERE id = %s", (7,))
        assert cursor.fetchone() == ("w7",)
    with psycopg2_connect(gate, database) as c, c.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone() == (100,)


def test_psycopg2_rolls_back_on_error(gate, psycopg2_connect, database, table):
    import psycopg2
    c = psycopg2_connect(gate, database)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        with c, c.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES (1, 'a')")
            cursor.execute(f"INSERT INTO {table} VALUES (1, 'b')")
    with c, c.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        assert cursor.fetchone() == (0,)


def test_psycopg2_named_cursor(gate, psycopg2_connect, database):
    with psycopg2_connect(gate, database) as c, c.cursor("many") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT * FROM generate_series(1, 1000)")
        assert sum(row[0] for row in cursor) == 500500


def test_psycopg_prepares_and_reads(gate, psycopg_connect, database):
    with psycopg_connect(gate, database, prepare_threshold=2) as c:
        for n in range(20):
            assert c.execute("SELECT %s::int + 1, current_user", (n,)).fetchone() == (n + 1, "acme_rw")
            c.commit()


def test_psycopg_pipeline(gate, psycopg_connect, database, table):
    with psycopg_connect(gate, database, autocommit=True) as c:
        with c.pipeline():
            cursors = [c.execute(f"INSERT INTO {table} VALUES (%s, 'p') RETURNING id", (n,))
                       for n in range(50)]
        assert [x.fetchone()[0] for x in cursors] == list(range(50))
        assert c.execute(f"SELECT count(*) FROM {table}").fetchone() == (50,)


def test_psycopg_pipeline_error_stops_up_to_sync(gate, psycopg_connect, database):
    import psycopg
    with psycopg_connect(gate, database, autocommit=True) as c:
        good = None
        # The error is raised wherever psycopg happens to read it.
        with pytest.raises(psycopg.errors.DivisionByZero):
            with c.pipeline() as p:
                good = c.execute("SELECT 1")
                p.sync()
                c.execute("SELECT 1/0")
                c.execute("SELECT 2")
                p.sync()
        assert good.fetchone() == (1,)
        assert c.execute("SELECT 3").fetchone() == (3,)


def test_psycopg_executemany_and_binary(gate, psycopg_connect, database, table):
    with psycopg_connect(gate, database) as c:
        with c.cursor(binary=True) as cursor:
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)",
                               [(n, f"w{n}") for n in range(200)])
            assert cursor.execute(f"SELECT sum(id) FROM {table}").fetchone() == (19900,)


def test_psycopg_server_side_cursor(gate, psycopg_connect, database):
    with psycopg_connect(gate, database) as c, c.cursor("c") as cursor:
        cursor.execute("SELECT * FROM generate_series(1, 500)")
        assert len(cursor.fetchmany(10)) == 10
        assert len(cursor.fetchall()) == 490


def test_asyncpg_prepares_by_name(gate, with_asyncpg, database):
    async def story(c):
        for n in range(30):
            assert await c.fetchval("SELECT $1::int * 2", n) == 2 * n
        statement = await c.prepare("SELECT $1::text || '!'")
        assert await statement.fetchval("hello") == "hello!"
        return await c.fetchrow("SELECT current_user, current_database()")
    assert tuple(with_asyncpg(gate, database, story)) == ("acme_rw", "acme")


def test_asyncpg_transactions_and_cursors(gate, with_asyncpg, database, table):
    async def story(c):
        async with c.transaction():
            await c.executemany(f"INSERT INTO {table} VALUES ($1, $2)",
                                [(n, str(n)) for n in range(100)])
            seen = 0
            async for _ in c.cursor(f"SELECT * FROM {table}", prefetch=7):
                seen += 1
            assert seen == 100
        try:
            async with c.transaction():
                await c.execute(f"DELETE FROM {table}")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        return await c.fetchval(f"SELECT count(*) FROM {table}")
    assert with_asyncpg(gate, database, story) == 100


def test_asyncpg_copies(gate, with_asyncpg, database, table):
    async def story(c):
        rows = [(n, "x" * 100) for n in range(5000)]
        await c.copy_records_to_table(table, records=rows)
        return await c.fetchval(f"SELECT count(*) FROM {table}")
    assert with_asyncpg(gate, database, story) == 5000


def test_read_only_role_reads_and_cannot_write(gate, psql, token, database):
    done = psql(gate, database, "SELECT words FROM greeting", user="acme_ro",
                secret=token("acme", "ro"))
    assert done.stdout == "hello from acme\n", done.stderr
    done = psql(gate, database, "INSERT INTO greeting VALUES (2, 'no')", user="acme_ro",
                secret=token("acme", "ro"))
    assert done.returncode != 0 and "permission denied" in done.stderr


def test_large_rows_pass_whole(gate, login, database):
    c = login(gate, database)
    assert len(c.query("SELECT repeat('x', 20000000)")[0][0]) == 20000000
    assert c.extended("SELECT length($1)", ["y" * 5000000]) == [["5000000"]]


def test_notices_arrive(gate, login, database):
    c = login(gate, database)
    kinds = [k for k, _ in c.ask(_query("DO $$ BEGIN RAISE NOTICE 'look'; END $$"))]
    assert kinds == ["N", "C", "Z"]


def _query(sql):
    from stand import wire
    return wire.query(sql)
