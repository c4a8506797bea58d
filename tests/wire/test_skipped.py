# SPDX-License-Identifier: Apache-2.0
"""What stands behind an error of a batch is skipped up to its Sync: it is not waited for, it changes
nothing, and however much it is the Sync gets through. All as on the server, whether it was sent
before the error was known or after that."""
import struct

import pytest

from stand import wire

CALL = wire.message("F", struct.pack("!ihhi", 154, 0, 1, 1) + b"1" + struct.pack("!h", 0))
SKIPPED = {
    "Query, named Parse": [wire.query("SELECT 1"), wire.parse("SELECT 2", "s2")],
    "Query, named Bind": [wire.query("SELECT 1"), wire.bind("kept"), wire.execute()],
    "Query, Describe": [wire.query("SELECT 1"), wire.describe("S", "kept")],
    "Query, Close": [wire.query("SELECT 1"), wire.close("S", "kept")],
    "function call, named Parse": [CALL, wire.parse("SELECT 2", "s2")],
    "RESET, Query": [wire.query("RESET TimeZone"), wire.query("SELECT 1")],
    "RESET in the batch, Query": [wire.one("RESET TimeZone"), wire.query("SELECT 1")],
    "Query EXECUTE": [wire.query("SELECT 1"), wire.query("EXECUTE kept")],
    "Query DEALLOCATE": [wire.query("DEALLOCATE kept"), wire.query("SELECT 1"), wire.parse("SELECT 3", "kept")],
    "DEALLOCATE ALL": [wire.query("DEALLOCATE ALL"), wire.bind("kept"), wire.execute()],
    "DO": [wire.query("DO $$ BEGIN EXECUTE 'DEALLOCATE kept'; END $$"), wire.bind("kept"), wire.execute()],
    "COPY": [wire.query("COPY pg_class TO STDOUT"), wire.message("d", b"x"), wire.message("c"), wire.parse("SELECT 2", "s2")],
    "a Query of another Query's unnamed statement": [wire.query("SELECT 1"), wire.query("SELECT 2")],
    "an unnamed Parse": [wire.parse("SELECT 8"), wire.query("SELECT 1"), wire.parse("SELECT 9", "s9")],
    "PREPARE": [wire.query("PREPARE sql AS SELECT 1"), wire.query("EXECUTE sql"), wire.parse("SELECT 2", "s2")],
    "SET": [wire.query("SET work_mem = '1MB'"), wire.query("SET TimeZone = 'UTC'"), wire.parse("SELECT 2", "s2")],
    "BEGIN": [wire.query("BEGIN"), wire.query("SELECT 1"), wire.query("COMMIT AND CHAIN")],
    "40,000 Executes": [wire.execute() * 40000],
    "40,000 Queries": [wire.query("SELECT 1") * 40000],
}
LATER = [wire.bind() + wire.execute() + wire.sync(), wire.bind("kept") + wire.execute() + wire.sync(),
         wire.query("SHOW TimeZone"), wire.query("SHOW work_mem"), wire.parse("SELECT 5", "s2") + wire.sync()]


@pytest.fixture(scope="module")
def pair(module_gate):
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


def told(messages):
    return [(k, wire.error_fields(b)["C"] if k == "E" else b if k in "CDZ" else None) for k, b in messages if k not in "SN"]


def history(c, skipped, known):
    """All that a session is answered."""
    said = told(c.ask(wire.parse("SELECT 7"), wire.parse("SELECT 4", "kept"), wire.sync()))
    first, rest = wire.execute("none"), b"".join(skipped) + wire.sync()
    if known:
        c.send(first, wire.flush())
        said += told(c.until("E"))
        c.send(rest)
    else:
        c.send(first, rest)
    said += told(c.until("Z"))
    for more in LATER:
        c.send(more)
        said += told(c.until("Z"))
    return said


@pytest.mark.parametrize("known", [True, False], ids=["error known", "at once"])
@pytest.mark.parametrize("what", SKIPPED)
@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_what_is_skipped_changes_nothing(pair, login, directly, database, what, known):
    with directly(options="-c TimeZone=Asia/Tokyo") as server, login(pair, database, options="-c TimeZone=Asia/Tokyo") as c:
        assert history(c, SKIPPED[what], known) == history(server, SKIPPED[what], known)


USES = {"once": 1, "twice": 2, "thrice": 3}
TEXTS = ["CALL skipped_procedure()", "DO $$ BEGIN NULL; END $$", "INSERT INTO {table} VALUES (1, 'x') ON CONFLICT DO NOTHING",
         "SET work_mem = '2MB'", "SELECT 1"]


@pytest.mark.parametrize("between", ["", "SET TimeZone = 'UTC'", "SET work_mem = '3MB'"])
@pytest.mark.parametrize("uses", USES)
@pytest.mark.parametrize("text", TEXTS, ids=[t.split()[0] for t in TEXTS])
@pytest.mark.parametrize("block", [False, True], ids=["alone", "in a failed block"])
def test_statement_that_is_skipped_where_it_is_not_prepared_is_not_lost(pair, login, table, stand, text, uses, between, block):
    """Its Parse was skipped as well, and by then it had become a statement of this session's own."""
    stand.postgres.sql("CREATE OR REPLACE PROCEDURE skipped_procedure() LANGUAGE plpgsql AS 'BEGIN NULL; END'", "acme", "acme_rw")
    c, other = login(pair), login(pair)
    use = wire.bind("mine") + wire.execute()
    c.ask(wire.parse(text.format(table=table), "mine"), wire.sync())
    c.ask(use, wire.sync())
    other.query("BEGIN")  # on the connection where it is prepared
    if block:
        c.query("BEGIN")
    middle = wire.one(between) if between else b""
    c.ask(wire.one("SELECT 1/0"), use, middle, use * (USES[uses] - 1), wire.sync())
    if block:
        c.ask(use, middle, use, wire.sync())
        c.query("ROLLBACK")
    for _ in range(2):
        messages = c.ask(use, wire.sync())
        assert not wire.errors(messages), wire.errors(messages)
    other.query("COMMIT")


IN_COPY = {"EXECUTE": wire.query("EXECUTE kept"), "Bind": wire.bind("kept"), "Parse": wire.parse("SELECT 2", "s2"),
           "Close": wire.close("S", "kept"), "Describe": wire.describe("S", "kept"), "function call": CALL,
           "RESET": wire.query("RESET TimeZone"), "DEALLOCATE": wire.query("DEALLOCATE kept")}


@pytest.mark.parametrize("what", IN_COPY)
@pytest.mark.parametrize("data", [b"", wire.message("d", b"1\tx\n")], ids=["at once", "behind data"])
@pytest.mark.parametrize("database", ["acme", "acme_session"])
def test_request_within_copy_in_ends_the_session(pair, login, stand, table, database, what, data):
    """Before 14 it ends the COPY alone, but where the gateway has put something of its own in front of it."""
    with login(pair, database, options="-c TimeZone=Asia/Tokyo") as c:
        c.ask(wire.parse("SELECT 4", "kept"), wire.sync())
        c.send(wire.query(f"COPY {table} FROM STDIN"))
        c.until("G")
        c.send(data, IN_COPY[what])
        if stand.postgres.version < 14 and (database, what) not in (("acme", "DEALLOCATE"), ("acme", "Parse")):
            assert {f["C"] for f in wire.errors(c.until("Z"))} == {"08P01"}
            c.ask(wire.sync())
            assert c.query("SELECT 'in step'") == [["in step"]]
        else:
            assert {f["C"] for f in wire.errors(c.until_closed())} == {"08P01"}
    with login(pair, database) as c:
        assert c.query(f"SELECT count(*) FROM {table}") == [["0"]]
