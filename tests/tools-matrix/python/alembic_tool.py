"""Alembic over SQLAlchemy and psycopg2: versions up and down, autogenerate, by several at once."""
# SPDX-License-Identifier: Apache-2.0
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings

import sqlalchemy as sa
from alembic import command, context, op, util
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, declarative_base, relationship

warnings.simplefilter("ignore")
CASES, ROLES = [], {}
LOCK = 4716

VERSIONS = {
    "one": (None, """
        op.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
        op.create_table("person", sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(80), nullable=False, unique=True),
            sa.Column("mood", postgresql.ENUM(name="mood", create_type=False), server_default="ok"),
            sa.Column("tags", postgresql.ARRAY(sa.Text)), sa.Column("more", postgresql.JSONB))
    """, """
        op.drop_table("person")
        op.execute("DROP TYPE mood")
    """),
    "two": ("one", """
        pet = op.create_table("pet", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("owner_id", sa.Integer),
            sa.Column("weight", sa.Numeric(8, 2)), sa.CheckConstraint("weight >= 0", name="positive"))
        op.create_foreign_key("pet_owner", "pet", "person", ["owner_id"], ["id"], ondelete="CASCADE")
        op.create_index("pet_weight", "pet", ["weight"], postgresql_where=sa.text("weight IS NOT NULL"))
        op.bulk_insert(sa.table("person", sa.column("name")), [{"name": "Ada"}, {"name": "Grace"}])
        op.bulk_insert(pet, [{"id": n, "weight": n} for n in range(100)])
    """, """
        op.drop_table("pet")
        op.execute("DELETE FROM person")
    """),
    "three": ("two", """
        op.add_column("pet", sa.Column("name", sa.Text, server_default="nameless", nullable=False))
        op.alter_column("person", "name", type_=sa.String(120))
        op.alter_column("pet", "weight", new_column_name="heft")
        with op.get_context().autocommit_block():
            op.execute("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'angry'")
            op.create_index("person_mood", "person", ["mood"], postgresql_concurrently=True)
        op.create_table("job", sa.Column("id", sa.Integer, primary_key=True), sa.Column("state", sa.Text, server_default="new"),
            sa.Column("tries", sa.Integer, server_default="0"))
        op.create_table("effect", sa.Column("job", sa.Integer))
    """, """
        op.drop_table("effect")
        op.drop_table("job")
        op.drop_index("person_mood")
        op.alter_column("pet", "heft", new_column_name="weight")
        op.alter_column("person", "name", type_=sa.String(80))
        op.drop_column("pet", "name")
    """),
}
BAD = {"bad": ("three", 'op.create_table("bad", sa.Column("id", sa.Integer))\nop.execute("SELECT 1/0")', "pass")}
HANGS = {"hangs": ("three", 'op.create_table("half", sa.Column("id", sa.Integer))\nprint("in it", flush=True)\nimport time\ntime.sleep(60)', "pass")}
ENVIRONMENT = """
from alembic import context
connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
"""


def engine(**more):
    e = os.environ
    return sa.create_engine(sa.engine.URL.create(
        "postgresql+psycopg2", e["PGUSER"], e["PGPASSWORD"], e["PGHOST"], int(e["PGPORT"]), e["PGDATABASE"],
        {"sslmode": "verify-full", "sslrootcert": e["PGSSLROOTCERT"]}), future=True, **more)


ENGINE = engine(pool_size=4)


def case(name):
    return lambda f: CASES.append((name, f))


def role(name):
    return lambda f: ROLES.setdefault(name, f)


def show(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def failing(function, *arguments, **more):
    try:
        return show(function(*arguments, **more))
    except Exception as e:  # an error is part of the result
        e = getattr(e, "orig", None) or e
        return f"!{type(e).__name__} {getattr(e, 'pgcode', '')} {str(e).splitlines()[0] if str(e) else ''}"


def look(sql):
    with ENGINE.connect() as c:
        return [list(r) for r in c.execute(sa.text(sql))]


def config(folder, connection, versions):
    """A folder as `alembic init` makes it."""
    os.makedirs(os.path.join(folder, "versions"), exist_ok=True)
    with open(os.path.join(folder, "env.py"), "w", encoding="utf-8") as f:
        f.write(ENVIRONMENT)
    for name, (down, up_text, down_text) in versions.items():
        def body(text):
            return textwrap.indent(textwrap.dedent(text).strip(), "    ")
        with open(os.path.join(folder, "versions", f"{name}.py"), "w", encoding="utf-8") as f:
            f.write(f"import sqlalchemy as sa\nfrom alembic import op\nfrom sqlalchemy.dialects import postgresql\n"
                    f"revision = {name!r}\ndown_revision = {down!r}\n\n\ndef upgrade():\n{body(up_text)}\n\n\ndef downgrade():\n{body(down_text)}\n")
    c = Config(stdout=io.StringIO())
    c.set_main_option("script_location", folder)
    c.attributes["connection"] = connection
    return c


def deploy(what, target, more=None):
    """Alembic has no lock of its own: deployments hold an advisory lock meanwhile."""
    with tempfile.TemporaryDirectory() as folder, ENGINE.connect() as lock, ENGINE.connect() as c:
        while not lock.execute(sa.text(f"SELECT pg_try_advisory_lock({LOCK})")).scalar():
            lock.rollback()
            time.sleep(0.05)
        # (no transaction may stay open: an index that is built concurrently waits for it)
        lock.commit()
        try:
            what(config(folder, c, {**VERSIONS, **(more or {})}), target)
            c.commit()
            return MigrationContext.configure(c).get_current_revision()
        finally:
            c.rollback()
            lock.execute(sa.text(f"SELECT pg_advisory_unlock({LOCK})"))
            lock.commit()


@role("migrate")
def migrate():
    return deploy(command.upgrade, "head")


@role("hang")
def hang():
    return deploy(command.upgrade, "head", HANGS)


@role("work")
def work(dies, throws):
    dies, throws = int(dies), int(throws)
    while True:
        try:
            with ENGINE.begin() as c:
                job = c.execute(sa.text("SELECT id, tries FROM job WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")).first()
                if job is None:
                    if not c.execute(sa.text("SELECT count(*) FROM job WHERE state = 'new'")).scalar():
                        return "no more jobs"
                    continue
                c.execute(sa.text("UPDATE job SET state = 'done', tries = tries + 1 WHERE id = :id"), {"id": job.id})
                c.execute(sa.text("INSERT INTO effect VALUES (:id)"), {"id": job.id})
                if job.id == dies:
                    print("mid-job", flush=True)
                    time.sleep(60)
                if job.id == throws and job.tries == 0:
                    raise RuntimeError("this job throws")
        except RuntimeError:
            with ENGINE.begin() as c:
                c.execute(sa.text("UPDATE job SET tries = tries + 1 WHERE id = :id"), {"id": throws})


class Helper:
    """A process that is ready for its role and waits for a line."""

    def __init__(self, *arguments):
        self.popen = subprocess.Popen([sys.executable, __file__, *map(str, arguments)], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.heard = []
        self.hear("ready")

    def hear(self, text):
        for line in self.popen.stdout:
            self.heard.append(line.rstrip("\n"))
            if self.heard[-1] == text:
                return True
        return False

    def go(self):
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()
        return self

    def kill(self):
        self.popen.send_signal(signal.SIGKILL)
        return self.popen.wait()

    def result(self):
        self.hear("(nothing)")
        self.popen.wait()
        return self.heard[-1]


def together(count, *arguments):
    helpers = [Helper(*arguments) for _ in range(count)]
    for h in helpers:
        h.go()
    results = [h.result() for h in helpers]
    return ", ".join(f"{results.count(r)}x {r}" for r in sorted(set(results)))


def schema():
    i = sa.inspect(ENGINE)
    out = []
    for t in sorted(set(i.get_table_names()) - {"greeting"}):
        if t.startswith("pgbench"):
            continue
        out.append([t, [[c["name"], str(c["type"]), c["nullable"], c["default"]] for c in i.get_columns(t)], i.get_pk_constraint(t)["constrained_columns"],
                    [[f["name"], f["referred_table"], f["options"]] for f in i.get_foreign_keys(t)], sorted([x["name"], x["column_names"], x["unique"]] for x in i.get_indexes(t)),
                    [c["sqltext"] for c in i.get_check_constraints(t)]])
    return out + [i.get_enums()]


@case("three migrate at once")
def _():
    return [together(3, "migrate"), look("SELECT version_num FROM alembic_version"), schema()]


@case("down, up, history, stamp, offline")
def _():
    out = [deploy(command.downgrade, "-1"), deploy(command.downgrade, "one"), schema(), deploy(command.upgrade, "+1"), deploy(command.stamp, "one"), deploy(command.stamp, "two"),
           deploy(command.downgrade, "base"), schema(), deploy(command.upgrade, "head")]
    with tempfile.TemporaryDirectory() as folder, ENGINE.connect() as c:
        script = ScriptDirectory.from_config(config(folder, c, VERSIONS))
        out.append([r.revision for r in script.walk_revisions()])
    return out


@case("a migration that fails, a migrator that is killed")
def _():
    out = [failing(deploy, command.upgrade, "head", BAD), look("SELECT to_regclass('bad'), version_num FROM alembic_version")]
    h = Helper("hang").go()
    return out + [h.hear("in it"), h.kill(), together(3, "migrate"), look("SELECT to_regclass('half'), version_num FROM alembic_version")]


@case("autogenerate")
def _():
    metadata = sa.MetaData()
    sa.Table("person", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(120), nullable=True, unique=True), sa.Column("more", postgresql.JSONB), sa.Column("new", sa.Date))
    sa.Table("fresh", metadata, sa.Column("id", sa.Integer, primary_key=True))
    with ENGINE.connect() as c:
        found = compare_metadata(MigrationContext.configure(c, opts={"compare_type": True, "compare_server_default": True}), metadata)
    def name(d):
        return [name(x) for x in d] if isinstance(d, list) else [d[0], *(getattr(x, "name", None) or str(x) for x in d[1:] if not isinstance(x, dict))]
    return sorted(show(name(d)) for d in found if "pgbench" not in str(d) and "greeting" not in str(d))


Base = declarative_base()


class Person(Base):
    __tablename__ = "person"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String)
    mood = sa.Column(postgresql.ENUM("sad", "ok", "happy", "angry", name="mood", create_type=False), server_default="ok")
    tags = sa.Column(postgresql.ARRAY(sa.Text))
    more = sa.Column(postgresql.JSONB)
    pets = relationship("Pet", back_populates="owner", cascade="all, delete-orphan", order_by="Pet.name")


class Pet(Base):
    __tablename__ = "pet"
    id = sa.Column(sa.BigInteger, primary_key=True)
    owner_id = sa.Column(sa.ForeignKey("person.id"))
    name = sa.Column(sa.Text)
    heft = sa.Column(sa.Numeric(8, 2))
    owner = relationship("Person", back_populates="pets")


@case("sessions: relations, upserts, savepoints, batches, streams")
def _():
    out = []
    with Session(ENGINE, future=True) as s:
        s.add(Person(name="Linus", mood="sad", tags=["x", "y,z", None], more={"ü": [1, {"a": None}]}, pets=[Pet(id=1000, name="Tux", heft=12.5), Pet(id=1001, name="Gnu")]))
        s.commit()
        linus = s.execute(sa.select(Person).where(Person.tags.contains(["x"]), Person.more["ü"][0].astext == "1")).scalar_one()
        out.append([linus.name, linus.mood, linus.tags, linus.more, [(p.name, p.heft) for p in linus.pets]])
        with s.begin_nested() as nested:
            s.add(Pet(id=1002, name="rolled back", owner=linus))
            s.flush()
            nested.rollback()
        def twice():
            with s.begin_nested():
                s.add(Pet(id=1000, name="again"))
                s.flush()
        out.append(failing(twice))
        s.commit()
        insert = postgresql.insert(Person).values([{"name": "Ada", "mood": "happy"}, {"name": "Barbara", "mood": "ok"}])
        out.append([list(r) for r in s.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"mood": insert.excluded.mood}).returning(Person.name, Person.mood))])
        s.execute(sa.insert(Pet), [{"id": n, "name": f"bulk {n}", "heft": n} for n in range(2000, 4500)])
        s.commit()
        total = 0
        for row in s.execute(sa.select(Pet.heft).where(Pet.id >= 2000).execution_options(yield_per=100)):
            total += row.heft
        out.append([total, s.execute(sa.delete(Pet).where(Pet.id >= 2000)).rowcount])
        s.delete(linus)
        s.execute(sa.delete(Person).where(Person.name == "Barbara"))
        s.commit()
        out.append([s.execute(sa.select(sa.func.count()).select_from(Pet)).scalar(), [list(r) for r in s.execute(sa.select(Person.name, Person.mood).order_by("name"))]])
    return out


@case("isolation, two-phase, listen, COPY, temporary tables, pool")
def _():
    out = []
    for level in ("AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        with ENGINE.connect().execution_options(isolation_level=level) as c:
            out.append(c.execute(sa.text("SHOW transaction_isolation")).scalar())
    with ENGINE.connect() as c:
        raw = c.connection.dbapi_connection
        with raw.cursor() as cursor:
            cursor.copy_expert("COPY pet (id, name, heft) FROM STDIN", io.StringIO("".join(f"{n}\tcopied\t{n}\n" for n in range(5000, 6000))))
            out.append(cursor.rowcount)
            raw.commit()
            out.append(failing(cursor.copy_expert, "COPY pet (id) FROM STDIN", io.StringIO("".join(f"{n}\n" for n in range(5999, 9000)))))
            raw.rollback()
            to = io.StringIO()
            cursor.copy_expert("COPY (SELECT id FROM pet WHERE name = 'copied' ORDER BY id LIMIT 3) TO STDOUT WITH CSV", to)
            out.append(to.getvalue())
            cursor.execute("DELETE FROM pet WHERE name = 'copied'")
            raw.commit()
            cursor.execute("CREATE TEMPORARY TABLE mine AS SELECT 42 AS v")
            raw.commit()
            cursor.execute("SELECT v FROM mine")
            out.append(cursor.fetchone())
            cursor.execute("DROP TABLE mine")
            cursor.execute("LISTEN news")
            raw.commit()
            with ENGINE.begin() as other:
                other.execute(sa.text("SELECT pg_notify('news', 'ü')"))
            for _ in range(1000):
                raw.poll()
                if raw.notifies:
                    break
                time.sleep(0.02)
            out.append([n.payload for n in raw.notifies])
            cursor.execute("UNLISTEN *")
            raw.commit()
    small = engine(pool_size=2, max_overflow=1, pool_timeout=0.3, pool_pre_ping=True, connect_args={"application_name": "alembic pool", "options": "-c statement_timeout=7000"})
    results = []
    def some():
        for _ in range(20):
            with small.connect() as c:
                results.append(tuple(c.execute(sa.text("SELECT current_setting('application_name'), current_setting('statement_timeout'), 40 + :n"), {"n": 2}).first()))
    threads = [threading.Thread(target=some) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    held = [small.connect() for _ in range(3)]
    out += [len(results), sorted(set(results)), failing(lambda: small.connect().execute(sa.text("SELECT 1")).scalar()).split(" (")[0]]
    for c in held:
        c.close()
    out.append(failing(lambda: small.connect().execute(sa.text("SELECT 'again'")).scalar()))
    small.dispose()
    return out


@case("jobs with skip locked: one worker is killed, one job throws")
def _():
    with ENGINE.begin() as c:
        c.execute(sa.text("INSERT INTO job (id) SELECT g FROM generate_series(1, 60) g"))
    doomed = Helper("work", 1, 0).go()
    return [doomed.hear("mid-job"), doomed.kill(), together(3, "work", 0, 7), look("SELECT state, tries > 1, count(*) FROM job GROUP BY 1, 2 ORDER BY 1, 2"), look("SELECT count(*), count(DISTINCT job) FROM effect")]


def main():
    if len(sys.argv) > 1:
        print("ready", flush=True)
        sys.stdin.readline()
        print(failing(ROLES[sys.argv[1]], *sys.argv[2:]), flush=True)
        return
    only, skip = (set(filter(None, os.environ.get(v, "").split("|"))) for v in ("DRIVERS_ONLY", "DRIVERS_SKIP"))
    for name, run in CASES:
        if (only and name not in only) or name in skip:
            continue
        print(f"> {name}", flush=True)
        try:
            text = " ; ".join(show(r) for r in run())
        except Exception as e:
            text = f"!! {failing(lambda e=e: (_ for _ in ()).throw(e))}"
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        print(f"{name}\t{text}", flush=True)


main()
