"""Runs the cases of one driver and prints `name<TAB>result` for each. The programs in other
languages do the same: see ../README.md for the rules."""
# SPDX-License-Identifier: Apache-2.0
import asyncio
import inspect
import os
import sys

CASES = []


class Same:
    """The steps' results of one case; equal results in a row are told once."""

    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(str(text))

    def text(self):
        return " ; ".join(self.parts)


def case(name, two=False):
    """Decorator: a case of the driver's own; it returns its result or a list of results."""
    def keep(function):
        CASES.append((name, two, function))
        return function
    return keep


def common_cases():
    """[(name, two, steps)] of common.cases."""
    cases = []
    with open(os.environ["DRIVERS_CASES"], encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if not line.strip() or line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            if word == "case":
                name, _, two = rest.partition(" ")
                cases.append((name, two == "two", []))
            else:
                cases[-1][2].append(line)
    return cases


def parse(step):
    """(times, verb, connection, sql or options, parameters)"""
    times = 1
    verb, _, rest = step.partition(" ")
    if verb == "times":
        count, _, rest = rest.partition(" ")
        times = int(count)
        verb, _, rest = rest.partition(" ")
    name, _, text = rest.partition(" ")
    values = []
    if verb == "arg":
        text, _, tail = text.partition(" <-")
        values = [v.strip() for v in tail.split("|")]
    elif verb == "open":
        text = dict(pair.strip().partition("=")[::2] for pair in text.split(";;") if pair.strip())
    return times, verb, name, text, values


async def settled(value):
    return await value if inspect.isawaitable(value) else value


async def steps(driver, lines):
    same = Same()
    connections = {}
    try:
        for line in lines:
            times, verb, name, text, values = parse(line)
            last, count = None, 0
            for _ in range(times):
                try:
                    if verb == "open":
                        connections[name] = await settled(driver.open(text))
                        result = "+"
                    elif verb == "close":
                        await settled(driver.close(connections.pop(name)))
                        result = "-"
                    elif name not in connections:
                        result = "(not connected)"
                    elif verb == "run":
                        result = await settled(driver.run(connections[name], text))
                    else:
                        result = await settled(driver.arg(connections[name], text, values))
                except Exception as e:  # an error is part of the result
                    result = driver.error(e)
                if result == last:
                    count += 1
                    continue
                if last is not None:
                    same.add(last if count == 1 else f"{last} x{count}")
                last, count = result, 1
            same.add(last if count == 1 else f"{last} x{count}")
    finally:
        for connection in connections.values():
            try:
                await settled(driver.close(connection))
            except Exception as e:
                same.add(f"close: {driver.error(e)}")
    return same.text()


def rows(all_rows):
    """Rows as text; None is told apart from its name."""
    return "".join("[" + ",".join("NULL" if v is None else show(v) for v in row) + "]"
                   for row in all_rows)


def show(value):
    if isinstance(value, (bytes, memoryview, bytearray)):
        return "bytes:" + bytes(value).hex()
    return str(value) if isinstance(value, str) else repr(value)


def one_line(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


async def main_async(driver):
    only = set(filter(None, os.environ.get("DRIVERS_ONLY", "").split("|")))
    skip = set(filter(None, os.environ.get("DRIVERS_SKIP", "").split("|")))
    one = os.environ.get("DRIVERS_ONE") == "1"
    unfit = getattr(driver, "unfit", ())
    todo = [(name, two, lambda s=lines: steps(driver, s)) for name, two, lines in common_cases()
            if name not in unfit]
    todo += CASES
    for name, two, function in todo:
        if (only and name not in only) or name in skip or (one and two):
            continue
        print(f"> {name}", flush=True)
        try:
            result = await settled(function())
            if isinstance(result, (list, tuple)):
                result = " ; ".join(str(r) for r in result)
        except Exception as e:
            result = f"!! {type(e).__name__} {driver.error(e)}"
        print(f"{name}\t{one_line(str(result))}", flush=True)


def main(driver):
    asyncio.run(main_async(driver))
    sys.stdout.flush()
