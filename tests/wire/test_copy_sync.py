"""Sync within COPY IN. The server swallows it while the COPY reads, and answers it when the COPY has
failed before: which of the two is a matter of where in its input the server stood. Every form is held
against the server itself; POSTERN_COPY_SYNC says how many times each (it was a race)."""
# SPDX-License-Identifier: Apache-2.0
import os
import select

import pytest

from stand import proc, wire
from test_cancel import cancel  # noqa: F401  (a fixture)

TIMES = int(os.environ.get("POSTERN_COPY_SYNC", "4"))

G = wire.message("d", b"1\tgood\n")
MORE = wire.message("d", b"2\tgood\n")
BAD = wire.message("d", b"bad\n")
SAME = wire.message("d", b"1\tagain\n")
C, F = wire.message("c"), wire.message("f", wire.text("so"))
S, H = wire.sync(), wire.flush()
I = lambda table: wire.one(f"INSERT INTO {table} VALUES (77, 'behind')")
Q = lambda table: wire.query(f"INSERT INTO {table} VALUES (77, 'behind')")
N = lambda table: wire.parse(f"SELECT 1 FROM {table}", "n") + wire.describe("S", "n")
B = lambda table: wire.bind("n") + wire.execute()
CLOSE = wire.close("S", "n")
RESET = wire.query("DEALLOCATE ALL")

# What is sent behind CopyInResponse of a COPY by the extended protocol: what the server answers. A request
# within a COPY that has not failed ends the connection; before 14 it only fails the COPY (before_14()).
ENDS = None
EXTENDED = {
    "first row": ([BAD, S, I, S], "EZ12CZ"),
    "second row": ([G, BAD, S, I, S], "EZ12CZ"),
    "first row, a Query": ([BAD, S, Q], "EZCZ"),
    "first row, a named statement": ([BAD, S, N, S, B, S], "EZ1tTZ2CZ"),
    "first row, a Close": ([BAD, S, CLOSE, S], "EZ3Z"),
    "first row, DEALLOCATE": ([BAD, S, RESET, Q], "EZCZCZ"),
    "first row, a Sync more": ([BAD, S, S, I, S], "EZZ12CZ"),
    "first row, a Flush": ([BAD, H, S, H, I, H, S], "EZ12CZ"),
    "first row, more rows": ([BAD, S, G, S, MORE, I, S], "EZZ12CZ"),
    "first row, a request before the Sync": ([BAD, I, S, I, S], "EZ12CZ"),
    "a Sync before it": ([G, S, BAD, S, I, S], "EZ12CZ"),
    "two Syncs before it": ([S, G, S, BAD, S, I, S], "EZ12CZ"),
    "a Sync straight behind the command": ([S, BAD, C, S, I, S], "EZ12CZ"),
    "a Sync before it, none behind": ([G, S, BAD, I, S], "EZ"),
    "a Sync before it, none behind, a Query": ([G, S, BAD, Q, S], "EZ"),
    "a Sync before it, none behind its end": ([G, S, BAD, C, I, S], "EZ"),
    "first row, and its end": ([BAD, S, C, I, S], "EZ12CZ"),
    "first row, and its end and Sync": ([BAD, S, C, S, I, S], "EZZ12CZ"),
    "first row, its end and a Close": ([BAD, S, C, CLOSE, S], "EZ3Z"),
    "first row, and CopyFail": ([BAD, S, F, S, Q], "EZZCZ"),
    "first row, nothing more": ([BAD, S], "EZ"),
    "a key, at the end": ([G, SAME, S, C, I, S], "EZ"),
    "a key, at the end, and Sync": ([G, SAME, S, C, S, I, S], "EZ12CZ"),
    "CopyFail": ([G, S, F, I, S], "EZ"),
    "CopyFail and Sync": ([G, S, F, S, I, S], "EZ12CZ"),
    "none fails": ([G, S, MORE, H, C, I, S], "C12CZ"),
    "none fails, Syncs": ([S, G, S, MORE, S, C, S, I, S], "CZ12CZ"),
    "none fails, Close": ([G, S, C, CLOSE, S, CLOSE, S], "C3Z3Z"),
    "a request": ([G, S, I, S], ENDS),
    "a Query": ([G, S, Q], ENDS),
    "a request behind rows": ([G, S, MORE, I, S], ENDS),
    "a request behind nothing": ([S, S, I, S], ENDS),
    "DEALLOCATE": ([G, S, RESET, Q], ENDS),
    "a request, no Sync": ([G, I, S], ENDS),
}
SIMPLE = {
    "first row": ([BAD, S, I, S], "EZZ12CZ"),
    "first row, a Query": ([BAD, S, S, Q], "EZZZCZ"),
    "first row, a Close": ([BAD, S, CLOSE, S], "EZZ3Z"),
    "a Sync before it": ([G, S, BAD, S, I, S], "EZZ12CZ"),
    "a Sync before it, none behind": ([G, S, BAD, I, S], "EZ12CZ"),
    "a Sync before it, none behind its end": ([G, S, BAD, C, Q], "EZCZ"),
    "first row, and its end": ([BAD, S, C, S, Q], "EZZZCZ"),
    "CopyFail": ([S, G, S, F, I, S], "EZ12CZ"),
    "none fails": ([S, G, S, MORE, C, I, S], "CZ12CZ"),
    "none fails, Sync": ([S, G, S, C, S, Q], "CZZCZ"),
    "a Query": ([G, S, Q], ENDS),
}
FORMS = {("extended", name): form for name, form in EXTENDED.items()}
FORMS |= {("simple", name): form for name, form in SIMPLE.items()}


@pytest.fixture(scope="module")
def rows(stand):
    name = "t_copy_sync"
    stand.postgres.sql(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (id int PRIMARY KEY, words text)", "acme", "acme_rw")
    return name


@pytest.fixture(params=["server", "acme_pool1", "acme_session"])
def enter(request, gate, login, stand):
    """A login, to the server itself or through the gate."""
    def get():
        if request.param != "server":
            return login(gate, request.param)
        c = wire.Client(("127.0.0.1", stand.postgres.port), "request", ca=stand.authority.crt)
        return c.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"])
    get.direct = request.param == "server"
    return get


def in_failed_block(kinds):
    """What was answered outside of a block, for one that the COPY has made fail."""
    first = kinds.index("E") + 1
    rest = kinds[first:].replace("12C", "E").replace("1tTZ2CZ", "EZEZ").replace("CZ", "EZ")
    return kinds[:first] + rest


def before_14(how, parts, direct):
    """What such a server answers where a later one ends: the request itself is dropped, and by the extended
    protocol all up to the next Sync. Behind a Sync the gateway, which has to ask first, ends it all the same."""
    request = next(n for n, part in enumerate(parts) if part in (I, Q, RESET))
    if not direct and S in parts[:request]:
        return ENDS
    return "EZ" if how == "simple" or S in parts[request:] else "E"


def read(c, kinds):
    """As many messages as that."""
    got = ""
    while len(got) < len(kinds):
        kind, body = c.receive()
        got += "" if kind in "NSA" else kind
        if kind == "E":
            print(got, wire.error_fields(body)) # what it was, should the test fail
    return got


def ends(c):
    """Errors, and the end. A server that closes over unread input may lose its own words on the way."""
    got = ""
    try:
        while True:
            got += c.receive()[0]
    except TimeoutError:
        return False
    except (wire.Closed, OSError):
        return set(got) <= set("E")


def opened(c, how, table):
    if how == "simple":
        c.send(wire.query(f"COPY {table} FROM STDIN"))
    else:
        c.send(wire.one(f"COPY {table} FROM STDIN"), H)
    c.until("G")


def sent(parts, table):
    return [part(table) if callable(part) else part for part in parts]


def goes_on(c, block):
    """The session is in step, and nothing is left over."""
    c.send(S, wire.query("ROLLBACK"), wire.query("SELECT 'mine'"))
    assert read(c, "ZCZTDCZ") == "ZCZTDCZ"
    assert c.status == "I"


def serve_another(enter, table, committed):
    other = enter()
    assert other.query(f"SELECT id FROM {table} ORDER BY id") == committed
    other.query(f"DELETE FROM {table}")
    other.close()


@pytest.mark.parametrize("block", [False, True], ids=["alone", "block"])
@pytest.mark.parametrize("how, name", FORMS, ids=[f"{how}, {name}" for how, name in FORMS])
def test_sync_within_copy_in(enter, stand, rows, how, name, block):
    parts, kinds = FORMS[how, name]
    if kinds is ENDS and stand.postgres.version < 14:
        kinds = before_14(how, parts, enter.direct)
    if block and kinds and kinds[0] == "E":
        kinds = in_failed_block(kinds)
    ids = [] if block or not kinds or kinds[0] != "C" else [["1"]] + [["2"]] * (MORE in parts)
    ids += [["77"]] if not block and kinds and "C" in kinds[1:] and (I in parts or Q in parts) else []
    for n in range(TIMES):
        c = enter()
        if block:
            c.query("BEGIN")
        opened(c, how, rows)
        messages = sent(parts, rows)
        if n % 4 == 3: # byte by byte
            for byte in b"".join(messages):
                try:
                    c.send(bytes([byte]))
                except OSError:
                    break
        elif n % 4 == 2:
            for message in messages:
                c.send(message)
        else:
            c.send(*messages)
        if kinds:
            assert read(c, kinds) == kinds
            goes_on(c, block)
        else:
            assert ends(c)
        c.close()
        serve_another(enter, rows, ids)


@pytest.fixture(scope="module")
def triggered(stand):
    """A table whose COPY fails before it has read anything."""
    name = "t_copy_refused"
    stand.postgres.sql(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (id int PRIMARY KEY, words text)", "acme", "acme_rw")
    stand.postgres.sql("CREATE OR REPLACE FUNCTION refuse_copy() RETURNS trigger LANGUAGE plpgsql AS "
                       "'BEGIN IF current_query() LIKE ''COPY%'' THEN RAISE ''no''; END IF; RETURN NULL; END'", "acme", "acme_rw")
    stand.postgres.sql(f"CREATE TRIGGER refuse BEFORE INSERT ON {name} EXECUTE FUNCTION refuse_copy()", "acme", "acme_rw")
    return name


AHEAD = {
    "Sync and a request": ([S, I, S], "12GEZ12CZ"),
    "Sync and a Query": ([S, Q], "12GEZCZ"),
    "Sync, rows and their end": ([S, G, C, S, I, S], "12GEZZ12CZ"),
    "Sync, rows, their end and a request": ([S, G, C, I, S], "12GEZ12CZ"),
    "Sync, rows and a request": ([S, G, I, S], "12GEZ12CZ"),
    "no Sync": ([G, C, I, S, I, S], "12GEZ12CZ"),
}


@pytest.mark.parametrize("form", AHEAD)
def test_copy_that_fails_before_it_reads_with_all_sent_ahead(enter, triggered, form):
    parts, kinds = AHEAD[form]
    for _ in range(TIMES):
        c = enter()
        c.send(wire.one(f"COPY {triggered} FROM STDIN"), *sent(parts, triggered))
        assert read(c, kinds) == kinds
        goes_on(c, False)
        c.close()
        serve_another(enter, triggered, [["77"]])


@pytest.fixture(scope="module")
def slowly_refused(stand):
    """A table whose COPY fails a while after it has asked for rows, and before it has read any."""
    name = "t_copy_slowly_refused"
    stand.postgres.sql(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (id int PRIMARY KEY, words text)", "acme", "acme_rw")
    stand.postgres.sql("CREATE OR REPLACE FUNCTION refuse_copy_slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
                       "IF current_query() LIKE ''COPY%'' THEN PERFORM pg_sleep(0.3); RAISE ''no''; END IF; RETURN NULL; END'",
                       "acme", "acme_rw")
    stand.postgres.sql(f"CREATE TRIGGER refuse BEFORE INSERT ON {name} EXECUTE FUNCTION refuse_copy_slowly()", "acme", "acme_rw")
    return name


def test_batch_that_is_half_sent_when_the_copy_is_known_stays_whole(enter, slowly_refused):
    """A Sync of the gateway's between its Bind and its Execute would end it, or commit a half of it."""
    c = enter()
    insert = f"INSERT INTO {slowly_refused} VALUES (77, 'x')"
    c.send(wire.one(f"COPY {slowly_refused} FROM STDIN"), S, wire.parse(insert), wire.bind())
    assert read(c, "12G") == "12G"
    c.send(wire.execute(), wire.parse(insert.replace("77", "78")), wire.bind(), wire.execute(), S)
    assert read(c, "EZ12C12CZ") == "EZ12C12CZ"
    goes_on(c, False)
    c.close()
    serve_another(enter, slowly_refused, [["77"], ["78"]])


GOOD = {
    "Sync and rows": ([S, G, C, S, I, S], "12GCZ12CZ"),
    "Sync, rows, a request": ([S, G, C, I, S], "12GC12CZ"),
    "rows, Sync": ([G, S, MORE, C, I, S, I], "12GC12CZ"),
}


@pytest.mark.parametrize("form", GOOD)
def test_copy_that_is_sent_ahead(enter, rows, form):
    parts, kinds = GOOD[form]
    for _ in range(TIMES):
        c = enter()
        c.send(wire.one(f"COPY {rows} FROM STDIN"), *sent(parts, rows))
        assert read(c, kinds) == kinds
        c.close()
        serve_another(enter, rows, [["1"]] + [["2"]] * (MORE in parts) + [["77"]])


@pytest.mark.parametrize("block", [False, True], ids=["alone", "block"])
@pytest.mark.parametrize("by", ["cancel", "terminate", "statement_timeout"])
def test_copy_with_a_sync_that_others_end(enter, gate, cancel, stand, rows, by, block): # noqa: F811
    """The server notices at the next row: the Sync before it was swallowed."""
    c = enter()
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    server = c.key[0] == int(pid) and c.socket.getpeername()[1] == stand.postgres.port
    if by == "statement_timeout":
        c.query("SET statement_timeout = '500ms'")
    if block:
        c.query("BEGIN")
    c.send(wire.one(f"COPY {rows} FROM STDIN"), H)
    c.until("G")
    c.send(G, S)
    if by == "cancel" and server:
        stand.postgres.sql(f"SELECT pg_cancel_backend({pid})")
    elif by == "cancel":
        cancel(gate, c.key)
    elif by == "terminate":
        stand.postgres.sql(f"SELECT pg_terminate_backend({pid})")
    number = iter(range(100, 100_000))

    def noticed():
        try:
            c.send(wire.message("d", b"%d\tx\n" % next(number)))
        except OSError:
            return True
        return select.select([c.socket], [], [], 0.01)[0]
    proc.wait_for("it to be noticed", 15, noticed)
    kind, body = c.receive()
    first = wire.error_fields(body)
    assert kind == "E"
    assert first["C"] == {"cancel": "57014", "terminate": "57P01", "statement_timeout": "57014"}[by]
    if first["S"] == "FATAL":
        assert c.is_closed()
        return
    c.send(C, S)
    assert read(c, "Z") == "Z"
    goes_on(c, block)
