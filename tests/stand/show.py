"""What ./quickstart shows: every line printed comes from a real run, every step is checked."""
# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import time

from . import proc, tokens
from .proc import StandError, run, wait_for
from .stand import METERED_QPS

RAISED_QPS = 100000
QUERIES = 60


class Failed(StandError):
    """A step showed something else than it should."""


def _indent(text, limit=40):
    lines = text.rstrip("\n").splitlines()
    if len(lines) > limit:
        lines = lines[:limit] + [f"... {len(lines) - limit} more lines"]
    return "\n".join("    " + line for line in lines)


class Show:
    def __init__(self, stand, gate):
        self.stand = stand
        self.gate = gate
        self.number = 0
        self.resolves = run(["getent", "hosts", "localhost"], check=False).returncode == 0
        self.tokens = {}

    # ---- the means ----

    def step(self, title):
        self.number += 1
        print(f"\n== {self.number}. {title}", flush=True)

    def note(self, text):
        print(f"   {text}", flush=True)

    def need(self, truth, what):
        if not truth:
            raise Failed(f"step {self.number}: {what}")
        print(f"   ok: {what}", flush=True)

    def dsn(self, user, database):
        """What an application is given; the token is its password."""
        return proc.conninfo(host="localhost", hostaddr=None if self.resolves else "127.0.0.1",
                             port=self.gate.port(), user=user, dbname=database,
                             sslmode="verify-full", sslrootcert=self.stand.authority.crt)

    def _environment(self, password):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PSQL"))}
        env.update(PGPASSWORD=password, PGCONNECT_TIMEOUT="20")
        return env

    def _shown(self, password):
        return f"{password[:12]}...({len(password)} bytes)" if len(password) > 60 else "..."

    def psql(self, user, database, password, *statements, quiet=False, script=None, options=()):
        """Runs psql, shows the command and what came back: (exit status, stdout, stderr)."""
        argv = ["psql", "-X", *options, self.dsn(user, database)]
        for statement in statements:
            argv += ["-c", statement]
        if not quiet:
            print(f"   $ PGPASSWORD={self._shown(password)} \\\n     "
                  f"{shlex.join(argv)}", flush=True)
        done = run(argv, stdin=script, env=self._environment(password), check=False)
        if not quiet and (done.stdout or done.stderr):
            print(_indent(done.stdout + done.stderr), flush=True)
        return done

    # ---- the steps ----

    def all(self):
        for step in (self.minted, self.through_the_dsn, self.kept_out, self.bad_tokens,
                     self.one_tenant_stopped, self.node_killed, self.limit_raised, self.console,
                     self.health):
            step()

    def minted(self):
        self.step("Tokens: the stand plays the identity provider")
        s = self.stand
        print(f"   $ postern token --key {s.signing_key.path} --kid {s.signing_key.kid} "
              f"--alg ES256 \\\n     --issuer {tokens.ISSUER} --audience {tokens.AUDIENCE} "
              f"--tenant acme --role rw --lifetime 24h --subject acme-application")
        for tenant in ("acme", "globex", "metered"):
            self.tokens[tenant] = s.mint(tenant)
        self.note(self._shown(self.tokens["acme"]))
        self.need(all(t.count(".") == 2 for t in self.tokens.values()),
                  "a token each for acme, globex and metered")

    def through_the_dsn(self):
        self.step("psql through the DSN, as acme: the token is the password")
        done = self.psql("acme_rw", "acme", self.tokens["acme"],
                         "SELECT current_user, current_database(), words FROM greeting")
        self.need(done.returncode == 0 and "hello from acme" in done.stdout
                  and "acme_rw" in done.stdout, "acme reads its own data with its own role")
        done = self.psql("globex_rw", "globex", self.tokens["globex"],
                         "SELECT current_user, current_database(), words FROM greeting")
        self.need(done.returncode == 0 and "hello from globex" in done.stdout,
                  "globex reads its own")

    def kept_out(self):
        self.step("globex is kept out of acme's database")
        done = self.psql("globex_rw", "acme", self.tokens["globex"],
                         "SELECT * FROM greeting")
        self.need(done.returncode != 0 and "do not allow this database" in done.stderr
                  and "hello" not in done.stdout, "refused, with a sentence that says why")
        done = self.psql("acme_rw", "acme", self.tokens["globex"], "SELECT * FROM greeting")
        self.need(done.returncode != 0 and "hello" not in done.stdout,
                  "nor does acme's user name help with globex's token")

    def bad_tokens(self):
        self.step("A forged and an expired token are refused")
        s = self.stand
        forger = tokens.Key(s.path("keys", "forger.pem"), s.signing_key.kid, "ES256")
        cases = (("signed by somebody else, under the same key id", s.token("acme", key=forger)),
                 ("expired an hour ago", s.token("acme", lifetime=-3600)))
        for what, token in cases:
            self.note(f"a token {what}:")
            before = len(self.gate.audit())
            done = self.psql("acme_rw", "acme", token, "SELECT 1")
            self.need(done.returncode != 0 and "authentication failed" in done.stderr,
                      "refused; the answer does not say why")
            line = wait_for("the refusal in the audit trail", 10, lambda: re.search(
                r'.*login_refused.*\n', self.gate.audit()[before:])).group(0)
            self.note("the audit trail does:")
            print(_indent(line))
            self.need(token not in self.gate.audit() + self.gate.log(),
                      "and holds nothing of the token")

    def _burst(self, tenant, quiet=False):
        """QUERIES queries in one psql: (answered, refused, text of the first refusal)."""
        script = "\\set VERBOSITY verbose\n" + "".join(
            f"SELECT 'answer {n}';\n" for n in range(1, QUERIES + 1))
        done = self.psql(f"{tenant}_rw", tenant, self.tokens[tenant], script=script, quiet=True,
                         options=("-A", "-t", "-q"))
        refused = re.findall(r"(?m)^.*ERROR:  53400:.*(?:\n(?!.*ERROR: ).*)*", done.stderr)
        return len(re.findall(r"(?m)^answer \d+$", done.stdout)), len(refused), \
            refused[0] if refused else done.stderr

    def one_tenant_stopped(self):
        self.step(f"A tenant beyond its limit of {METERED_QPS} queries a second is stopped, "
                  "another is not")
        script = f"for n in 1..{QUERIES}: SELECT 'answer n'"
        print(f"   $ psql \"... user=metered_rw dbname=metered\"   # {script}")
        answered, refused, text = self._burst("metered")
        self.note(f"metered: {answered} answered, {refused} refused; the first refusal:")
        print(_indent(text))
        self.need(answered >= 1 and refused >= 1 and answered + refused == QUERIES,
                  "stopped with 53400, and the session went on after each refusal")
        self.need("HINT" in text, "the refusal says when to come back")
        print(f"   $ psql \"... user=acme_rw dbname=acme\"   # {script}")
        answered, refused, text = self._burst("acme")
        self.note(f"acme: {answered} answered, {refused} refused")
        self.need(answered == QUERIES and refused == 0, "acme notices nothing")

    def node_killed(self):
        self.step("A node is killed; the session stays and its next query is answered")
        query = "SELECT 'served', inet_client_port();"
        with self._session("acme") as psql:
            node = self._node_of(self._ask(psql, query))
            self.need(node is not None, f"the query is served through {node and node.name}, "
                      f"port {node and node.port}")
            pid = node.pid
            node.kill()
            self.note(f"$ kill -9 {pid}   # {node.name}")
            started = time.monotonic()
            other = self._node_of(self._ask(psql, query))
            took = time.monotonic() - started
            self.need(other is not None and other is not node,
                      f"the same session's next query is answered through {other and other.name}, "
                      f"after {took * 1000:.0f} ms")
        node.start()
        self.note(f"{node.name} is started again on port {node.port}")

    @contextlib.contextmanager
    def _session(self, tenant):
        """A psql of the tenant that stays open."""
        argv = ["psql", "-XAtq", self.dsn(f"{tenant}_rw", tenant)]
        print(f"   $ {shlex.join(argv)}   # one session, kept open", flush=True)
        psql = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT,
                                env=self._environment(self.tokens[tenant]))
        try:
            yield psql
        finally:
            psql.stdin.close()
            try:
                psql.wait(10)
            except subprocess.TimeoutExpired:
                psql.kill()
                psql.wait()

    def _ask(self, psql, query):
        """One query in a psql that stays open; the line that it answers."""
        print(f"   => {query}")
        psql.stdin.write(query.encode() + b"\n")
        psql.stdin.flush()
        answer = b""
        deadline = time.monotonic() + 20 * proc.PATIENCE
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([psql.stdout], [], [], left)[0]:
                raise Failed(f"step {self.number}: no answer; so far: {answer.decode()!r}")
            part = os.read(psql.stdout.fileno(), 4096)
            if not part:
                raise Failed(f"step {self.number}: psql ended: {answer.decode()!r}")
            answer += part
        print(_indent(answer.decode()), flush=True)
        return answer.decode()

    def _node_of(self, answer):
        found = re.match(r"served\|(\d+)$", answer.strip())
        if not found:
            raise Failed(f"step {self.number}: unexpected answer {answer!r}")
        port = int(found.group(1))
        return next((n for n in self.stand.nodes if n.process.alive() and n.carries(port)), None)

    def limit_raised(self):
        self.step("A reload raises the limit of metered")
        self._set_limit(RAISED_QPS)
        answered, refused, text = self._burst("metered")
        self.note(f"metered: {answered} answered, {refused} refused")
        self.need(answered == QUERIES and refused == 0,
                  f"{QUERIES} queries at once pass now")

    def _set_limit(self, limit):
        self.gate.write({"plan metered": {"queries_per_second": limit}})
        print(f"   $ sed -i '/^\\[plan metered]/,/^$/ s/^queries_per_second = .*/queries_per_second "
              f"= {limit}/' {self.gate.config}\n   $ kill -HUP {self.gate.pid}")
        self.gate.process.signal(signal.SIGHUP)

        def applied():
            done = self.psql(self.stand.admin_user, "postern", self.stand.admin_password,
                             "SHOW CONFIG", quiet=True, options=("-A", "-t"))
            return [line for line in done.stdout.splitlines()
                    if "metered" in line and "queries_per_second" in line and str(limit) in line]
        line = wait_for("SHOW CONFIG to tell the new limit", 15, applied)[0]
        self.note(f"SHOW CONFIG: {line}")

    def console(self):
        self.step("The console: pools and limits, while two tenants are connected")
        with self._session("acme") as acme, self._session("metered") as metered:
            for psql in (acme, metered):
                self._ask(psql, "SELECT 'connected';")
            for command, names in (("SHOW POOLS", ("acme", "metered")),
                                   ("SHOW LIMITS", ("acme", "metered")),
                                   ("SHOW NODES", [str(n.port) for n in self.stand.nodes])):
                done = self.psql(self.stand.admin_user, "postern", self.stand.admin_password, command)
                self.need(done.returncode == 0 and all(name in done.stdout for name in names),
                          f"{command} tells of {', '.join(names)}")
        done = self.psql("acme_rw", "postern", self.tokens["acme"], "SHOW POOLS")
        self.need(done.returncode != 0 and "(0 rows)" not in done.stdout
                  and "globex" not in done.stdout, "who is no administrator is not let in")

    def health(self):
        self.step("Health, for whoever watches the gate")
        for path in ("/health/startup", "/health/live", "/health/ready"):
            status, text = self.gate.http(path)
            self.note(f"GET {self.gate.http_url}{path} -> {status} {text.strip()[:100]}")
            if status != 200:
                raise Failed(f"step {self.number}: {path} answered {status}")
        self.need(bool(self.gate.metrics()), "all well, and /metrics can be read")

    def restore(self):
        """Leaves a kept stand as its env file says."""
        self.step("Back to the limit that the kept stand promises")
        self._set_limit(METERED_QPS)
