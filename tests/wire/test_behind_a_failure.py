"""What is pipelined behind a batch that fails, or behind a RESET: found by the torture test."""
# SPDX-License-Identifier: Apache-2.0
from stand import wire

BAD = wire.parse("SELECT 1 FROM there_is_no_such_table")


def run(name=""):
    return wire.bind(name) + wire.execute()


def codes(messages):
    return [fields["C"] for fields in wire.errors(messages)]


def batches(c, *parts):
    """Sends all at once; the messages of each ReadyForQuery."""
    c.send(b"".join(parts))
    return [c.until("Z") for _ in range(b"".join(parts).count(wire.sync()))]


def test_a_statement_behind_a_failed_batch_that_would_have_prepared_it(gate, login):
    c, other = login(gate, "acme_pool1"), login(gate, "acme_pool1")
    c.ask(wire.parse("SELECT 'mine'", "s"), wire.sync())
    other.query("SELECT 1")
    first, second = batches(c, BAD, run("s"), wire.sync(), run("s"), wire.sync())
    assert codes(first) == ["42P01"]
    assert wire.rows(second) == [["mine"]]


def test_a_close_behind_a_failure_closes_nothing(gate, login):
    c = login(gate, "acme_pool1")
    c.ask(wire.parse("SELECT 'kept'", "s"), wire.sync())
    first, second = batches(c, BAD, wire.close("S", "s"), wire.sync(), run("s"), wire.sync())
    assert codes(first) == ["42P01"]
    assert wire.rows(second) == [["kept"]]


def test_nobody_runs_an_unnamed_statement_of_another(gate, login):
    c, other = login(gate, "acme_pool1"), login(gate, "acme_pool1")
    other.ask(wire.parse("SELECT 'the other''s'"), wire.sync())
    first, second = batches(c, BAD, wire.parse("SELECT 'mine'"), wire.sync(), run(), wire.sync())
    assert codes(first) == ["42P01"]
    assert wire.rows(second) == [] and codes(second) == ["26000"]


def test_two_unnamed_statements_that_were_never_parsed(gate, login):
    c = login(gate, "acme_pool1")
    c.ask(wire.parse("SELECT 'first'"), wire.sync())
    c.ask(wire.bind("no_such"), wire.parse("SELECT 2"), wire.parse("SELECT 3"), wire.sync())
    assert wire.rows(c.ask(run(), wire.sync())) == [["first"]]


def test_a_parse_in_a_transaction_that_is_about_to_have_failed(gate, login):
    c = login(gate, "acme_pool1")
    c.ask(wire.parse("SELECT 1", "a"), wire.sync())
    c.ask(wire.close("S", "a"), wire.sync())
    c.query("BEGIN")
    first, second = batches(c, BAD, wire.sync(), wire.parse("SELECT 1", "a"), wire.sync())
    assert codes(first) == ["42P01"]
    assert codes(second) == ["25P02"]
    c.query("ROLLBACK")


def test_defaults_of_the_startup_packet_behind_discard_all(gate, login):
    """Npgsql sends DISCARD ALL and the next query at once."""
    c = login(gate, "acme_pool1", application_name="mine", options="-c statement_timeout=71s")
    c.query("SET application_name = 'x'")
    c.send(wire.query("DISCARD ALL"), wire.query("SHOW statement_timeout"), wire.query("SHOW application_name"))
    told = c.until("Z")
    assert [body for kind, body in told if kind == "S"][-1] == b"application_name\0mine\0"
    assert [wire.rows(c.until("Z")) for _ in range(2)] == [[["71s"]], [["mine"]]]


def test_defaults_of_the_startup_packet_behind_reset(gate, login):
    c = login(gate, "acme_pool1", application_name="mine")
    c.query("SET application_name = 'x'")
    c.send(wire.query("RESET application_name"), wire.query("SHOW application_name"))
    told = c.until("Z")
    assert [body for kind, body in told if kind == "S"][-1] == b"application_name\0mine\0"
    assert wire.rows(c.until("Z")) == [["mine"]]


def test_a_copy_behind_a_reset_in_a_transaction(gate, login, table):
    c = login(gate, "acme_pool1", application_name="mine")
    c.query("BEGIN")
    c.query("RESET application_name")
    messages = c.ask(wire.query(f"COPY {table} FROM STDIN"), wire.message("d", b"1\tx\n"), wire.message("c"))
    assert not wire.errors(messages)
    c.query("COMMIT")


def test_loss_takes_back_what_was_reported(gate, login, stand, running):
    c = login(gate, "acme_pool1", application_name="mine")
    c.query("BEGIN")
    pid = c.query("SELECT pg_backend_pid()")[0][0]
    c.query("SET application_name = 'for a while'")
    c.send(wire.query("SELECT pg_sleep(30) /* lost_in_here */"))
    running("lost_in_here")
    stand.postgres.sql(f"SELECT pg_terminate_backend({pid})")
    told = c.until("Z")
    assert codes(told) == ["57P01"]
    assert [body for kind, body in told if kind == "S"][-1] == b"application_name\0mine\0"
    c.query("ROLLBACK")
    assert c.query("SHOW application_name") == [["mine"]]


def test_a_batch_that_is_lost_before_its_commit_says_so(gate, login, stand):
    """Its replies have come by Flush, its Sync is never answered: not a success."""
    c = login(gate, "acme_pool1")
    c.send(wire.parse("SELECT pg_backend_pid()"), wire.bind(), wire.execute(), wire.flush())
    got = [c.receive() for _ in range(4)]
    pid = wire.rows(got)[0][0]
    node = next(n for n in stand.nodes if n.carries(peer_port(stand, pid)))
    node.freeze()
    try:
        c.send(wire.sync())
        stand.postgres.sql(f"SELECT pg_terminate_backend({pid})")
    finally:
        node.thaw()
    assert codes(c.until("Z")) in (["57P01"], ["08007"])
    assert c.query("SELECT 1") == [["1"]]


def peer_port(stand, pid):
    return int(stand.postgres.sql(f"SELECT client_port FROM pg_stat_activity WHERE pid = {pid}")[0][0])


def test_reset_of_one_variable_says_nothing_of_another(gate, login):
    """A client whose startup packet set TimeZone sets the server's own default, beside a RESET."""
    default = login(gate, "acme_pool1").query("SHOW TimeZone")[0][0]
    c = login(gate, "acme_pool1", TimeZone="Asia/Tokyo")
    told = c.ask(wire.query(f"RESET work_mem; SET TimeZone = '{default}'"))
    assert [body for kind, body in told if kind == "S"] == [b"TimeZone\0" + default.encode() + b"\0"]
    told = c.ask(wire.query(f"RESET TimeZone; BEGIN; SET TimeZone = '{default}'; RESET work_mem; COMMIT"))
    assert [body for kind, body in told if kind == "S"][-1:] != [b"TimeZone\0Asia/Tokyo\0"]
    assert c.query("SHOW TimeZone") == [[default]]
