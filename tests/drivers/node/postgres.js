// postgres.js: prepares what it runs, pipelines, asks the server for its types.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");
const postgres = require("postgres");
const { test, main, show, rows, failing, sleep, within } = require("./harness.js");

function client(options = {}, more = {}) {
  return postgres({
    host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, pass: process.env.PGPASSWORD,
    database: process.env.PGDATABASE, max: 1, connect_timeout: 20, idle_timeout: 0, onnotice: () => {},
    ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8"), servername: "localhost" },
    connection: { application_name: "postgres.js", ...options }, ...more,
  });
}

const driver = {
  async open(options) {
    const sql = client(options);
    try {
      await sql`SELECT 1`;
    } catch (e) {
      await sql.end({ timeout: 1 });
      throw e;
    }
    return sql;
  },
  result(r) {
    if (Array.isArray(r[0]) && r.length && r[0].command !== undefined) return r.map(driver.result).join(" & ");
    const names = (r.columns || []).map((c) => `${c.name}:${c.type}`).join(",");
    return `${r.command} ${r.count} (${names})${rows(Array.from(r))}`;
  },
  // The simple protocol, as unsafe() without parameters does it.
  async run(sql, text) { return driver.result(await sql.unsafe(text)); },
  async arg(sql, text, values) { return driver.result(await sql.unsafe(text, values, { prepare: true })); },
  async close(sql) { await sql.end({ timeout: 5 }); },
};
const run = driver.run;

async function using(sql, body) {
  try {
    return await body(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

test("tagged queries", () => using(client(), async (sql) => {
  const out = [];
  for (let i = 0; i < 8; i++) out.push(show(await sql`SELECT ${i}::int + 1 AS n, ${"x"} AS t`));
  out.push(await failing(sql`SELECT 1 / ${0}::int AS n`));
  out.push(await failing(sql`SELECT nothing`));
  out.push(show(await sql`SELECT ${[1, 2, 3]}::int[] AS a, ${sql.json({ k: 1 })} AS j, ${new Date(0)} AS d, ${null}::text AS n, ${true} AS b`));
  out.push(show(await sql`SELECT ${Buffer.from([0, 1, 255])}::bytea AS b, '世界😀' AS u, 1.5::numeric AS n, ${2n ** 60n}::int8 AS i`));
  out.push(show(await sql`SELECT * FROM ${sql("pg_database")} WHERE datname = ${"acme"} AND ${sql`true`} LIMIT 0`));
  return out;
}));

test("parallel queries on one connection", () => using(client(), async (sql) =>
  Promise.all(Array.from({ length: 200 }, (_, i) => failing(sql`SELECT 100 / (${i}::int % 7) AS v`.then((r) => r[0].v))))));

test("parallel queries on several connections", () => using(client({}, { max: 5 }), async (sql) =>
  Promise.all(Array.from({ length: 200 }, (_, i) => sql`SELECT ${i}::int AS v`.then((r) => r[0].v)))), true);

test("transactions and savepoints", () => using(client(), async (sql) => {
  const out = [];
  await sql`DROP TABLE IF EXISTS t_pjs`;
  await sql`CREATE TABLE t_pjs (id int PRIMARY KEY, v text)`;
  out.push(await sql.begin(async (t) => {
    await t`INSERT INTO t_pjs ${t([{ id: 1, v: "a" }, { id: 2, v: "b" }])}`;
    const inner = await failing(t.savepoint(async (s) => s`INSERT INTO t_pjs VALUES (1, 'again')`));
    return [inner, (await t`SELECT count(*)::int AS n FROM t_pjs`)[0].n];
  }));
  out.push(await failing(sql.begin("ISOLATION LEVEL SERIALIZABLE READ ONLY", async (t) => {
    out.push((await t`SHOW transaction_isolation`)[0].transaction_isolation);
    await t`INSERT INTO t_pjs VALUES (9, 'x')`;
  })));
  out.push(await failing(sql.begin(async (t) => { await t`INSERT INTO t_pjs VALUES (5, 'x')`; throw new Error("the program fails"); })));
  out.push(await sql.begin((t) => [t`SELECT 1 AS a`, t`SELECT 2 AS b`]).then(show));
  out.push(show(await sql`SELECT * FROM t_pjs ORDER BY id`));
  await sql`DROP TABLE t_pjs`;
  return out;
}));

test("300 prepared statements", () => using(client(), async (sql) => {
  let sum = 0;
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 300; i++) sum += (await sql.unsafe(`SELECT ${i} + $1::int AS n`, [1], { prepare: true }))[0].n;
  }
  return [sum];
}));

test("no prepared statements", () => using(client({}, { prepare: false }), async (sql) => {
  const out = [];
  for (const v of [1, 0, 2]) out.push(await failing(sql`SELECT 10 / ${v}::int AS n`.then(show)));
  return out;
}));

test("cursor", () => using(client(), async (sql) => {
  const out = [];
  let sum = 0;
  await sql`SELECT g FROM generate_series(1, 1000) g`.cursor(37, (some) => { sum += some.reduce((s, r) => s + r.g, 0); });
  out.push(sum);
  for await (const [row] of sql`SELECT g FROM generate_series(1, 100) g`.cursor()) if (row.g === 3) break;
  out.push(await failing(sql`SELECT 1 / (5 - g) AS n FROM generate_series(1, 9) g`.cursor(2, () => {})));
  out.push(show(await sql`SELECT 'on' AS v`));
  return out;
}));

test("forEach, values, raw and describe", () => using(client(), async (sql) => {
  let sum = 0;
  await sql`SELECT g FROM generate_series(1, 500) g`.forEach((r) => { sum += r.g; });
  const d = await sql`SELECT ${1}::int AS n, 'x' AS t`.describe();
  return [sum, show(await sql`SELECT 1 AS a, 2 AS b`.values()), show((await sql`SELECT 1 AS a`.raw()).map((r) => r.map(String))),
    show([d.types, d.columns.map((c) => c.name)])];
}));

test("copy", () => using(client(), async (sql) => {
  const { pipeline } = require("stream/promises"), { Readable } = require("stream");
  await sql`DROP TABLE IF EXISTS t_pjscopy`;
  await sql`CREATE TABLE t_pjscopy (id int, v text)`;
  const lines = Array.from({ length: 5000 }, (_, i) => `${i}\trow ${i}\n`);
  await pipeline(Readable.from(lines), await sql`COPY t_pjscopy FROM STDIN`.writable());
  const out = [show(await sql`SELECT count(*)::int AS n, sum(id)::int AS s FROM t_pjscopy`)];
  let size = 0;
  for await (const chunk of await sql`COPY t_pjscopy TO STDOUT`.readable()) size += chunk.length;
  out.push(size === lines.join("").length);
  await sql`DROP TABLE t_pjscopy`;
  return out;
}));

test("listen and notify", () => using(client(), async (sql) => {
  const heard = [];
  const l = await sql.listen("pjs", (payload) => heard.push(payload));
  await sql.notify("pjs", "one");
  await sql`SELECT pg_notify('pjs', ${"zwei ü"})`;
  await within(15000, () => heard.length >= 2);
  await l.unlisten();
  return heard;
}), true);

test("cancel", () => using(client(), async (sql) => {
  const out = [];
  for (let i = 0; i < 2; i++) {
    const q = sql`SELECT pg_sleep(30)`;
    const done = failing(q);
    await sleep(400);
    q.cancel();
    out.push(await done, show(await sql`SELECT 'on' AS v`));
  }
  return out;
}));

test("reserved connection", () => using(client(), async (sql) => {
  const r = await sql.reserve();
  await r`CREATE TEMP TABLE tr (id int)`;
  await r`INSERT INTO tr VALUES (1)`;
  const out = [show(await r`SELECT * FROM tr`)];
  await r`DROP TABLE tr`;
  r.release();
  return out;
}));

test("several statements in one query", () => using(client(), async (sql) => [
  await run(sql, "SELECT 1 AS a; SET work_mem = '5MB'; SELECT 2 AS b"), await run(sql, "SHOW work_mem"),
  await failing(run(sql, "SELECT 1; SELECT 1/0; SELECT 3")), await run(sql, "SELECT 'on' AS v"),
]));

test("notices and parameters", async () => {
  const notices = [];
  return using(client({ search_path: "pg_catalog", statement_timeout: 31000, TimeZone: "Asia/Tokyo" },
    { onnotice: (n) => notices.push([n.severity, n.message]) }), async (sql) => {
    await sql.unsafe("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$");
    const out = [show(await sql`SHOW search_path`), show(await sql`SHOW statement_timeout`), show(await sql`SHOW TimeZone`),
      sql.parameters.TimeZone, sql.parameters.application_name];
    await sql`SET TimeZone = 'Europe/Rome'`;
    return [...out, sql.parameters.TimeZone, show(notices)];
  });
});

test("large value both ways", () => using(client(), async (sql) => {
  const text = "0123456789abcdef".repeat(5 * 65536), data = Buffer.alloc(5000000, 7);
  const [r] = await sql`SELECT length(${text}) AS l, ${text}::text AS t, ${data}::bytea AS b`;
  return [r.l, r.t === text, Buffer.compare(r.b, data)];
}));

// As programs do it: each query is a statement of its own.
test("like a program: new statements, autocommit on", () => using(client(), async (sql) => {
  const out = [];
  await sql.unsafe("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
  for (let i = 0; i < 30; i++) {
    await sql`INSERT INTO t_program VALUES (${i}, ${`v${i}`})`;
    out.push(show(await sql.unsafe(`SELECT v, ${i} AS n FROM t_program WHERE id = $1`, [i], { prepare: i % 2 === 0 })));
    if (i % 10 === 5) out.push(await failing(sql`INSERT INTO t_program VALUES (${i}, 'again')`));
  }
  out.push(show(await sql`SELECT count(*), sum(id) FROM t_program`));
  await sql`DROP TABLE t_program`;
  return out;
}));

test("like a program: new statements, autocommit off", () => using(client(), async (sql) => {
  const out = [];
  await sql.unsafe("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
  for (let i = 0; i < 30; i += 2) {
    out.push(await failing(sql.begin(async (t) => {
      await t`INSERT INTO t_program VALUES (${i}, ${`v${i}`})`;
      await t`INSERT INTO t_program VALUES (${i + 1}, ${`v${i}`})`;
      const got = show(await t.unsafe(`SELECT v, ${i} AS n FROM t_program WHERE id = $1`, [i], { prepare: true }));
      if (i % 10 === 6) await t.savepoint(async (s) => { await s`INSERT INTO t_program VALUES (${i}, 'again')`; }).catch((e) => out.push(e.code));
      if (i % 8 === 2) await t`INSERT INTO t_program VALUES (${i}, 'again')`;
      if (i % 12 === 4) throw new Error("the program fails");
      return got;
    })));
  }
  out.push(show(await sql`SELECT count(*), sum(id) FROM t_program`));
  await sql`DROP TABLE t_program`;
  return out;
}));

test("a copy that fails while its rows are sent", () => using(client(), async (sql) => {
  const out = [];
  await sql.unsafe("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)");
  // (the driver tells nobody of the error, and never finishes the stream; the connection goes on)
  for (const behind of [1, 50, 5000, 100000]) {
    const stream = await sql`COPY t_fails FROM STDIN`.writable();
    stream.on("error", () => {});
    stream.write("1\tx\n1\tx\n");
    for (let i = 2; i < behind + 2; i += 500) stream.write(Array.from({ length: Math.min(500, behind + 2 - i) }, (_, n) => `${i + n}\tbehind it\n`).join(""));
    stream.end();
    let on;
    do on = await failing(sql`SELECT 'on' AS v, count(*) FROM t_fails`); while (on.includes("COPY_IN_PROGRESS"));
    out.push(on);
  }
  await sql`DROP TABLE t_fails`;
  return out;
}));

test("a client that leaves in the middle", async () => {
  const out = [];
  await using(client(), (sql) => sql.unsafe("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)"));
  const { fork } = require("child_process");
  for (const how of ["SIGKILL", "SIGTERM"]) {
    for (const where of ["transaction", "copy"]) {
      const child = fork(__filename, [], { env: { ...process.env, DRIVERS_LEAVES: where }, stdio: ["ignore", "ignore", "inherit", "ipc"] });
      await new Promise((resolve) => child.once("message", resolve));
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill(how);
      await gone;
      out.push(await using(client(), (sql) => sql.begin(async (t) => {
        await t`LOCK TABLE t_leaves IN ACCESS EXCLUSIVE MODE`;
        return show(await t`SELECT count(*) FROM t_leaves`);
      })));
    }
  }
  await using(client(), (sql) => sql`DROP TABLE t_leaves`);
  return out;
});

// The process that leaves.
async function leave() {
  const sql = client();
  if (process.env.DRIVERS_LEAVES === "copy") {
    const stream = await sql`COPY t_leaves FROM STDIN`.writable();
    for (let i = 0; i < 5000; i++) stream.write(`${i}\n`);
    stream.write("5000\n", () => process.send("there"));
  } else {
    await sql.begin(async (t) => {
      await t`INSERT INTO t_leaves VALUES (${1}), (${2})`;
      process.send("there");
      await sleep(60000);
    });
  }
}

if (process.env.DRIVERS_LEAVES) leave();
else main(driver);
