// node-pg-migrate: migrations under an advisory lock, in its own language.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const fs = require("fs");
const os = require("os");
const path = require("path");
const { test, role, main, connection, helper, together, look, schema, tally, failing, sleep } = require("./harness.js");
const { runner, PgType } = require("node-pg-migrate");
const { Client } = require("pg");

const FILES = {
  "1700000000001_people.js": `
exports.shorthands = { id: { type: "serial", primaryKey: true } };
exports.up = (pgm) => {
  pgm.createType("mood", ["sad", "ok"]);
  pgm.createTable("people", { id: "id", name: { type: "varchar(80)", notNull: true, unique: true }, mood: { type: "mood", default: "ok" }, tags: "text[]", more: { type: "jsonb", comment: "more of it" } });
  pgm.sql("INSERT INTO people (name) VALUES ('Ada')");
};
exports.down = (pgm) => { pgm.dropTable("people"); pgm.dropType("mood"); };`,
  "1700000000002_pets.js": `
exports.up = (pgm) => {
  pgm.createTable("pets", { id: "id", owner: { type: "integer", references: "people", onDelete: "CASCADE" }, weight: { type: "numeric(8,2)", check: "weight >= 0" }, name: "text" });
  pgm.createIndex("pets", ["owner", { name: "name", sort: "DESC" }], { where: "owner IS NOT NULL" });
  pgm.addColumns("people", { born: "date" });
  pgm.createFunction("double", [{ name: "n", type: "int" }], { returns: "int", language: "plpgsql", behavior: "IMMUTABLE" }, "BEGIN RETURN n * 2; END");
  pgm.createTrigger("people", "touch", { when: "BEFORE", operation: "UPDATE", level: "ROW", function: "touched", language: "plpgsql" }, "BEGIN RETURN NEW; END");
  pgm.createView("heavy", {}, "SELECT name FROM pets WHERE weight > 10");
  pgm.createMaterializedView("counted", { data: true }, "SELECT count(*) AS n FROM people");
  pgm.createSequence("numbers", { start: 100, increment: 5 });
};`,
  "1700000000003_concurrently.js": `
exports.up = (pgm) => { pgm.noTransaction(); pgm.addTypeValue("mood", "happy", { ifNotExists: true }); pgm.createIndex("people", "mood", { concurrently: true }); };
exports.down = (pgm) => { pgm.noTransaction(); pgm.dropIndex("people", "mood", { concurrently: true }); };`,
  "1700000000004_sql.sql": `-- Up Migration
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE typed (p positive);
-- Down Migration
DROP TABLE typed;
DROP DOMAIN positive;
`,
  "1700000000005_asynchronous.js": `
exports.up = async (pgm) => {
  const rows = await pgm.db.select("SELECT name FROM people");
  pgm.sql("INSERT INTO pets (name, owner) SELECT 'pet of ' || name, id FROM people");
  pgm.alterColumn("pets", "name", { notNull: true });
  pgm.renameColumn("people", "more", "extra");
};
exports.down = (pgm) => { pgm.renameColumn("people", "extra", "more"); pgm.alterColumn("pets", "name", { notNull: false }); pgm.sql("DELETE FROM pets"); };`,
};
const HANGS = { "1700000000009_hangs.js": 'exports.up = async (pgm) => { await pgm.db.query("CREATE TABLE half (id int)"); process.send({ said: "in it" }); await new Promise((r) => setTimeout(r, 60000)); };' };
const BAD = { "1700000000008_bad.js": 'exports.up = (pgm) => { pgm.createTable("bad", { id: "id" }); pgm.sql("SELECT 1/0"); };' };

async function deploy(direction, more = {}, options = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "node-pg-migrate-"));
  fs.writeFileSync(path.join(dir, "package.json"), '{"type": "commonjs"}');
  for (const [name, text] of Object.entries({ ...FILES, ...more })) fs.writeFileSync(path.join(dir, name), text);
  const quiet = { info() {}, warn() {}, error() {}, debug() {} };
  try {
    return (await runner({ databaseUrl: connection(), dir, ignorePattern: "package\\.json", direction, migrationsTable: "pgmigrations", logger: quiet, log() {}, verbose: false, ...options })).map((m) => m.name);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

// The losers of the lock are told, and try again as a deployment does.
role("migrate", async ({ waits } = {}) => {
  for (let i = 0; ; i++) {
    try {
      return await deploy("up", {}, waits ? { advisoryLockMode: "wait" } : {});
    } catch (e) {
      if (!/Another migration is already running/.test(e.message) || i > 300) throw e;
      await sleep(50);
    }
  }
});
role("migrate and hang", () => deploy("up", HANGS));

test("three migrate at once", async () => {
  const results = await together(3, "migrate", {});
  return [tally(results), await look("SELECT name FROM pgmigrations ORDER BY id"), ...await schema("public"), await look('SELECT "double"(21), nextval(\'numbers\')')];
});

test("down and up, redo, to a count, dry run, fake", async () => {
  const out = [await deploy("down", {}, { count: 2 }), await schema("public"), await deploy("up", {}, { count: 1 }), await deploy("up", {}, { dryRun: true }), await look("SELECT count(*) FROM pgmigrations")];
  out.push(await deploy("up", {}, { fake: true }), await deploy("down", {}, { fake: true }), await deploy("up"), await deploy("down", {}, { count: 3 }), await failing(deploy("down", {}, { count: 1 })), await deploy("up"));
  return out;
});

test("one that is told while another migrates, and one that fails", async () => {
  const holder = new Client(connection());
  await holder.connect();
  await holder.query("SELECT pg_advisory_lock(7241865325823964)");
  const out = [await failing(deploy("up")), await deploy("up", {}, { noLock: true })];
  await holder.query("SELECT pg_advisory_unlock(7241865325823964)");
  await holder.end();
  out.push(await failing(deploy("up", BAD)), await failing(deploy("up", BAD, { singleTransaction: false })), await look("SELECT to_regclass('bad'), count(*) FROM pgmigrations"));
  return out;
});

test("a migrator that is killed gives its lock free", async () => {
  const h = await helper("migrate and hang");
  const reached = await h.said("in it");
  const ended = await h.kill();
  return [reached, ended, tally(await together(3, "migrate", {})), await look("SELECT to_regclass('half')")];
});

test("three that wait for the lock", async () => {
  // (without the one that builds an index concurrently: it would wait for those that wait)
  await deploy("down", {}, { count: 2 });
  return [tally(await together(3, "migrate", { waits: true })), await look("SELECT name FROM pgmigrations ORDER BY id")];
});

test("schemas of its own", async () => {
  const out = [];
  out.push(await deploy("up", {}, { schema: "tenant_a", createSchema: true, migrationsSchema: "migrations", createMigrationsSchema: true }), await deploy("up", {}, { schema: ["tenant_b", "public"], createSchema: true, migrationsSchema: "migrations_b", createMigrationsSchema: true }));
  out.push((await schema("tenant_a")).length, (await schema("tenant_b")).length, await look("SHOW search_path"));
  return out;
});

main();
