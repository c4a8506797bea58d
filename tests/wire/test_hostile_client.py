# SPDX-License-Identifier: Apache-2.0
"""A client that sends what nobody would, and as much as it may: the process lives, others get their answers, and
what the client has set is so wherever it goes on."""
import pytest

from stand import wire

ODD = "é" * 29  # 58 bytes


@pytest.fixture(scope="module")
def two(module_gate):
    """Two server connections, so that a session can be made to change over."""
    return module_gate({"postern": {"workers": 1}, "database acme": {"pool_size": 2, "shards": 1}})


def elsewhere(c, other, sql):
    """The same on each of the connections that a session may come to, asked at once and while the other is taken."""
    answers = [c.query(sql)]
    other.query("BEGIN")
    answers.append(c.query(sql))
    other.query("COMMIT")
    return answers


def test_hundreds_of_variables_of_long_names_in_other_letters(two, login):
    """Each is told by its bytes, which doubles it, and goes with its session."""
    c, other = login(two), login(two)
    names = [f'"v{i:03}{ODD}"."{ODD}"' for i in range(400)]
    for at in range(0, len(names), 50):
        c.query("".join(f"SET {name} = '{i}{'ü' * 500}';" for i, name in enumerate(names[at:at + 50], at)))
    for name in (names[0], names[399]):
        assert elsewhere(c, other, f"SHOW {name}") == 2 * [[[f"{names.index(name)}{'ü' * 500}"]]]
    c.query("RESET ALL")
    assert elsewhere(c, other, f"SELECT current_setting('{names[7]}'::text, true)".replace('"', "")) in (2 * [[[""]]], 2 * [[[None]]])
    assert other.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("bytes_", [500_000, 1_000_000, 1_100_000, 3_000_000])
def test_value_of_a_megabyte(two, login, bytes_):
    """What cannot be carried over keeps its connection."""
    c, other = login(two), login(two)
    c.query(f"SET big.one = '{'x' * bytes_}'")
    assert elsewhere(c, other, "SELECT length(current_setting('big.one'))") == 2 * [[[str(bytes_)]]]
    assert other.query("SELECT current_setting('big.one', true)") in ([[None]], [[""]])


def test_more_variables_than_a_session_may_have(two, login):
    c, other = login(two), login(two)
    c.query("".join(f"SET many.n{i} = '{i}';" for i in range(600)))
    assert elsewhere(c, other, "SELECT current_setting('many.n0') || current_setting('many.n599')") == 2 * [[["0599"]]]
    assert other.query("SELECT current_setting('many.n0', true)") in ([[None]], [[""]])


def test_more_procedures_than_are_asked_for(two, login):
    c = login(two)
    for count in (100, 128, 200):
        c.ask(wire.query("BEGIN"))
        for i in range(count):
            c.ask(wire.query(f'SAVEPOINT s; CALL "{i:03}{ODD}"()'))
            c.ask(wire.query("ROLLBACK TO s"))
        c.ask(wire.query("COMMIT"))
        assert c.query("SELECT 1") == [["1"]]


@pytest.mark.parametrize("word", ["set ", "set/* ", "execute/* ", "call a.", "execute format(''%I'',("])
def test_block_made_to_be_read_for_long(two, login, word):
    """Whoever is on the same worker waits no longer than for any other text."""
    c, other = login(two), login(two)
    c.send(wire.one(f"DO $a$ BEGIN PERFORM '{word * (1_000_000 // len(word))}'; END $a$"), wire.sync())
    assert other.query("SELECT 'meanwhile'") == [["meanwhile"]]
    assert wire.kinds(c.until("Z")) == "12CZ"
    assert c.query("SELECT 1") == [["1"]]


def test_startup_packet_of_many_variables(two, login):
    """As many as there is room for in a packet, or more than a session may have."""
    c = login(two, options=" ".join(f"-c a{i}.b=1" for i in range(500)))
    assert c.query("SELECT current_setting('a0.b') || current_setting('a499.b')") == [["11"]]
    with pytest.raises(wire.ServerError) as e:
        login(two, options=" ".join(f"-c a{i}.b=1" for i in range(700)))
    assert e.value.code == "08P01"


def test_commands_of_the_console_in_one_piece(two, connect, stand):
    """They are answered one after the other, however many have come while the first was answered."""
    c = connect(two).login(stand.admin_user, "postern", stand.admin_password)
    count = 200_000
    c.send_and_read(wire.query("SHOW STATS") + wire.query("") * count)
    ready = 0
    while ready < count + 1:
        ready += c.receive()[0] == "Z"
    assert c.query("SHOW VERSION")
