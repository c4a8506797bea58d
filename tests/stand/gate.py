"""One running gate: its configuration from a table, its ports, its log, its end."""
# SPDX-License-Identifier: Apache-2.0
import os
import re
import signal
import urllib.error
import urllib.request

from .proc import Process, StandError, run, tail, wait_for


def render(sections, overrides=None):
    """The text of a configuration.

    sections: [(section, comment, [(key, value) or (key, value, comment)])]; overrides:
    {section: {key: value}}, where None leaves a key or a whole section out and a section
    that is new goes to the end."""
    rest = dict(overrides or {})
    out = []
    for name, comment, rows in sections:
        change = rest.pop(name, {})
        if change is None:
            continue
        change = dict(change)
        if comment:
            out += [f"# {line}" for line in comment.splitlines()]
        out.append(f"[{name}]")
        for row in rows:
            key, value = row[0], change.pop(row[0], row[1])
            if value is None:
                continue
            if len(row) > 2:
                out += [f"# {line}" for line in row[2].splitlines()]
            out.append(f"{key} = {value}")
        out += [f"{key} = {value}" for key, value in change.items() if value is not None]
        out.append("")
    for name, change in rest.items():
        if change is None:
            continue
        out.append(f"[{name}]")
        out += [f"{key} = {value}" for key, value in change.items() if value is not None]
        out.append("")
    return "\n".join(out)


class Gate:
    """`postern --config FILE` in a folder of its own."""

    def __init__(self, binary, folder, sections, overrides=None):
        self.binary = binary
        self.folder = folder
        self.sections = sections
        self.overrides = {k: (None if v is None else dict(v)) for k, v in (overrides or {}).items()}
        self.config = os.path.join(folder, "postern.ini")
        self.log_file = os.path.join(folder, "postern.log")
        self.stderr = os.path.join(folder, "postern.err")
        self.audit_file = os.path.join(folder, "audit.jsonl")
        self.ready_file = os.path.join(folder, "postern.ready")
        self.process = None
        self.ports = {}
        os.makedirs(folder, exist_ok=True)

    def write(self, extra=None):
        """Writes the configuration, with further overrides that stay."""
        for section, change in (extra or {}).items():
            if change is None or self.overrides.get(section, {}) is None:
                self.overrides[section] = change
            else:
                self.overrides.setdefault(section, {}).update(change)
        text = render(self.sections, self.overrides)
        scratch = self.config + ".new"
        with open(scratch, "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(scratch, self.config)

    def launch(self, env=None):
        """Starts the process and returns at once."""
        if not os.path.exists(self.binary):
            raise StandError(f"{self.binary} was not found: build it with make")
        if os.path.exists(self.ready_file):
            os.unlink(self.ready_file)
        self.process = Process("Postern", [self.binary, "--config", self.config], self.stderr,
                               cwd=self.folder, env=env)

    def start(self, env=None, want_ready=True):
        """Starts it and waits until its listeners are open and, unless told otherwise, until
        it says that it is ready."""
        self.write()
        self.launch(env)
        try:
            self.process.ready(20, self._read_ports)
            if want_ready and self.http_url:
                self.process.ready(20, self.is_ready)
        except StandError as e:
            self.process.stop()
            raise StandError(f"{e}{tail(self.log_file)}") from None
        return self

    def _read_ports(self):
        try:
            with open(self.ready_file, encoding="utf-8") as f:
                text = f.read()
        except OSError:
            return False
        if not text.endswith("\n"):
            return False
        self.ports = {}
        for line in text.splitlines():
            name, rest = line.split(" ", 1)
            address, port = rest.rsplit(" ", 1)
            self.ports.setdefault(name, {})[address] = int(port)
        return True

    def port(self, listener="main"):
        """The TCP port of a listener (that of its IPv4 address where there are several)."""
        found = self.ports[listener]
        return found.get("127.0.0.1") or next(iter(found.values()))

    @property
    def http_url(self):
        if "http" in self.ports:
            return f"http://127.0.0.1:{self.port('http')}"
        return None

    def http(self, path):
        """(status, text) of the gate's own HTTP port."""
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(self.http_url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def is_ready(self):
        try:
            return self.http("/health/ready")[0] == 200
        except OSError:
            return False

    def metrics(self):
        """{name{labels}: value} of /metrics."""
        status, text = self.http("/metrics")
        if status != 200:
            raise StandError(f"/metrics answered {status}")
        return dict(m.groups() for m in re.finditer(r"^([a-zA-Z_:][^ ]*(?:\{.*\})?) (\S+)$", text,
                                                    re.MULTILINE))

    def log(self):
        """Everything it wrote: standard error and the log file."""
        text = ""
        for path in (self.stderr, self.log_file):
            try:
                with open(path, encoding="utf-8", errors="replace") as f:
                    text += f.read()
            except FileNotFoundError:
                pass
        return text

    def audit(self):
        try:
            with open(self.audit_file, encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def await_log(self, pattern, since=0, seconds=20):
        """Waits for a line that matches, past the first `since` characters of log()."""
        return wait_for(f"/{pattern}/ in the gate's log", seconds,
                        lambda: re.search(pattern, self.log()[since:]))

    def reload(self, changes=None):
        """SIGHUP after writing the changes; the caller waits for what it wants to see."""
        if changes is not None:
            self.write(changes)
        self.process.signal(signal.SIGHUP)

    def check(self):
        """`postern --check` on the present file: the finished process."""
        return run([self.binary, "--check", "--config", self.config], check=False)

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """Ends it; the exit status."""
        status = 0
        if self.process:
            status = self.process.stop()
            self.process = None
        return status
