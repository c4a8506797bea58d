// TypeORM: entities, repositories, migrations, its pool, schema synchronization.
// SPDX-License-Identifier: Apache-2.0
"use strict";
require("reflect-metadata");
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const { DataSource, EntitySchema, In, Like, Not, IsNull, Raw, MoreThan, Table, TableColumn, TableIndex, TableForeignKey } = require("typeorm");

const Author = new EntitySchema({
  name: "Author", tableName: "author",
  columns: {
    id: { type: "uuid", primary: true, generated: "uuid" },
    name: { type: "varchar", length: 80, unique: true },
    mood: { type: "enum", enum: ["sad", "ok", "happy"], enumName: "author_mood", default: "ok" },
    tags: { type: "text", array: true, nullable: true },
    more: { type: "jsonb", nullable: true },
    born: { type: "date", nullable: true },
    version: { type: "int", version: true },
    made: { type: "timestamptz", createDate: true },
    gone: { type: "timestamptz", deleteDate: true, nullable: true },
  },
  relations: { books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: true } },
});
const Book = new EntitySchema({
  name: "Book", tableName: "book",
  columns: {
    id: { type: "bigint", primary: true, generated: "increment" },
    title: { type: "text" }, price: { type: "numeric", precision: 12, scale: 2, default: 0 },
  },
  relations: { author: { type: "many-to-one", target: "Author", inverseSide: "books", onDelete: "CASCADE", nullable: true, joinColumn: { name: "author_id" } },
    topics: { type: "many-to-many", target: "Topic", joinTable: { name: "book_topic" }, cascade: true } },
  checks: [{ name: "price_is_positive", expression: "price >= 0" }],
  indices: [{ name: "book_title", columns: ["title"] }],
});
const Topic = new EntitySchema({ name: "Topic", tableName: "topic", columns: { id: { type: "int", primary: true, generated: "increment" }, name: { type: "text", unique: true } } });

class First1700000000001 {
  name = "First1700000000001";
  async up(q) {
    await q.query("CREATE TYPE status AS ENUM ('new', 'done')");
    await q.createTable(new Table({ name: "task", columns: [
      { name: "id", type: "int", isPrimary: true, isGenerated: true, generationStrategy: "increment" },
      { name: "status", type: "status", default: "'new'" }, { name: "owner", type: "int", isNullable: true }, { name: "tries", type: "int", default: 0 }] }));
  }
  async down(q) { await q.dropTable("task"); await q.query("DROP TYPE status"); }
}
class Second1700000000002 {
  name = "Second1700000000002";
  async up(q) {
    await q.createTable(new Table({ name: "person", columns: [{ name: "id", type: "int", isPrimary: true }, { name: "name", type: "text", isUnique: true }] }));
    await q.createForeignKey("task", new TableForeignKey({ name: "task_owner", columnNames: ["owner"], referencedTableName: "person", referencedColumnNames: ["id"] }));
    await q.addColumn("task", new TableColumn({ name: "note", type: "varchar", length: "40", isNullable: true }));
    await q.changeColumn("task", "note", new TableColumn({ name: "remark", type: "varchar", length: "40", isNullable: true }));
    await q.createIndex("task", new TableIndex({ name: "task_status", columnNames: ["status"] }));
    await q.query("INSERT INTO person VALUES (1, 'Ada'), (2, 'Grace')");
  }
  async down(q) {
    await q.dropForeignKey("task", "task_owner");
    await q.dropTable("person");
    await q.dropColumn("task", "remark");
    await q.dropIndex("task", "task_status");
  }
}
class Concurrent1700000000003 {
  name = "Concurrent1700000000003";
  transaction = false;
  async up(q) { await q.query("CREATE INDEX CONCURRENTLY task_owner_index ON task (owner)"); }
  async down(q) { await q.query("DROP INDEX task_owner_index"); }
}
class Bad1700000000004 {
  name = "Bad1700000000004";
  async up(q) { await q.query("CREATE TABLE bad (id int)"); await q.query("SELECT 1/0"); }
  async down() {}
}

const options = (more = {}) => {
  const c = connection();
  return { type: "postgres", host: c.host, port: c.port, username: c.user, password: c.password, database: c.database, ssl: c.ssl,
    poolSize: 4, entities: [], migrations: [First1700000000001, Second1700000000002, Concurrent1700000000003], migrationsTransactionMode: "each", logging: false, logger: { log() {}, logQuery() {}, logQueryError() {}, logQuerySlow() {}, logSchemaBuild() {}, logMigration() {} }, ...more };
};

async function using(more, run) {
  const db = new DataSource(options(more));
  await db.initialize();
  try {
    return await run(db);
  } finally {
    await db.destroy();
  }
}
const entities = { entities: [Author, Book, Topic], migrations: [], schema: "orm" };

// TypeORM has no lock of its own: deployments take an advisory lock around it. Not by waiting in
// pg_advisory_lock(): for that statement CREATE INDEX CONCURRENTLY would wait in turn.
async function lockedBy(runner) {
  while (!(await runner.query("SELECT pg_try_advisory_lock(4711) AS got"))[0].got) await sleep(50);
}

role("migrate", () => using({}, async (db) => {
  const lock = db.createQueryRunner();
  await lockedBy(lock);
  try {
    const done = await db.runMigrations();
    return done.map((m) => m.name).join(",");
  } finally {
    await lock.query("SELECT pg_advisory_unlock(4711)");
    await lock.release();
  }
}));

role("migrate and hang", (_, { say }) => using({ migrations: [First1700000000001, Second1700000000002, Concurrent1700000000003,
  class Hang1700000000009 { name = "Hang1700000000009"; async up(q) { await q.query("CREATE TABLE half (id int)"); say("in it"); await sleep(60000); } async down() {} }] }, async (db) => {
  const lock = db.createQueryRunner();
  await lockedBy(lock);
  await db.runMigrations();
}));

role("work", ({ dies, throws }, { say }) => using({}, async (db) => {
  for (;;) {
    const more = await db.transaction(async (m) => {
      const [job] = await m.query("SELECT id, tries FROM task WHERE status = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED");
      if (!job) return (await m.query("SELECT count(*)::int AS n FROM task WHERE status = 'new'"))[0].n > 0;
      await m.query("UPDATE task SET status = 'done', tries = tries + 1 WHERE id = $1", [job.id]);
      await m.query("INSERT INTO done VALUES ($1)", [job.id]);
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await db.query("UPDATE task SET tries = tries + 1 WHERE id = $1", [throws]);
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look("SELECT name FROM migrations ORDER BY id"), ...await schema("public")];
});

test("undo, show, run again", () => using({}, async (db) => {
  const out = [await db.showMigrations()];
  for (let i = 0; i < 3; i++) await db.undoLastMigration();
  out.push(await db.showMigrations(), await schema("public"));
  out.push((await db.runMigrations()).map((m) => m.name), await schema("public"));
  return out;
}));

test("a migration that fails, in each mode of transactions", async () => {
  const out = [];
  for (const migrationsTransactionMode of ["each", "all", "none"]) {
    out.push(await using({ migrationsTransactionMode, migrations: migrationsTransactionMode === "all" ? [First1700000000001, Second1700000000002, Bad1700000000004] : [First1700000000001, Second1700000000002, Concurrent1700000000003, Bad1700000000004] }, async (db) => failing(db.runMigrations())));
    out.push(await look("SELECT to_regclass('bad')::text, count(*) FROM migrations"));
    await look("DROP TABLE IF EXISTS bad");
  }
  return out;
});

test("a migrator that is killed gives its lock free", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  return [reached, ended, tally(await together(3, "migrate")), await look("SELECT to_regclass('half')")];
});

test("synchronize", async () => {
  await look("CREATE SCHEMA orm");
  const out = [];
  out.push(await using(entities, async (db) => { await db.synchronize(); return schema("orm"); }));
  // Nothing is left to do, and a column that is new.
  out.push(await using(entities, async (db) => (await db.driver.createSchemaBuilder().log()).upQueries.map((q) => q.query)));
  const More = new EntitySchema({ ...Topic.options, columns: { ...Topic.options.columns, rank: { type: "smallint", default: 3 } } });
  out.push(await using({ ...entities, entities: [Author, Book, More] }, async (db) => { await db.synchronize(); return (await schema("orm")).filter((l) => l.startsWith("topic.")); }));
  out.push(await using(entities, async (db) => { await db.synchronize(); return (await schema("orm")).filter((l) => l.startsWith("topic.")); }));
  return out;
});

test("repositories: cascades, relations, soft delete, versions", () => using(entities, async (db) => {
  const authors = db.getRepository("Author"), out = [];
  const bare = (a) => JSON.parse(JSON.stringify(a, (k, v) => (["id", "made", "gone"].includes(k) ? undefined : v)));
  await authors.save({ name: "Ada", tags: ["a", 'b"c', null], more: { ü: [1, { x: null }] }, born: "1815-12-10",
    books: [{ title: "Notes", price: 12.5, topics: [{ name: "engines" }, { name: "numbers" }] }, { title: "Letters" }] });
  await authors.save([{ name: "Grace", mood: "happy" }, { name: "Linus", mood: "sad" }]);
  const ada = await authors.findOne({ where: { name: "Ada" }, relations: { books: { topics: true } }, order: { books: { title: "ASC", topics: { name: "ASC" } } } });
  out.push(bare(ada));
  ada.name = "Ada L.";
  ada.books = [ada.books[0]];
  await authors.save(ada);
  out.push(bare(await authors.findOneBy({ name: Like("Ada%") })));
  await authors.softDelete({ name: "Linus" });
  out.push(await authors.count(), await authors.count({ withDeleted: true }));
  await authors.restore({ name: "Linus" });
  out.push((await authors.findBy({ name: In(["Linus", "Grace"]), tags: IsNull(), more: Raw((c) => `${c} IS NULL`) })).map((a) => a.name).sort());
  out.push((await authors.createQueryBuilder("a").leftJoin("a.books", "b").select("a.name", "name").addSelect("count(b.id)", "n").groupBy("a.name").orderBy("a.name").getRawMany()));
  out.push(await authors.createQueryBuilder("a").where("a.tags @> :t", { t: ["a"] }).andWhere("a.more->'ü'->>0 = :v", { v: "1" }).getCount());
  out.push((await db.createQueryBuilder().insert().into("Topic").values([{ name: "engines" }, { name: "new" }]).orIgnore().execute()).raw.length);
  out.push((await db.getRepository("Topic").upsert([{ name: "engines" }, { name: "ships" }], ["name"])).raw.length);
  out.push((await authors.findAndCount({ order: { name: "DESC" }, take: 2, skip: 1 })).map((x) => (Array.isArray(x) ? x.map((a) => a.name) : x)));
  out.push((await authors.increment({ name: "Grace" }, "version", 5)).affected);
  return out;
}));

test("bulk insert and stream", () => using(entities, async (db) => {
  const books = db.getRepository("Book"), out = [];
  await books.insert(Array.from({ length: 3000 }, (_, n) => ({ title: `bulk ${n}`, price: n / 4 })));
  await books.save(Array.from({ length: 1000 }, (_, n) => ({ title: `bulk s${n}` })), { chunk: 100 });
  out.push(await books.countBy({ title: Like("bulk%") }), await books.sum("price", { title: Like("bulk%") }));
  let n = 0;
  for await (const row of await books.createQueryBuilder("b").where("b.title LIKE 'bulk%'").stream()) n += row.b_title ? 1 : 0;
  out.push(n, (await books.delete({ title: Like("bulk%") })).affected);
  return out;
}));

test("transactions, savepoints, locks, isolation", () => using(entities, async (db) => {
  const out = [];
  const names = async () => (await db.getRepository("Topic").find({ order: { name: "ASC" } })).map((t) => t.name);
  await db.transaction(async (m) => {
    await m.save("Topic", { name: "outer" });
    out.push(await failing(m.transaction(async (n) => { await n.save("Topic", { name: "inner" }); await n.save("Topic", { name: "outer" }); })));
    await m.transaction(async (n) => { await n.save("Topic", { name: "second" }); });
  });
  out.push(await names());
  out.push(await failing(db.transaction(async (m) => { await m.delete("Topic", { name: "outer" }); throw new Error("no"); })), await names());
  out.push(await db.transaction("SERIALIZABLE", async (m) => (await m.query("SHOW transaction_isolation"))));
  const r = db.createQueryRunner();
  await r.startTransaction();
  const locked = await r.manager.findOne("Topic", { where: { name: "outer" }, lock: { mode: "pessimistic_write" } });
  out.push(locked.name, await db.transaction(async (m) => failing(m.findOne("Topic", { where: { name: "outer" }, lock: { mode: "pessimistic_write", onLocked: "nowait" } }))));
  out.push(await db.transaction(async (m) => m.find("Topic", { where: { name: "outer" }, lock: { mode: "pessimistic_write", onLocked: "skip_locked" } })));
  await r.rollbackTransaction();
  await r.release();
  const stale = await db.getRepository("Author").findOneBy({ name: "Grace" });
  out.push(await failing(db.transaction((m) => m.findOne("Author", { where: { name: "Grace" }, lock: { mode: "optimistic", version: stale.version + 1 } }))));
  return out;
}));

test("pool, settings, many at once", () => using({ extra: { max: 3, options: "-c statement_timeout=7s" }, applicationName: "typeorm pool" }, async (db) => {
  const all = await Promise.all(Array.from({ length: 60 }, (_, n) => db.query("SELECT $1::int * 0 AS z, current_setting('application_name') AS a, current_setting('statement_timeout') AS t", [n])));
  const r = db.createQueryRunner();
  await r.query("SET search_path = orm");
  const found = await failing(r.query("SELECT count(*) > 0 AS some FROM topic"));
  await r.query("RESET search_path");
  await r.release();
  return [new Set(all.map(show)).size, all[0], found, await failing(db.query("SELECT count(*) FROM topic"))];
}));

test("introspection", () => using(entities, async (db) => {
  const r = db.createQueryRunner();
  const t = await r.getTable("orm.author");
  const out = [t.columns.map((c) => [c.name, c.type, c.length, c.isArray, c.isNullable, c.default, c.enum]).sort(), await r.hasTable("orm.book"), await r.hasColumn("orm.book", "price"), (await r.getSchemas()).length > 0,
    (await r.getTable("orm.book")).foreignKeys.map((f) => [f.columnNames, f.referencedTableName, f.onDelete]), (await r.getTable("orm.book")).checks.map((c) => c.expression)];
  await r.release();
  return out;
}));

test("errors", () => using(entities, async (db) => [
  await failing(db.getRepository("Author").insert({ name: "Grace" })), await failing(db.getRepository("Author").insert({ name: "X", mood: "angry" })),
  await failing(db.getRepository("Book").insert({ title: "neg", price: -1 })), await failing(db.getRepository("Book").insert({ title: null })),
  await failing(db.query("SELEC 1")), await failing(db.query("SELECT $1::int", ["x"])), await failing(db.getRepository("Author").findOneByOrFail({ name: "nobody" }))]));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("CREATE TABLE done (id int)");
  await look("INSERT INTO task (id) SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "work", { throws: 7 })), await look("SELECT status, tries > 1, count(*) FROM task GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT id) FROM done")];
});

main();
