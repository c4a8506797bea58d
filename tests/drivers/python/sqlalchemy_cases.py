"""SQLAlchemy on psycopg2."""
# SPDX-License-Identifier: Apache-2.0
import io
import os
import re
import socket

import psycopg2
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import declarative_base, relationship, Session
from sqlalchemy.pool import NullPool

from harness import case, main, rows


def engine(options=None, **more):
    return sa.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect("", connect_timeout=20, **(options or {})),
                            future=True, **more)


class Driver:
    def open(self, options):
        return engine(options, poolclass=NullPool).connect().execution_options(isolation_level="AUTOCOMMIT")

    def run(self, connection, sql, values=None):
        # psycopg2 takes a lone % for a placeholder only when there are parameters.
        result = connection.exec_driver_sql(sql if values else sql.replace("%", "%%"), values or ())
        return f"({','.join(result.keys())}){rows(result.fetchall())}" if result.returns_rows else f"{result.rowcount}"

    def arg(self, connection, sql, values):
        return self.run(connection, re.sub(r"\$\d+", "%s", sql.replace("%", "%%")), tuple(values))

    def close(self, connection):
        connection.close()

    def error(self, e):
        origin = getattr(e, "orig", None)
        if isinstance(e, psycopg2.Error):
            origin = e
        text = str(origin or e).strip().split("\n")[0]
        text = re.sub(r"^connection to server .*? failed: ", "", text)
        return f"!{type(e).__name__} {getattr(origin, 'pgcode', '')} {text}"


D = Driver()


def failing(function, *args):
    try:
        return str(function(*args))
    except Exception as e:
        return D.error(e)


Base = declarative_base()


class Author(Base):
    __tablename__ = "t_sa_author"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50), nullable=False, unique=True)
    tags = sa.Column(pg.ARRAY(sa.Text))
    data = sa.Column(pg.JSONB)
    books = relationship("Book", back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "t_sa_book"
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.Text)
    price = sa.Column(sa.Numeric(8, 2))
    author_id = sa.Column(sa.ForeignKey("t_sa_author.id"))
    author = relationship("Author", back_populates="books")


def tables(e):
    Base.metadata.drop_all(e)
    Base.metadata.create_all(e)


@case("mapped objects")
def mapped():
    e = engine()
    tables(e)
    out = []
    with Session(e) as s:
        a = Author(name="Ünï", tags=["a", "b,c"], data={"k": [1, None]})
        a.books = [Book(title=f"book {i}", price=i) for i in range(50)]
        s.add(a)
        s.commit()
        out.append(a.id)
        found = s.execute(sa.select(Author).where(Author.data["k"][0].as_integer() == 1)).scalar_one()
        out += [found.name, found.tags, found.data, sum(b.price for b in found.books)]
        s.execute(sa.update(Book).where(Book.price > 40).values(title="dear"))
        s.commit()
        out.append(s.execute(sa.select(sa.func.count()).where(Book.title == "dear").select_from(Book)).scalar())
        s.add(Author(name="Ünï"))
        out.append(failing(s.commit))
        s.rollback()
        s.delete(found.books[0])
        s.flush()
        s.rollback()
        out.append(s.execute(sa.select(sa.func.count(Book.id))).scalar())
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("nested transactions")
def nested():
    e = engine()
    tables(e)
    out = []
    with Session(e) as s:
        s.add(Author(name="one"))
        s.flush()
        try:
            with s.begin_nested():
                s.add(Author(name="one"))
                s.flush()
        except exc.IntegrityError as err:
            out.append(D.error(err))
        s.add(Author(name="two"))
        s.commit()
        out.append(s.execute(sa.select(Author.name).order_by(Author.id)).scalars().all())
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("isolation levels")
def isolation():
    e = engine()
    out = []
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED", "AUTOCOMMIT"):
        with e.connect().execution_options(isolation_level=level) as c:
            out.append(c.execute(sa.text("SHOW transaction_isolation")).scalar())
            out.append(c.get_isolation_level())
    with e.connect().execution_options(postgresql_readonly=True, postgresql_deferrable=True) as c:
        out.append(failing(c.execute, sa.text("CREATE TABLE never (id int)")))
    with e.connect() as c:
        out.append(c.execute(sa.text("SHOW transaction_read_only")).scalar())
    e.dispose()
    return out


@case("pool of the engine", two=True)
def pool():
    e = engine(pool_size=3, pool_pre_ping=True)
    out = []
    kept = [e.connect() for _ in range(3)]
    for i, c in enumerate(kept):
        c.execute(sa.text("SET LOCAL work_mem = '5MB'"))
        out.append(c.execute(sa.text("SELECT :i + 1"), {"i": i}).scalar())
    for c in kept:
        c.close()
    with e.connect() as c:
        out.append(c.execute(sa.text("SHOW work_mem")).scalar())
    e.dispose()
    return out


@case("reflection")
def reflection():
    e = engine()
    tables(e)
    inspector = sa.inspect(e)
    out = [sorted(c["name"] + str(c["type"]) for c in inspector.get_columns("t_sa_book")), inspector.get_pk_constraint("t_sa_book"),
           inspector.get_foreign_keys("t_sa_book")[0]["referred_table"], inspector.get_unique_constraints("t_sa_author"),
           sorted(sa.Table("t_sa_author", sa.MetaData(), autoload_with=e).columns.keys()), inspector.default_schema_name,
           sorted(t for t in inspector.get_table_names() if t.startswith("t_sa"))]
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("server-side results")
def stream():
    e = engine()
    with e.connect() as c:
        result = c.execution_options(stream_results=True, max_row_buffer=100).execute(
            sa.text("SELECT g FROM generate_series(1, 5000) g"))
        out = [sum(r.g for r in result.yield_per(70))]
    e.dispose()
    return out


@case("inserts of many values, returning")
def many():
    e = engine(executemany_mode="values_plus_batch")
    tables(e)
    with e.begin() as c:
        c.execute(sa.insert(Book), [{"title": f"t{i}", "price": i} for i in range(2000)])
        out = [c.execute(sa.select(sa.func.count(), sa.func.sum(Book.price))).all()]
        out.append(c.execute(pg.insert(Book).values(id=1, title="x").on_conflict_do_update(
            index_elements=["id"], set_={"title": "upserted"}).returning(Book.id, Book.title)).all())
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("types")
def types():
    import datetime
    import decimal
    import uuid
    e = engine()
    utc = datetime.timezone.utc
    with e.connect() as c:
        out = [c.execute(sa.select(sa.bindparam("v", v, type_=t))).scalar() for v, t in (
            ("ü世", sa.Text()), (2 ** 60, sa.BigInteger()), (decimal.Decimal("1.50"), sa.Numeric()), (b"\x00\xff", sa.LargeBinary()),
            ([1, 2], pg.ARRAY(sa.Integer)), ({"k": None}, pg.JSONB()), (uuid.UUID(int=5), pg.UUID(as_uuid=True)), (None, sa.Text()),
            (datetime.datetime(2024, 2, 29, 12, tzinfo=utc), sa.DateTime(timezone=True)), (datetime.timedelta(days=1), sa.Interval()))]
        out = [bytes(o) if isinstance(o, memoryview) else o for o in out]
    e.dispose()
    return out


@case("two-phase transaction")
def two_phase():
    e = engine()
    with e.connect() as c:
        out = []
        for end in ("commit", "rollback"):
            t = c.begin_twophase(f"sqlalchemy {end}")
            c.execute(sa.text("SELECT 1"))
            out += [failing(t.prepare), failing(getattr(t, end))]
        out += [[x for x in c.recover_twophase() if str(x).startswith("sqlalchemy")]]
    e.dispose()
    return out


@case("enums, arrays, ranges and documents")
def kinds():
    e = engine()
    with e.connect() as c:
        generates = c.dialect.server_version_info >= (12,)
    meta = sa.MetaData()
    t = sa.Table("t_sa_kinds", meta, sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
                 sa.Column("state", sa.Enum("on", "off", name="sa_state")), sa.Column("numbers", pg.ARRAY(sa.Numeric, dimensions=2)),
                 sa.Column("span", pg.INT4RANGE), sa.Column("doc", pg.JSONB), sa.Column("key", pg.UUID), sa.Column("bits", sa.LargeBinary),
                 sa.Column("twice", sa.Integer, sa.Computed("id * 2") if generates else None))
    meta.drop_all(e)
    meta.create_all(e)
    with e.begin() as c:
        out = [c.execute(t.insert().values(state="on", numbers=[[1, 2], [3, 4]], span="[1,5)", doc={"a": {"b": [1]}}, bits=b"\0\xff",
                                           key="f0000000-0000-4000-8000-00000000000f").returning(t.c.id, t.c.twice)).one()]
        row = c.execute(sa.select(t).where(t.c.doc["a"]["b"][0].as_integer() == 1)).one()
        out += [row.state, row.numbers, str(row.span), row.doc, row.key, bytes(row.bits)]
        c.execute(sa.update(t).values(state="off"))
        out.append(c.execute(sa.select(t.c.state)).scalar())
    with e.begin() as c:
        out.append(failing(c.execute, t.insert().values(state="neither")))
    meta.drop_all(e)
    e.dispose()
    return out


@case("upsert, lateral and common table expressions")
def statements():
    e = engine()
    tables(e)
    out = []
    with e.begin() as c:
        for n in range(3):
            insert = pg.insert(Author.__table__).values([{"name": f"a{i}", "tags": [str(n)]} for i in range(4)])
            rows_ = c.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"tags": insert.excluded.tags})
                              .returning(Author.__table__.c.name, Author.__table__.c.tags)).all()
            out.append(rows_)
        n = sa.select(sa.literal(1).label("n")).cte(recursive=True, name="numbers")
        n = n.union_all(sa.select(n.c.n + 1).where(n.c.n < 20))
        out.append(c.execute(sa.select(sa.func.sum(n.c.n))).scalar())
        out.append(c.execute(sa.text("SELECT a.name, x.n FROM t_sa_author a, LATERAL (SELECT length(a.name) AS n) x ORDER BY 1 LIMIT 2")).all())
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("locks of rows", two=True)
def locks():
    e = engine()
    tables(e)
    with Session(e) as s:
        s.add_all([Author(name=f"a{i}") for i in range(2)])
        s.commit()
    out = []
    with Session(e) as a, Session(e) as b:
        a.execute(sa.select(Author).where(Author.name == "a0").with_for_update()).scalar_one()
        out.append(b.execute(sa.select(Author.name).with_for_update(skip_locked=True)).scalars().all())
        b.rollback()
        out.append(failing(b.execute, sa.select(Author.name).with_for_update(nowait=True)))
        b.rollback()
        b.execute(sa.text("SET LOCAL lock_timeout = 100"))
        out.append(failing(b.execute, sa.update(Author).values(tags=["x"])))
        b.rollback()
        a.rollback()
        out.append(b.execute(sa.text("SHOW lock_timeout")).scalar())
    Base.metadata.drop_all(e)
    e.dispose()
    return out


@case("connections are checked before they are used")
def pre_ping():
    e = engine(pool_pre_ping=True, pool_size=1, max_overflow=0)
    out = []
    for n in range(5):
        with e.connect() as c:
            out.append(c.execute(sa.text("SELECT :n"), {"n": n}).scalar())
            c.execute(sa.text("SET work_mem = '9MB'"))
            c.commit()
            out.append(c.execute(sa.text("SHOW work_mem")).scalar())
    e.dispose()
    return out


@case("copy and notifications by the driver's own connection")
def raw():
    import io
    e = engine()
    c = e.raw_connection()
    cursor = c.cursor()
    cursor.execute("CREATE TEMP TABLE t_raw (id int, v text)")
    cursor.copy_expert("COPY t_raw FROM STDIN", io.StringIO("".join(f"{i}\tv{i}\n" for i in range(2000))))
    cursor.execute("SELECT count(*), max(v) FROM t_raw")
    out = [cursor.fetchone()]
    cursor.execute("LISTEN sa; NOTIFY sa, 'said'")
    c.commit()
    cursor.execute("SELECT 1")
    out.append([(n.channel, n.payload, n.pid == c.driver_connection.info.backend_pid) for n in c.driver_connection.notifies])
    cursor.execute("UNLISTEN *; DROP TABLE t_raw")
    c.commit()
    c.close()
    e.dispose()
    return out


@case("events that SET at connect")
def events():
    e = engine(pool_size=1)

    @sa.event.listens_for(e, "connect")
    def connect(dbapi, _):
        cursor = dbapi.cursor()
        cursor.execute("SET search_path = pg_catalog, public")
        cursor.execute("SET statement_timeout = '31s'")
        cursor.close()
        dbapi.commit()
    out = []
    for _ in range(3):
        with e.connect() as c:
            out += [c.execute(sa.text("SHOW search_path")).scalar(), c.execute(sa.text("SHOW statement_timeout")).scalar()]
            c.commit()
    e.dispose()
    return out


# As programs do it: a new statement for each execution, in a session's connection.

@case("like a program: new statements, autocommit on")
def program_on():
    e = engine(pool_size=2)
    out = []
    with e.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
        for i in range(30):
            c.execute(sa.text("INSERT INTO t_program VALUES (:i, :v)"), {"i": i, "v": f"v{i}"})
            out.append(c.execute(sa.text("SELECT v FROM t_program WHERE id = :i"), {"i": i}).scalar())
            if i % 10 == 5:
                out.append(failing(c.execute, sa.text("INSERT INTO t_program VALUES (:i, 'again')"), {"i": i}))
        out.append(list(c.execute(sa.text("SELECT count(*), sum(id) FROM t_program")).first()))
        c.exec_driver_sql("DROP TABLE t_program")
    e.dispose()
    return out


@case("like a program: new statements, autocommit off")
def program_off():
    e = engine(pool_size=2)
    out = []
    with e.begin() as c:
        c.exec_driver_sql("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    with e.connect() as c:
        for i in range(30):
            c.execute(sa.text("INSERT INTO t_program VALUES (:i, :v)"), {"i": i, "v": f"v{i}"})
            out.append(c.execute(sa.text("SELECT v FROM t_program WHERE id = :i"), {"i": i}).scalar())
            if i % 10 == 5:
                out.append(failing(c.execute, sa.text("INSERT INTO t_program VALUES (:i, 'again')"), {"i": i}))
                out.append(failing(c.execute, sa.text("SELECT 'refused'")))
            if i % 4 == 3:
                c.rollback()
            elif i % 2:
                c.commit()
        c.commit()
        out.append(list(c.execute(sa.text("SELECT count(*), sum(id) FROM t_program")).first()))
        c.exec_driver_sql("DROP TABLE t_program")
        c.commit()
    e.dispose()
    return out


@case("a copy that fails while its rows are sent")
def copy_fails():
    e = engine(pool_size=1)
    out = []
    with e.begin() as c:
        c.exec_driver_sql("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY)")
    for behind in (1, 50, 100000):
        with e.connect() as c:
            text = "1\n1\n" + "".join(f"{i}\n" for i in range(2, behind + 2))
            out.append(failing(c.connection.cursor().copy_expert, "COPY t_fails FROM STDIN", io.StringIO(text)))
            out.append(failing(c.execute, sa.text("SELECT 'refused'")))
        with e.connect() as c:
            out.append(list(c.execute(sa.text("SELECT 'on', count(*) FROM t_fails")).first()))
    with e.begin() as c:
        c.exec_driver_sql("DROP TABLE t_fails")
    e.dispose()
    return out


@case("a client that leaves in the middle")
def leaves():
    e = engine(poolclass=NullPool)
    out = []
    with e.begin() as c:
        c.exec_driver_sql("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)")
    for silent in (True, False):
        c = e.connect()
        c.execute(sa.text("INSERT INTO t_leaves VALUES (1), (2)"))
        if silent:
            with socket.socket(fileno=os.dup(c.connection.dbapi_connection.fileno())) as s:
                s.shutdown(socket.SHUT_RDWR)
            out.append(failing(c.commit).split(" ")[0])
            c.invalidate()
        c.close()
        with e.connect() as c:
            c.execute(sa.text("LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE"))
            out.append(c.execute(sa.text("SELECT count(*) FROM t_leaves")).scalar())
    with e.begin() as c:
        c.exec_driver_sql("DROP TABLE t_leaves")
    e.dispose()
    return out


if __name__ == "__main__":
    main(D)
