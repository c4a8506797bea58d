// Sequelize with its migrations (umzug): models, pool, transactions.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep } = require("./harness.js");
const { Sequelize, DataTypes, Op, Transaction, QueryTypes } = require("sequelize");
const { Umzug, SequelizeStorage } = require("umzug");

const open = (more = {}) => {
  const c = connection();
  return new Sequelize(c.database, c.user, c.password, { host: c.host, port: c.port, dialect: "postgres", logging: false,
    dialectOptions: { ssl: c.ssl, ...more.dialectOptions }, pool: { max: 4, min: 0, acquire: 20000, idle: 1000, ...more.pool } });
};

async function using(more, run) {
  const db = open(more);
  try {
    return await run(db);
  } finally {
    await db.close();
  }
}

const MIGRATIONS = [
  { name: "01-people", async up({ context: q }) {
    await q.createTable("people", { id: { type: DataTypes.INTEGER, primaryKey: true, autoIncrement: true }, name: { type: DataTypes.STRING(80), allowNull: false, unique: true },
      mood: { type: DataTypes.ENUM("sad", "ok"), defaultValue: "ok" } });
  }, async down({ context: q }) { await q.dropTable("people"); await q.sequelize.query('DROP TYPE IF EXISTS "enum_people_mood"'); } },
  { name: "02-more", async up({ context: q }) {
    await q.sequelize.transaction(async (transaction) => {
      await q.addColumn("people", "tags", { type: DataTypes.ARRAY(DataTypes.TEXT) }, { transaction });
      await q.addColumn("people", "more", { type: DataTypes.JSONB }, { transaction });
      await q.createTable("jobs", { id: { type: DataTypes.INTEGER, primaryKey: true }, state: { type: DataTypes.TEXT, defaultValue: "new" }, tries: { type: DataTypes.INTEGER, defaultValue: 0 },
        person: { type: DataTypes.INTEGER, references: { model: "people", key: "id" }, onDelete: "SET NULL" } }, { transaction });
      await q.addIndex("jobs", ["state"], { name: "jobs_state", where: { state: "new" }, transaction });
      await q.addConstraint("jobs", { type: "check", fields: ["tries"], where: { tries: { [Op.gte]: 0 } }, name: "tries_positive", transaction });
      await q.bulkInsert("people", [{ name: "Ada" }, { name: "Grace" }], { transaction });
    });
  }, async down({ context: q }) { await q.dropTable("jobs"); await q.removeColumn("people", "more"); await q.removeColumn("people", "tags"); await q.bulkDelete("people", {}); } },
  { name: "03-enum", async up({ context: q }) {
    await q.sequelize.query(`ALTER TYPE "enum_people_mood" ADD VALUE IF NOT EXISTS 'happy'`);
    await q.changeColumn("people", "name", { type: DataTypes.STRING(120), allowNull: false });
    await q.renameColumn("people", "more", "extra");
  }, async down({ context: q }) { await q.renameColumn("people", "extra", "more"); } },
];
const umzug = (db, more = []) => new Umzug({ migrations: [...MIGRATIONS, ...more], context: db.getQueryInterface(), storage: new SequelizeStorage({ sequelize: db }), logger: undefined });

// umzug has no lock of its own: deployments take an advisory lock around it.
const locked = (db, work) => db.transaction(async (transaction) => {
  await db.query("SELECT pg_advisory_xact_lock(4712)", { transaction });
  return work();
});

role("migrate", () => using({}, (db) => locked(db, async () => (await umzug(db).up()).map((m) => m.name).join(","))));
role("migrate and hang", (_, { say }) => using({}, (db) => locked(db, () => umzug(db, [{ name: "04-hangs", async up({ context: q }) {
  await q.sequelize.transaction(async (transaction) => { await q.createTable("half", { id: DataTypes.INTEGER }, { transaction }); say("in it"); await sleep(60000); });
} }]).up())));

role("work", ({ dies, throws }, { say }) => using({}, async (db) => {
  for (;;) {
    const more = await db.transaction(async (transaction) => {
      const [job] = await db.query("SELECT id, tries FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED", { transaction, type: QueryTypes.SELECT });
      if (!job) return (await db.query("SELECT count(*)::int AS n FROM jobs WHERE state = 'new'", { transaction, plain: true })).n > 0;
      await db.query("UPDATE jobs SET state = 'done', tries = tries + 1 WHERE id = $id", { bind: { id: job.id }, transaction });
      await db.query("INSERT INTO effects VALUES ($1)", { bind: [job.id], transaction });
      if (job.id === dies) { say("mid-job"); await sleep(60000); }
      if (job.id === throws && job.tries === 0) throw new Error("this job throws");
      return true;
    }).catch(async (e) => {
      if (e.message !== "this job throws") throw e;
      await db.query("UPDATE jobs SET tries = tries + 1 WHERE id = :throws", { replacements: { throws } });
      return true;
    });
    if (!more) return "no more jobs";
    await sleep(1);
  }
}));

const model = (db) => db.define("Person", {
  name: { type: DataTypes.STRING(120), unique: true, allowNull: false, validate: { len: [1, 100] } }, mood: { type: DataTypes.ENUM("sad", "ok", "happy"), defaultValue: "ok" },
  tags: DataTypes.ARRAY(DataTypes.TEXT), extra: DataTypes.JSONB,
}, { tableName: "people", timestamps: false });

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look('SELECT name FROM "SequelizeMeta" ORDER BY 1'), ...await schema("public")];
});

test("down and up", () => using({}, async (db) => {
  const u = umzug(db), out = [];
  out.push((await u.executed()).map((m) => m.name));
  out.push((await u.down({ to: 0 })).map((m) => m.name), await schema("public"), (await u.pending()).map((m) => m.name));
  out.push((await u.up()).map((m) => m.name), await schema("public"));
  out.push(await failing(umzug(db, [{ name: "04-bad", async up({ context: q }) { await q.sequelize.query("SELECT 1/0"); } }]).up()));
  return out;
}));

test("a migrator that is killed gives its lock free", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  return [reached, ended, tally(await together(3, "migrate")), await look("SELECT to_regclass('half')")];
});

test("models: find, create, update, upsert, arrays, JSON, enumerations", () => using({}, async (db) => {
  const P = model(db), out = [];
  const bare = (x) => (Array.isArray(x) ? x.map(bare) : x && Object.fromEntries(Object.entries(x.get ? x.get() : x).filter(([k]) => k !== "id")));
  out.push(bare(await P.create({ name: "Linus", tags: ["x", "y,z", '"q"', null], extra: { ü: [1, { a: null }] } })));
  out.push(bare((await P.upsert({ name: "Linus", mood: "sad" }, { conflictFields: ["name"] }))[0]));
  out.push((await P.findOrCreate({ where: { name: "Ada" } }))[1], (await P.findOrCreate({ where: { name: "Barbara" }, defaults: { mood: "happy" } }))[1]);
  out.push(bare(await P.findAll({ where: { [Op.or]: [{ tags: { [Op.contains]: ["x"] } }, { "extra.ü": { [Op.is]: null }, name: { [Op.like]: "B%" } }] }, order: ["name"] })));
  out.push((await P.update({ mood: "happy" }, { where: { name: { [Op.in]: ["Ada", "Linus"] } }, returning: true }))[0]);
  out.push(await (await P.count({ group: ["mood"] })).map(show).sort(), await P.max("name"), (await P.findAndCountAll({ limit: 2, offset: 1, order: [["name", "DESC"]] })).count);
  out.push(await P.destroy({ where: { name: ["Linus", "Barbara"] } }));
  return out;
}));

test("sync, associations, includes", () => using({}, async (db) => {
  await db.createSchema("seq");
  const A = db.define("author", { name: DataTypes.TEXT }, { schema: "seq" }), B = db.define("book", { title: DataTypes.TEXT, price: DataTypes.DECIMAL(10, 2) }, { schema: "seq", paranoid: true });
  const T = db.define("topic", { word: { type: DataTypes.TEXT, unique: true } }, { schema: "seq", timestamps: false });
  A.hasMany(B); B.belongsTo(A); B.belongsToMany(T, { through: "book_topic" }); T.belongsToMany(B, { through: "book_topic" });
  const out = [];
  await db.sync();
  out.push(await schema("seq"));
  const a = await A.create({ name: "Ada", books: [{ title: "one", price: 1.5, topics: [{ word: "x" }, { word: "y" }] }, { title: "two", price: 2.25 }] }, { include: [{ model: B, include: [T] }] });
  await (await a.getBooks({ where: { title: "two" } }))[0].destroy();
  out.push((await A.findAll({ include: [{ model: B, include: [T] }] })).map((x) => [x.name, x.books.map((b) => [b.title, b.price, b.topics.map((t) => t.word).sort()])]));
  out.push(await B.count(), await B.count({ paranoid: false }), await B.sum("price", { paranoid: false }));
  await B.bulkCreate(Array.from({ length: 2500 }, (_, n) => ({ title: `bulk ${n}`, price: n })));
  out.push(await B.count(), await B.destroy({ where: { title: { [Op.startsWith]: "bulk" } }, force: true }));
  await db.sync({ alter: true });
  out.push((await schema("seq")).length > 0);
  await db.dropSchema("seq");
  return out;
}));

test("transactions, savepoints, isolation, hooks", () => using({}, async (db) => {
  const P = model(db), out = [];
  const names = async () => (await P.findAll({ order: ["name"] })).map((p) => p.name);
  await db.transaction(async (transaction) => {
    await P.create({ name: "outer" }, { transaction });
    out.push(await failing(db.transaction({ transaction }, async (inner) => { await P.create({ name: "inner" }, { transaction: inner }); await P.create({ name: "outer" }, { transaction: inner }); })));
    await db.transaction({ transaction }, async (inner) => { await P.create({ name: "second" }, { transaction: inner }); });
    transaction.afterCommit(() => out.push("committed"));
  });
  out.push(await names());
  out.push(await failing(db.transaction(async (transaction) => { await P.destroy({ where: {}, transaction }); throw new Error("no"); })), await names());
  for (const isolationLevel of Object.values(Transaction.ISOLATION_LEVELS)) {
    out.push((await db.transaction({ isolationLevel }, (transaction) => db.query("SHOW transaction_isolation", { transaction, plain: true }))).transaction_isolation);
  }
  const t1 = await db.transaction(), t2 = await db.transaction();
  await P.findOne({ where: { name: "outer" }, lock: t1.LOCK.UPDATE, transaction: t1 });
  out.push((await P.findAll({ where: { name: ["outer", "second"] }, lock: true, skipLocked: true, transaction: t2 })).map((p) => p.name));
  await t2.commit();
  await t1.rollback();
  out.push(await P.destroy({ where: { name: ["outer", "second"] } }));
  return out;
}));

test("pool, settings, errors", () => using({ pool: { max: 3, acquire: 300 }, dialectOptions: { application_name: "sequelize pool", statement_timeout: 7000, options: "-c TimeZone=Asia/Tokyo" } }, async (db) => {
  const P = model(db), out = [];
  const all = await Promise.all(Array.from({ length: 60 }, (_, n) => db.query("SELECT $1::int * 0 AS z, current_setting('application_name') AS a, current_setting('statement_timeout') AS t, current_setting('TimeZone') AS tz", { bind: [n], plain: true })));
  out.push(new Set(all.map(show)).size, all[0]);
  const held = [await db.transaction(), await db.transaction(), await db.transaction()];
  out.push(await failing(db.query("SELECT 1")));
  for (const t of held) await t.rollback();
  out.push(await failing(P.create({ name: "Ada" })), await failing(P.create({ name: "" })), await failing(db.query("INSERT INTO jobs (id, person) VALUES (1, -1)")), await failing(db.query("INSERT INTO jobs (id, tries) VALUES (1, -1)")));
  out.push(await failing(db.query("SELEC 1")), await failing(db.query("SELECT * FROM nothing")), await failing(db.query("SELECT pg_sleep(20)")));
  out.push(await failing(db.query("DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0042', HINT = 'a hint', DETAIL = 'a detail'; END $$")));
  return out;
}));

test("introspection", () => using({}, async (db) => {
  const q = db.getQueryInterface();
  return [await q.describeTable("people"), await q.showIndex("jobs").then((all) => all.map((i) => [i.name, i.unique, i.fields.map((f) => f.attribute)]).sort()), await q.tableExists("people"), (await q.showAllTables()).map((t) => t.tableName || t).filter((t) => t !== "greeting").sort(),
    (await q.getForeignKeyReferencesForTable("jobs")).map((f) => [f.constraintName, f.columnName, f.referencedTableName]), (await db.databaseVersion()).split(".")[0]];
}));

test("jobs with skip locked: one worker is killed, one job throws", async () => {
  await look("CREATE TABLE effects (id int)");
  await look("INSERT INTO jobs (id) SELECT g FROM generate_series(1, 60) g");
  const doomed = await helper("work", { dies: 1 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "work", { throws: 7 })), await look("SELECT state, tries > 1, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT id) FROM effects")];
});

main();
