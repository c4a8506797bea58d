// What python/harness.py does, for the drivers of Node.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");

const own = [];

function test(name, run, two = false) {
  own.push({ name, two, run });
}

function commonCases() {
  const cases = [];
  for (const line of fs.readFileSync(process.env.DRIVERS_CASES, "utf8").split("\n")) {
    if (!line.trim() || line.startsWith("#")) continue;
    const m = /^case (\S+)( two)?$/.exec(line);
    if (m) cases.push({ name: m[1], two: Boolean(m[2]), steps: [] });
    else cases[cases.length - 1].steps.push(line);
  }
  return cases;
}

function cut(text, by) {
  const at = text.indexOf(by);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + by.length)];
}

function parse(line) {
  let times = 1, verb, rest, name, text, values = [];
  [verb, rest] = cut(line, " ");
  if (verb === "times") {
    [times, rest] = cut(rest, " ");
    [verb, rest] = cut(rest, " ");
  }
  [name, text] = cut(rest, " ");
  if (verb === "arg") {
    let tail;
    [text, tail] = cut(text, " <-");
    values = tail.split("|").map((v) => v.trim());
  } else if (verb === "open") {
    text = Object.fromEntries(text.split(";;").filter((p) => p.trim()).map((p) => cut(p.trim(), "=")));
  }
  return { times: Number(times), verb, name, text, values };
}

async function steps(driver, lines) {
  const out = [], open = {};
  for (const line of lines) {
    const { times, verb, name, text, values } = parse(line);
    let last = null, count = 0;
    const tell = () => last !== null && out.push(count === 1 ? last : `${last} x${count}`);
    for (let i = 0; i < times; i++) {
      let result;
      try {
        if (verb === "open") {
          open[name] = await driver.open(text);
          result = "+";
        } else if (!(name in open)) {
          result = "(not connected)";
        } else if (verb === "close") {
          await driver.close(open[name]);
          delete open[name];
          result = "-";
        } else if (verb === "run") {
          result = await driver.run(open[name], text);
        } else {
          result = await driver.arg(open[name], text, values);
        }
      } catch (e) {
        result = error(e);
      }
      if (result === last) { count++; continue; }
      tell();
      last = result;
      count = 1;
    }
    tell();
  }
  for (const name of Object.keys(open)) await driver.close(open[name]);
  return out;
}

function error(e) {
  return `!${e.severity || e.severity_local || e.name} ${e.code || ""} ${String(e.message).replace(/localhost:\d+/, "(its)")}` +
    (e.detail ? ` DETAIL ${e.detail}` : "") + (e.hint ? ` HINT ${e.hint}` : "") +
    (e.position ? ` at ${e.position}` : "");
}

async function failing(promise) {
  try {
    return show(await promise);
  } catch (e) {
    return error(e);
  }
}

function show(value) {
  if (Buffer.isBuffer(value) || value instanceof Uint8Array) return "bytes:" + Buffer.from(value).toString("hex");
  if (typeof value === "string") return value;
  if (typeof value === "bigint") return `${value}n`;
  return JSON.stringify(value, (k, v) => (typeof v === "bigint" ? `${v}n` : v));
}

function rows(all) {
  return all.map((row) => "[" + Object.values(row).map((v) => (v === null ? "NULL" : show(v))).join(",") + "]").join("");
}

const listed = (variable) => new Set((process.env[variable] || "").split("|").filter(Boolean));

async function main(driver) {
  const only = listed("DRIVERS_ONLY"), skip = listed("DRIVERS_SKIP"), one = process.env.DRIVERS_ONE === "1";
  const common = commonCases().map((c) => ({ ...c, run: () => steps(driver, c.steps) }));
  const unfit = new Set(driver.unfit || []);
  for (const { name, two, run } of [...common.filter((c) => !unfit.has(c.name)), ...own]) {
    if ((only.size && !only.has(name)) || skip.has(name) || (one && two)) continue;
    fs.writeSync(1, `> ${name}\n`);
    let result;
    try {
      result = await run();
      if (Array.isArray(result)) result = result.map(show).join(" ; ");
    } catch (e) {
      result = `!! ${error(e)}`;
    }
    result = String(result).replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
    fs.writeSync(1, `${name}\t${result}\n`);
  }
  process.exit(0);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function within(ms, question) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(10)) {
    if (question()) return true;
  }
  return false;
}

module.exports = { test, main, rows, show, failing, error, sleep, within };
