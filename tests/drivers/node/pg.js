// node-postgres; @yugabytedb/pg is the same with cluster awareness (the argument names it).
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");
const name = process.argv[2] || "pg";
const { Client, Pool } = require(name);
const { test, main, rows, show, failing, sleep, within } = require("./harness.js");
const plain = name === "pg";

const base = () => ({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER,
  password: process.env.PGPASSWORD, database: process.env.PGDATABASE, connectionTimeoutMillis: 20000,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8"), rejectUnauthorized: true, servername: "localhost" },
});

let serial = 0;
const driver = {
  // (the other one waits for ever when its connection ends, whoever is at its other end)
  unfit: plain ? [] : ["own-backend-is-ended", "backend-ends-in-a-transaction"],
  async open(options) {
    const client = new Client({ ...base(), ...options });
    client.on("error", () => {});
    await client.connect();
    return client;
  },
  result(r) {
    if (Array.isArray(r)) return r.map(driver.result).join(" & ");
    const names = r.fields.map((f) => `${f.name}:${f.dataTypeID}`).join(",");
    return `${r.command} ${r.rowCount} (${names})${rows(r.rows)}`;
  },
  async run(client, sql) {
    return driver.result(await client.query({ text: sql, rowMode: "array" }));
  },
  // Named once for each text, so prepared once for each connection.
  names: new Map(),
  async arg(client, text, values) {
    if (!driver.names.has(text)) driver.names.set(text, `case ${serial++}`);
    return driver.result(await client.query({ name: driver.names.get(text), text, values, rowMode: "array" }));
  },
  async close(client) {
    await client.end();
  },
};
const run = driver.run;

test("types round trip", async () => {
  const c = await driver.open({});
  const out = [];
  const values = [["text", "x'y ü 世界😀"], ["int8", "1152921504606846976"], ["int4", 42], ["numeric", "12345.678901234567890"],
    ["bytea", Buffer.from([0, 1, 255])], ["int[]", [1, 2, null]], ["text[]", ["a", "b,c", 'd"e', null]], ["bool", true],
    ["float8", 1.25], ["json", { k: [1, null, "ü"] }], ["jsonb", { k: 1 }], ["text", null], ["date", "2024-02-29"],
    ["timestamptz", new Date(Date.UTC(2024, 1, 29, 12, 34, 56, 789))], ["interval", "1 mon 2 days 03:04:05"]];
  for (const [type, value] of values) {
    out.push(await failing(c.query({ text: `SELECT $1::${type} AS v`, values: [value] }).then((r) => show(r.rows[0].v))));
  }
  await c.end();
  return out;
});

test("parameters without a name", async () => {
  const c = await driver.open({});
  const out = [];
  for (let i = 0; i < 10; i++) out.push(show((await c.query("SELECT $1::int + $2::int AS s", [i, 1])).rows));
  out.push(await failing(c.query("SELECT $1::int", ["x"])));
  out.push(await failing(c.query("SELECT $1", [])));
  out.push(show((await c.query("SELECT $1::text AS v", ["on"])).rows));
  await c.end();
  return out;
});

test("300 prepared statements", async () => {
  const c = await driver.open({});
  let sum = 0;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 300; i++) {
      sum += (await c.query({ name: `many ${i}`, text: `SELECT ${i} + $1::int AS n`, values: [1] })).rows[0].n;
    }
  }
  await c.end();
  return [sum];
});

test("same names in two clients", async () => {
  const a = await driver.open({}), b = await driver.open({});
  const out = [];
  for (let i = 0; i < 5; i++) {
    out.push(show((await a.query({ name: "same", text: "SELECT 'of a' AS v", values: [] })).rows));
    out.push(show((await b.query({ name: "same", text: "SELECT 'of b' AS v", values: [] })).rows));
  }
  await a.end();
  await b.end();
  return out;
}, true);

test("prepared statement after DEALLOCATE", async () => {
  const c = await driver.open({});
  const q = { name: "gone", text: "SELECT $1::int AS n", values: [1] };
  const out = [await failing(c.query(q).then((r) => r.rows)), await run(c, "DEALLOCATE ALL"),
    await failing(c.query(q).then((r) => r.rows)), await run(c, "SELECT 1"), await run(c, "DISCARD ALL"),
    await failing(c.query(q).then((r) => r.rows)), await run(c, "SELECT 1")];
  await c.end();
  return out;
});

test("queries queued at once", async () => {
  const c = await driver.open({});
  const all = [];
  for (let i = 0; i < 200; i++) {
    all.push(failing((i % 3 === 0 ? c.query(`SELECT ${i} AS v`) :
      i % 3 === 1 ? c.query("SELECT $1::int AS v", [i]) : c.query({ name: "queued", text: "SELECT 100 / ($1::int % 5) AS v", values: [i] }))
      .then((r) => r.rows[0].v)));
  }
  const out = await Promise.all(all);
  await c.end();
  return out;
});

test("transactions with a pool", async () => {
  const pool = new Pool({ ...base(), max: 3 });
  const out = [];
  await pool.query("DROP TABLE IF EXISTS t_node");
  await pool.query("CREATE TABLE t_node (id int PRIMARY KEY)");
  const c = await pool.connect();
  try {
    await c.query("BEGIN");
    await c.query("INSERT INTO t_node VALUES (1)");
    await c.query("INSERT INTO t_node VALUES (1)");
  } catch (e) {
    out.push(e.code, e.constraint, e.detail, e.table);
    await c.query("ROLLBACK");
  } finally {
    c.release();
  }
  out.push((await pool.query("SELECT count(*) FROM t_node")).rows[0].count);
  out.push((await Promise.all(Array.from({ length: 30 }, (_, i) => pool.query("SELECT $1::int AS i", [i])))).map((r) => r.rows[0].i));
  await pool.query("DROP TABLE t_node");
  await pool.end();
  return out;
}, true);

test("listen and notify", async () => {
  const a = await driver.open({}), b = await driver.open({});
  const heard = [];
  a.on("notification", (n) => heard.push([n.channel, n.payload]));
  await a.query("LISTEN nodes");
  await b.query("NOTIFY nodes, 'one'");
  await b.query("SELECT pg_notify($1, $2)", ["nodes", "zwei ü"]);
  await within(15000, () => heard.length >= 2);
  await a.query("UNLISTEN *");
  await b.query("NOTIFY nodes, 'three'");
  await a.query("SELECT 1");
  await a.end();
  await b.end();
  return heard;
}, true);

test("notices", async () => {
  const c = await driver.open({});
  const out = [];
  c.on("notice", (n) => out.push([n.severity, n.code, n.message]));
  await c.query("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$");
  await c.query("DROP TABLE IF EXISTS no_such_table");
  await c.query("COMMIT");
  await c.end();
  return out;
});

test("backend pid", async () => {
  const c = await driver.open({});
  const out = [(await c.query("SELECT pg_backend_pid() AS p")).rows[0].p === c.processID];
  await c.end();
  return out;
});

test("several statements in one query", async () => {
  const c = await driver.open({});
  const out = [await run(c, "SELECT 1 AS a; SELECT 2 AS b; SET work_mem = '5MB'"), await run(c, "SHOW work_mem"),
    await failing(run(c, "SELECT 1; SELECT 1/0; SELECT 3")), await failing(c.query("SELECT 1; SELECT $1::int", [1])),
    await run(c, "BEGIN; SELECT 1; COMMIT; SELECT 2")];
  await c.end();
  return out;
});

test("query timeout of the server", async () => {
  const c = await driver.open({ statement_timeout: 200, idle_in_transaction_session_timeout: 50000, lock_timeout: 4000 });
  const out = [await failing(run(c, "SELECT pg_sleep(20)")), await run(c, "SHOW statement_timeout"),
    await run(c, "SHOW lock_timeout"), await run(c, "SHOW idle_in_transaction_session_timeout")];
  await c.end();
  return out;
});

test("cancel by another connection", async () => {
  const c = await driver.open({});
  const out = [];
  for (let i = 0; i < 2; i++) {
    const q = failing(c.query("SELECT pg_sleep(20)"));
    await sleep(300);
    await cancel(c);
    out.push(await q, await run(c, "SELECT 'on'"));
  }
  await c.end();
  return out;
});

// The driver's own cancel does not know TLS: the same request by hand.
function cancel(c) {
  return new Promise((resolve, reject) => {
    const socket = require("net").connect(Number(process.env.PGPORT), process.env.PGHOST, () => {
      const b = Buffer.alloc(16);
      [16, 80877102, c.processID, c.secretKey].forEach((v, i) => b.writeInt32BE(v, i * 4));
      socket.write(b);
    });
    socket.on("close", resolve);
    socket.on("error", reject);
    socket.resume();
  });
}

test("large value both ways", async () => {
  const c = await driver.open({});
  const text = "0123456789abcdef".repeat(5 * 65536), data = Buffer.alloc(5000000, 7);
  const r = (await c.query("SELECT length($1::text) AS l, $1::text AS t, $2::bytea AS b", [text, data])).rows[0];
  await c.end();
  return [r.l, r.t === text, Buffer.compare(r.b, data)];
});

test("pool that resets its clients", async () => {
  const pool = new Pool({ ...base(), max: 1, options: "-c work_mem=3MB" });
  const out = [];
  for (let i = 0; i < 3; i++) {
    const c = await pool.connect();
    out.push((await c.query("SHOW work_mem")).rows[0].work_mem);
    await c.query("SET work_mem = '9MB'");
    await c.query("RESET ALL");
    c.release();
  }
  await pool.end();
  return out;
});

test("isolation levels", async () => {
  const c = await driver.open({});
  const out = [];
  for (const level of ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "READ UNCOMMITTED"]) {
    await c.query(`BEGIN ISOLATION LEVEL ${level}`);
    out.push((await c.query("SHOW transaction_isolation")).rows[0].transaction_isolation);
    await c.query("COMMIT");
  }
  await c.end();
  return out;
});

test("error in a prepared statement, then again", async () => {
  const c = await driver.open({});
  const out = [];
  for (const v of [1, 0, 2, 0, 4]) {
    out.push(await failing(c.query({ name: "div", text: "SELECT 100 / $1::int AS v", values: [v] }).then((r) => r.rows[0].v)));
  }
  out.push(await failing(c.query({ name: "wrong", text: "SELECT nothing", values: [] })));
  out.push(await failing(c.query({ name: "wrong", text: "SELECT nothing", values: [] })));
  await c.end();
  return out;
});

// As programs do it: a new statement for each execution, named anew and without a name.
test("like a program: new statements, autocommit on", async () => {
  const c = await driver.open({});
  const out = [];
  await c.query("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
  for (let i = 0; i < 30; i++) {
    await c.query("INSERT INTO t_program VALUES ($1, $2)", [i, `v${i}`]);
    out.push(show((await c.query({ name: `program ${i}`, text: "SELECT v FROM t_program WHERE id = $1", values: [i] })).rows));
    if (i % 10 === 5) out.push(await failing(c.query("INSERT INTO t_program VALUES ($1, 'again')", [i])));
  }
  out.push(await run(c, "SELECT count(*), sum(id) FROM t_program"));
  await c.query("DROP TABLE t_program");
  await c.end();
  return out;
});

test("like a program: new statements, autocommit off", async () => {
  const c = await driver.open({});
  const out = [];
  await c.query("DROP TABLE IF EXISTS t_program; CREATE TABLE t_program (id int PRIMARY KEY, v text)");
  await c.query("BEGIN");
  for (let i = 0; i < 30; i++) {
    await c.query("INSERT INTO t_program VALUES ($1, $2)", [i, `v${i}`]);
    out.push(show((await c.query({ name: `program ${i}`, text: "SELECT v FROM t_program WHERE id = $1", values: [i] })).rows));
    if (i % 10 === 5) out.push(await failing(c.query("INSERT INTO t_program VALUES ($1, 'again')", [i])), await failing(c.query("SELECT 'refused'")));
    if (i % 4 === 3 || i % 2 || i % 10 === 5) {
      await c.query(i % 4 === 3 ? "ROLLBACK" : "COMMIT");
      await c.query("BEGIN");
    }
  }
  await c.query("COMMIT");
  out.push(await run(c, "SELECT count(*), sum(id) FROM t_program"));
  await c.query("DROP TABLE t_program");
  await c.end();
  return out;
});

async function left(table) {
  const c = await driver.open({});
  await c.query("BEGIN");
  await c.query(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
  const { rows: [r] } = await c.query(`SELECT count(*) FROM ${table}`);
  await c.query("COMMIT");
  await c.end();
  return r.count;
}

test("a client that leaves in the middle", async () => {
  const c = await driver.open({});
  const out = [];
  await c.query("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)");
  await c.end();
  for (const silent of [true, false]) {
    const t = await driver.open({});
    await t.query("BEGIN");
    await t.query("INSERT INTO t_leaves VALUES ($1), ($2)", [1, 2]);
    if (silent) t.connection.stream.destroy();
    else await t.end();
    out.push(await left("t_leaves"));
    // Before the Sync of a batch, of which the server has done a part.
    const b = await driver.open({});
    const wire = b.connection;
    for (const name of ["parseComplete", "commandComplete"]) wire.removeAllListeners(name);
    const part = new Promise((resolve) => wire.once("commandComplete", (m) => resolve(m.text)));
    for (let i = 0; i < 3; i++) {
      wire.parse({ text: `INSERT INTO t_leaves VALUES (${i})`, types: [] });
      wire.bind({ values: [] });
      wire.execute({});
    }
    wire.flush();
    out.push(await part);
    if (silent) {
      wire.stream.destroy();
    } else {
      wire.end();
    }
    out.push(await left("t_leaves"));
  }
  const d = await driver.open({});
  await d.query("DROP TABLE t_leaves");
  await d.end();
  return out;
});

if (plain) {
  const Cursor = require("pg-cursor"), QueryStream = require("pg-query-stream");
  const copy = require("pg-copy-streams");

  test("cursor with a row limit", async () => {
    const c = await driver.open({});
    const cursor = c.query(new Cursor("SELECT g FROM generate_series(1, $1::int) g", [250]));
    const out = [(await cursor.read(100)).length, (await cursor.read(100)).length, (await cursor.read(100)).length,
      (await cursor.read(100)).length];
    const left = c.query(new Cursor("SELECT g FROM generate_series(1, 1000) g"));
    await left.read(10);
    await left.close();
    const bad = c.query(new Cursor("SELECT 1/(5 - g) FROM generate_series(1, 10) g"));
    out.push(await failing(bad.read(3)), await failing(bad.read(10)));
    out.push(await run(c, "SELECT 'on'"));
    await c.end();
    return out;
  });

  test("cursor in a transaction between other queries", async () => {
    const c = await driver.open({});
    await c.query("BEGIN");
    const stream = c.query(new QueryStream("SELECT g FROM generate_series(1, 1000) g", [], { batchSize: 30 }));
    let sum = 0;
    for await (const row of stream) sum += row.g;
    await c.query("COMMIT");
    await c.end();
    return [sum];
  });

  test("copy streams", async () => {
    const { pipeline } = require("stream/promises"), { Readable } = require("stream");
    const c = await driver.open({});
    await c.query("DROP TABLE IF EXISTS t_stream");
    await c.query("CREATE TABLE t_stream (id int, v text)");
    const lines = Array.from({ length: 20000 }, (_, i) => `${i}\trow ${i}\n`);
    await pipeline(Readable.from(lines), c.query(copy.from("COPY t_stream FROM STDIN")));
    const out = [await run(c, "SELECT count(*), sum(id) FROM t_stream")];
    let size = 0;
    for await (const chunk of c.query(copy.to("COPY t_stream TO STDOUT"))) size += chunk.length;
    out.push(size === lines.join("").length);
    out.push(await failing(pipeline(Readable.from(["no\tx\n"]), c.query(copy.from("COPY t_stream FROM STDIN")))));
    out.push(await run(c, "SELECT 'on'"));
    await c.query("DROP TABLE t_stream");
    await c.end();
    return out;
  });

  test("a copy that fails while its rows are sent", async () => {
    const { pipeline } = require("stream/promises"), { Readable } = require("stream");
    const c = await driver.open({});
    const out = [];
    await c.query("DROP TABLE IF EXISTS t_fails; CREATE TABLE t_fails (id int PRIMARY KEY, v text)");
    for (const behind of [1, 50, 5000, 100000]) {
      const lines = ["1\tx\n", "1\tx\n", ...Array.from({ length: behind }, (_, i) => `${i + 2}\tbehind it\n`)];
      out.push(await failing(pipeline(Readable.from(lines), c.query(copy.from("COPY t_fails FROM STDIN")))));
      out.push(await run(c, "SELECT 'on', count(*) FROM t_fails"));
      await c.query("BEGIN");
      out.push(await failing(pipeline(Readable.from(lines), c.query(copy.from("COPY t_fails FROM STDIN")))));
      out.push(await failing(c.query("SELECT 'refused'")));
      await c.query("ROLLBACK");
    }
    await c.query("DROP TABLE t_fails");
    await c.end();
    return out;
  });

  test("a client that leaves in a copy", async () => {
    const c = await driver.open({});
    await c.query("DROP TABLE IF EXISTS t_leaves; CREATE TABLE t_leaves (id int PRIMARY KEY)");
    const stream = c.query(copy.from("COPY t_leaves FROM STDIN"));
    const ended = new Promise((resolve) => { stream.once("error", resolve); c.once("end", resolve); });
    for (let i = 0; i < 20000; i++) if (!stream.write(`${i}\n`)) await new Promise((resolve) => stream.once("drain", resolve));
    c.connection.stream.destroy();
    await ended;
    const out = [await left("t_leaves")];
    const d = await driver.open({});
    await d.query("DROP TABLE t_leaves");
    await d.end();
    return out;
  });
} else {
  test("load balance off and its URL form", async () => {
    const url = `postgresql://${process.env.PGUSER}:${process.env.PGPASSWORD}@localhost:${process.env.PGPORT}/${process.env.PGDATABASE}`;
    const c = new Client({ connectionString: url, ssl: base().ssl, loadBalance: false });
    await c.connect();
    const out = [await run(c, "SELECT current_user")];
    await c.end();
    return out;
  });
}

main(driver);
