"""What clients are told, in a form that can be compared, and what may be told: see cuts.py."""
# SPDX-License-Identifier: Apache-2.0
import socket
import ssl
import struct

from stand import proc, wire

STUCK = 8  # seconds without an answer that is due
LOSSES = ("57P01", "08006", "08007")
CONSEQUENCES = ("26000", "42P05", "34000")  # a name that a lost request was to make or to give up


# ---- answers ----

class Peer(wire.Client):
    """A client that keeps what it was told in a form that can be compared."""

    def __init__(self, port, number, tls=None, ca=None):
        super().__init__(("127.0.0.1", port), tls, ca=ca, timeout=STUCK)
        self.number = str(number)
        self.told = []
        self.ended = False
        self.why = ""

    def note(self, kind, body):
        if kind in "NSA":
            return
        if kind == "E":
            fields = wire.error_fields(body)
            self.told.append(f"{kind} {fields.get('V', fields.get('S'))} {fields.get('C')}")
            self.why = fields.get("M", "")
        elif kind == "D":
            self.told.append(f"D {wire.row_values(body)}".replace(self.number, "N"))
        elif kind == "T":
            self.told.append(f"T {column_names(body)}")
        elif kind == "C":
            self.told.append(f"C {body[:-1].decode()}")
        elif kind == "Z":
            self.told.append(f"Z {body.decode()}")
        elif kind == "V":
            self.told.append(f"V {body[4:].decode(errors='replace')}")
        elif kind == "d":
            self.told.append(f"d {body.decode(errors='replace')}")
        else:
            self.told.append(kind)

    def take(self, enough, seconds=None):
        """Reads until enough() or the end. False: nothing more came."""
        self.socket.settimeout((seconds or STUCK) * proc.PATIENCE)
        while not self.ended and not enough():
            try:
                self.note(*self.receive())
            except (wire.Closed, ConnectionError):
                self.ended = True
            except TimeoutError:
                return False
        return True

    def take_what_is_there(self):
        """Without waiting."""
        self.socket.setblocking(False)
        try:
            while not self.ended and (part := self.socket.recv(65536)):
                self.buffer += part
            self.ended = True
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (ConnectionError, ssl.SSLError):
            self.ended = True
        self.socket.settimeout(self.timeout)
        ended, self.ended = self.ended, False
        while len(self.buffer) >= 5 and len(self.buffer) > struct.unpack_from("!i", self.buffer, 1)[0]:
            self.note(*self.receive())
        self.ended = ended

    def say(self, data):
        """False when the other side has closed."""
        view = memoryview(data)
        try:
            while view:
                if len(view) > 32768:
                    self.take_what_is_there()
                view = view[self.socket.send(view[:65536]):]
            return True
        except ConnectionError:
            return False

    def ready(self):
        return sum(t[0] == "Z" for t in self.told)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def column_names(body):
    names, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode())
        at = end + 19
    return names


def units(told):
    """The answers, split behind each ReadyForQuery; the last one may be without."""
    out = [[]]
    for t in told:
        out[-1].append(t)
        if t[0] == "Z":
            out.append([])
    return out if out[-1] else out[:-1]


def answered(told):
    """Up to the last ReadyForQuery, and how it ended: what came of a batch before its Sync is a matter of time."""
    last = max((n + 1 for n, t in enumerate(told) if t[0] == "Z"), default=0)
    return told[:last] + [t for t in told[last:] if t[0] == "E"]


def codes(told):
    return [t.split()[2] for t in told if t[0] == "E"]


# ---- where to cut ----

def positions(c, near=None):
    """Byte positions of cuts, 0 and the end included."""
    at, out = 0, set()
    total = sum(map(len, c.parts))
    for part in c.parts:
        end = at + len(part)
        if near is not None:
            out |= set(range(max(0, at - near), min(total, at + near) + 1))
        elif len(part) <= 1000:
            out |= set(range(at, end + 1))
        else:
            out |= set(range(at, at + 13)) | set(range(end - 12, end + 1)) | set(range(at + 13, end, max(4099, len(part) // 12)))
        at = end
    out |= {0, total}
    return sorted(k for k in out if k >= c.first or (k == 0 and c.first))


def whole_before(c, k):
    """How many messages are whole in the first k bytes, and whether one is begun."""
    at = 0
    for m, part in enumerate(c.parts):
        if at + len(part) > k:
            return m, at < k
        at += len(part)
    return len(c.parts), False


def middles(c):
    """The end of each message, and a place within it."""
    at, out = 0, {0}
    for n, part in enumerate(c.parts):
        out |= {at + 1 + (7 * n) % (len(part) - 1), at + len(part)}
        at += len(part)
    return sorted(k for k in out if k >= c.first)


# ---- oracles ----

def check_rows(c, ref, got, rows, ended, begun):
    """Each transaction's rows are there as it was told; None, or what is wrong. `begun`: units that
    were begun before the event (their outcome may be unknown to a client that was ended)."""
    told = units(got)
    normal = units(ref.told)
    for ids, unit in c.groups:
        due = [n for n in ids if n in ref.rows]
        there = [n for n in ids if n in rows]
        if there and there != due:
            return f"of the transaction {ids} are in the table: {there}"
        answer = told[unit] if unit < len(told) else []
        whole = bool(answer) and answer[-1][0] == "Z"
        if whole and answer == normal[unit] and there != due:
            return f"unit {unit} was told {answer}, but of {ids} are in the table: {there}"
        if whole and "C COMMIT" in answer and "C COMMIT" in normal[unit]:
            if there != due:
                return f"unit {unit} was told {answer}, but of {ids} are in the table: {there}"
            continue
        if whole and there and answer != normal[unit] and "08007" not in codes(answer) and any(
                t[0] == "E" or t == "C ROLLBACK" for t in answer) and codes(answer) != codes(normal[unit]):
            return f"unit {unit} was told {answer}, but of {ids} are in the table: {there}"
        if not whole and there and unit >= begun:
            return f"unit {unit} was not even sent, but of {ids} are in the table: {there}"
    left = set(rows) - {n for ids, _ in c.groups for n in ids}
    return f"unknown rows {left}" if left else None


def check_loss(c, ref, got, ended, k, mode):
    """The documented loss: one ERROR per request under way, a failed block until it is ended."""
    told, normal = units(got), units(ref.told)
    if ended:
        if not told or told[-1][-1][0] != "E" or not told[-1][-1].startswith("E FATAL"):
            return "closed without a word" if not ref.ended else None
        if codes(told[-1])[-1] not in LOSSES and not ref.ended:
            return "ended with another error"
        m, part = whole_before(c, k)
        between = ref.status[m] == "I" and m and c.parts[m - 1][:1] in b"QFS"
        if between and not part and not c.pins and not ref.ended and mode == "transaction":
            return "ended between two transactions"
        told.pop()
    elif c.in_step and len(told) != len(normal):
        return f"{len(told)} ReadyForQuery, not {len(normal)}"
    lost = met = False
    for u, (answer, due) in enumerate(zip(told, normal)):
        if answer[-1][0] != "Z":
            return None if ended else f"unit {u} has no end"
        if not lost and answer == due:
            continue
        status, wanted = answer[-1][2], due[-1][2]
        ends = [t for t in due if t[0] == "C"] in (["C COMMIT"], ["C ROLLBACK"])
        if status == "E" and wanted == "I" and (lost or not ends or set(codes(answer)) & set(LOSSES)):
            wanted = "E" # what would have ended the block was dropped with the rest of its batch or text
        if lost and ends and "C ROLLBACK" in answer:
            wanted = status
        if (status == "I") != (wanted == "I") and not (lost and status == "I" and ends):
            return f"unit {u} ends with {answer[-1]}, not {due[-1]}"
        if answer == due and not lost:
            continue
        errors = codes(answer)
        if lost and status == "E" and errors not in (["25P02"], ["3B001"]) and not set(errors) <= set(CONSEQUENCES) and len(answer) > 1 and answer != due:
            return f"unit {u}, behind the loss, was told {answer}"
        if lost and status == "E" and any(t[0] in "CD" for t in answer):
            return f"unit {u}, behind the loss, did run: {answer}"
        if met and set(errors) <= set(CONSEQUENCES):
            continue
        if not lost and not (set(errors) & set(LOSSES)) and "C ROLLBACK" not in answer and \
                not (u and told[u - 1][-1] == "Z E" and errors == ["3B001"]):
            return f"unit {u} was told {answer}, not {due}"
        if len(errors) > 1:
            return f"unit {u} was told two errors: {answer}"
        met = met or bool(set(errors) & set(LOSSES))
        lost = status == "E" and (lost or answer != due)
    return None


def check_ended(c, ref, got, ended, allowed):
    """The undisturbed answers up to one FATAL."""
    if not ended:
        return None if got == ref.told else "the session went on with other answers"
    if got == ref.told:
        return None
    if not got or not got[-1].startswith("E FATAL"):
        return "closed without a word"
    if codes(got[-1:])[0] not in allowed:
        return "ended with another error"
    return None if got[:-1] == ref.told[:len(got) - 1] else "other answers before the end"


def check_limit(c, ref, got, ended):
    """What is refused is told with 53400, outside of transactions."""
    told, normal = units(got), units(ref.told)
    if ended and not ref.ended:
        return "ended"
    if c.in_step and not ref.ended and len(told) != len(normal):
        return f"{len(told)} ReadyForQuery, not {len(normal)}"
    return None
