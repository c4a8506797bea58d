"""Sessions of one tenant, database and role whose tokens have different subjects, on the same server connections, in
transaction mode: what one leaves there that no lexer can see is not there for another."""
# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from stand import wire

WORKER = {"postern": {"workers": 1}}


@pytest.fixture
def people(stand, login):
    """people(gate, name): a session of that subject; None: of a token without one."""
    tokens = {}

    def get(gate, name, **more):
        tenant = more.get("database", "acme")
        if (tenant, name) not in tokens:
            tokens[tenant, name] = stand.token(tenant, sub=name)
        return login(gate, secret=tokens[tenant, name], **more)
    return get


def login_of(people, gate, name):
    """Of a tenant in whose database no other test makes a function."""
    return people(gate, name, database="globex")


LANGUAGES = {
    "plpgsql": """BEGIN
            PERFORM set_config('app.tenant', 'evil', false);
            PERFORM set_config('work_mem', '7MB', false);
            EXECUTE 'CREATE TEMPORARY TABLE IF NOT EXISTS orders (id int)';
            EXECUTE 'LISTEN gossip';
            PERFORM pg_advisory_lock(4711);
            PERFORM nextval('traces');
            RETURN 'done';
        END""",
    # Where there is none of PL/pgSQL a connection is reset, and not closed.
    "sql": """SELECT set_config('app.tenant', 'evil', false);
            SELECT set_config('work_mem', '7MB', false);
            CREATE TEMPORARY TABLE IF NOT EXISTS orders (id int);
            LISTEN gossip;
            SELECT pg_advisory_lock(4711);
            SELECT nextval('traces');
            SELECT 'done'::text"""}


@pytest.fixture(scope="module", params=LANGUAGES)
def unseen(stand, request):
    """A function that does all that a session can leave behind, and says so nowhere in its calls."""
    stand.postgres.sql(f"""
        CREATE SEQUENCE IF NOT EXISTS traces;
        CREATE TABLE IF NOT EXISTS public.orders (id int);
        CREATE OR REPLACE FUNCTION leave_traces() RETURNS text LANGUAGE {request.param} AS
        $f$ {LANGUAGES[request.param]} $f$""", "acme", "acme_rw")
    yield "SELECT leave_traces()"
    stand.postgres.sql("DROP FUNCTION leave_traces(); DROP SEQUENCE traces; DROP TABLE public.orders", "acme", "acme_rw")


def gate_of(make_gate, size=1, share=None, **more):
    return make_gate({**WORKER, "database acme": {"pool_size": size, "shards": 1, "share": share, **more}})


def resets(gate):
    return int(float(gate.metrics()["postern_identity_resets_total"]))


TRACES = {
    "a variable of no module": ("SELECT coalesce(current_setting('app.tenant', true), '')", ""),
    "a variable": ("SELECT current_setting('work_mem')", "4MB"),
    "a temporary table": ("SELECT to_regclass('orders')::oid::regclass::text = 'orders' AND to_regclass('pg_temp.orders') IS NULL", "t"),
    "a subscription": ("SELECT count(*) FROM pg_listening_channels()", "0"),
    "a lock": ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "0"),
}


@pytest.mark.parametrize("trace", list(TRACES))
def test_nothing_is_left_for_another(make_gate, people, unseen, trace):
    gate = gate_of(make_gate)
    sql, clean = TRACES[trace]
    one, other = people(gate, "one"), people(gate, "other")
    assert one.query(unseen) == [["done"]]
    assert other.query(sql) == [[clean]]
    assert resets(gate) >= 1


def test_random_numbers_are_not_foreseen(make_gate, people):
    """DISCARD ALL leaves the seed, which setseed() in a function sets unseen."""
    gate = gate_of(make_gate)
    one, other = people(gate, "one"), people(gate, "other")
    seen = []
    for _ in range(3):
        one.query("DO $$ BEGIN PERFORM setseed(0.5); END $$")
        seen += other.query("SELECT random()")
    assert len({value for value, in seen}) == 3


@pytest.fixture
def dblink(stand):
    stand.postgres.sql("CREATE EXTENSION IF NOT EXISTS dblink", "acme")
    stand.postgres.sql("GRANT EXECUTE ON FUNCTION dblink_connect_u(text, text) TO acme_rw", "acme")
    yield
    stand.postgres.sql("DROP EXTENSION dblink", "acme")


def test_connections_of_an_extension_are_not_left_for_another(make_gate, people, stand, dblink):
    """dblink's stay open behind DISCARD ALL: another would speak as whoever opened them."""
    gate = gate_of(make_gate)
    one, other = people(gate, "one"), people(gate, "other")
    dsn = f"host=127.0.0.1 sslmode=require sslcert=/nonexistent port={stand.postgres.port} dbname=acme user=acme_rw password={stand.postgres.passwords['acme_rw']}"
    assert one.query(f"SELECT dblink_connect_u('open', '{dsn}'), dblink_get_connections()") == [["OK", "{open}"]]
    assert other.query("SELECT dblink_get_connections()") == [[None]]


def test_types_of_a_functions_variables_are_the_callers_own(make_gate, people, stand):
    """PL/pgSQL keeps them as the first caller's search_path had them, for as long as the process lives: another's
    amounts were rounded."""
    stand.postgres.sql("""
        CREATE SCHEMA east AUTHORIZATION acme_rw; CREATE SCHEMA west AUTHORIZATION acme_rw; SET ROLE acme_rw; SET search_path = east;
        CREATE TABLE east.pay (amount numeric(8, 0)); CREATE TABLE west.pay (amount numeric(12, 4));
        CREATE OR REPLACE FUNCTION public.paid(given numeric) RETURNS numeric LANGUAGE plpgsql AS
        $f$ DECLARE v pay.amount%TYPE := given; BEGIN INSERT INTO pay VALUES (v); RETURN v; END $f$""", "acme")
    gate = gate_of(make_gate)
    one, other = people(gate, "one", search_path="east, public"), people(gate, "other", search_path="west, public")
    for _ in range(2):
        assert one.query("SELECT paid(77.1234)") == [["77"]]
        assert other.query("SELECT paid(77.1234)") == [["77.1234"]]
    stand.postgres.sql("DROP FUNCTION public.paid(numeric); DROP SCHEMA east, west CASCADE", "acme")


def test_mode_of_an_extension_that_is_on_no_list_is_not_left_for_another(make_gate, people, stand):
    stand.postgres.sql("CREATE EXTENSION IF NOT EXISTS isn", "acme")
    gate = gate_of(make_gate)
    one, other = people(gate, "one"), people(gate, "other")
    assert one.query("SELECT isn_weak(true)") == [["t"]]
    assert other.query("SELECT isn_weak()") == [["f"]]
    stand.postgres.sql("DROP EXTENSION isn", "acme")


def test_backup_that_one_has_begun_is_not_anothers_to_end(make_gate, people, stand):
    begin, end = ("pg_backup_start", "pg_backup_stop") if stand.postgres.version >= 15 else ("pg_start_backup", "pg_stop_backup")
    names = f"{begin}(text, bool{'' if stand.postgres.version >= 15 else ', bool'}), {end}(bool{'' if stand.postgres.version >= 15 else ', bool'})"
    stand.postgres.sql(f"GRANT EXECUTE ON FUNCTION {names} TO globex_rw", "globex")
    gate = make_gate({**WORKER, "database globex": {"pool_size": 2, "shards": 1}})
    one, other = (login_of(people, gate, name) for name in ("one", "other"))
    more = "" if stand.postgres.version >= 15 else ", false"
    pid = one.query(f"SELECT pg_backend_pid() FROM {begin}('x', true{more})")
    for _ in range(3):
        assert other.query("SELECT pg_backend_pid()") != pid
        assert one.query("SELECT pg_backend_pid()") == pid, "what has begun it ends it"
    assert one.query("SELECT count(*) FROM " + end + ("()" if not more else "(false)")) == [["1"]]
    one.close()
    stand.postgres.sql(f"REVOKE EXECUTE ON FUNCTION {names} FROM globex_rw", "globex")


@pytest.mark.parametrize("whose", ["another's", "its own"])
def test_role_of_another_does_not_come_back(make_gate, people, stand, whose):
    """DISCARD ALL, and RESET SESSION AUTHORIZATION, only hid it on older servers: a SET ROLE that was rolled back
    made who came next that role."""
    stand.postgres.sql("DO $$ BEGIN CREATE ROLE globex_team; EXCEPTION WHEN duplicate_object THEN END $$; GRANT globex_team TO globex_rw")
    gate = make_gate({**WORKER, "database globex": {"pool_size": 1, "shards": 1}})
    one, other = login_of(people, gate, "one"), login_of(people, gate, "one" if whose == "its own" else "other")
    one.query("SET ROLE globex_team")
    if whose == "its own":
        one.query("RESET SESSION AUTHORIZATION")
    for form in ("SET ROLE NONE", "SET role = DEFAULT", "SET ROLE globex_rw"):
        assert wire.errors(other.ask(wire.query(f"{form}; SELECT 1/0")))
        assert other.query("SELECT current_user") == [["globex_rw"]]


@pytest.mark.parametrize("right", ["REPLICATION", "SUPERUSER"])
def test_connections_of_roles_that_may_do_more_are_not_anothers(make_gate, people, stand, right):
    """A temporary replication slot, say, is the process's, and the next one could read it."""
    stand.postgres.sql(f"ALTER ROLE globex_rw {right}")
    try:
        gate = make_gate({**WORKER, "database globex": {"pool_size": 1, "shards": 1}})
        one, other = (login_of(people, gate, name) for name in ("one", "other"))
        pid = one.query("SELECT pg_backend_pid()")
        assert other.query("SELECT pg_backend_pid()") != pid
    finally:
        stand.postgres.sql(f"ALTER ROLE globex_rw NO{right}")


def test_connection_is_only_reset_where_that_undoes_all(make_gate, people, stand):
    """What costs a login at the database is for those who have what needs it."""
    stand.postgres.sql("CREATE EXTENSION IF NOT EXISTS pgcrypto", "globex")
    gate = make_gate({**WORKER, "database globex": {"pool_size": 1, "shards": 1}})
    one, other = (login_of(people, gate, name) for name in ("one", "other"))
    for _ in range(3):
        pid = one.query("SELECT pg_backend_pid()")
        assert other.query("SELECT pg_backend_pid()") == pid
    assert resets(gate) >= 5
    stand.postgres.sql("DROP EXTENSION pgcrypto", "globex")


def test_connections_that_are_never_anothers(make_gate, people):
    gate = gate_of(make_gate, share="none")
    one, other = people(gate, "one"), people(gate, "other")
    pid = one.query("SELECT pg_backend_pid()")
    assert one.query("SELECT pg_backend_pid()") == pid
    assert other.query("SELECT pg_backend_pid()") != pid


@pytest.mark.parametrize("share", ["none", "identity"])
def test_what_its_own_identity_left_behind_makes_it_nobody_elses(make_gate, people, share):
    """It is reset as soon as its session has left, and is still that identity's."""
    gate = make_gate({**WORKER, "database globex": {"pool_size": 1, "shards": 1, "share": share}})
    one = login_of(people, gate, "one")
    pid = one.query("SELECT pg_backend_pid()")
    one.query("LISTEN here")
    one.send(wire.terminate())
    again = login_of(people, gate, "one")
    assert again.query("SELECT pg_backend_pid()") == pid
    again.query("LISTEN here")
    again.send(wire.terminate())
    assert (login_of(people, gate, "other").query("SELECT pg_backend_pid()") == pid) == (share == "identity")


def test_process_that_may_be_marked_is_nobody_elses(make_gate, people):
    gate = make_gate({**WORKER, "database globex": {"pool_size": 1, "shards": 1}})
    one = login_of(people, gate, "one")
    pid = one.query("SELECT pg_backend_pid()")
    one.ask(wire.query("SELECT pg_create_physical_replication_slot('mine', true, true)"))  # tried is enough
    assert one.query("SELECT pg_backend_pid()") == pid
    one.send(wire.terminate())
    assert login_of(people, gate, "one").query("SELECT pg_backend_pid()") != pid


def test_statements_of_another_are_neither_seen_nor_reached(make_gate, people):
    """DEALLOCATE and PREPARE of a name that pg_prepared_statements shows made the victim's statement another."""
    gate = gate_of(make_gate)
    victim, attacker = people(gate, "victim"), people(gate, "attacker")
    asks = [wire.parse("SELECT 'secret of the victim'", "mine"), wire.bind("mine"), wire.execute(), wire.sync()]
    assert wire.rows(victim.ask(*asks)) == [["secret of the victim"]]
    for name, statement in attacker.query("SELECT name, statement FROM pg_prepared_statements"):
        assert "secret" not in statement
        attacker.ask(wire.query(f'DEALLOCATE "{name}"'))
        attacker.ask(wire.query(f"PREPARE \"{name}\" AS SELECT 'of the attacker'"))
    assert wire.rows(victim.ask(*asks[1:])) == [["secret of the victim"]]


def test_the_same_subject_shares(make_gate, people, unseen):
    """Sessions of one service are each other's: nothing is reset between them."""
    gate = gate_of(make_gate)
    sessions = [people(gate, "service") for _ in range(5)]
    for _ in range(10):
        for c in sessions:
            assert c.query("SELECT 1") == [["1"]]
    assert resets(gate) == 0


def test_those_who_trust_each_other_share(make_gate, people):
    gate = gate_of(make_gate, share="role")
    one, other = people(gate, "one"), people(gate, "other")
    for _ in range(10):
        assert one.query("SELECT 1") == other.query("SELECT 1") == [["1"]]
    assert resets(gate) == 0


def test_those_without_a_subject_share_with_nobody(make_gate, stand, people, unseen):
    gate = make_gate({**WORKER, "issuer stand": {"subject": "optional"}, "database acme": {"pool_size": 1, "shards": 1}})
    one, other = people(gate, None), people(gate, None)
    assert one.query(unseen) == [["done"]]
    assert other.query(TRACES["a variable of no module"][0]) == [[""]]


def test_each_gets_its_own_where_there_is_room(make_gate, people):
    """Two services, a connection each: once the pool has grown nothing is reset any more."""
    gate = gate_of(make_gate, 2)
    one, other = people(gate, "one"), people(gate, "other")

    def pids():
        return [c.query("SELECT pg_backend_pid()")[0][0] for c in (one, other)]
    for _ in range(50):
        pids()
    first, before = pids(), resets(gate)
    assert first[0] != first[1]
    for _ in range(20):
        assert pids() == first
    assert resets(gate) == before


def test_what_is_open_stays_open(make_gate, people):
    """A transaction, a pin: their connection is nobody else's meanwhile."""
    gate = gate_of(make_gate, 2)
    one, other = people(gate, "one"), people(gate, "other")
    one.query("BEGIN")
    one.query("SET LOCAL app.x = 'kept'")
    for _ in range(5):
        assert other.query("SELECT coalesce(current_setting('app.x', true), '')") == [[""]]
    assert one.query("SELECT current_setting('app.x')") == [["kept"]]
    one.query("COMMIT")


def test_variables_and_statements_come_back(make_gate, people):
    """What a session has set and prepared by name is its own wherever it is lent next."""
    gate = gate_of(make_gate)
    crowd = [people(gate, f"subject {n}") for n in range(4)]
    for n, c in enumerate(crowd):
        c.query(f"SET app.who = 'who {n}'")
        c.extended("SELECT current_setting('app.who'), $1::int", ["1"], name="mine")
    for turn in range(5):
        for n, c in enumerate(crowd):
            assert c.query("SHOW app.who") == [[f"who {n}"]]
            assert c.extended("SELECT current_setting('app.who'), $1::int", [str(turn)]) == [[f"who {n}", str(turn)]]


@pytest.mark.parametrize("size", [1, 2])
def test_many_identities_on_few_connections(make_gate, people, size):
    """Everybody is served, and in turn: nobody starves, nothing of one reaches another."""
    gate = gate_of(make_gate, size)
    served, wrong = {}, []

    def work(name):
        try:
            c = people(gate, name)
            for n in range(60):
                got = c.query(f"SELECT set_config('app.name', '{name}', true), '{name}', {n}")
                if got != [[name, name, str(n)]]:
                    wrong.append(got)
                served[name] = n + 1
        except Exception as e:  # noqa: BLE001
            wrong.append(e)
    threads = [threading.Thread(target=work, args=(f"subject-{n}",)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and set(served.values()) == {60}
    assert resets(gate) >= 1


def test_a_user_of_the_file_is_no_subject(make_gate, stand, people, login, unseen):
    """Whatever the subject of a token says: it is another's."""
    gate = gate_of(make_gate)
    one, other = people(gate, stand.scram_user), login(gate, user=stand.scram_user, secret=stand.scram_password)
    assert one.query(unseen) == [["done"]]
    assert other.query(TRACES["a variable of no module"][0]) == [[""]]
