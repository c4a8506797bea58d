# SPDX-License-Identifier: Apache-2.0
"""A value of the startup packet is back behind a RESET that the gateway cannot see, for variables that the
server lists and for those of no module (app.x), and what was set to nothing on purpose stays nothing."""
import pytest

from stand import wire

VARIABLES = {"app.x": ("start", "8"), "work_mem": ("7MB", "3MB")}


def call(sql, *values):
    return wire.one(sql, values) + wire.sync()


RESETS = {
    "DO, RESET": lambda v: wire.query(f"DO $$ BEGIN RESET {v}; END $$"),
    "DO, SET TO DEFAULT": lambda v: wire.query(f"DO $$ BEGIN SET {v} = DEFAULT; END $$"),
    "DO, RESET ALL": lambda v: wire.query("DO $$ BEGIN EXECUTE 'reset all'; END $$"),
    "DO, set_config": lambda v: wire.query(f"DO $$ BEGIN PERFORM set_config('{v}', NULL, false); END $$"),
    "CALL": lambda v: wire.query(f"CALL unseen_reset('{v}')"),
    "parameter": lambda v: call(f"SELECT set_config('{v}', $1, false)", None),
    "expression": lambda v: wire.query(f"SELECT 1, upper(set_config('{v}', NULL, false))"),
    "EXECUTE": lambda v: wire.query(f"PREPARE p(text) AS SELECT set_config('{v}', $1, false); EXECUTE p(NULL)"),
    "DO in a block": lambda v: wire.query("BEGIN") + wire.query(f"DO $$ BEGIN RESET {v}; END $$") + wire.query("COMMIT"),
    "DO rolled back": lambda v: wire.query("BEGIN") + wire.query(f"DO $$ BEGIN RESET {v}; END $$") + wire.query("ROLLBACK"),
    "named": lambda v: wire.parse(f"SELECT set_config('{v}', $1, false)", "n") + wire.bind("n", values=(None,)) + wire.execute()
    + wire.sync(),
}
EMPTIED = {
    "SET": lambda v: wire.query(f"SET {v} = ''"),
    "literal": lambda v: wire.query(f"SELECT set_config('{v}', '', false)"),
    "parameter": lambda v: call(f"SELECT set_config('{v}', $1, false)", ""),
    "DO": lambda v: wire.query(f"DO $$ BEGIN SET {v} = ''; END $$"),
    "DO, set_config": lambda v: wire.query(f"DO $$ BEGIN PERFORM set_config('{v}', '', false); END $$"),
}


@pytest.fixture(scope="module")
def three(module_gate, stand):
    stand.postgres.sql("CREATE OR REPLACE PROCEDURE unseen_reset(v text) LANGUAGE plpgsql AS $$ BEGIN "
                       "IF v = 'app.x' THEN RESET app.x; ELSE RESET work_mem; END IF; END $$", "acme", "acme_rw")
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 3, "shards": 1}})


def history(c, others, variable, what):
    start, other = VARIABLES[variable]
    c.query(f"SET {variable} = '{other}'")
    data = what(variable)
    c.send(data)
    for _ in range(count_ends(data)):
        c.until("Z")
    shown = []
    for _ in range(3):
        for o in others:
            o.query("BEGIN")
            shown.append(c.query(f"SELECT current_setting('{variable}')"))
            o.query("COMMIT")
    return shown


def count_ends(data):
    """The ReadyForQuery that it brings."""
    at = n = 0
    while at < len(data):
        n += data[at:at + 1] in (b"Q", b"S")
        at += 1 + int.from_bytes(data[at + 1:at + 5], "big")
    return n


def both(three, login, directly, variable, what):
    options = f"-c {variable}={VARIABLES[variable][0]}"
    others = [login(three) for _ in range(2)]
    return (history(login(three, options=options), others, variable, what),
            history(directly(options=options), others, variable, what))


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("form", RESETS)
def test_startup_value_is_back(three, login, directly, variable, form):
    gate, server = both(three, login, directly, variable, RESETS[form])
    assert gate == server


@pytest.mark.parametrize("form", EMPTIED)
def test_what_is_set_to_nothing_stays_so(three, login, directly, form):
    gate, server = both(three, login, directly, "app.x", EMPTIED[form])
    assert gate == server == [[[""]]] * 6


def test_value_by_parameter_is_what_was_said(three, login, directly):
    for value in ("other", "", "start"):
        gate, server = both(three, login, directly, "app.x", lambda v: call(f"SELECT set_config('{v}', $1, false)", value))
        assert gate == server == [[[value]]] * 6
