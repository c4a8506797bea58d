"""A transaction block whose server connection is lost is a failed transaction: nothing of it is run by
itself, until the client has ended the block."""
# SPDX-License-Identifier: Apache-2.0
import pytest

from conftest import own_cluster
from stand import wire
from test_loss import node_of, reached

ABORTED = "25P02"


def codes(messages):
    return [fields["C"] for fields in wire.errors(messages)]


def tags(messages):
    return [body.rstrip(b"\0").decode() for kind, body in messages if kind == "C"]


def lose(stand, c):
    """The server connection of a session in a transaction dies, between two requests."""
    stand.postgres.terminate(c.query("SELECT pg_backend_pid()")[0][0])


@pytest.fixture
def lost(gate, login, stand, table):
    """A session that has inserted 1 in a transaction and lost it; its first request was told."""
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    lose(stand, c)
    assert codes(c.ask(wire.query(f"INSERT INTO {table} VALUES (2)"))) == ["57P01"]
    assert c.status == "E"
    return c


def test_nothing_runs_by_itself_behind_the_loss(lost, stand, table):
    for form in (wire.query(f"INSERT INTO {table} VALUES (3)"), wire.one(f"INSERT INTO {table} VALUES (4)") + wire.sync(),
                 wire.query("SAVEPOINT a"), wire.query(f"SELECT 1; INSERT INTO {table} VALUES (5)")):
        assert codes(lost.ask(form)) == [ABORTED]
        assert lost.status == "E"
    messages = lost.ask(wire.query("COMMIT"))
    assert tags(messages) == ["ROLLBACK"] and lost.status == "I"
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]
    lost.query(f"INSERT INTO {table} VALUES (6)")
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["6"]]


ENDS = {
    "rollback": [wire.query("ROLLBACK")], "commit": [wire.query("COMMIT")], "end": [wire.query("/* so */ END WORK;")],
    "abort": [wire.query("ABORT")], "prepare": [wire.query("PREPARE TRANSACTION 'x'")],
    "extended rollback": [wire.one("ROLLBACK"), wire.sync()], "extended commit": [wire.one("COMMIT"), wire.sync()],
    "named": [wire.one("COMMIT", name="c"), wire.close("S", "c"), wire.sync()],
}


@pytest.mark.parametrize("form", ENDS)
@pytest.mark.parametrize("before", [False, True], ids=["at once", "behind a refusal"])
def test_what_ends_the_block(lost, form, before):
    """ROLLBACK in every form; and only then."""
    if before:
        assert codes(lost.ask(wire.query("SELECT 1"))) == [ABORTED]
    messages = lost.ask(*ENDS[form])
    assert codes(messages) == [] and tags(messages) == ["ROLLBACK"]
    assert lost.status == "I"
    assert lost.query("SELECT 'goes on'") == [["goes on"]]


FIRST = {**ENDS, "bound": [wire.bind("prepared_COMMIT") + wire.execute(), wire.sync()],
         "bound rollback": [wire.bind("prepared_ROLLBACK") + wire.execute(), wire.sync()],
         "in pieces": [wire.parse("COMMIT"), wire.flush(), wire.bind(), wire.describe("P"), wire.execute(), wire.sync()],
         "more behind it": [wire.one("COMMIT"), wire.one("SELECT 1"), wire.sync()]}


@pytest.mark.parametrize("form", FIRST)
def test_what_ends_the_block_is_the_first_to_hear(gate, login, stand, table, form):
    """psycopg sends its COMMIT extended, and no ROLLBACK behind one that failed: it was in a failed block for ever."""
    c = login(gate)
    for end in ("COMMIT", "ROLLBACK"):
        c.ask(wire.parse(end, f"prepared_{end}"), wire.sync())
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    lose(stand, c)
    messages = c.ask(*FIRST[form])
    if "rollback" in form or form == "abort":
        assert codes(messages) == [] and tags(messages) == ["ROLLBACK"]
    else:
        assert codes(messages) == ["57P01"] and tags(messages) == []
    assert c.status == "I"
    c.query(f"INSERT INTO {table} VALUES (6)")
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["6"]]


@pytest.mark.parametrize("form", ["commit", "rollback"])
def test_what_ends_the_block_and_is_not_executed_ends_nothing(gate, login, stand, table, form):
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    lose(stand, c)
    c.ask(wire.parse(form), wire.bind(), wire.sync())
    assert c.status == "E"
    assert codes(c.ask(wire.query(f"INSERT INTO {table} VALUES (2)"))) == [ABORTED]
    assert tags(c.ask(wire.one("ROLLBACK"), wire.sync())) == ["ROLLBACK"] and c.status == "I"
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == []


def test_another_statement_s_execute_ends_nothing(gate, login, stand, table):
    """COMMIT is parsed, and it is not what was to run."""
    c = login(gate)
    c.ask(wire.parse("SELECT 'else'", "else"), wire.sync())
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    lose(stand, c)
    assert codes(c.ask(wire.parse("COMMIT", "c"), wire.bind("else"), wire.execute(), wire.sync())) == ["57P01"]
    assert c.status == "E"


def test_begin_behind_the_end_in_a_batch_that_is_dropped_ends_the_session(gate, login, stand, table):
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    lose(stand, c)
    c.send(wire.one("COMMIT"), wire.one("BEGIN"), wire.sync())
    fields = wire.error_fields(c.expect("E"))
    assert (fields["S"], fields["C"]) == ("ERROR", "57P01")
    assert wire.error_fields(c.expect("E"))["S"] == "FATAL"


# Each begins as what ends a block, and ends none.
ENDS_NOTHING = {
    "COMMIT PREPARED 'h1'": ABORTED, "ROLLBACK PREPARED 'h1'": ABORTED, "commit /* so */ prepared 'h1';": ABORTED,
    "COMMIT garbage": "42601", "ROLLBACK garbage": "42601", "COMMIT WORK AND": "42601", "END foo": "42601", "ABORT 1": "42601",
    "COMMIT WORK PREPARED 'h1'": "42601", "COMMIT AND CHAIN garbage": "42601", "ROLLBACK AND NO": "42601",
    "COMMIT /* no end": "42601", "COMMIT \"": "42601", "PREPARE TRANSACTION 'x' garbage": "42601", "EXPLAIN COMMIT": "42601",
    "ROLLBACK TO a": "3B001", "ROLLBACK WORK TO SAVEPOINT a": "3B001", "RELEASE a": ABORTED, "BEGIN": ABORTED,
    "START TRANSACTION READ ONLY": ABORTED,
}


@pytest.mark.parametrize("how", ["simple", "extended"])
@pytest.mark.parametrize("first", [False, True], ids=["told", "first"])
def test_what_only_looks_like_an_end(gate, login, stand, table, how, first):
    """COMMIT PREPARED is no end of a block, and neither is a COMMIT that is an error: as the server has it,
    the block goes on failed, and what comes next does not run by itself."""
    def ask(c, sql):
        return codes(c.ask(wire.query(sql) if how == "simple" else wire.one(sql) + wire.sync()))
    server = wire.Client(("127.0.0.1", stand.postgres.port), "request", ca=stand.authority.crt)
    server.login("acme_rw", "acme", stand.postgres.passwords["acme_rw"])
    for sql, code in ENDS_NOTHING.items():
        server.query("BEGIN")
        server.ask(wire.query("SELECT 1/0"))
        assert (ask(server, sql), server.status) == ([code], "E"), sql
        server.query("ROLLBACK")
        c = login(gate)
        c.query("BEGIN")
        c.query(f"INSERT INTO {table} VALUES (1)")
        lose(stand, c)
        if not first:
            assert codes(c.ask(wire.query("SELECT 1"))) == ["57P01"]
        assert (ask(c, sql), c.status) == (["57P01" if first else code], "E"), sql
        assert ask(c, f"INSERT INTO {table} VALUES (2)") == [ABORTED]
        assert tags(c.ask(wire.query("COMMIT"))) == ["ROLLBACK"] and c.status == "I"
        c.close()
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


@pytest.mark.parametrize("sql", ["COMMIT PREPARED 'two'", "ROLLBACK PREPARED 'two'"])
@pytest.mark.parametrize("how", ["simple", "extended", "no sync"])
def test_outcome_of_commit_prepared_that_is_lost_is_unknown(make_gate, nodes, login, sql, how):
    """It lasts as soon as it has run, before any Sync."""
    gate = make_gate(own_cluster(nodes[:1]))
    c = login(gate)
    c.query("SELECT 1")
    node = node_of(c, nodes)
    node.freeze()
    c.send(wire.query(sql) if how == "simple" else wire.one(sql) + (wire.sync() if how == "extended" else wire.flush()))
    reached(node)
    node.kill()
    assert codes(c.until("E")) == ["08007"]


def test_savepoints_are_gone(gate, login, stand):
    c = login(gate)
    c.query("BEGIN")
    c.query("SAVEPOINT a")
    lose(stand, c)
    assert codes(c.ask(wire.query("SELECT 1"))) == ["57P01"]
    assert codes(c.ask(wire.query("ROLLBACK TO a"))) == ["3B001"]
    assert codes(c.ask(wire.query("RELEASE a"))) == [ABORTED]
    assert c.status == "E"
    c.query("ROLLBACK")
    assert c.status == "I"


@pytest.mark.parametrize("told", [False, True], ids=["first", "told"])
def test_autosave_of_pgjdbc_in_a_lost_block_ends_the_session(gate, login, stand, told):
    """The driver would lose count of the answers, and take the COMMIT for done."""
    c = login(gate)
    c.query("BEGIN")
    lose(stand, c)
    if told:
        c.ask(wire.query("SELECT 1"))
        assert codes(c.ask(wire.query("SAVEPOINT mine"))) == [ABORTED]
    c.send(wire.query("SAVEPOINT PGJDBC_AUTOSAVE"))
    assert c.refusal()["S"] == "FATAL"


def test_text_that_ends_the_block_and_goes_on(lost, stand, table):
    messages = lost.ask(wire.query(f"ROLLBACK; INSERT INTO {table} VALUES (7)"))
    assert codes(messages) == [] and tags(messages) == ["ROLLBACK", "INSERT 0 1"]
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["7"]]


def test_chain_is_not_guessed(lost):
    """AND CHAIN would go on with an isolation level that nobody knows any more."""
    lost.send(wire.query("ROLLBACK AND CHAIN"))
    fields = lost.refusal()
    assert (fields["S"], fields["C"]) == ("FATAL", "08006") and fields["H"].startswith("The transaction was rolled back.")


@pytest.mark.parametrize("end, told", [("COMMIT", ["57P01"]), ("ROLLBACK", [])])
def test_end_that_is_the_first_to_hear_of_the_loss(gate, login, stand, end, told):
    """Who asks for COMMIT must not read success; who asks for ROLLBACK has it."""
    c = login(gate)
    c.query("BEGIN")
    lose(stand, c)
    gate.await_log("connection to the database was lost")
    assert codes(c.ask(wire.query(end))) == told
    assert c.status == "I"


@pytest.fixture
def failed(gate, login, stand):
    """A session whose block has a savepoint, has failed, and then lost its connection; nothing was told."""
    c = login(gate)
    c.query("BEGIN")
    c.query("SAVEPOINT a")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    assert codes(c.ask(wire.query("SELECT 1/0"))) == ["22012"]
    stand.postgres.terminate(pid)
    gate.await_log("connection to the database was lost")
    return c


@pytest.mark.parametrize("request_", [wire.query("ROLLBACK TO a"), wire.one("ROLLBACK TO a") + wire.sync(),
                                      wire.query("SELECT 1"), wire.query("RELEASE a; SELECT 1")])
def test_block_that_had_failed_hears_of_the_loss(failed, request_):
    """Its savepoints went with the connection: whoever would go on from one must know why he cannot."""
    assert codes(failed.ask(request_)) == ["57P01"] and failed.status == "E"
    assert codes(failed.ask(wire.query("ROLLBACK TO a"))) == ["3B001"] and failed.status == "E"
    assert tags(failed.ask(wire.query("COMMIT"))) == ["ROLLBACK"] and failed.status == "I"
    assert failed.query("SELECT 'goes on'") == [["goes on"]]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_end_of_a_block_that_had_failed_is_as_on_the_server(failed, end):
    """It was told of its failure: there is no success to be read."""
    messages = failed.ask(wire.query(end))
    assert (codes(messages), tags(messages), failed.status) == ([], ["ROLLBACK"], "I")
    assert failed.query("SELECT 'goes on'") == [["goes on"]]


def test_pipeline_of_a_block_that_is_lost(gate, login, stand, table, running):
    """Everything was sent before the loss: each request is answered, none is run by itself."""
    c = login(gate)
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    c.send(wire.query("SELECT pg_sleep(60) /* lost_pipeline */"), wire.query(f"INSERT INTO {table} VALUES (2)"),
           wire.one(f"INSERT INTO {table} VALUES (3)"), wire.sync(), wire.query("COMMIT"),
           wire.query(f"INSERT INTO {table} VALUES (4)"))
    running("lost_pipeline")
    stand.postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%lost_pipeline%' "
                       "AND pid <> pg_backend_pid()")
    answers = []
    for _ in range(5):
        messages = c.until("Z")
        answers.append((codes(messages), tags(messages), c.status))
    # The server's own words get lost where it closes with requests unread.
    loss = answers[0][0]
    assert loss in (["57P01"], ["08007"])
    assert answers == [(loss, [], "E"), ([ABORTED], [], "E"), ([ABORTED], [], "E"), (loss, [], "I"), (loss, [], "I")]
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


@pytest.mark.parametrize("begin", [wire.query("BEGIN"), wire.one("BEGIN") + wire.sync()], ids=["simple", "extended"])
def test_begin_that_is_lost_ends_the_session(make_gate, nodes, login, begin):
    """What a script sends behind it belongs to the block, and most drivers would not end one that they
    were told did not begin."""
    gate = make_gate(own_cluster(nodes[:1]))
    c = login(gate)
    c.query("SELECT 1")
    nodes[0].freeze()
    c.send(begin)
    reached(nodes[0])
    nodes[0].kill()
    assert c.refusal()["C"] == "08006"


def test_rollback_in_flight_has_rolled_back(make_gate, nodes, login):
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    c.query("BEGIN")
    node = node_of(c, nodes)
    node.freeze()
    c.send(wire.query("SELECT 1"), wire.query("ROLLBACK"))
    reached(node)
    node.kill()
    assert codes(c.until("Z")) == ["08006"] and c.status == "E"
    assert tags(c.until("Z")) == ["ROLLBACK"] and c.status == "I"


def test_sync_alone_behind_a_lost_batch_is_no_error(make_gate, nodes, login):
    """In a failed block it does nothing, as on the server."""
    gate = make_gate(own_cluster(nodes[:1]))
    c = login(gate)
    c.query("BEGIN")
    c.query("SELECT 'and no question is under way'")
    nodes[0].freeze()
    c.send(wire.one("SELECT 1"), wire.sync(), wire.sync(), wire.one("SELECT 2"), wire.sync(), wire.sync())
    reached(nodes[0])
    nodes[0].kill()
    assert [(codes(c.until("Z")), c.status) for _ in range(4)] == [(["08006"], "E"), ([], "E"), ([ABORTED], "E"), ([], "E")]


def test_begin_with_more_behind_it_leaves_a_failed_block(make_gate, nodes, login):
    """As JDBC and Npgsql send it, together with the first statement."""
    gate = make_gate({"database acme": {"pool_size": 1}, **own_cluster(nodes)})
    c = login(gate)
    node = node_of(c, nodes)
    node.freeze()
    c.send(wire.query("BEGIN"), wire.one("SELECT 1"), wire.sync())
    reached(node)
    node.kill()
    assert codes(c.until("Z")) == ["08006"] and c.status == "E"
    assert codes(c.until("Z")) == [ABORTED] and c.status == "E"
    assert tags(c.ask(wire.query("ROLLBACK"))) == ["ROLLBACK"] and c.status == "I"


def test_idle_in_transaction_session_timeout(gate, login, stand, table):
    c = login(gate)
    c.query("SET idle_in_transaction_session_timeout = '100ms'")
    c.query("BEGIN")
    c.query(f"INSERT INTO {table} VALUES (1)")
    gate.await_log("idle-in-transaction timeout")
    assert codes(c.ask(wire.query(f"INSERT INTO {table} VALUES (2)"))) == ["25P03"]
    assert codes(c.ask(wire.query(f"INSERT INTO {table} VALUES (3)"))) == [ABORTED]
    assert tags(c.ask(wire.query("COMMIT"))) == ["ROLLBACK"]
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


def test_psql_script_without_on_error_stop(gate, psql, stand, table):
    """A psql script goes on behind each error, as scripts do."""
    done = psql(gate, stdin=f"""
        BEGIN;
        INSERT INTO {table} VALUES (1);
        SELECT pg_terminate_backend(pg_backend_pid());
        INSERT INTO {table} VALUES (2);
        INSERT INTO {table} VALUES (3);
        COMMIT;
        INSERT INTO {table} VALUES (4);
        """)
    assert "57P01" not in done.stdout
    assert stand.postgres.sql(f"SELECT id FROM {table}", "acme") == [["4"]], done.stderr


# ---- a block that was to begin ----

def test_batch_cut_before_its_begin_has_run(gate, login, stand, table):
    """The rest of the batch is dropped, BEGIN with it: what comes behind must not run by itself."""
    c = login(gate, "acme_pool1")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    c.send(wire.parse("SELECT 1"), wire.flush())
    c.until("1")
    stand.postgres.terminate(pid)
    assert codes(c.until("E")) == ["57P01"]
    c.send(wire.bind(), wire.execute(), wire.parse("START TRANSACTION"), wire.bind(), wire.execute(), wire.sync(),
           wire.query(f"INSERT INTO {table} VALUES (1)"))
    assert c.refusal()["C"] == "08006"
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


@pytest.mark.parametrize("sent", [1, 2], ids=["Parse", "Parse and Bind"])
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_batch_cut_within_its_begin(gate, login, stand, table, sent, named):
    c = login(gate, "acme_pool1")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    name = "begin" if named else ""
    parts = [wire.parse("BEGIN", name), wire.bind(name), wire.execute(), wire.sync()]
    c.send(*parts[:sent], wire.flush())
    c.until("12"[sent - 1])
    stand.postgres.terminate(pid)
    messages = c.until("E")
    try:
        c.send(*parts[sent:], wire.query(f"INSERT INTO {table} VALUES (1)"), wire.query("COMMIT"))
    except ConnectionError:
        pass
    assert codes(messages) == ["57P01"] and c.is_closed() or c.refusal()["C"] == "08006"
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


def test_begin_that_was_answered_in_a_batch_without_its_sync(gate, login, stand, table):
    c = login(gate, "acme_pool1")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    c.send(wire.one("BEGIN"), wire.one(f"INSERT INTO {table} VALUES (1)"), wire.flush())
    c.until("C")
    c.until("C")
    stand.postgres.terminate(pid)
    assert codes(c.until("E")) == ["57P01"]
    c.ask(wire.sync())
    assert c.status == "E"
    assert codes(c.ask(wire.query(f"INSERT INTO {table} VALUES (2)"))) == [ABORTED]
    assert tags(c.ask(wire.query("COMMIT"))) == ["ROLLBACK"]
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


def test_commit_in_a_lost_pipeline_is_told_as_unknown(make_gate, nodes, login):
    """Whoever looks at the answer to COMMIT alone must not read that it was rolled back."""
    gate = make_gate(own_cluster(nodes))
    c = login(gate)
    c.query("BEGIN")
    node = node_of(c, nodes)
    node.freeze()
    c.send(wire.one("SELECT 1"), wire.sync(), wire.one("COMMIT"), wire.sync())
    reached(node)
    node.kill()
    assert codes(c.until("Z")) == ["08007"] and c.status == "E"
    assert codes(c.until("Z")) == ["08007"] and c.status == "I"


@pytest.mark.parametrize("begin", [wire.query("BEGIN"), wire.one("BEGIN") + wire.sync(),
                                   wire.one("SELECT 1") + wire.one("BEGIN") + wire.sync()],
                         ids=["simple", "extended", "later in a batch"])
def test_begin_that_is_refused_ends_the_session(make_gate, nodes, login, stand, table, begin):
    """No node, no place in the pool: the rest of the script must not run in pieces once there is one."""
    gate = make_gate({"database acme": {"pool_size": 1, "wait_limit": "1s", "shards": 1}})
    holder, c = login(gate), login(gate)
    holder.query("BEGIN")
    c.send(begin, wire.query(f"INSERT INTO {table} VALUES (1)"), wire.query("COMMIT"))
    messages = []
    while not c.is_closed():
        messages.append(c.receive())
    assert codes(messages)[-1] == "53300"
    holder.query("ROLLBACK")
    assert stand.postgres.sql(f"SELECT count(*) FROM {table}", "acme") == [["0"]]


def test_begin_is_slowed_and_not_refused_by_a_rate(make_gate, login, stand):
    """Traffic in a transaction is never refused for its rate, and its BEGIN belongs to it."""
    gate = make_gate({"plan metered": {"queries_per_second": 10, "queries_burst": 1}})
    c = login(gate, "metered")
    for _ in range(4):
        assert codes(c.ask(wire.query("BEGIN"))) == [] and c.status == "T"
        assert codes(c.ask(wire.query("SELECT 1"))) == []
        assert codes(c.ask(wire.query("COMMIT"))) == [] and c.status == "I"
        assert codes(c.ask(wire.one("BEGIN"), wire.one("SELECT 1"), wire.one("COMMIT"), wire.sync())) == []
