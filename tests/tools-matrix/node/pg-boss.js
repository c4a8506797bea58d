// pg-boss: a queue that installs its own schema under an advisory lock and wakes by NOTIFY.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep, until } = require("./harness.js");
const { PgBoss } = require("pg-boss");

const QUIET = { supervise: false, schedule: false };

async function started(more = {}) {
  const boss = new PgBoss({ ...connection(), max: 4, ...QUIET, ...more });
  boss.on("error", (e) => process.stderr.write(`pg-boss: ${e.message}\n`));
  await boss.start();
  return boss;
}

async function using(more, run) {
  const boss = await started(more);
  try {
    return await run(boss);
  } finally {
    await boss.stop({ graceful: false });
  }
}

// As a supervisor does it, a start that fails is tried again. pg-boss asks whether its schema is
// there, waits for its lock, and says CREATE SCHEMA IF NOT EXISTS, all on one connection: a server
// process that has been used before then has everything in its caches, the answer too, and tells
// 23505. Directly only a process that has done work before pg-boss's can show it.
role("start", async () => {
  for (let i = 0; ; i++) {
    try {
      return await using({}, async (boss) => `version ${await boss.schemaVersion()}`);
    } catch (e) {
      if (i > 2 || e.code !== "23505" || e.constraint !== "pg_namespace_nspname_index") throw e;
    }
  }
});

// Works until it is told to stop; an effect for each job.
role("work", async ({ queue, options = {}, dies, throws, listen }, { say, stopped }) => using(listen ? { useListenNotify: true } : {}, async (boss) => {
  const seen = [];
  await boss.work(queue, { pollingIntervalSeconds: 0.5, ...options }, async ([job]) => {
    if (job.data.n === dies) { say("mid-job"); await sleep(60000); }
    if (job.data.n === throws && !(await look("SELECT 1 FROM thrown WHERE n = $1", [throws])).length) {
      await look("INSERT INTO thrown VALUES ($1)", [throws]);
      throw new Error("this job throws");
    }
    await look("INSERT INTO effects VALUES ($1, $2)", [queue, job.data.n]);
    say(`did ${job.data.n}`);
    seen.push(job.data.n);
    return { n: job.data.n };
  });
  say("working");
  await stopped;
  return "stopped";
}));

test("three start at once", async () => {
  const results = await together(3, "start");
  const columns = await schema("pgboss");
  return [tally(results), columns.length, columns.filter((c) => !/created_on|updated_on/.test(c)),
    await using({}, async (boss) => [await boss.isInstalled(), await boss.detectSchemaDrift()])];
});

test("send, fetch, complete, fail, retry, dead letters", () => using({}, async (boss) => {
  const out = [];
  await look("CREATE TABLE IF NOT EXISTS effects (queue text, n int)");
  await look("CREATE TABLE IF NOT EXISTS thrown (n int)");
  await boss.createQueue("dead");
  await boss.createQueue("plain", { retryLimit: 1, retryDelay: 0, deadLetter: "dead" });
  const id = await boss.send("plain", { n: 1, ü: ["x", null] }, { priority: 3 });
  const [job] = await boss.fetch("plain", { includeMetadata: true });
  out.push(job.id === id, job.data, job.state, job.priority, job.retryCount);
  out.push(await boss.fetch("plain"));
  await boss.fail("plain", id, { message: "first" });
  const [again] = await boss.fetch("plain", { includeMetadata: true });
  out.push(again.id === id, again.retryCount);
  await boss.fail("plain", id, new Error("second"));
  const failed = await boss.getJobById("plain", id);
  out.push(failed.state, failed.retryCount, failed.output && failed.output.message);
  const [dead] = await boss.fetch("dead");
  out.push(dead.data);
  await boss.complete("dead", dead.id, { is: "buried" });
  out.push((await boss.getJobById("dead", dead.id)).state);
  const cancelled = await boss.send("plain", { n: 2 });
  await boss.cancel("plain", cancelled);
  out.push((await boss.getJobById("plain", cancelled)).state);
  await boss.resume("plain", cancelled);
  out.push((await boss.getJobById("plain", cancelled)).state);
  await boss.deleteJob("plain", cancelled);
  out.push(await boss.getJobById("plain", cancelled));
  out.push(await failing(boss.send("nothing like it", {})));
  return out;
}));

test("many at once, batches, priorities, singletons, delays", () => using({}, async (boss) => {
  const out = [];
  await boss.createQueue("many");
  await boss.insert("many", Array.from({ length: 500 }, (_, n) => ({ data: { n }, priority: n % 5 })));
  const batches = await Promise.all(Array.from({ length: 10 }, () => boss.fetch("many", { batchSize: 50 })));
  const numbers = batches.flat().map((j) => j.data.n);
  out.push(numbers.length, new Set(numbers).size);
  await boss.complete("many", batches.flat().map((j) => j.id));
  out.push(await look("SELECT state, count(*) FROM pgboss.job WHERE name = 'many' GROUP BY 1"));
  await boss.createQueue("single", { policy: "short" });
  out.push(Boolean(await boss.send("single", {})), await boss.send("single", {}));
  out.push(Boolean(await boss.send("many", {}, { singletonKey: "k", singletonSeconds: 600 })), await boss.send("many", {}, { singletonKey: "k", singletonSeconds: 600 }));
  await boss.sendAfter("many", { late: true }, {}, 600);
  await boss.fetch("many");
  out.push(await boss.fetch("many"));
  return out;
}));

test("jobs in a transaction of the program's own", () => using({}, async (boss) => {
  const out = [];
  const { Pool } = require("pg");
  const pool = new Pool({ ...connection(), max: 2 });
  await boss.createQueue("own");
  for (const end of ["ROLLBACK", "COMMIT"]) {
    const c = await pool.connect();
    await c.query("BEGIN");
    await boss.send("own", { end }, { db: { executeSql: (text, values) => c.query(text, values) } });
    await c.query("SAVEPOINT s");
    out.push(await failing(c.query("SELECT 1/0")));
    await c.query("ROLLBACK TO s");
    await c.query(end);
    c.release();
  }
  out.push((await boss.fetch("own", { batchSize: 10 })).map((j) => j.data));
  await pool.end();
  return out;
}));

test("three workers: one is killed in mid-job, one job throws", () => using({ monitorIntervalSeconds: 1, maintenanceIntervalSeconds: 1 }, async (boss) => {
  await boss.createQueue("crash", { retryLimit: 3, retryDelay: 0, expireInSeconds: 2 });
  await boss.insert("crash", Array.from({ length: 40 }, (_, n) => ({ data: { n }, priority: n === 0 ? 9 : 0 })));
  const doomed = await helper("work", { queue: "crash", dies: 0 });
  const reached = await doomed.said("mid-job");
  const ended = await doomed.kill();
  const workers = await Promise.all([1, 2, 3].map(() => helper("work", { queue: "crash", throws: 7, options: { localConcurrency: 3, pollingIntervalSeconds: 0.5 } })));
  const done = await until(async () => {
    await boss.supervise("crash");
    await sleep(300);
    return (await look("SELECT count(*) FROM pgboss.job WHERE name = 'crash' AND state <> 'completed'"))[0][0] === "0";
  });
  workers.forEach((w) => w.stop());
  const results = await Promise.all(workers.map((w) => w.result()));
  return [reached, ended, done, tally(results), await look("SELECT state, retry_count, count(*) FROM pgboss.job WHERE name = 'crash' GROUP BY 1, 2 ORDER BY 1, 2"),
    await look("SELECT count(*), count(DISTINCT n) FROM effects WHERE queue = 'crash'"), (await look("SELECT data->>'n' FROM pgboss.job WHERE name = 'crash' AND retry_count > 0 ORDER BY 1")).flat()];
}));

test("a worker wakes by NOTIFY", () => using({}, async (boss) => {
  await boss.createQueue("notified", { notify: true });
  // Nobody polls within the case's time.
  const w = await helper("work", { queue: "notified", listen: true, options: { pollingIntervalSeconds: 300, notifyPollingIntervalSeconds: 300 } });
  const out = [await w.said("working")];
  // (the first look at the queue comes before the first job)
  await sleep(500);
  for (const n of [1, 2, 3]) {
    await boss.send("notified", { n });
    out.push(await w.said(`did ${n}`));
  }
  w.stop();
  out.push(await w.result());
  return out;
}));

test("transactional workers", () => using({}, async (boss) => {
  await boss.createQueue("transactional", { retryLimit: 1, retryDelay: 0 });
  await boss.send("transactional", { n: 1 });
  let tries = 0;
  await boss.work("transactional", { transactional: true, pollingIntervalSeconds: 0.5 }, async ([job], tx) => {
    await tx.executeSql("INSERT INTO effects VALUES ('transactional', $1)", [++tries]);
    if (tries === 1) throw new Error("not yet");
    return { tries };
  });
  const done = await until(async () => (await look("SELECT count(*) FROM pgboss.job WHERE name = 'transactional' AND state = 'completed'"))[0][0] === "1");
  await boss.offWork("transactional");
  return [done, await look("SELECT n FROM effects WHERE queue = 'transactional'")];
}));

test("publish, subscribe, flows, schedules", () => using({}, async (boss) => {
  const out = [];
  for (const q of ["sub a", "sub b", "cron"]) await boss.createQueue(q.replace(" ", "_"));
  await boss.subscribe("event", "sub_a");
  await boss.subscribe("event", "sub_b");
  await boss.publish("event", { word: "hello" });
  out.push((await boss.fetch("sub_a")).map((j) => j.data), (await boss.fetch("sub_b")).map((j) => j.data));
  await boss.flow([{ ref: "first", name: "sub_a", data: { n: 1 } }, { ref: "then", name: "sub_a", data: { n: 2 }, dependsOn: ["first"] }]);
  const [first] = await boss.fetch("sub_a");
  out.push(first.data, await boss.fetch("sub_a"));
  await boss.complete("sub_a", first.id);
  await boss.resolveFlow();
  out.push((await boss.fetch("sub_a")).map((j) => j.data));
  await boss.schedule("cron", "*/5 * * * *", { x: 1 }, { tz: "Europe/Berlin" });
  out.push((await boss.getSchedules()).map((s) => [s.name, s.cron, s.timezone, s.data]));
  await boss.unschedule("cron");
  out.push(await boss.getSchedules());
  return out;
}));

test("maintenance by three at once", async () => {
  const all = await Promise.all([1, 2, 3].map(() => started({ supervise: true, superviseIntervalSeconds: 1, maintenanceIntervalSeconds: 1, monitorIntervalSeconds: 1, persistQueueStats: true })));
  const out = [];
  out.push(await until(async () => (await look("SELECT count(*) > 0 FROM pgboss.queue_stats"))[0][0]));
  for (const boss of all) out.push(await failing(boss.supervise()));
  out.push((await all[0].getQueues()).map((q) => [q.name, q.policy]).sort());
  await Promise.all(all.map((b) => b.stop()));
  return out;
});

main();
