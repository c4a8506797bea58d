"""The results as Markdown tables: medians, and medians of the ratios of each round."""
# SPDX-License-Identifier: Apache-2.0
import statistics

BEFORE = "Postern before"  # of another build, which the present one is compared with


def _rows(result, what, keys):
    """{row key: {proxy: {round: sample}}} in the order of measuring."""
    rows = {}
    for s in result["samples"]:
        if s["what"] == what:
            key = tuple(s[k] for k in keys)
            rows.setdefault(key, {}).setdefault(s["proxy"], {})[s.get("round", 0)] = s
    return rows


def _median(samples, value):
    return statistics.median(s[value] for s in samples.values() if value in s)


def _ratio(mine, theirs, value):
    """Median over the rounds of mine / theirs in that round."""
    common = [r for r in mine if value in mine[r] and r in theirs and value in theirs[r]]
    return statistics.median(mine[r][value] / max(theirs[r][value], 1e-9) for r in common)


def _table(result, rows, value, label, form, title):
    others = [p for p in result["proxies"] if p["name"].startswith("PgBouncer") or p["name"] == BEFORE]
    ours = [p for p in result["proxies"] if p["name"].startswith("Postern") and p["name"] != BEFORE]
    shown = {name for by_proxy in rows.values() for name in by_proxy}
    ours = [p for p in ours if p["name"] in shown]
    head = [title] + [p["name"] for p in others]
    for p in ours:
        head.append(p["name"])
        if p["name"] == "Postern" or len(others) == 0:
            head += [f"/ {o['name'].split()[1]}" for o in others]
        elif others:
            head.append(f"/ {others[-1]['name'].split()[1]}")
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key, by_proxy in rows.items():
        cells = [label(key)]

        def number(name):
            samples = by_proxy.get(name)
            return form.format(_median(samples, value)) if samples and \
                any(value in s for s in samples.values()) else "-"

        def ratio(name, other):
            a, b = by_proxy.get(name), by_proxy.get(other)
            if not a or not b or number(name) == "-" or number(other) == "-" or \
                    _median(b, value) <= 0:
                return "-"
            return f"{_ratio(a, b, value):.2f}"

        for o in others:
            text = number(o["name"])
            cells.append("n/a" if text == "-" and not o["prepared"] else text)
        for p in ours:
            cells.append(number(p["name"]))
            if p["name"] == "Postern":
                cells += [ratio(p["name"], o["name"]) for o in others]
            elif others:
                cells.append(ratio(p["name"], others[-1]["name"]))
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def _load(key):
    tls, mode, clients = key
    return f"{'TLS' if tls else 'plain'}, {mode}, {clients} clients"


def _by_call(rows):
    """Which system calls make up the number, for one row after the other."""
    out = []
    for key, by_proxy in rows.items():
        for proxy, samples in by_proxy.items():
            sums = {}
            for s in samples.values():
                for call, n in s.get("by_call", {}).items():
                    sums.setdefault(call, []).append(n)
            parts = [(statistics.fmean(n), call) for call, n in sums.items()]
            text = ", ".join(f"{call} {n:.2f}" for n, call in sorted(parts, reverse=True)
                             if n >= 0.005)
            if text:
                out.append(f"* {_load(key)}, {proxy}: {text}")
    return "\n".join(out) + "\n" if out else ""


def table(result):
    out = []
    loads = _rows(result, "load", ("tls", "mode", "clients"))
    if loads:
        out += ["CPU microseconds a transaction\n",
                _table(result, loads, "cpu", _load, "{:.1f}", "select-only")]
        if result["counted_by"]:
            out += ["System calls a transaction\n",
                    _table(result, loads, "calls", _load, "{:.2f}", "select-only")]
        out += ["Transactions a second (a side figure: the machine's noise is in it)\n",
                _table(result, loads, "tps", _load, "{:.0f}", "select-only")]
    idle = _rows(result, "idle", ("tls",))
    if idle:
        out += ["KiB an idle client\n",
                _table(result, idle, "kib", lambda k: "TLS" if k[0] else "plain", "{:.1f}", "")]
    logins = _rows(result, "login", ("certificate",))
    if logins:
        names = {"rsa": "RSA-2048", "ecdsa": "P-256"}
        out += ["CPU microseconds a full TLS login\n",
                _table(result, logins, "cpu", lambda k: names[k[0]], "{:.0f}", "certificate")]
    copies = _rows(result, "copy", ("tls",))
    if copies:
        out += ["COPY out: CPU seconds a GB\n",
                _table(result, copies, "cpu", lambda k: "TLS" if k[0] else "plain", "{:.2f}", "")]
    for p in result["proxies"]:
        if p["note"]:
            out.append(f"{p['name']}: {p['note']}.\n")
    detail = _by_call(loads)
    if detail:
        out += ["Which system calls\n", detail]
    return "\n".join(out)
