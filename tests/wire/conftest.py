"""What all wire tests share: one stand, one gate for tests that change nothing, and gates of
their own for those that do. POSTERN_BUILD names the build directory, POSTERN_WORKERS how many
workers a gate has, STAND_PATIENCE how much longer everything may take.
"""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import os
import re
import shutil
import signal
import ssl
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)

from stand import proc, wire  # noqa: E402
from stand.nodes import Node  # noqa: E402
from stand.redis import Redis  # noqa: E402
from stand.stand import Stand  # noqa: E402

# A run that is ended by a signal ends what it started, as it does for Ctrl-C.
for _number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(_number, signal.default_int_handler)


def _has_faults():
    """Was the program built with --enable-faults?"""
    build = os.environ.get("POSTERN_BUILD") or os.path.join(os.path.dirname(TESTS), "build")
    try:
        with open(os.path.join(build, "config.h"), encoding="ascii") as f:
            return re.search(r"^#define ENABLE_FAULTS 1", f.read(), re.MULTILINE) is not None
    except FileNotFoundError:
        return False


# What needs a build of its own, or a libpq that Debian has not (tests/versions/install brings it).
collect_ignore = [] if _has_faults() else ["test_reload_faults.py"]
collect_ignore += [] if "POSTERN_LIBPQ" in os.environ else ["test_libpq.py"]

REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
                     r"check failed", re.IGNORECASE)


def end_well(gate):
    """Stops a gate and fails the test when it did not end as it should."""
    status = gate.stop()
    said = gate.log()
    found = REPORTS.search(said)
    assert not found, said[max(0, found.start() - 500):found.start() + 5000]
    assert status == 0, f"the gate ended with status {status}:\n{proc.tail(gate.stderr, 60)}" \
                        f"{proc.tail(gate.log_file, 60)}"


@pytest.fixture(scope="session")
def stand():
    build = os.environ.get("POSTERN_BUILD") or os.path.join(os.path.dirname(TESTS), "build")
    folder = tempfile.mkdtemp(prefix="postern-wire-")
    os.chmod(folder, 0o755)
    it = Stand(folder, build, workers=int(os.environ.get("POSTERN_WORKERS", "2")))
    try:
        yield it.start()
    finally:
        it.gates = []
        it.stop()
        proc.stop_everything()
        if "STAND_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_gate(stand):
    it = stand.gate().start()
    yield it
    end_well(it)


@pytest.fixture
def gate(shared_gate):
    """The gate for tests that leave it as it was."""
    shared_gate.process.need_alive()
    return shared_gate


def _maker(stand):
    made = []

    def make(overrides=None, start=True, **more):
        it = stand.gate(overrides)
        made.append(it)
        return it.start(**more) if start else it
    return made, make


@pytest.fixture
def make_gate(stand):
    """Starts gates with settings of the test's own; each must end well."""
    made, make = _maker(stand)
    yield make
    _end_all(made)


@pytest.fixture(scope="module")
def module_gate(stand):
    """The same, for a whole file of tests."""
    made, make = _maker(stand)
    yield make
    _end_all(made)


@pytest.fixture(scope="module")
def one(module_gate):
    """A gate whose pools have one server connection: everybody follows on everybody."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})


def _end_all(made):
    with contextlib.ExitStack() as stack:
        for it in made:
            stack.callback(end_well, it)


@pytest.fixture
def nodes(stand):
    """Three node addresses of the test's own: it may kill and freeze them."""
    made = []
    for n in (1, 2, 3):
        node = Node(stand.node_program, f"own node {n}", f"127.0.0.1:{stand.postgres.port}",
                    stand.path("log", "own-nodes.log"), f"zone{n}")
        node.start()
        made.append(node)
    yield made
    for node in made:
        node.stop()


def own_cluster(nodes, **more):
    """Overrides of [cluster main] for a gate that knows only these nodes."""
    return {"cluster main": {"hosts": ", ".join(f"{n.host}:{n.port}" for n in nodes),
                             "discovery": "off", "probe_interval": "200ms",
                             "connect_timeout": "1s", **more}}


@pytest.fixture
def one_node(make_gate, nodes):
    """A gate with one server connection, and the node that can be stopped under it."""
    gate = make_gate({"database acme": {"pool_size": 1, "shards": 1}, **own_cluster(nodes[:1]),
                      "postern": {"workers": 1}})
    return gate, nodes[0]


@pytest.fixture
def own_redis(stand):
    """A Redis of the test's own: it may be killed."""
    it = Redis(tempfile.mkdtemp(prefix="redis-", dir=stand.folder), stand.path("log", "own-redis.log"))
    it.start()
    yield it
    it.stop()


def redis_section(redis, **more):
    return {"url": f"redis://127.0.0.1:{redis.port}/0", "password_file": redis.password_file, **more}


TOKENS = {}


@pytest.fixture
def token(stand):
    """token(tenant, role): one that is valid; the same for the same words."""
    def get(tenant="acme", role="rw"):
        if (tenant, role) not in TOKENS:
            TOKENS[tenant, role] = stand.token(tenant, role)
        return TOKENS[tenant, role]
    return get


@pytest.fixture(params=["acme", "acme_session"], ids=["transaction", "session"])
def database(request):
    """acme's database in each pool mode."""
    return request.param


@pytest.fixture
def connect(stand):
    """connect(gate, ...): a raw connection, closed at the end of the test."""
    with contextlib.ExitStack() as stack:
        def get(gate, tls="request", listener="main", **more):
            more.setdefault("ca", stand.authority.crt)
            return stack.enter_context(
                wire.Client(("127.0.0.1", gate.port(listener)), tls, **more))
        yield get


@pytest.fixture
def login(connect, token):
    """login(gate, database, user=..., ...): a raw connection that is logged in."""
    def get(gate, database="acme", user=None, secret=None, version=wire.V30, tls="request",
            listener="main", **parameters):
        tenant = database.split("_")[0]
        user = user or f"{tenant}_rw"
        secret = secret or token(tenant, user.rpartition("_")[2])
        return connect(gate, tls, listener).login(user, database, secret, version, **parameters)
    return get


@pytest.fixture
def directly(stand):
    """directly(...): a session of acme_rw on the server itself, past every gate, to compare with."""
    clients = []

    def get(**parameters):
        c = wire.Client(("127.0.0.1", stand.postgres.port), "request", ca=stand.authority.crt)
        clients.append(c)
        return c.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"], **parameters)
    yield get
    for c in clients:
        c.close()


@pytest.fixture
def psql(stand, token):
    """psql(gate, database, sql, ...): the finished process."""
    def get(gate, database="acme", sql=None, user=None, secret=None, options=(), stdin=None,
            **more):
        tenant = database.split("_")[0]
        user = user or f"{tenant}_rw"
        argv = ["psql", "-XqAt", *options, conninfo(stand, gate, user, database, **more)]
        if sql is not None:
            argv += ["-c", sql]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env["PGPASSWORD"] = secret or token(tenant)
        return proc.run(argv, env=env, stdin=stdin, check=False)
    return get


def conninfo(stand, gate, user, database, **more):
    words = {"host": "localhost", "hostaddr": "127.0.0.1", "port": gate.port(), "user": user,
             "dbname": database, "sslmode": "verify-full", "sslrootcert": stand.authority.crt,
             "connect_timeout": int(20 * proc.PATIENCE), **more}
    return proc.conninfo(**words)


@pytest.fixture
def psycopg2_connect(stand, token):
    import psycopg2
    with contextlib.ExitStack() as stack:
        def get(gate, database="acme", user=None, secret=None, **more):
            tenant = database.split("_")[0]
            c = psycopg2.connect(conninfo(stand, gate, user or f"{tenant}_rw", database),
                                 password=secret or token(tenant), **more)
            stack.callback(c.close)
            return c
        yield get


@pytest.fixture
def psycopg_connect(stand, token):
    import psycopg
    with contextlib.ExitStack() as stack:
        def get(gate, database="acme", user=None, secret=None, **more):
            tenant = database.split("_")[0]
            c = psycopg.connect(conninfo(stand, gate, user or f"{tenant}_rw", database),
                                password=secret or token(tenant), **more)
            stack.callback(c.close)
            return c
        yield get


@pytest.fixture
def with_asyncpg(stand, token):
    """with_asyncpg(gate, database, story): runs `await story(connection)`."""
    import asyncpg

    def run(gate, database, story, **more):
        tenant = database.split("_")[0]

        async def whole():
            context = ssl.create_default_context(cafile=stand.authority.crt)
            c = await asyncpg.connect(host="127.0.0.1", port=gate.port(), user=f"{tenant}_rw",
                                      password=token(tenant), database=database, ssl=context,
                                      timeout=20 * proc.PATIENCE, **more)
            try:
                return await story(c)
            finally:
                await c.close()
        return asyncio.run(whole())
    return run


@pytest.fixture
def console(stand, connect):
    """console(gate): the administrator's connection."""
    def get(gate):
        return connect(gate).login(stand.admin_user, "postern", stand.admin_password)
    return get


@pytest.fixture
def table(stand):
    """A table of acme's own for one test: its name."""
    name = f"t_{os.urandom(5).hex()}"
    stand.postgres.sql(f"CREATE TABLE {name} (id int PRIMARY KEY, words text)", "acme", "acme_rw")
    yield name
    stand.postgres.sql(f"DROP TABLE IF EXISTS {name}", "acme", "acme_rw")


@pytest.fixture(scope="session")
def elsewhere(stand):
    """Another database that acme's roles may use, for those that move."""
    stand.postgres.sql("CREATE DATABASE elsewhere")
    return "elsewhere"


@pytest.fixture
def running(stand):
    """running(text): waits until the database runs a statement that contains the text."""
    def wait(text):
        quoted = text.replace("'", "''")
        return proc.wait_for(f"{text!r} to run", 15, lambda: stand.postgres.sql(
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
            f"AND position('{quoted}' in query) > 0"))
    return wait
