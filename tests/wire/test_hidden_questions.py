"""What the gateway asks a server for itself, and what becomes of the session when the answer is an error
or nonsense: nothing that a session holds or has set is lost in silence."""
# SPDX-License-Identifier: Apache-2.0
import re
import threading

import pytest

import fake
from stand import proc, wire

# ---- a real server that refuses ----

HELD = {
    "listen": ("LISTEN held", "SELECT count(*) FROM pg_listening_channels()", "1"),
    "hold_cursor": ("DECLARE held CURSOR WITH HOLD FOR VALUES (1), (2)", "FETCH ABSOLUTE 2 FROM held", "2"),
    "temporary": ("CREATE TEMP TABLE held AS SELECT 3 AS v", "SELECT v FROM held", "3"),
    "prepare": ("PREPARE held AS SELECT 4", "EXECUTE held", "4"),
    "advisory_lock": ("SELECT pg_advisory_lock(4711)", "SELECT pg_advisory_unlock(4711)", "t"),
}
CLOSED = {
    "pg_locks": ["SELECT ON pg_catalog.pg_locks"],
    "pg_listening_channels": ["EXECUTE ON FUNCTION pg_catalog.pg_listening_channels()"],
    "pg_cursors": ["SELECT ON pg_catalog.pg_cursors"],
    "pg_my_temp_schema": ["EXECUTE ON FUNCTION pg_catalog.pg_my_temp_schema()"],
    "pg_prepared_statements": ["SELECT ON pg_catalog.pg_prepared_statements"],
    "pg_settings": ["SELECT ON pg_catalog.pg_settings"],
}
CLOSED["all of them"] = [right for rights in CLOSED.values() for right in rights]


@pytest.fixture
def closed(stand):
    """closed(what): takes the rights from everybody until the end of the test."""
    taken = []

    def take(what):
        taken.extend(CLOSED[what])
        stand.postgres.sql("".join(f"REVOKE {right} FROM PUBLIC;" for right in CLOSED[what]), "acme")

    def give_back():
        while taken:
            stand.postgres.sql(f"GRANT {taken.pop()} TO PUBLIC", "acme")
    take.give_back = give_back
    yield take
    give_back()


@pytest.fixture(scope="module")
def three(module_gate):
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 3, "shards": 1}})


def in_doubt(c):
    """All that a block may have done is asked for."""
    c.query("DO $$ BEGIN PERFORM 1; END $$")


@pytest.mark.parametrize("what", CLOSED)
@pytest.mark.parametrize("held", HELD)
def test_what_a_session_holds_stays_where_a_view_may_not_be_read(three, login, closed, what, held):
    closed(what)
    make, look, value = HELD[held]
    c, others = login(three), [login(three) for _ in range(2)]
    c.query(make)
    for _ in range(3):
        in_doubt(c)
        for other in others:
            other.query("SELECT 1")
    closed.give_back()
    assert c.query(look) == [[value]]


@pytest.mark.parametrize("what", CLOSED)
def test_what_can_be_asked_is_let_go_of_all_the_same(three, login, stand, closed, what):
    """One refusal does not take the other answers with it."""
    closed(what)
    c = login(three)
    c.query("CREATE TEMP TABLE held (i int)")
    c.query("DROP TABLE held")
    c.query("LISTEN held")
    c.query("UNLISTEN held")
    c.query("SELECT 'next'")
    kept = {"pg_my_temp_schema": ["temporary"], "pg_listening_channels": ["listen"],
            "all of them": ["temporary", "listen"]}.get(what, [])
    assert pins_of(three, login, stand) == sorted(kept)


def pins_of(gate, login, stand):
    """The pins of the only client that has any."""
    with login(gate, "postern", user=stand.admin_user, secret=stand.admin_password) as console:
        messages = console.ask(wire.query("SHOW CLIENTS"))
    rows = [dict(zip(columns(messages), row)) for row in wire.rows(messages)]
    return sorted(p for row in rows for p in (row["pinned"] or "").split(",") if p)


def columns(messages):
    body, at = next(b for k, b in messages if k == "T"), 2
    while at < len(body):
        end = body.index(b"\0", at)
        yield body[at:end].decode()
        at = end + 19


def test_set_and_reset_where_pg_settings_may_not_be_read(three, login, closed):
    closed("pg_settings")
    c, others = login(three, options="-c work_mem=7MB"), [login(three) for _ in range(2)]

    def shown():
        answers = set()
        for _ in range(3):
            for other in others:
                other.query("BEGIN")
            answers.add(c.query("SHOW work_mem")[0][0])
            for other in others:
                other.query("COMMIT")
        return answers
    c.query("SET work_mem = '5MB'")
    assert shown() == {"5MB"}
    c.query("RESET work_mem")
    assert shown() == {"7MB"}
    c.query("SET work_mem = '6MB'")
    c.query("BEGIN")
    c.query("RESET work_mem")
    c.query("ROLLBACK")
    assert shown() == {"6MB"}
    c.query("BEGIN")
    c.query("SET work_mem = '8MB'")
    assert wire.errors(c.ask(wire.query("SELECT 1/0")))
    c.query("ROLLBACK")
    assert shown() == {"6MB"}
    c.query("RESET ALL")
    assert shown() == {"7MB"}


def test_set_that_cannot_be_read_at_all_keeps_its_connection(make_gate, login, stand):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})
    c, other = login(gate), login(gate)
    right = "EXECUTE ON FUNCTION pg_catalog.current_setting(text, boolean)"
    stand.postgres.sql(f"REVOKE {right} FROM PUBLIC", "acme")
    try:
        c.query("SET work_mem = '5MB'")
        for _ in range(3):
            other.query("SELECT 1")
            assert c.query("SHOW work_mem") == [["5MB"]]
        assert other.query("SHOW work_mem") == [["4MB"]]
        assert "the session's variables could not be read" in gate.log()
        c.query("DISCARD ALL")
        assert c.query("SHOW work_mem") == [["4MB"]]
    finally:
        stand.postgres.sql(f"GRANT {right} TO PUBLIC", "acme")


# ---- transactions that wait for a safe snapshot ----

DEFERRABLE = ["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
              "SET default_transaction_isolation = serializable; SET default_transaction_read_only = on; "
              "SET default_transaction_deferrable = on",
              "DO $$ BEGIN SET default_transaction_isolation = serializable; SET default_transaction_read_only = on; "
              "SET default_transaction_deferrable = on; END $$"]


@pytest.fixture
def no_safe_snapshot(stand):
    """While it is there, a serializable transaction that reads only and is deferrable does not begin."""
    with wire.Client(("127.0.0.1", stand.postgres.port), "request", ca=stand.authority.crt) as c:
        c.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"])
        c.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE")
        c.query("SELECT txid_current()")
        yield


@pytest.mark.parametrize("how", DEFERRABLE, ids=["characteristics", "variables", "block"])
def test_questions_do_not_wait_for_a_safe_snapshot(make_gate, login, no_safe_snapshot, how):
    gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
    a, b = login(gate), login(gate)
    a.query(how)
    for _ in range(2):
        assert b.query("SELECT 'at once'") == [["at once"]]
        assert b.query("SHOW default_transaction_deferrable") == [["off"]]
        assert a.query("SHOW default_transaction_deferrable") == [["on"]]
        a.query("SET work_mem = '3MB'")
        a.query("BEGIN ISOLATION LEVEL READ COMMITTED")
        assert a.query("SELECT current_setting('work_mem')") == [["3MB"]]
        a.query("COMMIT")
        a.query("SET work_mem = '4MB'")
    a.query("RESET ALL")
    assert a.query("SELECT 1") == [["1"]]


def test_role_whose_transactions_are_deferrable(make_gate, login, stand, no_safe_snapshot):
    names = {"default_transaction_isolation": "serializable", "default_transaction_read_only": "on", "default_transaction_deferrable": "on"}
    for name, value in names.items():
        stand.postgres.sql(f"ALTER ROLE acme_rw SET {name} = '{value}'")
    try:
        gate = make_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 1}})
        a, b = login(gate), login(gate)
        processes = set()
        for c in (a, b, a, b):
            c.query(f"SET application_name = 'x{id(c)}'")
            assert c.query("SHOW default_transaction_deferrable") == [["on"]]
            c.query("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            processes.add(c.query("SELECT pg_backend_pid()")[0][0])
            assert c.query("SELECT current_setting('application_name')") == [[f"x{id(c)}"]]
            c.query("CREATE TEMP TABLE IF NOT EXISTS t (i int)")
            c.query("DROP TABLE t")
            c.query("COMMIT")
        assert len(processes) == 1, "a reset waited, and its connection was closed"
    finally:
        for name in names:
            stand.postgres.sql(f"ALTER ROLE acme_rw RESET {name}")


# ---- a node that answers as the test wants ----

ERRORS = ["42501", "42883", "57014", "40001", "XX000"]
NONSENSE = ["no rows", "NULL", "another answer", "too many columns", "a word"]
QUESTION = re.compile(rb"pg_listening_channels|pg_cursors|pg_my_temp_schema|pg_prepared_statements|pg_locks")
CAUSES = {"listen": ("LISTEN x", "UNLISTEN x"), "hold_cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"),
          "temporary": ("CREATE TEMP TABLE t (i int)", "DROP TABLE t"), "prepare": ("PREPARE p AS SELECT 1", "DEALLOCATE p"),
          "advisory_lock": ("SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)")}


class Node:
    """Answers questions about pins and variables by `how`, and notes what it is asked."""

    def __init__(self, version="15.0"):
        self.version, self.how, self.asked, self.times = version, "held", [], {}

    def __call__(self, kind, body):
        if kind != "Q":
            return {"S": fake.ready()}.get(kind, b"")
        text = body.rstrip(b"\0")
        told = fake.parameter("server_version", self.version)
        if b"current_setting(n" in text:
            return told + self.values(text)
        if b"pg_get_functiondef" in text:
            body = "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN SET a.b = 1; END $$"
            return self.wrong(self.how[10:], b"p") if self.how.startswith("procedure ") else \
                fake.columns("n", "t") + fake.row("p", body) + fake.done() + fake.ready()
        if b"FULL JOIN" in text and (self.how in ("held", "gone") or self.how.startswith("procedure ")):
            names = re.findall(rb"\('([^']+)'\)", text)
            return fake.columns("n", "v") + b"".join(fake.row(n.decode(), "5MB") for n in names) + fake.done() + fake.ready()
        if b"AND context " in text:  # is something set that the pool's own role may not set?
            return fake.columns("name") + fake.done() + fake.ready()
        if b"source" in text or QUESTION.search(text):
            self.asked.append(text)
            return self.answer(text)
        return told + fake.done(text.split()[0].decode()) + fake.ready()

    def values(self, text):
        names = re.findall(rb"\('([^']+)'\)", text)
        if self.how.startswith("settings ") and names != [b"server_version", b"client_encoding", b"standard_conforming_strings"]:
            return self.wrong(self.how[9:], b"work_mem")
        rows = b"".join(fake.row(n.decode(), {"server_version": self.version}.get(n.decode(), "5MB")) for n in names)
        return fake.columns("n", "v") + rows + fake.done() + fake.ready()

    def answer(self, text):
        word = re.search(rb"SELECT '(\w+)'", text)
        if self.how in ("held", "gone") or self.how.startswith("procedure "):
            return fake.columns("a", "b") + fake.row(word[1].decode(), "t" if self.how == "held" else "f") + fake.done() + fake.ready()
        return self.wrong(self.how, word[1] if word else b"x")

    @staticmethod
    def wrong(how, name):
        if how in ERRORS:
            return fake.error(S="ERROR", V="ERROR", C=how, M="no") + fake.ready()
        null = wire.message("D", b"\0\2" + len(name).to_bytes(4, "big") + name + b"\xff\xff\xff\xff")
        rows = {"no rows": b"", "NULL": null, "another answer": fake.row("what", "f"),
                "too many columns": fake.row(name.decode(), "f", "f", "f"), "a word": fake.row(name.decode(), "perhaps")}
        if how == "NULL" and name == b"work_mem":
            return fake.columns("a", "b") + fake.done() + fake.ready()
        return fake.columns("a", "b") + rows[how] + fake.done() + fake.ready()


def run(c, text):
    """The statement, and whatever the gateway asks behind it: the next one waits for that."""
    c.query(text)
    c.query("SELECT 'next'")


@pytest.fixture
def faked(make_gate):
    made = []

    def make(node):
        node.server = server = fake.FakeServer(node)
        made.append(server)
        return make_gate({"cluster main": fake.cluster(server), "postern": {"workers": 1},
                          "database acme": {"pool_size": 1, "cancel_timeout": "2s"}})
    yield make
    for server in made:
        server.close()


@pytest.mark.parametrize("how", ERRORS + NONSENSE)
def test_pin_that_cannot_be_asked_stays(faked, login, stand, how):
    node = Node()
    gate = faked(node)
    for name, (make, end) in CAUSES.items():
        c = login(gate)
        run(c, make)
        assert pins_of(gate, login, stand) == [name]
        node.how, node.asked = how, []
        run(c, end)
        assert pins_of(gate, login, stand) == [name], "an answer that is none ends no pin"
        assert {re.search(rb"SELECT '(\w+)'", q)[1].decode() for q in node.asked} == {name}, "what is not in doubt is not asked"
        assert len(node.asked) <= 4
        node.how = "gone"
        run(c, end)
        assert pins_of(gate, login, stand) == []
        node.how = "held"
        c.close()


class SlowNode(Node):
    """Lets its answers to questions about pins wait."""

    def __init__(self):
        super().__init__()
        self.how = "gone"
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def answer(self, text):
        self.is_asked.set()
        assert self.may_answer.wait(20)
        if b"SELECT name FROM" in text:
            return fake.columns("name") + fake.done() + fake.ready()
        return super().answer(text)


@pytest.mark.parametrize("how", ["held", "gone"])
@pytest.mark.parametrize("form", [wire.query("SELECT 'never'"), wire.one("SELECT 'never'") + wire.sync()],
                         ids=["simple", "extended"])
def test_cancel_of_a_request_behind_a_question(faked, stand, login, form, how):
    """The client has its answer and has asked for more; that the gateway asks first is no matter of his."""
    node = SlowNode()
    gate = faked(node)
    c = login(gate)
    c.query("SELECT pg_advisory_lock(1)")
    assert node.is_asked.wait(20)
    node.how = how
    c.send(form)
    pins_of(gate, login, stand)  # the one worker has read it, then
    wire.cancel(("127.0.0.1", gate.port()), c.key, ca=stand.authority.crt)
    node.may_answer.set()
    assert [f["C"] for f in wire.errors(c.until("Z"))] == ["57014"]
    assert pins_of(gate, login, stand) == (["advisory_lock"] if how == "held" else [])
    c.query("SELECT 1")


def test_requests_of_who_left_behind_a_question(faked, stand, login):
    """They run as they would have without the question."""
    node = SlowNode()
    gate = faked(node)
    c = login(gate)
    c.query("SELECT pg_advisory_lock(1)")
    assert node.is_asked.wait(20)
    c.send(wire.query("SELECT 'first'"), wire.one("SELECT 'last'"), wire.sync())
    pins_of(gate, login, stand)  # the one worker has read it, then
    c.close()
    proc.wait_for("the gateway to have read that", 10, lambda: "went away" in gate.log())
    node.may_answer.set()
    proc.wait_for("both to be asked for", 10, lambda: all(any(word in body for _, _, body in node.server.heard)
                                                          for word in (b"'first'", b"'last'")))


class SlowNodeInBlock(SlowNode):
    """... in a transaction block, where it is asked which statements are left."""

    def __call__(self, kind, body):
        if kind in "PCD":
            return {"P": wire.message("1", b""), "C": wire.message("3", b""),
                    "D": wire.message("t", b"\0\0") + wire.message("n", b"")}[kind]
        return (super().__call__(kind, body) or b"").replace(fake.ready(), fake.ready("T"))


def test_cancel_of_a_request_behind_a_question_in_a_block(faked, stand, login):
    """There it is for the server to end it."""
    node = SlowNodeInBlock()
    gate = faked(node)
    c = login(gate)
    c.query("BEGIN")
    c.ask(wire.parse("SELECT 1", "mine"), wire.sync())
    c.query("DO $$ BEGIN EXECUTE 'DEALLOCATE mine'; END $$")
    assert node.is_asked.wait(20)
    c.send(wire.query("SELECT 1"))
    pins_of(gate, login, stand)  # the one worker has read it, then
    wire.cancel(("127.0.0.1", gate.port()), c.key, ca=stand.authority.crt)
    assert not node.server.cancels
    node.may_answer.set()
    c.until("Z")
    proc.wait_for("the cancel to reach the node", 10, lambda: node.server.cancels)


@pytest.mark.parametrize("how", ERRORS + NONSENSE)
def test_what_a_block_may_have_done_and_cannot_be_asked_is_held(faked, login, stand, how):
    node = Node()
    node.how = "gone"
    gate = faked(node)
    c = login(gate)
    in_doubt_texts = ["DO $$ BEGIN PERFORM 1; END $$", "CALL p()"]
    for text in in_doubt_texts:
        run(c, text)
        assert "temporary" not in pins_of(gate, login, stand)
    node.how = how
    run(c, in_doubt_texts[0])
    assert set(CAUSES) <= set(pins_of(gate, login, stand))


@pytest.mark.parametrize("how", ["42501", "XX000", "no rows", "NULL", "too many columns"])
def test_procedure_whose_text_cannot_be_read_keeps_its_connection(faked, login, stand, how):
    node = Node()
    node.how = "gone"
    gate = faked(node)
    c = login(gate)
    run(c, "CALL p()")
    assert pins_of(gate, login, stand) == []
    node.how = "procedure " + how
    run(c, "CALL p()")
    assert "set_config" in pins_of(gate, login, stand)


@pytest.mark.parametrize("how", ERRORS + [n for n in NONSENSE if n != "a word"])
def test_settings_that_cannot_be_read_keep_their_connection(faked, login, stand, how):
    node = Node()
    gate = faked(node)
    c = login(gate)
    node.how = "settings " + how
    run(c, "SET work_mem = '5MB'")
    assert pins_of(gate, login, stand) == ["settings"]
    assert c.query("SELECT 1") == []


@pytest.mark.parametrize("version,asks", [("15.8 (Debian 15.8-0+deb12u1)", True), ("11.2-YB-2024.2.3.0-b0", False),
                                          ("15.12-YB-2025.1.0.0-b0", False)])
def test_locks_of_yugabytedb_are_never_asked_for(faked, login, stand, version, asks):
    node = Node(version)
    gate = faked(node)
    c = login(gate)
    node.how = "gone"
    run(c, "SELECT pg_try_advisory_lock(1)")
    run(c, "SELECT pg_advisory_unlock(1)")
    assert any(b"pg_locks" in q for q in node.asked) == asks
    assert pins_of(gate, login, stand) == ([] if asks else ["advisory_lock"])
    run(c, "SELECT pg_advisory_unlock_all()")
    assert pins_of(gate, login, stand) == []


def test_an_unlock_of_all_that_failed_ends_no_pin(faked, login, stand):
    node = Node("15.12-YB-2025.1.0.0-b0")
    gate = faked(node)
    c = login(gate)
    run(c, "SELECT pg_advisory_lock(1)")
    for text in ("SELECT pg_advisory_unlock_all() WHERE false", "SELECT 1; SELECT pg_advisory_unlock_all()", "SELECT pg_advisory_unlock(1)"):
        run(c, text)
        assert pins_of(gate, login, stand) == ["advisory_lock"], text
    run(c, "  select pg_catalog.pg_advisory_unlock_all ( ) ; ")
    assert pins_of(gate, login, stand) == []
