// knex: migrations, the query builder, its pool.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const Knex = require("knex");

const MIGRATIONS = {
  "001_people": {
    async up(k) {
      await k.schema.createTable("people", (t) => {
        t.increments("id");
        t.string("name", 80).notNullable().unique();
        t.enu("mood", ["sad", "ok", "happy"], { useNative: true, enumName: "mood" }).defaultTo("ok");
        t.specificType("tags", "text[]");
        t.jsonb("more");
        t.timestamp("made").defaultTo(k.fn.now());
      });
    },
    async down(k) {
      await k.schema.dropTable("people");
      await k.raw("DROP TYPE mood");
    },
  },
  "002_things": {
    async up(k) {
      await k.schema.createTable("things", (t) => {
        t.bigIncrements("id");
        t.integer("owner").references("people.id").onDelete("CASCADE").index();
        t.decimal("price", 12, 2);
        t.check("?? >= 0", ["price"], "price_is_positive");
      });
      await k("people").insert([{ name: "Ada", tags: ["a", "b"] }, { name: "Grace", mood: "happy", more: { k: [1, null] } }]);
    },
    async down(k) { await k("people").del(); await k.schema.dropTable("things"); },
  },
  // Not in a transaction: CREATE INDEX CONCURRENTLY.
  "003_concurrently": {
    async up(k) { await k.raw("CREATE INDEX CONCURRENTLY things_price ON things (price)"); },
    async down(k) { await k.raw("DROP INDEX things_price"); },
    config: { transaction: false },
  },
};

const source = (names, extra = {}) => ({
  getMigrations: async () => names,
  getMigrationName: (n) => n,
  getMigration: async (n) => extra[n] || MIGRATIONS[n],
});
const ALL = Object.keys(MIGRATIONS);

const open = (more = {}) => Knex({
  client: "pg", connection: connection(), pool: { min: 0, max: 4 }, migrations: { migrationSource: source(ALL) },
  log: { warn() {}, error() {} }, ...more,
});

async function using(more, run) {
  const k = open(more);
  try {
    return await run(k);
  } finally {
    await k.destroy();
  }
}

role("migrate", () => using({}, async (k) => {
  // As a deployment does it: who is told of the lock waits and tries again.
  for (let i = 0; i < 200; i++) {
    try {
      const [batch, applied] = await k.migrate.latest();
      return `batch ${batch}: ${applied.join(",")}`;
    } catch (e) {
      if (e.name !== "MigrationLocked") throw e;
      await sleep(50);
    }
  }
  return "locked for ever";
}));

role("migrate and hang", (_, { say }) => using({
  migrations: { migrationSource: source([...ALL, "004_hangs"], { "004_hangs": {
    async up(k) { await k.schema.createTable("half", (t) => t.increments()); say("in it"); await sleep(60000); },
    async down() {},
  } }) },
}, (k) => k.migrate.latest()));

// A job queue as people write it with a query builder.
role("work", ({ dies, throws }, { say }) => using({}, async (k) => {
  for (;;) {
    const more = await k.transaction(async (trx) => {
      const job = await trx("jobs").where({ state: "new" }).orderBy("id").forUpdate().skipLocked().first();
      // (others may hold the last ones)
      if (!job) return (await trx("jobs").where({ state: "new" }).count())[0].count !== "0";
      await trx("jobs").where({ id: job.id }).update({ state: "done", tries: job.tries + 1 });
      await trx("effects").insert({ job: job.id });
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await k("jobs").where({ id: throws }).increment("tries", 1);
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

test("three migrate at once", async () => {
  // Its lock's table is made without a lock: of two that come first both may put a row into it,
  // and then nobody ever gets the lock. The first look makes it.
  await using({}, (k) => k.migrate.list());
  const results = await together(3, "migrate");
  const applied = results.flatMap((r) => (r.split(": ")[1] || "").split(",").filter(Boolean));
  return [applied.sort(), await look("SELECT name, batch FROM knex_migrations ORDER BY id"),
    await look("SELECT index, is_locked FROM knex_migrations_lock"), ...await schema("public")];
});

test("down, up, rollback, list", () => using({}, async (k) => {
  const out = [];
  out.push(await k.migrate.down(), await k.migrate.down(), await k.migrate.up(), await k.migrate.latest());
  out.push(await k.migrate.list().then((l) => [l[0].map((m) => m.name), l[1]]), await k.migrate.currentVersion());
  out.push(await k.migrate.rollback(undefined, true), await schema("public"), await k.migrate.latest());
  return out;
}));

test("a migrator that is killed leaves its lock", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  return using({}, async (k) => {
    const out = [reached, ended, await failing(k.migrate.latest())];
    out.push(await failing(k.migrate.forceFreeMigrationsLock()), await failing(k.migrate.latest()));
    out.push(await k.schema.hasTable("half"), await k.schema.hasTable("people"));
    return out;
  });
});

test("a migration that fails", () => using({
  migrations: { migrationSource: source([...ALL, "005_bad"], { "005_bad": {
    async up(k) { await k.schema.createTable("bad", (t) => t.increments()); await k.raw("SELECT 1/0"); }, async down() {},
  } }) },
}, async (k) => [await failing(k.migrate.latest()), await k.schema.hasTable("bad"), await look("SELECT is_locked FROM knex_migrations_lock")]));

test("introspection", () => using({}, async (k) => [
  await k.schema.hasTable("people"), await k.schema.hasTable("nothing"), await k.schema.hasColumn("people", "mood"),
  await k("people").columnInfo(), await k("things").columnInfo("price")]));

test("inserts, upserts, arrays, JSON, enumerations", () => using({}, async (k) => {
  const out = [];
  out.push(await k("people").insert({ name: "Linus", tags: ["x", "y,z", '"q"'], more: JSON.stringify({ ü: [1, { a: null }] }) }).returning(["name", "mood", "tags", "more"]));
  out.push(await k("people").insert({ name: "Linus", mood: "sad" }).onConflict("name").merge(["mood"]).returning(["name", "mood"]));
  out.push(await k("people").insert({ name: "Linus" }).onConflict("name").ignore());
  out.push(await k("people").whereRaw("tags @> ?::text[]", [["x"]]).select("name"));
  out.push(await k("people").whereJsonPath("more", "$.ü[0]", "=", 1).select("name"));
  out.push(await failing(k("people").insert({ name: "Moody", mood: "angry" })));
  out.push(await k("people").where({ name: "Linus" }).del());
  return out;
}));

test("batch insert, streams, cursors", () => using({}, async (k) => {
  const owner = (await k("people").where({ name: "Ada" }).first("id")).id;
  const rows = Array.from({ length: 2500 }, (_, i) => ({ owner, price: i / 4 }));
  const ids = await k.batchInsert("things", rows, 300).returning("id");
  let sum = 0, count = 0;
  for await (const row of k("things").select("price").stream()) { sum += Number(row.price); count++; }
  let early = 0;
  for await (const row of k("things").select("price").orderBy("id").stream({ batchSize: 10 })) { early += Number(row.price); if (early > 5) break; }
  const after = await k("things").count().first();
  return [ids.length, sum, count, early, after, await k("things").del()];
}));

test("transactions, savepoints, isolation", () => using({}, async (k) => {
  const out = [];
  const names = () => k("people").orderBy("name").pluck("name");
  await k.transaction(async (trx) => {
    await trx("people").insert({ name: "outer" });
    out.push(await failing(trx.transaction(async (inner) => { await inner("people").insert({ name: "inner" }); await inner("people").insert({ name: "outer" }); })));
    await trx.transaction(async (inner) => { await inner("people").insert({ name: "second" }); });
  });
  out.push(await names());
  out.push(await failing(k.transaction(async (trx) => { await trx("people").del(); throw new Error("no"); })), await names());
  out.push(await failing(k.transaction(async (trx) => { await trx.raw("SELECT 1/0").catch(() => {}); await trx("people").del(); })), await names());
  out.push(await k.transaction(async (trx) => (await trx.raw("SHOW transaction_isolation")).rows, { isolationLevel: "serializable" }));
  out.push(await failing(k.transaction(async (trx) => trx("people").del(), { readOnly: true })));
  const provider = k.transactionProvider();
  const t1 = await provider(), t2 = await provider();
  await t1("people").whereIn("name", ["outer", "second"]).del();
  out.push(t1 === t2, await t2("people").count());
  await t1.commit();
  out.push(await names());
  return out;
}));

test("a pool: more work than connections, settings of its own, timeouts", () => using({
  pool: { min: 1, max: 3, afterCreate: (c, done) => c.query("SET TimeZone = 'Asia/Tokyo'; SET application_name = 'knex pool'", (e) => done(e, c)) },
  acquireConnectionTimeout: 300,
}, async (k) => {
  const out = [];
  const all = await Promise.all(Array.from({ length: 60 }, (_, i) => k.raw("SELECT ?::int AS i, current_setting('TimeZone') AS z, current_setting('application_name') AS a", [i]).then((r) => show(r.rows[0]))));
  out.push(new Set(all).size, all[7]);
  out.push(await failing(k.raw("SELECT pg_sleep(20)").timeout(100, { cancel: true })));
  out.push((await k.raw("SELECT 'still here' AS v")).rows);
  const held = await Promise.all([k.transaction(), k.transaction(), k.transaction()]);
  out.push(await failing(k.raw("SELECT 1")));
  await Promise.all(held.map((t) => t.rollback()));
  out.push((await k.raw("SELECT 'again' AS v")).rows);
  await k.destroy();
  out.push(await failing(k.raw("SELECT 1")));
  k.initialize();
  out.push((await k.raw("SELECT 'anew' AS v")).rows);
  return out;
}));

test("errors", () => using({}, async (k) => [
  await failing(k("people").insert({ name: "Ada" })), await failing(k("things").insert({ owner: -1 })),
  await failing(k("things").insert({ price: -1 })), await failing(k("nothing").select()), await failing(k("people").select("nothing")),
  await failing(k("people").insert({ name: null })), await failing(k.raw("SELEC 1")), await failing(k.raw("SELECT ?::int", ["x"])),
  await failing(k.raw("DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0042', HINT = 'a hint', DETAIL = 'a detail'; END $$"))]));

test("COPY by the driver below, one that fails, LISTEN", () => using({}, async (k) => {
  const { pipeline } = require("stream/promises"), { Readable } = require("stream"), copy = require("pg-copy-streams");
  const out = [];
  const own = async (run) => {
    const c = await k.client.acquireConnection();
    try {
      return await run(c);
    } finally {
      await k.client.releaseConnection(c);
    }
  };
  const lines = (n) => Readable.from(Array.from({ length: n }, (_, i) => `${i}\trow ${i}\n`));
  await own((c) => pipeline(lines(5000), c.query(copy.from("COPY things (id, price) FROM STDIN")))).catch((e) => out.push(e.code));
  await k.raw("CREATE TABLE copied (id int PRIMARY KEY, v text)");
  await own((c) => pipeline(lines(5000), c.query(copy.from("COPY copied FROM STDIN"))));
  for (let i = 0; i < 5; i++) out.push(await failing(own((c) => pipeline(lines(30000), c.query(copy.from("COPY copied FROM STDIN"))))), await k("copied").count());
  let size = 0;
  await own(async (c) => { for await (const chunk of c.query(copy.to("COPY copied TO STDOUT"))) size += chunk.length; });
  out.push(size);
  out.push(await own(async (c) => {
    await c.query("LISTEN news");
    const heard = new Promise((resolve) => c.once("notification", (n) => resolve(n.payload)));
    await k.raw("SELECT pg_notify('news', ?)", ["ü"]);
    const payload = await heard;
    await c.query("UNLISTEN *");
    return payload;
  }));
  await k.raw("DROP TABLE copied");
  return out;
}));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("CREATE TABLE jobs (id int PRIMARY KEY, state text NOT NULL DEFAULT 'new', tries int NOT NULL DEFAULT 0)");
  await look("CREATE TABLE effects (job int)");
  await look("INSERT INTO jobs SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  const results = await together(3, "work", { throws: 7 });
  return [reached, ended, tally(results), await look("SELECT state, tries > 1, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT job) FROM effects")];
});

main();
