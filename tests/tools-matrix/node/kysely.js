// Kysely: its migrator (which takes an advisory lock), query builder, streams, introspection.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const { Kysely, PostgresDialect, sql, CamelCasePlugin } = require("kysely");
const { Migrator } = require("kysely/migration");
const { jsonArrayFrom, jsonObjectFrom } = require("kysely/helpers/postgres");
const { Pool } = require("pg");
const Cursor = require("pg-cursor");

async function using(run, more = {}, plugins = []) {
  const pool = new Pool({ ...connection(), max: 4, ...more });
  pool.on("error", () => {});
  const db = new Kysely({ dialect: new PostgresDialect({ pool, cursor: Cursor }), plugins });
  try {
    return await run(db);
  } finally {
    await db.destroy();
  }
}

const MIGRATIONS = {
  "001_people": {
    async up(db) {
      await db.schema.createType("mood").asEnum(["sad", "ok", "happy"]).execute();
      await db.schema.createTable("person").addColumn("id", "serial", (c) => c.primaryKey()).addColumn("name", "varchar(80)", (c) => c.notNull().unique())
        .addColumn("mood", sql`mood`, (c) => c.defaultTo("ok")).addColumn("tags", sql`text[]`).addColumn("more", "jsonb")
        .addColumn("made", "timestamptz", (c) => c.defaultTo(sql`now()`)).execute();
    },
    async down(db) { await db.schema.dropTable("person").execute(); await db.schema.dropType("mood").execute(); },
  },
  "002_pets": {
    async up(db) {
      await db.schema.createTable("pet").addColumn("id", "bigserial", (c) => c.primaryKey()).addColumn("owner_id", "integer", (c) => c.references("person.id").onDelete("cascade"))
        .addColumn("name", "text").addColumn("weight", sql`numeric(8,2)`, (c) => c.check(sql`weight >= 0`)).execute();
      await db.schema.createIndex("pet_owner").on("pet").column("owner_id").execute();
      await db.schema.createView("heavy").as(db.selectFrom("pet").selectAll().where("weight", ">", "10")).execute();
      await db.insertInto("person").values([{ name: "Ada", tags: ["a", "b"] }, { name: "Grace", mood: "happy", more: JSON.stringify({ k: [1, null] }) }]).execute();
    },
    async down(db) { await db.schema.dropView("heavy").execute(); await db.schema.dropTable("pet").execute(); await db.deleteFrom("person").execute(); },
  },
  "003_jobs": {
    async up(db) {
      await db.schema.createTable("job").addColumn("id", "integer", (c) => c.primaryKey()).addColumn("state", "text", (c) => c.defaultTo("new")).addColumn("tries", "integer", (c) => c.defaultTo(0)).execute();
      await db.schema.createTable("effect").addColumn("job", "integer").execute();
      await db.schema.alterTable("pet").addColumn("born", "date").alterColumn("name", (c) => c.setNotNull()).execute();
    },
    async down(db) { await db.schema.dropTable("job").execute(); await db.schema.dropTable("effect").execute(); await db.schema.alterTable("pet").dropColumn("born").alterColumn("name", (c) => c.dropNotNull()).execute(); },
  },
};
const migrator = (db, more = {}) => new Migrator({ db, provider: { getMigrations: async () => ({ ...MIGRATIONS, ...more }) } });
const told = ({ error, results }) => [(results || []).map((r) => `${r.direction} ${r.migrationName} ${r.status}`), error ? error.message : "fine"];

role("migrate", () => using(async (db) => show(told(await migrator(db).migrateToLatest()))));
role("migrate and hang", (_, { say }) => using(async (db) => show(told(await migrator(db, { "004_hangs": { async up(t) { await t.schema.createTable("half").addColumn("id", "integer").execute(); say("in it"); await sleep(60000); } } }).migrateToLatest()))));

role("work", ({ dies, throws }, { say }) => using(async (db) => {
  for (;;) {
    const more = await db.transaction().execute(async (t) => {
      const job = await t.selectFrom("job").selectAll().where("state", "=", "new").orderBy("id").limit(1).forUpdate().skipLocked().executeTakeFirst();
      if (!job) return (await t.selectFrom("job").select(t.fn.countAll().as("n")).where("state", "=", "new").executeTakeFirst()).n !== "0";
      await t.updateTable("job").set((e) => ({ state: "done", tries: e("tries", "+", 1) })).where("id", "=", job.id).execute();
      await t.insertInto("effect").values({ job: job.id }).execute();
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await db.updateTable("job").set((b) => ({ tries: b("tries", "+", 1) })).where("id", "=", throws).execute();
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look("SELECT name FROM kysely_migration ORDER BY 1"), await look("SELECT * FROM kysely_migration_lock"), ...await schema("public")];
});

test("down, up, to a name, all the way", () => using(async (db) => {
  const m = migrator(db), out = [];
  out.push(told(await m.migrateDown()), told(await m.migrateDown()), told(await m.migrateUp()), told(await m.migrateTo("001_people")));
  out.push((await m.getMigrations()).map((x) => [x.name, Boolean(x.executedAt)]), told(await m.migrateTo({ __noMigrations__: true })), await schema("public"), told(await m.migrateToLatest()));
  out.push(told(await migrator(db, { "004_bad": { async up(t) { await t.schema.createTable("bad").addColumn("id", "integer").execute(); await sql`SELECT 1/0`.execute(t); } } }).migrateToLatest()), await look("SELECT to_regclass('bad')"));
  return out;
}));

test("a migrator that is killed gives its lock free", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  return [reached, ended, tally(await together(3, "migrate")), await look("SELECT to_regclass('half')")];
});

test("introspection", () => using(async (db) => {
  const tables = await db.introspection.getTables();
  return [(await db.introspection.getSchemas()).map((s) => s.name).filter((n) => !/^pg_|public|information/.test(n)), tables.filter((t) => /person|pet|heavy/.test(t.name)).map((t) => [t.name, t.isView, t.columns.map((c) => [c.name, c.dataType, c.isNullable, c.hasDefaultValue, c.isAutoIncrementing])])];
}));

test("inserts, upserts, JSON, arrays, common table expressions", () => using(async (db) => {
  const out = [];
  out.push(await db.insertInto("person").values({ name: "Linus", tags: ["x", "y,z", '"q"'], more: JSON.stringify({ ü: [1, { a: null }] }) }).returning(["name", "mood", "tags", "more"]).execute());
  out.push(await db.insertInto("person").values({ name: "Linus", mood: "sad" }).onConflict((c) => c.column("name").doUpdateSet({ mood: (e) => e.ref("excluded.mood") })).returning(["name", "mood"]).executeTakeFirst());
  const linus = (await db.selectFrom("person").select("id").where("name", "=", "Linus").executeTakeFirst()).id;
  await db.insertInto("pet").values([{ owner_id: linus, name: "Tux", weight: "12.5" }, { owner_id: linus, name: "Gnu", weight: "3" }]).execute();
  out.push(await db.selectFrom("person as p").select(["p.name", (e) => jsonArrayFrom(e.selectFrom("pet").select(["pet.name", "weight"]).whereRef("owner_id", "=", "p.id").orderBy("pet.name")).as("pets")]).where("p.name", "=", "Linus").execute());
  out.push(await db.selectFrom("pet").select(["name", (e) => jsonObjectFrom(e.selectFrom("person").select(["person.name", "mood"]).whereRef("person.id", "=", "pet.owner_id")).as("owner")]).orderBy("name").execute());
  out.push(await db.with("gone", (q) => q.deleteFrom("pet").where("weight", "<", "10").returning("name")).selectFrom("gone").selectAll().execute(), await db.selectFrom("heavy").select("name").execute());
  out.push(await db.selectFrom("person").select(sql`more->'ü'->>0`.as("v")).where(sql`tags @> ARRAY['x']`).execute());
  out.push(Number((await db.deleteFrom("person").where("name", "=", "Linus").executeTakeFirst()).numDeletedRows));
  out.push(await failing(db.insertInto("person").values({ name: "Ada" }).execute()), await failing(db.insertInto("pet").values({ name: "neg", weight: "-1" }).execute()), await failing(sql`SELEC 1`.execute(db)), await failing(sql`SELECT ${"x"}::int`.execute(db)));
  return out;
}));

test("bulk, streams by cursor", () => using(async (db) => {
  const owner = (await db.selectFrom("person").select("id").where("name", "=", "Ada").executeTakeFirst()).id, out = [];
  for (let i = 0; i < 3; i++) await db.insertInto("pet").values(Array.from({ length: 1000 }, (_, n) => ({ owner_id: owner, name: `bulk ${n}`, weight: String(n / 4) }))).execute();
  let sum = 0, early = 0;
  for await (const row of db.selectFrom("pet").select("weight").stream(100)) sum += Number(row.weight);
  for await (const row of db.selectFrom("pet").select("weight").stream(10)) if (++early === 25) break;
  out.push(sum, early, await db.transaction().execute(async (t) => { let n = 0; for await (const r of t.selectFrom("pet").select("id").stream(500)) n += r ? 1 : 0; return n; }));
  out.push(Number((await db.deleteFrom("pet").executeTakeFirst()).numDeletedRows));
  return out;
}));

test("transactions, controlled, savepoints, isolation, one connection", () => using(async (db) => {
  const out = [];
  const names = async () => (await db.selectFrom("person").select("name").orderBy("name").execute()).map((r) => r.name);
  const t = await db.startTransaction().execute();
  await t.insertInto("person").values({ name: "outer" }).execute();
  const s = await t.savepoint("s").execute();
  out.push(await failing(s.insertInto("person").values({ name: "outer" }).execute()), await failing(s.selectFrom("person").selectAll().execute()));
  await s.rollbackToSavepoint("s").execute();
  await t.insertInto("person").values({ name: "second" }).execute();
  await t.commit().execute();
  out.push(await names(), await failing(db.transaction().execute(async (x) => { await x.deleteFrom("person").execute(); throw new Error("no"); })), await names());
  for (const level of ["read committed", "repeatable read", "serializable"]) out.push((await db.transaction().setIsolationLevel(level).execute(async (x) => sql`SHOW transaction_isolation`.execute(x))).rows);
  out.push(await failing(db.transaction().setAccessMode("read only").execute((x) => x.deleteFrom("person").execute())));
  out.push(await db.connection().execute(async (c) => {
    await sql`SET application_name = 'kysely one'`.execute(c);
    await sql`CREATE TEMPORARY TABLE mine (v int)`.execute(c);
    await c.insertInto("mine").values([{ v: 1 }, { v: 2 }]).execute();
    const r = [(await sql`SHOW application_name`.execute(c)).rows, await c.selectFrom("mine").selectAll().execute()];
    await sql`DROP TABLE mine`.execute(c);
    await sql`RESET application_name`.execute(c);
    return r;
  }));
  out.push(Number((await db.deleteFrom("person").where("name", "in", ["outer", "second"]).executeTakeFirst()).numDeletedRows));
  return out;
}, { application_name: "kysely" }));

test("more work than connections; camel case", () => using(async (db) => {
  const all = await Promise.all(Array.from({ length: 60 }, (_, n) => sql`SELECT ${n}::int * 0 AS zero_value, current_setting('statement_timeout') AS its_timeout`.execute(db)));
  return [new Set(all.map((r) => show(r.rows))).size, all[0].rows, await db.selectFrom("pet").select(["ownerId"]).execute()];
}, { max: 3, statement_timeout: 7000 }, [new CamelCasePlugin()]));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("INSERT INTO job (id) SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "work", { throws: 7 })), await look("SELECT state, tries > 1, count(*) FROM job GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT job) FROM effect")];
});

main();
