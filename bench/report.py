"""The results as Markdown tables: medians, and medians of the ratios of each round."""
# SPDX-License-Identifier: Apache-2.0
import json
import os
import platform
import statistics

BEFORE = "Postern before"  # of another build, which the present one is compared with


def machine(load):
    """What is kept of where it was measured. load: getloadavg() before."""
    return {"processors": os.cpu_count(), "kernel": platform.release(), "load": [load, os.getloadavg()]}


def write(result, text, folder, name):
    """Prints the tables, and keeps them with all that was measured where there is a folder."""
    print("\n" + text)
    if folder:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
        with open(os.path.join(folder, f"{name}.md"), "w", encoding="utf-8") as f:
            f.write(text)


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


def _lines(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def floods(result):
    """Latencies of those who are in, what the floods were, and logins meanwhile."""
    groups = {}
    for s in result["samples"]:
        groups.setdefault((s["kind"], s["proxy"]), {}).setdefault(s["phase"], {})[s["round"]] = s
    phases = ("none", "beside", "here")
    who, what, new = [], [], []
    for (kind, proxy), by_phase in groups.items():
        none, beside, here = (by_phase[p] for p in phases)
        row = [kind, proxy]
        for value in ("p50", "p99"):
            row += [f"{_median(s, value):.2f}" for s in (none, beside, here)]
            row.append(f"{_ratio(here, beside, value):.2f}")
        row += [f"{max(s['max'] for s in by_phase[p].values()):.0f}" for p in phases]
        row.append(" / ".join(f"{_median(by_phase[p], 'tps'):.0f}" for p in phases))
        who.append(row)
        row = [kind, proxy]
        for samples in (beside, here):
            told = {r: s["flood"] for r, s in samples.items()}
            row += [f"{_median(told, v):.0f}" for v in ("attempts", "answered", "closed", "open")]
            row.append(f"{_median(told, 'cpu'):.2f}")
        what.append(row + [f"{_median(s, 'gate_cpu'):.2f}" for s in (none, here)])
        row = [kind, proxy]
        for p in phases:
            took = sorted(ms for s in by_phase[p].values() for ms in s["logins"])
            failed = sum(len(s["failed_logins"]) for s in by_phase[p].values())
            row += [f"{len(took)} / {failed}",
                    f"{statistics.median(took):.1f} / {took[-1]:.0f}" if took else "-"]
        new.append(row)
    return "\n".join([
        f"Milliseconds of a transaction of those who are in, {result['rate']} a second. No flood, one at the "
        "neighbour (beside), one here; the ratio is here / beside\n",
        _lines(["flood", "proxy", "p50 none", "beside", "here", "ratio", "p99 none", "beside", "here", "ratio",
                "max none", "beside", "here", "transactions a second: none / beside / here"], who),
        "What the floods were, a second\n",
        _lines(["flood", "proxy", "beside: attempts", "answered", "closed", "open", "its CPU",
                "here: attempts", "answered", "closed", "open", "its CPU", "proxy's CPU: none", "here"], what),
        "New logins by TLS meanwhile: done / failed, and milliseconds: median / longest\n",
        _lines(["flood", "proxy", "none", "ms", "beside", "ms", "here", "ms"], new)])
