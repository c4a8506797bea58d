"""Replication connections, logical and physical, in session mode: change data capture goes
through the gate."""
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import struct
import subprocess

import pytest

from stand import proc, wire

from conftest import conninfo

USER = "acme_replication"


@pytest.fixture(scope="module")
def replicating(module_gate):
    """A gate with a database for physical replication too: its clients name `replication`."""
    return module_gate({"tenant acme": {"databases": "acme, acme_session, replication"},
                        "database replication": {"cluster": "main", "dbname": "acme",
                                                 "pool_mode": "session", "pool_size": 8},
                        "database acme_session": {"pool_size": 4}})


@pytest.fixture
def slot(stand):
    """A logical slot and a table to change."""
    sql = stand.postgres.sql
    sql("CREATE TABLE IF NOT EXISTS captured (id int PRIMARY KEY, words text)", "acme", "acme_rw")
    sql("TRUNCATE captured", "acme", "acme_rw")
    sql("SELECT pg_create_logical_replication_slot('cdc', 'test_decoding')", "acme")
    yield "cdc"
    while sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'cdc'", "acme") == [["t"]]:
        pass
    sql("SELECT pg_drop_replication_slot('cdc')", "acme")


@pytest.fixture
def walsender(login, token, replicating):
    def get(database="acme_session", replication="database", **more):
        return login(replicating, database, user=USER, replication=replication, **more)
    return get


def environment(token):
    env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    env["PGPASSWORD"] = token("acme", "replication")
    return env


def changes(c, words):
    """The changes that come, until one has these words; keepalives are answered as asked."""
    out = []
    while True:
        kind, body = c.receive()
        assert kind == "d", (kind, body)
        if body[:1] == b"w":
            out.append(body[25:].decode())
            if words in out[-1]:
                return out
        else:
            assert body[:1] == b"k"
            if body[17]:
                c.send(wire.message("d", b"r" + body[1:9] * 3 + bytes(9)))


def test_replication_commands_and_sql_on_one_connection(walsender):
    c = walsender()
    (system,) = c.query("IDENTIFY_SYSTEM")
    assert system[0].isdigit() and system[3] == "acme"
    assert c.query("SHOW wal_level") == [["logical"]]
    assert c.query("SELECT words FROM greeting WHERE id = 1") == [["hello from acme"]]


def test_changes_stream_in_both_directions_and_end_in_step(walsender, slot, stand):
    c = walsender()
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    assert c.expect("W")[0] == 0
    for n in range(3):
        stand.postgres.sql(f"INSERT INTO captured VALUES ({n}, 'change {n}')", "acme", "acme_rw")
        assert f"id[integer]:{n}" in changes(c, f"change {n}")[-1]
    c.send(wire.message("c"))
    kinds = "".join(kind for kind, _ in c.until("Z")).lstrip("d")
    assert kinds.replace("d", "") == "cCCZ", kinds
    assert c.query("SELECT 'and on'") == [["and on"]]


def test_pg_recvlogical_through_the_gate(replicating, stand, token, slot):
    argv = ["pg_recvlogical", "-d", conninfo(stand, replicating, USER, "acme_session"), "--slot", slot,
            "--start", "-f", "-", "--no-loop", "-F", "0", "-s", "1"]
    reader = subprocess.Popen(argv, env=environment(token), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stand.postgres.sql("INSERT INTO captured SELECT n, repeat('long ', 1000) || n FROM generate_series(1, 500) n",
                           "acme", "acme_rw")
        seen = 0
        for line in reader.stdout:
            seen += "INSERT" in line
            if seen == 500 and line.startswith("COMMIT"):
                break
        reader.send_signal(signal.SIGINT)
        _, err = reader.communicate(timeout=20 * proc.PATIENCE)
        assert reader.returncode == 0, err
    finally:
        reader.kill()
        reader.wait()


def test_physical_backup_through_the_gate(replicating, stand, token, tmp_path):
    """pg_basebackup opens two connections: one copies files, one streams the log beside it."""
    target = tmp_path / "copy"
    done = proc.run(["pg_basebackup", "-d", conninfo(stand, replicating, USER, "replication"), "-D", str(target),
                     "-X", "stream", "--checkpoint=fast", "--no-sync"], env=environment(token), check=False)
    if "incompatible server version" in done.stderr and stand.postgres.is_newer_than_programs():
        return  # it takes no server that is newer than itself: see the next test
    assert done.returncode == 0, done.stderr
    assert (target / "PG_VERSION").read_text().strip() == str(stand.postgres.version)
    if stand.postgres.version < 13:
        return  # such a backup has no manifest
    # It reads the log of its own version only.
    other = [] if str(stand.postgres.version) in stand.postgres.bin.split("/") else ["--no-parse-wal"]
    checked = proc.run([os.path.join(stand.postgres.bin, "pg_verifybackup"), *other, str(target)],
                       check=False, env=environment(token))
    assert "successfully verified" in checked.stdout, checked.stdout + checked.stderr


def test_physical_backup_by_the_wire(walsender, stand, token):
    """The command of pg_basebackup, whose words are others since 15."""
    c = walsender("replication", "true", secret=token("acme", "replication"))
    new = stand.postgres.version >= 15
    c.send(wire.query("BASE_BACKUP (LABEL 'by hand', CHECKPOINT 'fast', WAIT false)" if new else
                      "BASE_BACKUP LABEL 'by hand' FAST NOWAIT"))
    data = b"".join(body for kind, body in c.until("Z") if kind == "d")
    assert b"backup_label" in data and b"LABEL: by hand" in data and b"PG_VERSION" in data
    assert len(data) > 10_000_000
    assert c.query("IDENTIFY_SYSTEM")[0][0].isdigit()


def test_reader_that_vanishes_frees_its_slot(walsender, slot, stand):
    c = walsender()
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    c.expect("W")
    c.close()
    again = walsender()
    while True:  # the server notices in its own time
        again.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
        kind, body = again.receive()
        if kind == "W":
            break
        assert kind == "E" and wire.error_fields(body)["C"] == "55006", body
        again.until("Z")
    again.close()


def test_replication_connections_are_not_used_again(walsender, login, replicating):
    c = walsender()
    c.query("IDENTIFY_SYSTEM")
    pid = c.key[0]
    c.close()
    assert walsender().key[0] != pid
    assert login(replicating, "acme_session").key[0] != pid


def test_replication_in_transaction_mode_is_refused_with_a_way_out(gate, connect, token):
    c = connect(gate)
    c.startup(USER, "acme", replication="database")
    c.expect("R")
    c.send(wire.password(token("acme", "replication")))
    fields = c.refusal()
    assert fields["C"] == "0A000" and "session mode" in fields["M"] and "pool_mode" in fields["H"]


def test_role_that_may_not_replicate_hears_it_from_the_server(replicating, connect, token):
    c = connect(replicating)
    c.startup("acme_rw", "acme_session", replication="database")
    c.expect("R")
    c.send(wire.password(token()))
    fields = wire.error_fields(c.until("E")[-1][1])
    assert fields["C"] == "42501" and "walsender" in fields["M"].lower().replace(" ", "")
    assert c.is_closed()


@pytest.mark.parametrize("value", ["off", "false", "no", "0", "f"])
def test_replication_off_is_an_ordinary_session(gate, login, database, value):
    assert login(gate, database, replication=value).query("SELECT 1") == [["1"]]


def test_copy_data_is_counted_by_nobody_as_idle(walsender, slot, stand, make_gate, login):
    """A stream that is silent for longer than the idle limits goes on."""
    gate = make_gate({"postern": {"client_idle_timeout": "1s", "idle_transaction_timeout": "1s"}})
    c = login(gate, "acme_session", user=USER, replication="database")
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    c.expect("W")
    idle = login(gate, "acme_session")
    with pytest.raises((wire.ServerError, wire.Closed)):
        idle.expect("?")  # another session hits the limit meanwhile
    stand.postgres.sql("INSERT INTO captured VALUES (1, 'after a silence')", "acme", "acme_rw")
    changes(c, "after a silence")
    c.close()


def test_stream_does_not_hold_up_a_drain(walsender, slot, make_gate, login):
    gate = make_gate({"postern": {"drain_timeout": "600s"}})
    c = login(gate, "acme_session", user=USER, replication="database")
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    c.expect("W")
    gate.process.signal(signal.SIGTERM)
    assert wire.error_fields(c.until("E")[-1][1])["C"] == "57P01"
    assert c.is_closed()


def test_stream_ends_with_its_token(make_gate, login, slot, stand):
    gate = make_gate({"issuer stand": {"leeway": "0s"}})
    c = login(gate, "acme_session", user=USER, replication="database",
              secret=stand.token("acme", "replication", lifetime=2))
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    c.expect("W")
    fields = wire.error_fields(c.until("E")[-1][1])
    assert fields["C"] == "28000" and "expired" in fields["M"]


def test_length_of_a_standby_status_is_checked(walsender, slot):
    c = walsender()
    c.send(wire.query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    c.expect("W")
    c.send(b"d" + struct.pack("!i", 2))
    last = c.until("E")[-1]
    assert wire.error_fields(last[1])["C"] == "08P01" and c.is_closed()
