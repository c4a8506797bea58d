"""Django's ORM and its migrations, on psycopg2."""
# SPDX-License-Identifier: Apache-2.0
import io
import os
import re
import socket

import django
from django.conf import settings

TLS = {"sslmode": os.environ["PGSSLMODE"], "sslrootcert": os.environ["PGSSLROOTCERT"], "connect_timeout": 20}


def database(**options):
    return {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
            "CONN_MAX_AGE": 60, "OPTIONS": {**TLS, **options}, "ATOMIC_REQUESTS": False}


settings.configure(DATABASES={"default": database(), "options": database(options="-c statement_timeout=31s -c search_path=public,pg_catalog")},
                   INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
                   USE_TZ=True, TIME_ZONE="Europe/Rome", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", SECRET_KEY="x" * 50)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, DatabaseError, models, transaction  # noqa: E402
from django.db.backends.postgresql.base import DatabaseWrapper  # noqa: E402

from harness import case, main, rows  # noqa: E402


class Driver:
    def open(self, options):
        c = DatabaseWrapper({**connections["default"].settings_dict, "OPTIONS": {**TLS, **options}}, alias="case")
        c.inc_thread_sharing()
        c.ensure_connection()
        return c

    def run(self, c, sql, values=None):
        with c.cursor() as cursor:
            cursor.execute(sql, values)
            if cursor.description is None:
                return f"{cursor.statusmessage} {cursor.rowcount}"
            return f"({','.join(d.name for d in cursor.description)}){rows(cursor.fetchall())}"

    def arg(self, c, sql, values):
        return self.run(c, re.sub(r"\$\d+", "%s", sql.replace("%", "%%")), values)

    def close(self, c):
        c.close()

    def error(self, e):
        cause = e.__cause__ or e
        text = re.sub(r"^connection to server .*? failed: ", "", str(e).strip().split("\n")[0])
        return f"!{type(e).__name__} {getattr(cause, 'pgcode', '')} {text}"


D = Driver()


def failing(function, *args):
    try:
        return str(function(*args))
    except Exception as e:
        return D.error(e)


class Thing(models.Model):
    name = models.CharField(max_length=50, unique=True)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(null=True)
    blob = models.BinaryField(null=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)

    class Meta:
        app_label = "cases"
        db_table = "t_django_thing"


class Tables:
    """Thing's table for the time of a case."""

    def __enter__(self):
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS t_django_thing")
        with connection.schema_editor() as editor:
            editor.create_model(Thing)

    def __exit__(self, *_):
        if connection.in_atomic_block is False and connection.is_usable():
            with connection.schema_editor() as editor:
                editor.delete_model(Thing)


@case("migrations there and back")
def migrations():
    out = []
    for target in ((), ("sessions", "zero"), ("auth", "zero"), ("contenttypes", "zero")):
        call_command("migrate", *target, verbosity=0, interactive=False)
        with connection.cursor() as cursor:
            out.append(sorted(t for t in connection.introspection.table_names(cursor) if t.startswith(("auth_", "django_"))))
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS django_migrations")
    return out


@case("users, groups and sessions")
def users():
    call_command("migrate", verbosity=0, interactive=False)
    out = []
    u = User.objects.create_user("ünï", "u@example.com", None)
    g = Group.objects.create(name="g")
    u.groups.add(g)
    out.append(list(User.objects.filter(groups__name="g").values_list("username", flat=True)))
    s = SessionStore()
    s["k"] = [1, 2]
    s.save()
    out.append(SessionStore(s.session_key)["k"])
    out.append(failing(lambda: User.objects.create_user("ünï")))
    out.append(User.objects.filter(username__icontains="Ü").exists())
    out.append(User.objects.count())
    for app in ("sessions", "auth", "contenttypes"):
        call_command("migrate", app, "zero", verbosity=0, interactive=False)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS django_migrations")
    return out


@case("models")
def objects():
    import datetime
    utc = datetime.timezone.utc
    with Tables():
        Thing.objects.bulk_create([Thing(name=f"n{i}", data={"i": i, "l": [None]}, price=i, blob=bytes([i % 256, 0]),
                                         at=datetime.datetime(2024, 2, 29, 12, tzinfo=utc)) for i in range(500)])
        out = [Thing.objects.count(), Thing.objects.filter(data__i__gt=490).count(),
               Thing.objects.aggregate(models.Sum("price")), bytes(Thing.objects.get(name="n7").blob),
               str(Thing.objects.earliest("at").at), list(Thing.objects.order_by("-id").values_list("name", flat=True)[:3]),
               Thing.objects.filter(name="n1").update(price=models.F("price") + 5), Thing.objects.get(name="n1").price,
               Thing.objects.get_or_create(name="n1")[1], Thing.objects.update_or_create(name="new", defaults={"price": 3})[1],
               Thing.objects.filter(price__lt=100).delete()[0]]
    return out


@case("atomic blocks")
def atomic():
    out = []
    with Tables():
        with transaction.atomic():
            Thing.objects.create(name="a")
            try:
                with transaction.atomic():
                    Thing.objects.create(name="b")
                    Thing.objects.create(name="a")
            except DatabaseError as e:
                out.append(D.error(e))
            Thing.objects.create(name="c")
        out.append(list(Thing.objects.order_by("name").values_list("name", flat=True)))

        def broken():
            with transaction.atomic():
                Thing.objects.create(name="d")
                raise RuntimeError("the program fails")
        out.append(failing(broken))
        out.append(Thing.objects.count())
        with transaction.atomic():
            out.append(Thing.objects.select_for_update(skip_locked=True).filter(name="a").count())
            out.append([t.name for t in Thing.objects.select_for_update().order_by("name")])
        done = []
        with transaction.atomic():
            transaction.on_commit(lambda: done.append("committed"))
        out.append(done)
    return out


@case("iterator with a server-side cursor")
def iterator():
    # Outside of a transaction Django declares it WITH HOLD.
    with Tables():
        Thing.objects.bulk_create([Thing(name=f"n{i}") for i in range(1000)])
        out = [sum(len(t.name) for t in Thing.objects.order_by("id").iterator(chunk_size=100))]
        first = Thing.objects.order_by("id").iterator(chunk_size=10)
        second = Thing.objects.order_by("-id").iterator(chunk_size=10)
        out.append([(next(first).name, next(second).name) for _ in range(25)][-1])
        first.close()
        second.close()
        with transaction.atomic():
            out.append(sum(1 for _ in Thing.objects.iterator(chunk_size=7)))
    return out


@case("time zone and options of the connection")
def zone():
    out = []
    for alias in ("default", "options"):
        c = connections[alias]
        for name in ("TimeZone", "statement_timeout", "search_path", "client_encoding"):
            with c.cursor() as cursor:
                cursor.execute(f"SHOW {name}")
                out.append(cursor.fetchone()[0])
        c.close()
    return out


@case("isolation level of the connection")
def isolation():
    import psycopg2.extensions as x
    c = D.open({})
    c.close()
    c.isolation_level = x.ISOLATION_LEVEL_SERIALIZABLE
    out = []
    for options in ({"isolation_level": x.ISOLATION_LEVEL_SERIALIZABLE}, {"isolation_level": x.ISOLATION_LEVEL_REPEATABLE_READ}, {}):
        c = D.open(options)
        c.set_autocommit(False)
        out.append(D.run(c, "SHOW transaction_isolation"))
        c.rollback()
        c.close()
    return out


@case("locks of rows", two=True)
def locks():
    out = []
    with Tables():
        Thing.objects.bulk_create([Thing(name=f"n{i}") for i in range(3)])
        other = D.open({})
        with transaction.atomic():
            out.append(Thing.objects.select_for_update().get(name="n0").name)
            out.append(D.run(other, "SELECT name FROM t_django_thing ORDER BY name FOR UPDATE SKIP LOCKED"))
            out.append(failing(D.run, other, "SELECT name FROM t_django_thing FOR UPDATE NOWAIT"))
        out.append(D.run(other, "SELECT count(*) FROM t_django_thing"))
        other.close()
    return out


@case("hooks of a commit, and savepoints")
def hooks():
    out = []
    with Tables():
        with transaction.atomic():
            transaction.on_commit(lambda: out.append("committed"))
            Thing.objects.create(name="a")
            for n in range(3):
                s = transaction.savepoint()
                Thing.objects.create(name=f"s{n}")
                (transaction.savepoint_rollback if n == 1 else transaction.savepoint_commit)(s)
            out.append("open")
        try:
            with transaction.atomic():
                transaction.on_commit(lambda: out.append("never"))
                Thing.objects.create(name="a")
        except DatabaseError as e:
            out.append(D.error(e))
        out.append(list(Thing.objects.order_by("name").values_list("name", flat=True)))
    return out


@case("bulk changes, conflicts and expressions")
def bulk():
    from django.db.models import Case, F, Value, When
    from django.db.models.functions import Length, Upper
    with Tables():
        Thing.objects.bulk_create([Thing(name=f"n{i}", price=i, data={"k": {"i": i}}) for i in range(300)], batch_size=70)
        out = [len(Thing.objects.bulk_create([Thing(name="n1"), Thing(name="fresh")], ignore_conflicts=True)), Thing.objects.count()]
        things = list(Thing.objects.order_by("id")[:5])
        for t in things:
            t.price += 1
        Thing.objects.bulk_update(things, ["price"])
        out += [str(sum(t.price for t in Thing.objects.order_by("id")[:5])),
                list(Thing.objects.filter(data__k__i__in=[3, 4]).annotate(u=Upper("name"), n=Length("name")).values_list("u", "n").order_by("u")),
                Thing.objects.update(price=Case(When(price__gt=100, then=Value(0)), default=F("price") * 2, output_field=models.DecimalField())),
                str(Thing.objects.aggregate(s=models.Sum("price"), a=models.Avg("price"))),
                Thing.objects.filter(name__regex=r"^n\d{2}$").delete()[0], Thing.objects.count(),
                list(Thing.objects.filter(name="n1").union(Thing.objects.filter(name="n2")).values_list("name", flat=True).order_by("name"))]
    return out


@case("copy and notifications by the driver's own connection")
def raw_connection():
    import io
    out = []
    with Tables():
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY t_django_thing (name, data, price) FROM STDIN",
                               io.StringIO("".join(f"c{i}\t{{}}\t{i}\n" for i in range(1000))))
            out.append(Thing.objects.count())
            cursor.execute("LISTEN dj")
            cursor.execute("NOTIFY dj, 'said'")
            cursor.execute("SELECT 1")
            out.append([(n.channel, n.payload) for n in connection.connection.notifies])
            cursor.execute("UNLISTEN *")
    return out


@case("raw queries and explain")
def raw():
    with Tables():
        Thing.objects.create(name="raw")
        return [[t.name for t in Thing.objects.raw("SELECT * FROM t_django_thing WHERE name = %s", ["raw"])],
                "Scan" in Thing.objects.filter(name="raw").explain()]


@case("connection is used again after its end")
def again():
    out = [connection.is_usable()]
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        out.append(cursor.fetchone())
    connection.close_if_unusable_or_obsolete()
    out.append(connection.connection is not None)
    return out


@case("introspection")
def introspection():
    with Tables():
        with connection.cursor() as cursor:
            i = connection.introspection
            return [sorted((c.name, c.null_ok) for c in i.get_table_description(cursor, "t_django_thing")),
                    i.get_primary_key_column(cursor, "t_django_thing"), len(i.get_constraints(cursor, "t_django_thing")),
                    connection.pg_version]


# As programs do it: a new statement for each execution, in requests with and without ATOMIC.

@case("like a program: new statements, autocommit on")
def program_on():
    out = []
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    for i in range(30):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO t_program VALUES (%s, %s)", [i, f"v{i}"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT v FROM t_program WHERE id = %s", [i])
            out.append(cursor.fetchone()[0])
        if i % 10 == 5:
            out.append(failing(D.run, connection, "INSERT INTO t_program VALUES (%s, 'again')", [i]))
    out.append(D.run(connection, "SELECT count(*), sum(id) FROM t_program"))
    D.run(connection, "DROP TABLE t_program")
    return out


@case("like a program: new statements, autocommit off")
def program_off():
    out = []
    D.run(connection, "DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)")
    for auto in (False, None):
        if auto is False:
            transaction.set_autocommit(False)
        for i in range(20):
            n = i if auto is False else 100 + i

            def request():
                D.run(connection, "INSERT INTO t_program VALUES (%s, %s)", [n, f"v{n}"])
                out.append(D.run(connection, "SELECT v FROM t_program WHERE id = %s", [n]))
                if n % 10 == 5:
                    out.append(failing(D.run, connection, "INSERT INTO t_program VALUES (%s, 'again')", [n]))
                    out.append(failing(D.run, connection, "SELECT 'refused'"))
                if n % 4 == 3:
                    raise ValueError("the request fails")
            if auto is False:
                try:
                    request()
                    transaction.commit()
                except ValueError:
                    transaction.rollback()
            else:
                out.append(failing(transaction.atomic(request)))
        if auto is False:
            transaction.set_autocommit(True)
    out.append(D.run(connection, "SELECT count(*), sum(id) FROM t_program"))
    D.run(connection, "DROP TABLE t_program")
    return out


@case("a copy that fails while its rows are sent")
def copy_fails():
    out = []
    D.run(connection, "DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY)")
    for behind in (1, 50, 100000):
        text = "1\n1\n" + "".join(f"{i}\n" for i in range(2, behind + 2))

        def copy():
            with connection.cursor() as cursor:
                cursor.copy_expert("COPY t_fails FROM STDIN", io.StringIO(text))
        out.append(failing(copy))
        out.append(failing(transaction.atomic(copy)))
        out.append(D.run(connection, "SELECT 'on', count(*) FROM t_fails"))
    D.run(connection, "DROP TABLE t_fails")
    return out


@case("a client that leaves in the middle")
def leaves():
    out = []
    D.run(connection, "DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)")
    connection.close()
    for silent in (True, False):
        c = D.open({})
        c.set_autocommit(False)
        D.run(c, "INSERT INTO t_leaves VALUES (1), (2)")
        if silent:
            with socket.socket(fileno=os.dup(c.connection.fileno())) as s:
                s.shutdown(socket.SHUT_RDWR)
        c.connection.close()
        with transaction.atomic():
            D.run(connection, "LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE")
            out.append(D.run(connection, "SELECT count(*) FROM t_leaves"))
        connection.close()
    D.run(connection, "DROP TABLE t_leaves")
    return out


if __name__ == "__main__":
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    main(D)
