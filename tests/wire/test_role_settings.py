"""ALTER ROLE ... SET and ALTER DATABASE ... SET in transaction mode: as on the server, who has logged in
keeps what was in force then, and who logs in gets what is in force now, whichever server connection, opened
before or after, serves either."""
# SPDX-License-Identifier: Apache-2.0
import pytest

import fake
from stand import proc, wire

# A setting, three values of it as SHOW has them.
SETTINGS = {"search_path": ("pg_catalog", "public, pg_catalog", "information_schema"), "statement_timeout": ("71s", "72s", "73s"),
            "work_mem": ("5MB", "6MB", "7MB"), "app.x": ("one", "two", "three"), "timezone": ("Asia/Tokyo", "Europe/Rome", "Asia/Kabul"),
            "datestyle": ("SQL, DMY", "German, DMY", "ISO, YMD")}
SCOPES = ["ROLE acme_rw", "DATABASE acme", "ROLE acme_rw IN DATABASE acme"]


@pytest.fixture
def alter(stand):
    """alter(scope, name, value): a superuser does it, past the gateway; all is undone at the end."""
    def do(scope, name, value=None):
        what = f"RESET {name}" if value is None else f"SET {name} TO " + ", ".join(f"'{v.strip()}'" for v in (
            value.split(",") if name == "search_path" else [value]))
        stand.postgres.sql(f"ALTER {scope} {what}", "acme")

    yield do
    for scope in SCOPES:
        stand.postgres.sql(f"ALTER {scope} RESET ALL", "acme")


@pytest.fixture
def two(make_gate):
    return make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


def show(c, name):
    return c.query(f"SELECT coalesce(current_setting('{name}', true), '')")[0][0]


def each_connection(c, others, name):
    """What the session has on whichever connection it gets: the others take each for a while."""
    seen = set()
    for n in range(4):
        held = others[n % len(others)]
        held.query("BEGIN")
        seen.add(show(c, name))
        held.query("COMMIT")
        seen.add(show(c, name))
    return seen


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("change", ["anew", "changed", "reset"])
def test_sessions_keep_what_was_in_force_when_they_logged_in(two, login, alter, scope, name, change):
    first, second, _ = SETTINGS[name]
    if change != "anew":
        alter(scope, name, first)
    before, silent, own = login(two), login(two), login(two)
    had = show(before, name)
    assert change == "anew" or had == first
    own.query(f"SELECT set_config('{name}', '{SETTINGS[name][2]}', false)")
    alter(scope, name, None if change == "reset" else second)
    after, other = login(two), login(two)
    now = show(after, name)
    assert now != had and (change == "reset" or now == second)
    assert each_connection(after, [before, other], name) == {now}
    assert each_connection(before, [after, other], name) == {had}
    assert each_connection(silent, [after, other], name) == {had}, "it had not asked for anything before"
    assert each_connection(own, [after, other], name) == {SETTINGS[name][2]}
    for c, value in ((before, had), (own, had), (after, now)):
        for text in (f"RESET {name}", "DISCARD ALL", "RESET ALL"):
            c.query(f"SELECT set_config('{name}', '{SETTINGS[name][2]}', false)")
            c.query(text)
            assert show(c, name) == value, text
            assert each_connection(c, [other], name) == {value}, text


def test_each_of_several_changes_is_for_those_behind_it(two, login, alter):
    sessions = []
    for value in ("11s", "12s", "13s", None):
        alter(SCOPES[0], "statement_timeout", value)
        c = login(two)
        sessions.append((c, show(c, "statement_timeout")))
    assert [value for _, value in sessions] == ["11s", "12s", "13s", "0"]
    for _ in range(3):
        for c, value in sessions:
            assert each_connection(c, [sessions[0][0] if c is not sessions[0][0] else sessions[1][0]], "statement_timeout") == {value}


def test_new_session_is_told_what_is_in_force_now(two, login, alter):
    before = login(two)
    assert show(before, "timezone") == "UTC"
    alter(SCOPES[0], "timezone", "Asia/Tokyo")
    after = login(two)
    assert show(after, "timezone") == "Asia/Tokyo" and after.parameters["TimeZone"] == "Asia/Tokyo"
    own = login(two, TimeZone="Asia/Kabul")
    assert show(own, "timezone") == "Asia/Kabul" and own.parameters["TimeZone"] == "Asia/Kabul"
    assert show(before, "timezone") == "UTC" and before.parameters["TimeZone"] == "UTC"
    assert login(two).parameters["TimeZone"] == "Asia/Tokyo"


def settings(value):
    """The catalog's answer: the role has this work_mem."""
    return fake.columns("setdatabase", "setrole", "c", "name", "value") + fake.row("0", "1", f"work_mem={value}", "work_mem", value) + \
        fake.done() + fake.ready()


def test_connection_that_logged_in_before_a_change_that_it_tells_of_is_not_used(make_gate, login):
    """ALTER ROLE between a connection's login and the question what its role's settings are: they are not
    those that it has."""
    server = fake.FakeServer(lambda kind, body: fake.done() + fake.ready())
    server.role_settings = lambda number: settings("1MB" if number == 1 else "2MB")
    try:
        gate = make_gate({"cluster main": fake.cluster(server), "postern": {"workers": 1},
                          "database acme": {"pool_size": 2, "shards": 1}})
        first, second = login(gate), login(gate)
        first.query("BEGIN /* it stays on the first */")
        server.answer = lambda kind, body: fake.done() + fake.ready("T")
        first.query("SELECT 1")
        server.answer = lambda kind, body: fake.done() + fake.ready()
        second.query("SELECT 'of the second'")
        heard = [number for number, _, body in server.heard if b"of the second" in body]
        assert heard == [len(server.startups)] and heard[0] > 2, "the first connection that said 2MB logged in before that was known"
    finally:
        server.close()


def test_transaction_and_pin_go_on_where_they_are(two, login, alter):
    busy, pinned = login(two), login(two)
    busy.query("BEGIN")
    pinned.query("CREATE TEMP TABLE kept AS SELECT 1 AS v")
    alter(SCOPES[0], "work_mem", "9MB")
    assert show(busy, "work_mem") == "4MB" and pinned.query("SELECT v FROM kept") == [["1"]]
    busy.query("COMMIT")
    after = login(two)
    assert show(after, "work_mem") == "9MB" and show(busy, "work_mem") == "4MB"
    assert pinned.query("SELECT v FROM kept") == [["1"]] and show(pinned, "work_mem") == "4MB"
    pinned.query("DROP TABLE kept")
    assert each_connection(pinned, [after], "work_mem") == {"4MB"}


def test_what_only_a_superuser_may_set_does_not_lock_sessions_out(two, login, alter):
    before = login(two)
    assert show(before, "log_min_duration_statement") == "-1"
    alter(SCOPES[0], "log_min_duration_statement", "5s")
    assert show(login(two), "log_min_duration_statement") == "5s"
    assert before.query("SELECT 1") == [["1"]]


def test_catalog_that_may_not_be_read_is_said(make_gate, login, stand):
    stand.postgres.sql("REVOKE SELECT ON pg_catalog.pg_db_role_setting FROM PUBLIC", "acme")
    try:
        gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
        assert login(gate).query("SELECT 1") == [["1"]]
        gate.await_log("the settings of the role could not be read")
    finally:
        stand.postgres.sql("GRANT SELECT ON pg_catalog.pg_db_role_setting TO PUBLIC", "acme")


def test_steady_state_asks_nothing(two, login, stand):
    """Only the login does: a statement more or less would show in the server's own count."""
    c = login(two)
    c.query("SELECT 1")
    c.query("SELECT pg_stat_force_next_flush()" if stand.postgres.sql("SHOW server_version_num")[0][0] >= "150000" else "SELECT 1")

    def count():
        return int(c.query("SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = current_database()")[0][0])
    queries = two.metrics()
    for _ in range(50):
        c.query("SELECT 1")
    after = two.metrics()
    name = next(n for n in after if "variable_replays" in n)
    assert after[name] == queries[name]
    assert count() >= 0


def test_settings_that_silent_sessions_had_are_paid_for(make_gate, login, alter):
    """Each session stays with what was in force at its login: with large settings, changed for each, that is much for a
    client that does nothing. The tenant pays, and beyond that it does not keep them."""
    kb = 1 << 10
    gate = make_gate({"postern": {"workers": 1, "tenant_memory_limit": "1MB"}, "database acme": {"pool_size": 2, "shards": 1}})

    def used():
        return int(float(gate.metrics().get('postern_tenant_memory_bytes{tenant="acme"}', 0)))

    crowd, steps = [login(gate)], []
    for n in range(12):
        alter("ROLE acme_rw", "app.x", f"{n} " + "x" * 120 * kb)
        crowd.append(login(gate))
        assert crowd[-1].query("SELECT 1") == [["1"]]
        steps.append(used())
    assert steps[3] > 3 * 80 * kb
    assert max(steps) <= 1024 * kb
    gate.await_log("they find no room in the tenant's memory")
    for c in crowd:
        assert c.query("SELECT length(current_setting('app.x', true)) > -1")
        assert used() <= 1024 * kb, "as variables of its own"
    for c in crowd:
        c.close()
    alter("ROLE acme_rw", "app.x")
    with login(gate) as c:
        assert c.query("SELECT coalesce(current_setting('app.x', true), '')") == [[""]]
    proc.wait_for("the memory to be given back", 20, lambda: used() == 0)
