// Drizzle: its migrator over files, typed queries, relations, prepared statements.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");
const os = require("os");
const path = require("path");
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const { drizzle } = require("drizzle-orm/node-postgres");
const { migrate } = require("drizzle-orm/node-postgres/migrator");
const { sql, eq, and, inArray, arrayContains, relations, asc, desc, count, sum, placeholder } = require("drizzle-orm");
const { pgTable, pgEnum, serial, bigserial, integer, text, varchar, jsonb, numeric, timestamp, date, uuid, check, index } = require("drizzle-orm/pg-core");
const { Pool } = require("pg");

const mood = pgEnum("mood", ["sad", "ok", "happy"]);
const people = pgTable("people", { id: serial("id").primaryKey(), name: varchar("name", { length: 80 }).notNull().unique(), mood: mood("mood").default("ok"), tags: text("tags").array(), more: jsonb("more"), born: date("born"), made: timestamp("made", { withTimezone: true }).defaultNow() });
const pets = pgTable("pets", { id: bigserial("id", { mode: "number" }).primaryKey(), owner: integer("owner").references(() => people.id, { onDelete: "cascade" }), name: text("name"), weight: numeric("weight", { precision: 8, scale: 2 }), chip: uuid("chip") });
const jobs = pgTable("jobs", { id: integer("id").primaryKey(), state: text("state").default("new"), tries: integer("tries").default(0) });
const effects = pgTable("effects", { job: integer("job") });
const all = { mood, people, pets, jobs, effects, peopleRelations: relations(people, ({ many }) => ({ pets: many(pets) })), petsRelations: relations(pets, ({ one }) => ({ owner: one(people, { fields: [pets.owner], references: [people.id] }) })) };

const FILES = [
  ["0000_first", `CREATE TYPE "mood" AS ENUM('sad', 'ok', 'happy');--> statement-breakpoint
CREATE TABLE "people" ("id" serial PRIMARY KEY NOT NULL, "name" varchar(80) NOT NULL, "mood" "mood" DEFAULT 'ok', "tags" text[], "more" jsonb, "born" date, "made" timestamp with time zone DEFAULT now(), CONSTRAINT "people_name_unique" UNIQUE("name"));`],
  ["0001_second", `CREATE TABLE "pets" ("id" bigserial PRIMARY KEY NOT NULL, "owner" integer, "name" text, "weight" numeric(8, 2), "chip" uuid, CONSTRAINT "positive" CHECK ("weight" >= 0));--> statement-breakpoint
ALTER TABLE "pets" ADD CONSTRAINT "pets_owner" FOREIGN KEY ("owner") REFERENCES "people"("id") ON DELETE cascade;--> statement-breakpoint
CREATE INDEX "pets_name" ON "pets" USING btree ("name");`],
  ["0002_third", `CREATE TABLE "jobs" ("id" integer PRIMARY KEY, "state" text DEFAULT 'new', "tries" integer DEFAULT 0);--> statement-breakpoint
CREATE TABLE "effects" ("job" integer);--> statement-breakpoint
DO $$ BEGIN INSERT INTO "people" ("name") VALUES ('Ada'), ('Grace'); END $$;`],
];

function folder(files) {
  const at = fs.mkdtempSync(path.join(os.tmpdir(), "drizzle-"));
  fs.mkdirSync(path.join(at, "meta"));
  fs.writeFileSync(path.join(at, "meta", "_journal.json"), JSON.stringify({ version: "7", dialect: "postgresql", entries: files.map(([tag], idx) => ({ idx, version: "7", when: 1700000000000 + idx, tag, breakpoints: true })) }));
  for (const [tag, text] of files) fs.writeFileSync(path.join(at, `${tag}.sql`), text);
  return at;
}

async function using(run, more = {}) {
  const pool = new Pool({ ...connection(), max: 4, ...more });
  pool.on("error", () => {});
  try {
    return await run(drizzle(pool, { schema: all }), pool);
  } finally {
    await pool.end();
  }
}

// It has no lock of its own: deployments take an advisory lock around it.
async function deploy(db, pool, files) {
  const at = folder(files), lock = await pool.connect();
  await lock.query("SELECT pg_advisory_lock(4713)");
  try {
    await migrate(db, { migrationsFolder: at });
    return (await lock.query("SELECT count(*)::int AS n FROM drizzle.__drizzle_migrations")).rows[0].n;
  } finally {
    await lock.query("SELECT pg_advisory_unlock(4713)");
    lock.release();
    fs.rmSync(at, { recursive: true });
  }
}
role("migrate", () => using((db, pool) => deploy(db, pool, FILES)));
role("migrate and hang", (_, { say }) => using(async (db, pool) => {
  setTimeout(() => say("in it"), 700);
  await deploy(db, pool, [...FILES, ["0003_hangs", 'CREATE TABLE "half" ("id" integer);--> statement-breakpoint\nSELECT pg_sleep(30);']]);
}));

role("work", ({ dies, throws }, { say }) => using(async (db) => {
  for (;;) {
    const more = await db.transaction(async (t) => {
      const [job] = await t.select().from(jobs).where(eq(jobs.state, "new")).orderBy(jobs.id).limit(1).for("update", { skipLocked: true });
      if (!job) return (await t.$count(jobs, eq(jobs.state, "new"))) > 0;
      await t.update(jobs).set({ state: "done", tries: sql`${jobs.tries} + 1` }).where(eq(jobs.id, job.id));
      await t.insert(effects).values({ job: job.id });
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await db.update(jobs).set({ tries: sql`${jobs.tries} + 1` }).where(eq(jobs.id, throws));
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look("SELECT created_at FROM drizzle.__drizzle_migrations ORDER BY 1"), ...await schema("public")];
});

test("migrations that fail leave nothing", () => using(async (db, pool) => [
  await failing(deploy(db, pool, [...FILES, ["0003_bad", 'CREATE TABLE "bad" ("id" integer);--> statement-breakpoint\nSELECT 1/0;']])), await look("SELECT to_regclass('bad'), count(*) FROM drizzle.__drizzle_migrations")]));

test("a migrator that is killed gives its lock free", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  // The statement under way is the server's; an administrator ends it.
  await look("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()");
  return [reached, ended, tally(await together(3, "migrate")), await look("SELECT to_regclass('half')")];
});

test("queries: arrays, JSON, enumerations, upserts, relations", () => using(async (db) => {
  const out = [];
  const bare = (rows) => rows.map(({ id, made, ...rest }) => rest);
  out.push(bare(await db.insert(people).values({ name: "Linus", tags: ["x", "y,z", '"q"'], more: { ü: [1, { a: null }] }, born: "1969-12-28" }).returning()));
  out.push(bare(await db.insert(people).values({ name: "Linus", mood: "sad" }).onConflictDoUpdate({ target: people.name, set: { mood: "sad" } }).returning()));
  const [{ id }] = await db.select({ id: people.id }).from(people).where(eq(people.name, "Linus"));
  await db.insert(pets).values([{ owner: id, name: "Tux", weight: "12.5", chip: "f0000000-0000-4000-8000-00000000000f" }, { owner: id, name: "Gnu", weight: "3" }]);
  out.push((await db.query.people.findMany({ columns: { name: true }, with: { pets: { columns: { name: true, weight: true, chip: true }, orderBy: asc(pets.name) } }, where: eq(people.id, id) })));
  out.push(await db.select({ name: people.name, n: count(pets.id), w: sum(pets.weight) }).from(people).leftJoin(pets, eq(pets.owner, people.id)).groupBy(people.name).orderBy(desc(count(pets.id)), people.name));
  out.push(bare(await db.select().from(people).where(and(arrayContains(people.tags, ["x"]), sql`${people.more}->'ü'->>0 = '1'`))).length);
  out.push((await db.delete(people).where(eq(people.name, "Linus")).returning({ name: people.name })), await db.$count(pets));
  const failed = async (p) => p.then(show, (e) => `${(e.cause || e).code} ${(e.cause || e).message} ${(e.cause || e).detail || ""}`);
  out.push(await failed(db.insert(people).values({ name: "Ada" })), await failed(db.insert(pets).values({ weight: "-1" })), await failed(db.execute(sql`SELEC 1`)), await failed(db.execute(sql`SELECT ${"x"}::int`)), await failed(db.insert(people).values({ name: "M", mood: "angry" })));
  return out;
}));

test("prepared statements, many times", () => using(async (db) => {
  const one = db.select({ name: people.name }).from(people).where(eq(people.name, placeholder("name"))).prepare("one_person"), both = db.query.people.findMany({ columns: { name: true }, where: inArray(people.name, [placeholder("a"), placeholder("b")]), orderBy: asc(people.name) }).prepare("two_people");
  let n = 0;
  for (let i = 0; i < 40; i++) n += (await one.execute({ name: i % 2 ? "Ada" : "nobody" })).length;
  const all = await Promise.all(Array.from({ length: 40 }, () => both.execute({ a: "Ada", b: "Grace" })));
  return [n, tally(all)];
}));

test("transactions, savepoints, isolation", () => using(async (db) => {
  const out = [];
  const names = async () => (await db.select({ n: people.name }).from(people).orderBy(people.name)).map((r) => r.n);
  const failed = async (p) => p.then(show, (e) => `${(e.cause || e).code} ${(e.cause || e).message}`);
  await db.transaction(async (t) => {
    await t.insert(people).values({ name: "outer" });
    out.push(await failed(t.transaction(async (u) => { await u.insert(people).values({ name: "inner" }); await u.insert(people).values({ name: "outer" }); })));
    await t.transaction(async (u) => { await u.insert(people).values({ name: "second" }); });
  });
  out.push(await names(), await failed(db.transaction(async (t) => { await t.delete(people); t.rollback(); })), await names());
  out.push((await db.transaction((t) => t.execute(sql`SHOW transaction_isolation`), { isolationLevel: "serializable", accessMode: "read only", deferrable: true })).rows);
  out.push(await failed(db.transaction((t) => t.delete(people), { accessMode: "read only" })));
  out.push((await db.delete(people).where(inArray(people.name, ["outer", "second"]))).rowCount);
  return out;
}));

test("bulk; more work than connections", () => using(async (db) => {
  for (let i = 0; i < 3; i++) await db.insert(pets).values(Array.from({ length: 1500 }, (_, n) => ({ name: `bulk ${n}`, weight: String(n / 4) })));
  const sums = await Promise.all(Array.from({ length: 40 }, () => db.select({ n: count(), w: sum(pets.weight) }).from(pets)));
  return [tally(sums), (await db.delete(pets)).rowCount, (await db.execute(sql`SHOW application_name`)).rows];
}, { max: 3, application_name: "drizzle" }));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("INSERT INTO jobs (id) SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "work", { throws: 7 })), await look("SELECT state, tries > 1, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT job) FROM effects")];
});

main();
