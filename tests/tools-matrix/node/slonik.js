// slonik: a pool that says DISCARD ALL, typed results, retried transactions, streams.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, url, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const { createPool, sql, stringifyDsn, createTypeParserPreset } = require("slonik");
const { z } = require("zod");

async function using(run, more = {}) {
  const pool = await createPool(`postgresql://${encodeURIComponent(process.env.PGUSER)}:${encodeURIComponent(process.env.PGPASSWORD)}@${process.env.PGHOST}:${process.env.PGPORT}/${process.env.PGDATABASE}`,
    { ssl: connection().ssl, maxPoolSize: 4, ...more });
  pool.on?.("error", () => {});
  try {
    return await run(pool);
  } finally {
    await pool.end();
  }
}

const MIGRATIONS = [
  ["one", sql.unsafe`CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL UNIQUE, tags text[], more jsonb)`],
  ["two", sql.unsafe`CREATE TABLE jobs (id int PRIMARY KEY, state text DEFAULT 'new', tries int DEFAULT 0)`],
  ["three", sql.unsafe`CREATE TABLE effects (job int REFERENCES jobs)`],
  ["four", sql.unsafe`INSERT INTO people (name) VALUES ('Ada'), ('Grace')`],
];
const migrate = (pool, more = []) => pool.transaction(async (t) => {
  await t.query(sql.unsafe`SELECT pg_advisory_xact_lock(4714)`);
  await t.query(sql.unsafe`CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, executed_at timestamptz DEFAULT now())`);
  const done = [];
  for (const [name, query] of [...MIGRATIONS, ...more]) {
    if (await t.exists(sql.unsafe`SELECT 1 FROM migration WHERE name = ${name}`)) continue;
    await t.query(query);
    await t.query(sql.unsafe`INSERT INTO migration (name) VALUES (${name})`);
    done.push(name);
  }
  return done;
});
role("migrate", () => using(migrate));
role("migrate and hang", (_, { say }) => using((pool) => pool.transaction(async (t) => {
  await t.query(sql.unsafe`SELECT pg_advisory_xact_lock(4714)`);
  await t.query(sql.unsafe`CREATE TABLE half (id int)`);
  say("in it");
  await sleep(60000);
})));
role("work", ({ dies, throws }, { say }) => using(async (pool) => {
  for (;;) {
    const more = await pool.transaction(async (t) => {
      const job = await t.maybeOne(sql.unsafe`SELECT id, tries FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`);
      if (!job) return t.exists(sql.unsafe`SELECT 1 FROM jobs WHERE state = 'new'`);
      await t.query(sql.unsafe`UPDATE jobs SET state = 'done', tries = tries + 1 WHERE id = ${job.id}`);
      await t.query(sql.unsafe`INSERT INTO effects VALUES (${job.id})`);
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await pool.query(sql.unsafe`UPDATE jobs SET tries = tries + 1 WHERE id = ${throws}`);
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look("SELECT name FROM migration ORDER BY 1"), ...await schema("public")];
});

test("a migrator that is killed, a migration that fails", async () => {
  const h = await helper("migrate and hang");
  const out = [await h.said("in it"), await h.kill(), tally(await together(3, "migrate"))];
  out.push(await using((pool) => failing(migrate(pool, [["bad", sql.unsafe`SELECT 1/0`]]))), await look("SELECT to_regclass('half'), count(*) FROM migration"));
  return out;
});

test("queries of each kind", () => using(async (pool) => {
  const P = sql.type(z.object({ name: z.string(), tags: z.array(z.string()).nullable() }));
  const out = [];
  out.push(await pool.one(P`INSERT INTO people (name, tags, more) VALUES (${"Linus"}, ${sql.array(["x", "y,z", '"q"'], "text")}, ${sql.jsonb({ ü: [1, { a: null }] })}) RETURNING name, tags`));
  out.push(await pool.many(P`SELECT name, tags FROM people ORDER BY name`), await pool.anyFirst(sql.type(z.object({ n: z.string() }))`SELECT name AS n FROM people WHERE name = ANY(${sql.array(["Ada", "Linus"], "text")}) ORDER BY 1`));
  out.push(await pool.maybeOneFirst(sql.unsafe`SELECT more->'ü'->>0 FROM people WHERE tags @> ${sql.array(["x"], "text")}`), await pool.maybeOne(sql.unsafe`SELECT 1 FROM people WHERE false`), await pool.exists(sql.unsafe`SELECT 1 FROM people`));
  out.push(await failing(pool.one(sql.unsafe`SELECT 1 FROM people WHERE false`)), await failing(pool.one(sql.unsafe`SELECT 1 FROM people`)));
  out.push(await pool.one(sql.unsafe`SELECT ${sql.date(new Date(Date.UTC(2024, 1, 29)))} AS d, ${sql.timestamp(new Date(Date.UTC(2024, 1, 29, 12)))} AS t, ${sql.interval({ days: 1, hours: 2 })} AS i, ${sql.binary(Buffer.from([0, 1, 255]))}::bytea AS b, ${sql.uuid("f0000000-0000-4000-8000-00000000000f")} AS u, 9007199254740993::bigint::text AS big, 1.5::numeric AS n`));
  out.push((await pool.query(sql.unsafe`INSERT INTO jobs (id) SELECT * FROM ${sql.unnest(Array.from({ length: 500 }, (_, i) => [i + 1000]), ["int4"])}`)).rowCount, (await pool.query(sql.unsafe`DELETE FROM jobs`)).rowCount);
  const bad = async (p) => p.then(show, (e) => `${e.name} ${e.cause ? e.cause.message : e.message} ${e.constraint || ""}`);
  out.push(await bad(pool.query(sql.unsafe`INSERT INTO people (name) VALUES ('Ada')`)), await bad(pool.query(sql.unsafe`INSERT INTO people (name) VALUES (NULL)`)), await bad(pool.query(sql.unsafe`INSERT INTO effects VALUES (-1)`)), await bad(pool.query(sql.unsafe`SELEC 1`)), await bad(pool.query(sql.unsafe`SELECT ${"x"}::int`)));
  out.push((await pool.query(sql.unsafe`DELETE FROM people WHERE name = 'Linus'`)).rowCount);
  return out;
}));

test("connections are reset when they go back to its pool", () => using(async (pool) => {
  const out = [];
  await pool.connect(async (c) => {
    await c.query(sql.unsafe`SET application_name = 'mine'`);
    await c.query(sql.unsafe`CREATE TEMPORARY TABLE mine (v int)`);
    await c.query(sql.unsafe`PREPARE p AS SELECT 42`);
    await c.query(sql.unsafe`LISTEN something`);
    await c.query(sql.unsafe`SELECT pg_advisory_lock(99)`);
    out.push(await c.oneFirst(sql.unsafe`SELECT current_setting('application_name')`), await c.any(sql.unsafe`EXECUTE p`), await c.oneFirst(sql.unsafe`SELECT count(*)::int FROM mine`));
  });
  await sleep(100);
  for (let i = 0; i < 3; i++) {
    await pool.connect(async (c) => {
      const bad = (p) => p.then(show, (e) => (e.cause ? e.cause.message : e.message));
      out.push(await c.oneFirst(sql.unsafe`SELECT current_setting('application_name')`), await bad(c.any(sql.unsafe`EXECUTE p`)), await bad(c.any(sql.unsafe`SELECT 1 FROM mine`)), await c.oneFirst(sql.unsafe`SELECT pg_try_advisory_xact_lock(99)`), await c.any(sql.unsafe`SELECT pg_listening_channels()`));
    });
  }
  return out;
}, { maxPoolSize: 1 }));

test("transactions, savepoints, retries of what is serializable", () => using(async (pool) => {
  const out = [];
  const names = () => pool.anyFirst(sql.unsafe`SELECT name FROM people ORDER BY 1`);
  const bad = (p) => p.then(show, (e) => `${e.name} ${e.cause ? e.cause.message : e.message}`);
  await pool.transaction(async (t) => {
    await t.query(sql.unsafe`INSERT INTO people (name) VALUES ('outer')`);
    out.push(await bad(t.transaction(async (u) => { await u.query(sql.unsafe`INSERT INTO people (name) VALUES ('inner')`); await u.query(sql.unsafe`INSERT INTO people (name) VALUES ('outer')`); })));
    await t.transaction(async (u) => { await u.query(sql.unsafe`INSERT INTO people (name) VALUES ('second')`); });
  });
  out.push(await names(), await bad(pool.transaction(async (t) => { await t.query(sql.unsafe`DELETE FROM people`); throw new Error("no"); })), await names());
  await pool.query(sql.unsafe`INSERT INTO jobs (id) VALUES (0)`);
  // Each reads before the others write: all but one are told 40001 at first.
  let waiting = 0;
  const counts = await Promise.all([1, 2, 3].map(() => {
    let tries = 0;
    return pool.transaction(async (t) => {
      await t.query(sql.unsafe`SET TRANSACTION ISOLATION LEVEL SERIALIZABLE`);
      const n = await t.oneFirst(sql.unsafe`SELECT tries FROM jobs WHERE id = 0`);
      if (++tries === 1) { waiting++; for (let i = 0; i < 200 && waiting < 3; i++) await sleep(20); }
      await t.query(sql.unsafe`UPDATE jobs SET tries = ${n + 1} WHERE id = 0`);
      return "counted";
    }, 20);
  }));
  out.push(tally(counts), await pool.oneFirst(sql.unsafe`SELECT tries FROM jobs WHERE id = 0`), (await pool.query(sql.unsafe`DELETE FROM jobs`)).rowCount, (await pool.query(sql.unsafe`DELETE FROM people WHERE name IN ('outer', 'second')`)).rowCount);
  return out;
}));

test("streams, timeouts, more work than connections", () => using(async (pool) => {
  const out = [];
  let n = 0;
  await pool.stream(sql.type(z.object({ g: z.number() }))`SELECT g FROM generate_series(1, 3000) g`, (stream) => { stream.on("data", () => { n++; }); });
  out.push(n);
  const all = await Promise.all(Array.from({ length: 60 }, (_, i) => pool.oneFirst(sql.unsafe`SELECT ${i}::int * 0`)));
  const bad = (p) => p.then(show, (e) => `${e.name} ${e.cause ? e.cause.message : e.message}`);
  out.push(all.length, new Set(all).size, await bad(pool.query(sql.unsafe`SELECT pg_sleep(20)`)), await pool.oneFirst(sql.unsafe`SELECT 'still here'`));
  out.push(await bad(pool.transaction(async (t) => { await t.query(sql.unsafe`SELECT 1`); await sleep(1500); await t.query(sql.unsafe`SELECT 2`); }, 0)), await pool.oneFirst(sql.unsafe`SELECT 'and still'`));
  return out;
}, { maxPoolSize: 3, statementTimeout: 700, idleInTransactionSessionTimeout: 700, queryRetryLimit: 0 }));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("INSERT INTO jobs (id) SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "work", { throws: 7 })), await look("SELECT state, tries > 1, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT job) FROM effects")];
});

main();
