"""The first messages of a connection, well formed and not."""
# SPDX-License-Identifier: Apache-2.0
import struct
import time

import pytest

from stand import proc, wire

GOOD = {"user": "acme_rw", "database": "acme"}


def test_startup_byte_by_byte(gate, connect, token):
    c = connect(gate)
    for byte in wire.startup(GOOD):
        c.send(bytes([byte]))
    assert c.expect("R") == struct.pack("!i", 3)
    for byte in wire.password(token()):
        c.send(bytes([byte]))
    c.until_ready()
    assert c.query("SELECT 1") == [["1"]]


def test_login_and_query_all_at_once(gate, connect, token):
    c = connect(gate)
    c.send(wire.startup(GOOD), wire.password(token()), wire.query("SELECT 'both'"))
    c.until_ready()
    assert wire.rows(c.until("Z")) == [["both"]]


def test_server_parameters_are_reported(gate, login):
    c = login(gate)
    for name in ("server_version", "client_encoding", "DateStyle", "TimeZone",
                 "standard_conforming_strings", "integer_datetimes", "server_encoding"):
        assert name in c.parameters, name
    assert c.parameters["server_version"].startswith("15.")


def test_application_name_reaches_the_database(gate, login, database):
    c = login(gate, database, application_name="ledger")
    assert c.query("SHOW application_name") == [["ledger"]]
    assert c.parameters["application_name"] == "ledger"


@pytest.mark.parametrize("name,value,shown", [
    ("extra_float_digits", "2", "2"), ("statement_timeout", "12345", "12345ms"),
    ("TimeZone", "Asia/Tokyo", "Asia/Tokyo"), ("DateStyle", "German", "German, DMY"),
    ("search_path", "pg_catalog", "pg_catalog"), ("client_encoding", "LATIN1", "LATIN1")])
def test_startup_settings_hold(gate, login, database, name, value, shown):
    c = login(gate, database, **{name: value})
    for _ in range(3):
        assert c.query(f"SHOW {name}") == [[shown]]


def test_startup_options_hold(gate, login, database):
    c = login(gate, database, options="-c statement_timeout=4321 -c work_mem=2MB")
    assert c.query("SHOW statement_timeout") == [["4321ms"]]
    assert c.query("SHOW work_mem") == [["2MB"]]


@pytest.mark.parametrize("name, value, code", [("no_such_variable", "1", "42704"),
                                               ("work_mem", "much", "22023")])
def test_startup_settings_are_refused_behind_the_login(gate, connect, token, database, name, value,
                                                       code):
    """As the server does: libpq tells the two apart."""
    c = connect(gate)
    c.startup("acme_rw", database, **{name: value})
    c.authenticate(token())
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] == code


def test_startup_settings_do_not_leak_to_others(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    assert login(gate, statement_timeout="777").query("SHOW statement_timeout") == [["777ms"]]
    assert login(gate).query("SHOW statement_timeout") == [["0"]]


def test_database_defaults_to_the_users_name(gate, connect, token):
    c = connect(gate)
    c.send(wire.startup({"user": "acme_rw"}))
    c.send(wire.password(token()))
    fields = _refusal_after_login(c)
    assert fields["C"] == "3D000"


def _refusal_after_login(c):
    kind, _ = c.receive()
    assert kind == "R"
    return c.refusal()


def test_missing_user_is_refused(gate, connect):
    c = connect(gate)
    c.send(wire.startup({"database": "acme"}))
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] in ("28000", "08P01")


@pytest.mark.parametrize("length", [-1, 0, 3, 4, 7, 10001, 2**31 - 1, -2**31])
@pytest.mark.parametrize("tls", ["request", None], ids=["tls", "plain"])
def test_bad_startup_length_is_answered_at_once(gate, connect, length, tls):
    """Four bytes are enough to see it: nothing of the message itself is waited for."""
    c = connect(gate, tls)
    c.send(struct.pack("!i", length))
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] == "08P01"
    assert "timed out" not in fields["M"]


def test_startup_that_does_not_end_in_a_nul_is_refused(gate, connect):
    c = connect(gate)
    body = struct.pack("!i", wire.V30) + b"user\0acme_rw\0database\0acme"
    c.send(struct.pack("!i", len(body) + 4) + body)
    assert c.refusal()["C"] == "08P01"


def test_startup_of_almost_10000_bytes_is_taken(gate, connect, token):
    c = connect(gate).login("acme_rw", "acme", token(), options="-c search_path=" + ",".join(
        ["public"] * 1200))
    assert c.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("version", [2 << 16, 4 << 16, 0, 1])
def test_other_major_versions_are_refused(gate, connect, version):
    c = connect(gate)
    c.send(wire.startup(GOOD, version))
    fields = c.refusal()
    assert fields["S"] == "FATAL" and fields["C"] in ("0A000", "08P01")


def test_http_on_the_postgres_port_ends(gate, connect):
    c = connect(gate, None)
    c.send(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
    try:
        assert c.receive()[0] == "E"
    except (wire.Closed, ConnectionError):
        pass
    assert c.is_closed()


def test_unknown_minor_version_is_negotiated(gate, connect, token):
    c = connect(gate)
    c.startup("acme_rw", "acme", version=3 << 16 | 9999)
    body = c.expect("v")
    assert struct.unpack_from("!ii", body) == (wire.V32, 0)
    c.authenticate(token())
    c.until_ready()
    assert len(c.key[1]) > 4, "the version agreed on is 3.2"
    assert c.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("version", [wire.V30, wire.V32])
def test_unknown_protocol_options_are_negotiated(gate, connect, token, version):
    c = connect(gate)
    c.startup("acme_rw", "acme", version, **{"_pq_.sparkle": "on", "_pq_.glow": "1"})
    body = c.expect("v")
    minor, count = struct.unpack_from("!ii", body)
    assert minor in (version, wire.V32) and count == 2
    assert sorted(body[8:].rstrip(b"\0").split(b"\0")) == [b"_pq_.glow", b"_pq_.sparkle"]
    c.authenticate(token())
    c.until_ready()
    assert c.query("SELECT 1") == [["1"]]


def test_protocol_3_0_has_cancel_keys_of_4_bytes(gate, login, database):
    assert len(login(gate, database).key[1]) == 4


def test_protocol_3_2_has_longer_cancel_keys(gate, login, database):
    c = login(gate, database, version=wire.V32)
    assert c.negotiated is None
    assert 4 < len(c.key[1]) <= 256


def test_keys_of_two_sessions_differ(gate, login):
    assert login(gate).key != login(gate).key


@pytest.mark.parametrize("length", [0, 3, -5, 2**31 - 1])
def test_bad_length_of_the_password_message_is_refused(gate, connect, length):
    c = connect(gate)
    c.startup("acme_rw", "acme")
    assert c.expect("R") == struct.pack("!i", 3)
    c.send(b"p" + struct.pack("!i", length))
    assert c.refusal()["C"] == "08P01"


def test_wrong_message_instead_of_the_password_is_refused(gate, connect):
    c = connect(gate)
    c.startup("acme_rw", "acme")
    c.expect("R")
    c.send(wire.query("SELECT 1"))
    assert c.refusal()["C"] == "08P01"


@pytest.mark.parametrize("length", [0, 3, -1])
def test_bad_length_after_login_ends_the_session(gate, login, database, length):
    c = login(gate, database)
    c.send(b"Q" + struct.pack("!i", length))
    assert c.refusal()["C"] == "08P01"


def test_unknown_message_type_after_login_is_refused(gate, login, database):
    c = login(gate, database)
    c.send(wire.message("y", b"what"))
    kind, body = c.until("E")[-1]
    assert wire.error_fields(body)["C"] == "08P01"


def test_bad_session_leaves_its_neighbours_alone(gate, login):
    good = login(gate)
    bad = login(gate)
    bad.send(b"Q" + struct.pack("!i", 1))
    bad.refusal()
    assert good.query("SELECT 1") == [["1"]]


def test_unknown_startup_parameter_is_answered(gate, connect, token):
    """PostgreSQL refuses a setting that it does not know; the gate must say so too, in the
    login or at the first query, and never hang."""
    c = connect(gate)
    with pytest.raises(wire.ServerError) as caught:
        c.login("acme_rw", "acme", token(), no_such_setting="1").query("SELECT 1")
    assert caught.value.code == "42704"


@pytest.fixture(scope="module")
def impatient(module_gate):
    return module_gate({"postern": {"login_timeout": "1s"}})


@pytest.mark.parametrize("stage", ["silent", "half a startup", "before tls", "after ssl request",
                                   "before the password"])
def test_login_timeout(impatient, connect, stage):
    before = time.monotonic()
    if stage == "silent":
        c = connect(impatient)
    elif stage == "half a startup":
        c = connect(impatient)
        c.send(wire.startup(GOOD)[:9])
    elif stage == "before tls":
        c = connect(impatient, None)
    elif stage == "after ssl request":
        c = connect(impatient, None)
        c.send(wire.SSL_REQUEST)
        assert c.socket.recv(1) == b"S"
    else:
        c = connect(impatient)
        c.startup("acme_rw", "acme")
        c.expect("R")
        fields = c.refusal()
        assert fields["C"] == "57014" and "timed out" in fields["M"] and fields["H"]
    try:
        while True:
            assert c.receive()[0] == "E"
    except (wire.Closed, OSError):
        pass
    assert 0.5 < time.monotonic() - before < 10 * proc.PATIENCE


def test_login_timeout_does_not_end_a_session(impatient, login):
    c = login(impatient)
    assert c.query("SELECT pg_sleep(1.5)") == [[""]]


def test_login_waits_for_no_connection_where_the_answer_is_known(make_gate, login):
    gate = make_gate({"database acme": {"pool_size": 1}})
    login(gate, application_name="first", TimeZone="Asia/Tokyo").query("SELECT 1")
    holder = login(gate)
    holder.query("BEGIN")
    for n in range(3):  # the only connection is in holder's transaction
        c = login(gate, application_name=f"pod {n}", TimeZone="Asia/Tokyo")
        assert c.parameters["application_name"] == f"pod {n}"
        assert c.parameters["TimeZone"] == "Asia/Tokyo"
    assert login(gate).parameters["TimeZone"] == "UTC"
    holder.query("COMMIT")
    assert c.query("SHOW application_name") == [["pod 2"]]


def test_changed_configuration_of_the_server_reaches_new_logins(make_gate, login, stand, database):
    gate = make_gate({f"database {database}": {"pool_size": 1}})

    def wait_until_told(value):
        """The server reads its files at its next command, and reports behind the answer."""
        told = None
        while told != value:
            with login(gate, database) as c:
                told = c.parameters["IntervalStyle"]
                c.query("SELECT 1")

    wait_until_told("postgres")
    try:
        stand.postgres.sql("ALTER SYSTEM SET IntervalStyle = 'sql_standard'")
        stand.postgres.sql("SELECT pg_reload_conf()")
        wait_until_told("sql_standard")
        # It is the server's, not the session's: nothing is replayed when it goes back.
        c = login(gate, database)
        assert c.query("SELECT source FROM pg_settings WHERE name = 'IntervalStyle'") == [["configuration file"]]
        c.close()
    finally:
        stand.postgres.sql("ALTER SYSTEM RESET IntervalStyle")
        stand.postgres.sql("SELECT pg_reload_conf()")
    wait_until_told("postgres")
