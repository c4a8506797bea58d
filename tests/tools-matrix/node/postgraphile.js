// PostGraphile: introspection into a GraphQL schema, plans, row-level security by SET LOCAL,
// subscriptions by LISTEN, its watch mode.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, tally, failing, show, sleep, until } = require("./harness.js");
const { postgraphile, makeSchema } = require("postgraphile");
const { PostGraphileAmberPreset } = require("postgraphile/presets/amber");
const { makePgService } = require("postgraphile/adaptors/pg");
const { grafast } = require("postgraphile/grafast");
const { printSchema } = require("postgraphile/graphql");
const { Pool } = require("pg");

const TABLES = `
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE app.person (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood app.mood DEFAULT 'ok', tags text[], more jsonb, made timestamptz DEFAULT now());
COMMENT ON TABLE app.person IS 'Somebody.';
CREATE TABLE app.pet (id serial PRIMARY KEY, owner_id int REFERENCES app.person ON DELETE CASCADE, name text, weight numeric(8,2) CHECK (weight >= 0));
CREATE INDEX ON app.pet (owner_id);
CREATE INDEX ON app.pet (name);
CREATE VIEW app.heavy AS SELECT id, name FROM app.pet WHERE weight > 10;
CREATE FUNCTION app.person_shout(p app.person) RETURNS text LANGUAGE sql STABLE AS $$ SELECT upper(p.name) $$;
CREATE FUNCTION app.add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT a + b $$;
CREATE FUNCTION app.rename_person(id int, name text) RETURNS app.person LANGUAGE sql VOLATILE AS $$ UPDATE app.person SET name = $2 WHERE id = $1 RETURNING * $$;
CREATE FUNCTION app.fails() RETURNS int LANGUAGE plpgsql VOLATILE AS $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0042', HINT = 'a hint', DETAIL = 'a detail'; END $$;
CREATE FUNCTION app.who() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.user', true) || ' ' || current_setting('statement_timeout') $$;
CREATE TABLE app.secret (id int PRIMARY KEY, owner text, v text);
ALTER TABLE app.secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.secret FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON app.secret USING (owner = current_setting('app.user', true));
GRANT SELECT ON app.secret TO acme_ro;
INSERT INTO app.person (id, name, tags, more) VALUES (1, 'Ada', '{a,b}', '{"k": [1, null]}'), (2, 'Grace', NULL, NULL);
SELECT setval('app.person_id_seq', 10);
INSERT INTO app.pet (id, owner_id, name, weight) VALUES (1, 1, 'Tux', 12.5), (2, 1, 'Gnu', 3), (3, 2, 'Camel', 40);
SELECT setval('app.pet_id_seq', 10);
BEGIN; SELECT set_config('app.user', 'ada', true); INSERT INTO app.secret VALUES (1, 'ada', 'of Ada'); SELECT set_config('app.user', 'grace', true); INSERT INTO app.secret VALUES (2, 'grace', 'of Grace'); COMMIT;
`;

async function preset(pool, more = {}) {
  return {
    extends: [PostGraphileAmberPreset],
    pgServices: [makePgService({ pool, schemas: ["app"], pubsub: true, ...more })],
    grafast: { context: (ctx) => ({ pgSettings: { "app.user": ctx.user || "nobody", statement_timeout: "7s", ...(ctx.role ? { role: ctx.role } : {}) } }), explain: false },
    grafserv: { watch: false },
    schema: { dontSwallowErrors: true },
  };
}

async function using(run, size = 4) {
  const pool = new Pool({ ...connection(), max: size });
  pool.on("error", () => {});
  const p = await preset(pool);
  try {
    const { schema, resolvedPreset } = await makeSchema(p);
    const ask = async (source, variableValues = {}, requestContext = {}) => {
      const r = await grafast({ schema, source, variableValues, resolvedPreset, requestContext });
      return r.errors ? { errors: r.errors.map((e) => `${e.message} ${(e.originalError || {}).code || ""}`), data: r.data } : r.data;
    };
    return await run({ schema, ask, pool, resolvedPreset });
  } finally {
    for (const s of p.pgServices) await s.release?.();
    await pool.end().catch(() => {});
  }
}

role("serve", ({ rounds, dies }, { say }) => using(async ({ ask, schema }) => {
  const text = printSchema(schema).length;
  for (let i = 0; i < rounds; i++) {
    const r = await ask("mutation ($n: String!, $w: BigFloat) { createPet(input: {pet: {ownerId: 2, name: $n, weight: $w}}) { pet { name weight personByOwnerId { name } } } }", { n: `pet ${i}`, w: "1.25" });
    if (show(r) !== `{"createPet":{"pet":{"name":"pet ${i}","weight":"1.25","personByOwnerId":{"name":"Grace"}}}}`) return `round ${i}: ${show(r)}`;
    if (dies === i) { say("half"); await sleep(60000); }
  }
  return `schema of ${text} characters, ${rounds} rounds`;
}));

test("the schema of a database", async () => {
  await look(TABLES.replaceAll("\n", " "));
  return using(async ({ schema }) => printSchema(schema));
});

test("queries: connections, filters, computed columns, arrays, JSON", () => using(async ({ ask }) => [
  await ask("{ allPeople(orderBy: NAME_ASC) { totalCount nodes { name mood tags more shout petsByOwnerId(orderBy: NAME_DESC) { nodes { name weight } } } } }"),
  await ask('{ personByName(name: "Ada") { id nodeId petsByOwnerId(first: 1, orderBy: ID_ASC) { pageInfo { hasNextPage } edges { cursor node { name } } } } }'),
  await ask("query ($a: Int!, $b: Int!) { add(a: $a, b: $b) allHeavies(orderBy: NATURAL) { totalCount } }", { a: 40, b: 2 }),
  await ask('{ allPets(condition: { name: "Tux" }) { nodes { personByOwnerId { name petsByOwnerId { totalCount } } } } }'),
  await ask("{ nothing }")]));

test("settings of each request, row-level security", () => using(async ({ ask }) => [
  await ask("{ who }", {}, { user: "ada" }), await ask("{ who }", {}, { user: "grace" }), await ask("{ who }"),
  await ask("{ allSecrets { nodes { v } } }", {}, { user: "ada" }), await ask("{ allSecrets { nodes { v } } }", {}, { user: "grace" }), await ask("{ allSecrets { nodes { v } } }"),
  tally(await Promise.all(Array.from({ length: 60 }, (_, i) => ask("{ who allSecrets { nodes { v } } }", {}, { user: i % 2 ? "ada" : "grace" })))),
  await look("SELECT coalesce(current_setting('app.user', true), '')")], 3));

test("mutations and errors", () => using(async ({ ask }) => [
  await ask('mutation ($more: JSON) { createPerson(input: { person: { name: "Linus", mood: sad, tags: ["x", "y,z"], more: $more } }) { person { name mood tags more shout } } }', { more: { ü: [1, null] } }),
  await ask('mutation { updatePersonByName(input: { name: "Linus", personPatch: { mood: happy } }) { person { name mood } } }'),
  await ask('mutation { renamePerson(input: { id: 1, name: "Ada L." }) { result { name } } }'), await ask('mutation { renamePerson(input: { id: 1, name: "Ada" }) { result { name } } }'),
  await ask('mutation { createPerson(input: { person: { name: "Ada" } }) { person { name } } }'), await ask('mutation { createPet(input: { pet: { weight: "-1" } }) { pet { name } } }'), await ask("mutation { fails(input: {}) { clientMutationId } }"),
  await ask('mutation { a: createPet(input: { pet: { name: "one" } }) { pet { name } } b: createPet(input: { pet: { ownerId: -1 } }) { pet { name } } c: createPet(input: { pet: { name: "three" } }) { pet { name } } }'),
  await ask("{ allPets(orderBy: NAME_ASC) { nodes { name } } }"), await ask('mutation { deletePersonByName(input: { name: "Linus" }) { deletedPersonId } }')]));

test("its pubsub: LISTEN and NOTIFY", () => using(async ({ resolvedPreset, pool }) => {
  const subscriber = resolvedPreset.pgServices[0].pgSubscriber, out = [];
  const iterator = (await subscriber.subscribe("news"))[Symbol.asyncIterator](), other = (await subscriber.subscribe("other news"))[Symbol.asyncIterator]();
  // Its LISTEN goes out behind our backs: until it is heard.
  let heard = null;
  const first = iterator.next().then((m) => { heard = m.value; });
  await until(async () => { await pool.query("SELECT pg_notify('news', 'first')"); await sleep(50); return heard !== null; });
  await first;
  out.push(heard);
  const next = async () => { for (;;) { const { value } = await iterator.next(); if (value !== "first") return value; } };
  for (const text of ["second", "ü 'quoted'"]) {
    const n = next();
    await pool.query("SELECT pg_notify('news', $1)", [text]);
    out.push(await n);
  }
  const c = await pool.connect();
  await c.query("BEGIN");
  await c.query("SELECT pg_notify('other news', 'rolled back')");
  await c.query("ROLLBACK");
  await c.query("BEGIN");
  await c.query("SELECT pg_notify('other news', 'committed')");
  const n = other.next();
  await c.query("COMMIT");
  c.release();
  out.push((await n).value);
  return out;
}));

test("three servers at once: one is killed", async () => {
  const doomed = await helper("serve", { rounds: 5, dies: 2 });
  const reached = await doomed.said("half");
  const ended = await doomed.kill();
  return [reached, ended, tally(await together(3, "serve", { rounds: 20 })), await look("SELECT count(*), sum(weight) FROM app.pet WHERE name LIKE 'pet %'")];
});

main();
