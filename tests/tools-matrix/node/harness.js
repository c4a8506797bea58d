// What a tool's program in Node does: cases that print `name<TAB>result`, and roles that are
// played by further processes of the same program.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");
const { fork } = require("child_process");
const { Client } = require("pg");

const cases = [];
const roles = {};

function test(name, run) {
  cases.push({ name, run });
}

// What a further process does; `say` tells the parent of something on the way.
function role(name, run) {
  roles[name] = run;
}

const connection = () => ({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER,
  password: process.env.PGPASSWORD, database: process.env.PGDATABASE,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8"), rejectUnauthorized: true, servername: "localhost" },
});

const url = () => `postgresql://${encodeURIComponent(process.env.PGUSER)}:${encodeURIComponent(process.env.PGPASSWORD)}` +
  `@${process.env.PGHOST}:${process.env.PGPORT}/${process.env.PGDATABASE}` +
  `?sslmode=verify-full&sslrootcert=${process.env.PGSSLROOTCERT}`;

// A process that is ready for its role and waits for go().
class Helper {
  constructor(name, args) {
    this.heard = [];
    this.waiting = [];
    this.child = fork(process.argv[1], process.argv.slice(2), {
      env: { ...process.env, TOOL_ROLE: name, TOOL_ARGUMENTS: JSON.stringify(args ?? null) },
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    this.child.on("message", (m) => this.tell(m));
    this.child.on("exit", (code, signal) => this.tell({ ended: signal || code }));
  }
  tell(message) {
    this.heard.push(message);
    this.waiting = this.waiting.filter((w) => !w());
  }
  // The first message that has this field.
  hear(field) {
    return new Promise((resolve) => {
      const look = () => {
        const m = this.heard.find((h) => field in h) || this.heard.find((h) => "ended" in h);
        if (m) resolve(field in m ? m[field] : { ended: m.ended });
        return Boolean(m);
      };
      if (!look()) this.waiting.push(look);
    });
  }
  said(text) {
    return new Promise((resolve) => {
      const look = () => {
        const m = this.heard.find((h) => h.said === text) || this.heard.find((h) => "ended" in h);
        if (m) resolve(m.said === text);
        return Boolean(m);
      };
      if (!look()) this.waiting.push(look);
    });
  }
  go() { this.child.send("go"); return this; }
  stop() { if (this.child.connected) this.child.send("stop"); return this; }
  result() { return this.hear("result"); }
  async kill() {
    this.child.kill("SIGKILL");
    return this.hear("ended");
  }
}

// Several processes do the same at once; their results.
async function together(count, name, args) {
  const all = Array.from({ length: count }, () => new Helper(name, args));
  await Promise.all(all.map((h) => h.hear("ready")));
  all.forEach((h) => h.go());
  return Promise.all(all.map((h) => h.result()));
}

async function helper(name, args) {
  const h = new Helper(name, args);
  await h.hear("ready");
  return h.go();
}

function play() {
  const stopped = new Promise((resolve) => process.on("message", (m) => m === "stop" && resolve()));
  process.on("disconnect", () => process.exit(1));
  process.once("message", async () => {
    let result;
    try {
      result = await roles[process.env.TOOL_ROLE](JSON.parse(process.env.TOOL_ARGUMENTS),
        { say: (text) => process.send({ said: text }), stopped });
    } catch (e) {
      result = error(e);
    }
    process.send({ result: result === undefined ? "done" : result }, () => process.exit(0));
  });
  process.send({ ready: true });
}

function error(e) {
  const at = e.original || e.driverError || (e.cause && e.cause.code ? e.cause : e);
  return `!${e.name} ${at.code || ""} ${String(at.message).replace(/localhost:\d+/, "(its)")}` +
    (at.detail ? ` DETAIL ${at.detail}` : "") + (at.hint ? ` HINT ${at.hint}` : "") +
    (at.constraint ? ` of ${at.constraint}` : "");
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

// A connection that looks on, of the same kind as the tool's.
async function look(sql, values) {
  const client = new Client(connection());
  await client.connect();
  try {
    return (await client.query({ text: sql, values, rowMode: "array" })).rows;
  } finally {
    await client.end();
  }
}

// Tables with their columns, constraints and indexes, enumerations and functions of a schema.
async function schema(name) {
  const rows = await look(`
    SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ||
           CASE WHEN a.attnotnull THEN ' not null' ELSE '' END ||
           coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p') AND c.relname <> 'greeting'
    UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
     WHERE connamespace = $1::regnamespace AND conrelid <> 0 AND conrelid::regclass::text NOT LIKE '%greeting'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = $1::text AND tablename <> 'greeting'
    UNION ALL SELECT t.typname || ' enum ' || string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
      FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.typnamespace = $1::regnamespace GROUP BY t.oid, t.typname
    UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = $1::regnamespace
    UNION ALL SELECT tgrelid::regclass || ' ' || pg_get_triggerdef(oid) FROM pg_trigger
     WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = $1::regnamespace)
    ORDER BY 1`, [name]);
  return rows.map((r) => r[0]);
}

// Equal results of several processes, counted.
function tally(results) {
  const counts = {};
  for (const r of results.map(show)) counts[r] = (counts[r] || 0) + 1;
  return Object.keys(counts).sort().map((k) => `${counts[k]}x ${k}`).join(", ");
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(question, ms = 30000) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(20)) {
    if (await question()) return true;
  }
  return false;
}

const listed = (variable) => new Set((process.env[variable] || "").split("|").filter(Boolean));

async function main() {
  if (process.env.TOOL_ROLE) return play();
  const only = listed("DRIVERS_ONLY"), skip = listed("DRIVERS_SKIP");
  for (const { name, run } of cases) {
    if ((only.size && !only.has(name)) || skip.has(name)) continue;
    fs.writeSync(1, `> ${name}\n`);
    let result;
    try {
      result = await run();
      if (Array.isArray(result)) result = result.map(show).join(" ; ");
    } catch (e) {
      result = `!! ${error(e)} ${e.stack}`;
    }
    result = String(result).replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\r/g, "\\r").replace(/\t/g, "\\t");
    fs.writeSync(1, `${name}\t${result}\n`);
  }
  return process.exit(0);
}

module.exports = { test, role, main, connection, url, helper, together, look, schema, tally, show, failing, error, sleep, until };
