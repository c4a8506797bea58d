"""Session mode: a connection through the gate and one past it are told the same, to the letter.
The server gets the client's startup packet, so that RESET goes back to it."""
# SPDX-License-Identifier: Apache-2.0
import select
import struct

import pytest

from stand import proc, wire

SESSION = "acme_session"


@pytest.fixture
def past_the_gate(stand, connect):
    """past_the_gate(...): a connection straight to a node, logged in."""
    opened = []

    def get(user="acme_rw", **parameters):
        node = stand.nodes[0]
        c = wire.Client((node.host, node.port), "request", ca=stand.authority.crt)
        opened.append(c)
        return c.login(user, "acme", stand.postgres.passwords[user], **parameters)
    yield get
    for c in opened:
        c.close()


STARTUPS = [
    {},
    {"application_name": "ledger", "TimeZone": "Asia/Tokyo", "DateStyle": "German"},
    {"options": "-c search_path=pg_catalog -c statement_timeout=4321 --work-mem=2MB", "client_encoding": "LATIN1"},
    {"options": "-e -fs -S 128 -c app.tenant=one\\ word", "datestyle": "SQL"},
    {"role": "acme_rw", "extra_float_digits": "2", "IntervalStyle": "postgres_verbose"},
]
SCRIPT = [
    "SHOW application_name", "SHOW TimeZone", "SHOW DateStyle", "SHOW search_path", "SHOW work_mem",
    "SET TimeZone = 'America/Lima'", "SET application_name = 'other'", "SET DateStyle = ISO",
    "SET search_path = public", "SET statement_timeout = 1", "SET statement_timeout = '1min'",
    "RESET TimeZone", "RESET search_path", "SHOW TimeZone", "SHOW search_path",
    "SET LOCAL TimeZone = 'UTC'", "BEGIN", "SET TimeZone = 'UTC'", "ROLLBACK", "SHOW TimeZone",
    "SET DateStyle TO DEFAULT", "SHOW DateStyle", "RESET ALL", "SHOW statement_timeout",
    "SHOW application_name", "SET IntervalStyle = iso_8601", "SELECT interval '1 day 2 hours'",
    "SET client_encoding = UTF8", "SET app.tenant = 'two'", "SHOW app.tenant", "DISCARD ALL",
    "SELECT current_setting('app.tenant', true)", "SHOW client_encoding", "SELECT interval '1 day 2 hours'",
    "SHOW statement_timeout", "SHOW search_path", "SHOW DateStyle", "SHOW enable_seqscan", "SHOW nothing_such",
    "SELECT name, setting, source FROM pg_settings WHERE source IN ('client', 'session') ORDER BY 1",
]


def transcript(c):
    """All that the server says to SCRIPT, but for what may be told in any order or differs by
    nature."""
    said = [sorted(c.parameters.items())]
    for sql in SCRIPT:
        said.append([(kind, wire.error_fields(body).get("M") if kind in "EN" else body)
                     for kind, body in c.ask(wire.query(sql))])
    return said


@pytest.fixture(scope="module")
def reusing(module_gate):
    return module_gate({f"database {SESSION}": {"session_reuse": "on"}})


@pytest.mark.parametrize("startup", STARTUPS, ids=range(len(STARTUPS)))
@pytest.mark.parametrize("reuse", ["off", "on"])
def test_a_session_is_told_what_it_is_told_without_a_gate(gate, reusing, login, past_the_gate, reuse, startup):
    expected = transcript(past_the_gate(**startup))
    for time in ("first", "second"):
        c = login(reusing if reuse == "on" else gate, SESSION, **startup)
        assert transcript(c) == expected, time
        c.close()


BAD = [
    {"nonsense": "1"}, {"statement_timeout": "soon"}, {"work_mem": "-3"}, {"DateStyle": "Martian"},
    {"TimeZone": "Nowhere/Land"}, {"client_encoding": "KLINGON"}, {"is_superuser": "on"},
    {"log_connections": "on"}, {"shared_buffers": "1GB"}, {"role": "nobody_such"},
    {"transaction_isolation": "loud"}, {"options": "-c nonsense=1"}, {"options": "-c"}, {"options": "-x"},
    {"options": "-c work_mem"}, {"options": "--work-mem"}, {"options": "stray"}, {"options": "-B 12"},
    {"options": "-f z"}, {"session_authorization": "postgres"}, {"replication": "perhaps"},
    {"search_path": "\"unfinished"}, {"default_transaction_isolation": "loud"},
]


def refusal(get):
    try:
        get()
    except wire.ServerError as e:
        return {field: e.fields.get(field) for field in "SVCMDH"}
    return None


@pytest.mark.parametrize("bad", BAD, ids=lambda b: "-".join(map(str, *b.items())))
def test_errors_of_the_startup_packet_are_the_servers_own(gate, login, past_the_gate, stand, database, bad):
    expected = refusal(lambda: past_the_gate(**bad))
    got = refusal(lambda: login(gate, database, **bad))
    if "session_authorization" in bad and stand.postgres.version <= 11 and database != SESSION:
        # Such a server passes it over in a startup packet, without a word. In transaction mode it
        # is a SET, which the server refuses: better than to be somebody else than was asked for.
        assert expected is None and (got["S"], got["C"]) == ("FATAL", "42501")
    else:
        assert got == expected
    # Nobody else is hurt.
    assert login(gate, database).query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("startup", [{"ignore_system_indexes": "on"}, {"options": "-P"}], ids=["name", "switch"])
def test_what_only_a_startup_packet_may_set_is_set(make_gate, login, database, startup):
    gate = make_gate({f"database {database}": {"pool_size": 1}})
    for value, more in (("on", startup), ("off", {}), ("on", startup)):
        c = login(gate, database, **more)
        assert c.query("SHOW ignore_system_indexes") == [[value]]
        c.close()


def test_startup_order_is_options_first(gate, login, database):
    for parameters in ({"options": "-c work_mem=1MB", "work_mem": "2MB"},
                       {"work_mem": "2MB", "options": "-c work_mem=1MB"}):
        assert login(gate, database, **parameters).query("SHOW work_mem") == [["2MB"]]


def pid_of(c):
    return c.query("SELECT pg_backend_pid()")[0][0]


def test_the_next_session_of_the_same_kind_gets_the_connection(make_gate, login):
    gate = make_gate({f"database {SESSION}": {"pool_size": 2, "session_reuse": "on"}})
    pids = set()
    for _ in range(4):
        c = login(gate, SESSION, application_name="one")
        pids.add(pid_of(c))
        assert c.key[0] == int(pid_of(c))
        c.query("SET work_mem = '3MB'; CREATE TEMP TABLE left_over (i int)")
        c.close()
    assert len(pids) == 1
    c = login(gate, SESSION, application_name="another")
    assert pid_of(c) not in pids
    assert c.query("SHOW application_name") == [["another"]]


def test_session_of_another_kind_takes_the_room_of_an_idle_connection(make_gate, login):
    gate = make_gate({f"database {SESSION}": {"pool_size": 1, "session_reuse": "on"}})
    for n in range(6):
        c = login(gate, SESSION, application_name=f"kind {n % 3}")
        assert c.query("SHOW application_name") == [[f"kind {n % 3}"]]
        c.close()


def come(c, secret, **parameters):
    """A login that will have to wait."""
    c.startup("acme_rw", SESSION, **parameters)
    assert c.expect("R") == struct.pack("!i", 3)
    c.send(wire.password(secret))
    return c


def test_waiting_sessions_of_two_kinds_all_come_in(make_gate, login, connect, token):
    gate = make_gate({f"database {SESSION}": {"pool_size": 1, "session_reuse": "on"}})
    holder = login(gate, SESSION, application_name="kind 0")
    waiting = []
    for n in range(8):
        waiting.append(come(connect(gate), token(), application_name=f"kind {n % 3}"))
    holder.close()
    seen = []
    while waiting:
        ready, _, _ = select.select([c.socket for c in waiting], [], [], 20 * proc.PATIENCE)
        assert len(ready) == 1, "one is let in at a time"
        c = next(c for c in waiting if c.socket is ready[0])
        c.until_ready()
        seen.append(c.query("SHOW application_name")[0][0])
        waiting.remove(c)
        c.close()
    assert sorted(seen) == sorted(f"kind {n % 3}" for n in range(8))


def test_refused_startup_does_not_hold_up_those_who_wait(make_gate, login, connect, token):
    gate = make_gate({f"database {SESSION}": {"pool_size": 1, "session_reuse": "on"}})
    holder = login(gate, SESSION)
    bad, good = come(connect(gate), token(), nonsense="1"), come(connect(gate), token())
    holder.close()
    with pytest.raises(wire.ServerError) as e:
        bad.until_ready()
    assert e.value.fields["C"] == "42704"
    good.until_ready()
    assert good.query("SELECT 1") == [["1"]]


def test_parameters_the_server_changes_while_nobody_looks_are_told(make_gate, login, stand):
    gate = make_gate({f"database {SESSION}": {"pool_size": 1, "session_reuse": "on"}})
    c = login(gate, SESSION)
    pid = pid_of(c)
    try:
        stand.postgres.sql("ALTER SYSTEM SET IntervalStyle = 'sql_standard'")
        stand.postgres.sql("SELECT pg_reload_conf()")
        while c.query("SHOW IntervalStyle") != [["sql_standard"]]:
            pass
        c.close()
        c = login(gate, SESSION)
        assert pid_of(c) == pid
        assert c.parameters["IntervalStyle"] == "sql_standard"
    finally:
        stand.postgres.sql("ALTER SYSTEM RESET IntervalStyle")
        stand.postgres.sql("SELECT pg_reload_conf()")
    while c.query("SHOW IntervalStyle") != [["postgres"]]:
        pass
