"""The console: the database `postern`, for administrators only."""
# SPDX-License-Identifier: Apache-2.0
import json
import re

import pytest

from stand import proc, wire

COMMANDS = ["VERSION", "HELP", "POOLS", "CLIENTS", "SERVERS", "NODES", "TENANTS", "LIMITS", "STATS",
            "CONFIG"]


def columns(messages):
    body = next(body for kind, body in messages if kind == "T")
    names, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode())
        at = end + 19
    return names


def table(c, command):
    """A command's rows as dictionaries."""
    messages = c.ask(wire.query(command))
    for fields in wire.errors(messages):
        raise wire.ServerError(fields)
    names = columns(messages)
    return [dict(zip(names, row)) for row in wire.rows(messages)]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "HELP"])
def test_show(gate, console, login, command):
    login(gate).query("SELECT 1")
    rows = table(console(gate), f"SHOW {command}")
    assert rows and all(isinstance(name, str) and name for name in rows[0])


@pytest.mark.parametrize("form", ["show pools", "SHOW POOLS;", "  Show   Pools ; ", "SHOW POOLS -- x"])
def test_commands_in_any_case(gate, console, login, form):
    login(gate).query("SELECT 1")
    assert wire.rows(console(gate).ask(wire.query(form)))


def test_help_lists_the_commands(gate, console):
    messages = console(gate).ask(wire.query("SHOW HELP"))
    said = b"".join(body for kind, body in messages if kind in "DN").decode(errors="replace")
    for command in COMMANDS:
        assert command in said.upper()
    assert "RELOAD" in said


def test_pools_tell_who_is_there(gate, console, login):
    held = [login(gate, "globex"), login(gate, "globex")]
    for c in held:
        c.query("SELECT 1")
    rows = [r for r in table(console(gate), "SHOW POOLS") if "globex" in r.values()]
    assert rows and "globex_rw" in rows[0].values()


def test_nodes_are_listed(gate, console, stand):
    said = str(table(console(gate), "SHOW NODES"))
    for node in stand.nodes:
        assert str(node.port) in said


def test_clients_are_listed(gate, console, login):
    c = login(gate, application_name="listed")
    c.query("SELECT 1")
    rows = table(console(gate), "SHOW CLIENTS")
    assert any("acme" in r.values() for r in rows)


def test_config_tells_every_setting(gate, console):
    rows = table(console(gate), "SHOW CONFIG")
    said = [" ".join(str(v) for v in r.values()) for r in rows]
    assert any("queries_per_second" in row and "metered" in row and "20" in row for row in said)
    assert any("pool_mode" in row and "session" in row for row in said)


def test_config_shows_no_secret(gate, console, stand):
    said = str(table(console(gate), "SHOW CONFIG"))
    for secret in [*stand.postgres.passwords.values(), stand.redis.password, stand.admin_password]:
        assert secret not in said


def test_psql_uses_the_console(gate, stand, psql):
    done = psql(gate, "postern", "SHOW VERSION", user=stand.admin_user, secret=stand.admin_password)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_psycopg_uses_the_console(gate, stand, psycopg_connect):
    """psycopg sends BEGIN before what it is asked for, unless in autocommit, and asks by the
    extended protocol when there are parameters."""
    c = psycopg_connect(gate, "postern", user=stand.admin_user, secret=stand.admin_password,
                        autocommit=True)
    assert c.execute("SHOW POOLS").description


def test_driver_that_begins_a_transaction_uses_the_console(gate, stand, psycopg2_connect):
    """Without autocommit it sends BEGIN, which means nothing here, and COMMIT."""
    c = psycopg2_connect(gate, "postern", user=stand.admin_user, secret=stand.admin_password)
    rows = c.cursor()
    for _ in range(2):
        rows.execute("SHOW VERSION")
        assert rows.fetchall()
        c.commit()
        rows.execute("SHOW NODES")
        c.rollback()


def test_transactions_are_answered_as_done(gate, console):
    c = console(gate)
    for sql, tag in (("BEGIN", b"BEGIN\0"), ("start transaction read only;", b"START TRANSACTION\0"), ("COMMIT", b"COMMIT\0"),
                     ("ROLLBACK;", b"ROLLBACK\0"), ("SET x = 1", b"SET\0")):
        messages = c.ask(wire.query(sql))
        assert [body for kind, body in messages if kind == "C"] == [tag] and c.status == "I"


def test_who_is_no_administrator_is_told_once(gate, stand, connect):
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login(stand.scram_user, "postern", stand.scram_password)
    assert (caught.value.code, caught.value.message) == ("42501", "only administrators may use the console")
    assert caught.value.fields["D"] == "This user is not in admin_users."


def test_unknown_commands_are_syntax_errors(gate, console):
    c = console(gate)
    for sql in ("SELECT 1", "SHOW NOTHING", "DROP TABLE x", "SHOW", "RELOAD NOW OR NEVER"):
        with pytest.raises(wire.ServerError) as caught:
            c.query(sql)
        assert caught.value.code == "42601" and c.status == "I", sql
    assert c.query("SHOW VERSION")


SHOWN = "HELP, VERSION, POOLS, CLIENTS, SERVERS, NODES, TENANTS, LIMITS, STATS, CONFIG"


@pytest.mark.parametrize("sql, said", [
    ("SHOW FOO", f'SHOW takes one word, found "FOO"; allowed: SHOW with one of {SHOWN}'),
    ("show", f"SHOW takes one word; allowed: SHOW with one of {SHOWN}"),
    ("KILL", "KILL takes the id of one client; allowed: KILL <id of SHOW CLIENTS>"),
    ("kill 1 2;", "KILL takes the id of one client; allowed: KILL <id of SHOW CLIENTS>"),
    ("RELOAD x", "RELOAD takes nothing behind it"),
    ("SELECT 1", f"no command of this console; allowed: RELOAD, KILL <id of SHOW CLIENTS>, SHOW with one of {SHOWN}"),
    ("'", f"no command of this console; allowed: RELOAD, KILL <id of SHOW CLIENTS>, SHOW with one of {SHOWN}")])
def test_what_is_no_command_is_told_what_is_one(gate, console, sql, said):
    c = console(gate)
    told = wire.errors(c.ask(wire.query(sql)))[0]
    assert (told["C"], told["M"], told["H"]) == ("42601", said, "SHOW HELP lists the commands.")
    assert c.query("SHOW VERSION")


def test_audit_trail_has_the_outcome_of_each_command(make_gate, console):
    gate = make_gate()
    c = console(gate)
    c.query("SHOW POOLS")
    c.ask(wire.query("KILL 99999"))
    c.query("RELOAD")

    def outcomes():
        return {e["command"]: e.get("outcome") for e in map(json.loads, gate.audit().splitlines()) if e["event"] == "admin"}
    proc.wait_for("the audit trail", 10, lambda: len(outcomes()) == 3)
    assert outcomes() == {"SHOW POOLS": "ok", "KILL": "not_found", "RELOAD": "ok"}


def test_errors_of_commands_that_were_understood(make_gate, console):
    """They are no syntax errors, and SHOW HELP does not help."""
    gate = make_gate()
    c = console(gate)
    told = wire.errors(c.ask(wire.query("KILL 99999")))[0]
    assert (told["C"], told["M"], told["H"]) == ("42704", "no client has that id", "SHOW CLIENTS lists them.")
    told = wire.errors(c.ask(wire.query("KILL zzz")))[0]
    assert (told["C"], told["H"]) == ("42704", "SHOW CLIENTS lists them.")
    assert told["M"] == '"zzz" is not the id of a client: that is up to 16 hexadecimal digits, such as 12af'
    gate.write({"plan metered": {"queries_per_second": "many"}})
    told = wire.errors(c.ask(wire.query("RELOAD")))[0]
    assert told["C"] == "F0000" and "H" not in told and "queries_per_second" in told["M"]
    assert told["M"] == told["M"].strip(), "no empty line behind it"
    assert c.query("SHOW VERSION")


def test_reload_tells_what_needs_a_restart(make_gate, console):
    gate = make_gate()
    c = console(gate)

    def warnings(changes):
        gate.write({"postern": changes})
        return [wire.error_fields(body)["M"] for kind, body in c.ask(wire.query("RELOAD")) if kind == "N"]
    told = warnings({"workers": 7, "instance": "other", "pid_file": "other.pid", "ready_file": "other.ready",
                     "user": "nobody"})
    for key in ("workers", "instance", "pid_file", "ready_file", "user"):
        assert any(re.search(rf"postern\.ini:\d+: \[postern\] {key}: .* only after a restart$", line) for line in told), (key, told)


def test_empty_command(gate, console):
    assert wire.kinds(console(gate).ask(wire.query(""))) == "IZ"


def test_extended_protocol_is_answered(gate, console):
    c = console(gate)
    messages = c.ask(wire.parse("SHOW VERSION"), wire.bind(), wire.describe("P"), wire.execute(),
                     wire.sync())
    assert wire.kinds(messages) in ("12TDCZ", "EZ")
    assert c.query("SHOW VERSION")


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_token_is_no_administrator(gate, connect, token, tenant):
    c = connect(gate)
    with pytest.raises(wire.ServerError) as caught:
        c.login(f"{tenant}_rw", "postern", token(tenant)).query("SHOW POOLS")
    assert caught.value.code in ("42501", "28000", "28P01", "3D000")


def test_token_with_the_administrators_name_is_refused(gate, connect, stand, token):
    with pytest.raises(wire.ServerError):
        connect(gate).login(stand.admin_user, "postern", token())
    with pytest.raises(wire.ServerError):
        connect(gate).login("admin", "postern", stand.token("acme", "admin"))


def test_user_of_the_file_is_no_administrator(gate, connect, stand):
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login(stand.scram_user, "postern", stand.scram_password).query("SHOW POOLS")
    assert caught.value.code in ("42501", "28000", "3D000")


def test_administrator_has_no_database(make_gate, connect, stand):
    gate = make_gate({"listener main": {"scram_users": "*"}})
    with pytest.raises(wire.ServerError) as caught:
        connect(gate).login(stand.admin_user, "acme", stand.admin_password)
    assert caught.value.code in ("28000", "3D000")


def test_console_while_the_pools_are_full(make_gate, login, console):
    gate = make_gate({"database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query("BEGIN")
    b.send(wire.query("SELECT 'waited'"))
    rows = table(console(gate), "SHOW POOLS")
    assert rows
    a.query("COMMIT")
    assert wire.rows(b.until("Z")) == [["waited"]]


def test_stats_count_queries(make_gate, login, console):
    gate = make_gate()
    c = login(gate)
    for _ in range(25):
        c.query("SELECT 1")

    def counted():
        rows = [r for r in table(console(gate), "SHOW STATS") if "acme" in r.values()]
        return any(v and v.isdigit() and 25 <= int(v) < 100 for r in rows for v in r.values())
    proc.wait_for("25 queries to be counted", 10, counted)
