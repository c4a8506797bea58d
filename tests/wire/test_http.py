"""Health and metrics."""
# SPDX-License-Identifier: Apache-2.0
import re
import socket
import time
import urllib.error
import urllib.request

from stand import proc

LINE = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*",?)*\})?'
                  r' (-?[0-9.]+([eE][-+]?[0-9]+)?|NaN|[+-]Inf)( -?[0-9]+)?$')


def test_metrics_have_the_form_of_prometheus(gate, login):
    login(gate).query("SELECT 1")
    status, text = gate.http("/metrics")
    assert status == 200 and text.endswith("\n")
    types, seen = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types and kind in ("counter", "gauge", "histogram", "summary")
            types[name] = kind
        elif line and not line.startswith("#"):
            assert LINE.match(line), line
            name = re.match(r"[^{ ]+", line).group(0)
            assert name in types or re.sub("_(bucket|sum|count|total)$", "", name) in types, name
            key = line.rpartition(" ")[0]
            assert key not in seen, f"twice: {key}"
            seen.add(key)
    assert types


def test_metrics_content_type(gate):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(gate.http_url + "/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")


def test_log_says_where_http_listens(make_gate):
    """Port 0: nothing else does, without a ready file. A reload that keeps it says nothing."""
    gate = make_gate()
    first = gate.port("http")
    gate.await_log(rf"info +listening: http on 127\.0\.0\.1 port {first}\n")
    gate.reload({"postern": {"http_max_connections": 5}})
    gate.await_log("is in force")
    assert len(re.findall("listening: http on", gate.log())) == 1
    since = len(gate.log())
    gate.reload({"postern": {"http_listen": "[::1]:0" if proc.has_ipv6() else "localhost:0"}})
    gate.await_log(rf"stopped listening: http on 127\.0\.0\.1 port {first}\n", since)
    second = int(gate.await_log(r" listening: http on (?:::1|localhost) port (\d+)\n", since)[1])
    address = "::1" if proc.has_ipv6() else "localhost"
    proc.wait_for("the ready file to say so, too", 20, lambda: gate._read_ports() and gate.ports["http"] == {address: second})
    socket.create_connection(("::1" if proc.has_ipv6() else "127.0.0.1", second), timeout=20).close()
    since = len(gate.log())
    gate.reload({"postern": {"http_listen": ""}})
    gate.await_log(rf"stopped listening: http on \S+ port {second}\n", since)


def test_last_reload_is_in_the_metrics(make_gate, console):
    """By a signal and from the console; a start counts as one that has succeeded."""
    gate = make_gate()

    def last():
        m = gate.metrics()
        return int(m["postern_last_reload_successful"]), int(m["postern_last_reload_timestamp_seconds"])
    started = int(gate.metrics()["process_start_time_seconds"])
    assert last() == (1, started)
    gate.reload({"postern": {"log_level": "loud"}})
    proc.wait_for("it to be refused", 15, lambda: last() == (0, started))
    proc.wait_for("another second", 5, lambda: int(time.time()) > started)
    gate.write({"postern": {"log_level": "info"}})
    before = int(time.time())
    console(gate).query("RELOAD")
    ok, at = last()
    assert ok == 1 and before <= at <= time.time()


def test_metrics_move(make_gate, login):
    gate = make_gate()
    before = gate.metrics()
    c = login(gate)
    for _ in range(30):
        c.query("SELECT 1")

    def moved():
        after = gate.metrics()
        return [k for k, v in after.items() if float(v) - float(before.get(k, 0)) >= 30]
    proc.wait_for("a counter to move by 30", 10, moved)


def test_metrics_hold_no_secret(gate, login, token, stand):
    login(gate).query("SELECT 1")
    text = gate.http("/metrics")[1]
    assert token() not in text and stand.admin_password not in text


def test_unknown_path_is_404(gate):
    assert gate.http("/etc/passwd")[0] == 404


def test_other_methods_are_refused(gate):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(gate.http_url + "/metrics", data=b"x", method="POST")
    try:
        with opener.open(request, timeout=20) as answer:
            status = answer.status
    except urllib.error.HTTPError as e:
        status = e.code
    assert status in (400, 404, 405, 501)


def test_rubbish_on_the_http_port_harms_nothing(gate):
    for data in (b"\0" * 1000, b"GET " + b"/" * 100000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n"):
        with socket.create_connection(("127.0.0.1", gate.port("http")), timeout=20) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
    assert gate.http("/health/live")[0] == 200


def test_no_http_when_not_wanted(make_gate, login):
    gate = make_gate({"postern": {"http_listen": ""}})
    assert gate.http_url is None
    assert login(gate).query("SELECT 1") == [["1"]]
