// graphile-worker: a queue in SQL functions, LISTEN, cron, prepared statements.
// SPDX-License-Identifier: Apache-2.0
"use strict";
const { test, role, main, connection, helper, together, look, schema, tally, failing, show, sleep, until } = require("./harness.js");
const { run, runOnce, runMigrations, makeWorkerUtils, quickAddJob, Logger, parseCronItems } = require("graphile-worker");
const { Pool } = require("pg");

const logger = new Logger(() => () => {});

async function pooled(work, max = 6) {
  const pgPool = new Pool({ ...connection(), max });
  pgPool.on("error", () => {});
  try {
    return await work(pgPool);
  } finally {
    await pgPool.end();
  }
}

const using = (work) => pooled(async (pgPool) => {
  const utils = await makeWorkerUtils({ pgPool, logger });
  try {
    return await work(utils, pgPool);
  } finally {
    await utils.release();
  }
});

const state = () => look(`SELECT t.identifier, j.attempts, j.last_error, j.locked_by IS NOT NULL, j.payload
  FROM graphile_worker._private_jobs j JOIN graphile_worker._private_tasks t ON t.id = j.task_id ORDER BY j.id`);

role("migrate", () => pooled(async (pgPool) => { await runMigrations({ pgPool, logger }); return "migrated"; }));

role("work", ({ dies, throws, concurrency = 2, prepared = true, poll = 100 }, { say, stopped }) => pooled(async (pgPool) => {
  const runner = await run({
    pgPool, logger, concurrency, pollInterval: poll, noHandleSignals: true, noPreparedStatements: !prepared,
    taskList: {
      effect: async (payload, helpers) => {
        if (payload.n === dies) { say("mid-job"); await sleep(60000); }
        if (payload.n === throws && helpers.job.attempts === 1) throw new Error("this job throws");
        await helpers.query("INSERT INTO effects VALUES ($1, $2)", [payload.n, helpers.job.attempts]);
        say(`did ${payload.n}`);
      },
      in_transaction: async (payload, helpers) => {
        await helpers.withPgClient(async (c) => {
          await c.query("BEGIN");
          await c.query("INSERT INTO effects VALUES ($1, 0)", [payload.n]);
          await c.query("SAVEPOINT s");
          await c.query("SELECT 1/0").catch(() => c.query("ROLLBACK TO s"));
          await c.query("COMMIT");
        });
        await helpers.addJob("effect", { n: payload.n + 1000 });
      },
    },
  });
  say("working");
  await stopped;
  await runner.stop();
  return "stopped";
}, concurrency + 4));

test("three migrate at once", async () => {
  const results = await together(3, "migrate");
  return [tally(results), await look("SELECT id, breaking FROM graphile_worker.migrations ORDER BY id"), ...await schema("graphile_worker")];
});

test("jobs: keys, priorities, run once, errors", async () => using(async (utils, pgPool) => {
  const out = [];
  await look("CREATE TABLE effects (n int, attempt int)");
  const log = [];
  await utils.addJob("log", { n: 1, ü: ["x", null] });
  await utils.addJob("log", { n: 2 }, { priority: -5 });
  await utils.addJob("log", { n: 3 }, { jobKey: "k" });
  await utils.addJob("log", { n: 4 }, { jobKey: "k" });
  await utils.addJob("log", { n: 5 }, { runAt: new Date(Date.now() + 3600000) });
  await utils.addJob("bad", { n: 6 }, { maxAttempts: 1 });
  await utils.addJobs([7, 8].map((n) => ({ identifier: "log", payload: { n }, queueName: "serial" })));
  const options = { pgPool, logger, noHandleSignals: true, taskList: { log: async (p) => { log.push(p); }, bad: async () => { throw new Error("bad job"); } } };
  // (a queue's next job may still be behind the lock of its last)
  while ((await state()).some((j) => j[0] === "log" && j[4].n !== 5)) await runOnce(options);
  out.push(log, await state());
  const [late] = await look("SELECT id FROM graphile_worker._private_jobs ORDER BY id LIMIT 1");
  out.push((await utils.rescheduleJobs([late[0]], { priority: 7, attempts: 3 })).map((j) => [j.priority, j.attempts]));
  out.push((await utils.completeJobs([late[0]])).length, await failing(utils.addJob("x".repeat(200), {})));
  out.push((await look("SELECT count(*) FROM graphile_worker.jobs"))[0]);
  await look("SELECT graphile_worker.add_job('log', '{\"n\": \"from SQL\"}')");
  log.length = 0;
  await runOnce(options);
  out.push(log);
  await utils.cleanup({ tasks: ["GC_TASK_IDENTIFIERS", "GC_JOB_QUEUES", "DELETE_PERMAFAILED_JOBS"] });
  out.push(await state());
  return out;
}));

test("jobs in a transaction of the program's own", () => using(async (utils, pgPool) => {
  for (const end of ["ROLLBACK", "COMMIT"]) {
    const c = await pgPool.connect();
    await c.query("BEGIN");
    await c.query("SELECT graphile_worker.add_job('own', $1::json)", [JSON.stringify({ end })]);
    await c.query(end);
    c.release();
  }
  const out = [await state()];
  await runOnce({ pgPool, logger, noHandleSignals: true, taskList: { own: async () => {} } });
  out.push(await state());
  return out;
}));

for (const prepared of [true, false]) {
  test(`three workers: one is killed in mid-job, one job throws${prepared ? "" : ", without prepared statements"}`, () => using(async (utils) => {
    await look("TRUNCATE effects");
    await utils.addJob("effect", { n: 0 }, { priority: -9 });
    const doomed = await helper("work", { dies: 0, concurrency: 1, prepared });
    const reached = await doomed.said("mid-job");
    const ended = await doomed.kill();
    for (let n = 1; n < 60; n++) await utils.addJob("effect", { n });
    const locked = (await look("SELECT DISTINCT locked_by FROM graphile_worker._private_jobs WHERE locked_by IS NOT NULL")).flat();
    const workers = await Promise.all([1, 2, 3].map(() => helper("work", { throws: 7, prepared })));
    await Promise.all(workers.map((w) => w.said("working")));
    // Nobody may take the dead one's job before it is released, as an operator does.
    const others = await until(async () => (await look("SELECT count(*) FROM effects"))[0][0] >= "58" || (await look("SELECT count(*) FROM effects"))[0][0].length > 2);
    const before = await state();
    await utils.forceUnlockWorkers(locked);
    await look("UPDATE graphile_worker._private_jobs SET run_at = now()");
    const done = await until(async () => (await look("SELECT count(*) FROM graphile_worker._private_jobs"))[0][0] === "0");
    workers.forEach((w) => w.stop());
    const results = await Promise.all(workers.map((w) => w.result()));
    return [reached, ended, locked.length, others, before.filter((j) => j[4].n === 0).length, done, tally(results),
      await look("SELECT count(*), count(DISTINCT n), sum(attempt - 1) FROM effects"), await look("SELECT n, attempt FROM effects WHERE n IN (0, 7) ORDER BY 1")];
  }));
}

test("a worker wakes by NOTIFY", () => using(async (utils) => {
  await look("TRUNCATE effects");
  const w = await helper("work", { poll: 300000 });
  const out = [await w.said("working")];
  await sleep(300);
  for (const n of [1, 2, 3, 4, 5]) {
    await utils.addJob("effect", { n });
    out.push(await w.said(`did ${n}`));
  }
  await utils.addJob("in_transaction", { n: 9 });
  out.push(await w.said("did 1009"));
  w.stop();
  out.push(await w.result(), await look("SELECT n, attempt FROM effects ORDER BY 1"));
  return out;
}));

test("its listener's connection is lost and made again", () => using(async (utils, pgPool) => {
  await look("TRUNCATE effects");
  const w = await helper("work", { poll: 300000 });
  const out = [await w.said("working")];
  await sleep(300);
  // The server ends all of the worker's sessions: those that listen, too.
  await look("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = current_user AND query ~ 'LISTEN' AND state = 'idle'");
  let n = 100;
  out.push(await until(async () => {
    await utils.addJob("effect", { n: ++n });
    return Promise.race([w.said(`did ${n}`), sleep(1000).then(() => false)]);
  }));
  w.stop();
  out.push(await w.result());
  return out;
}));

test("cron with backfill", () => pooled(async (pgPool) => {
  const seen = [];
  const start = async () => run({
    pgPool, logger, noHandleSignals: true, pollInterval: 100,
    parsedCronItems: parseCronItems([{ task: "tick", match: "* * * * *", options: { backfillPeriod: 180000 }, identifier: "every minute" }]),
    taskList: { tick: async (payload) => { seen.push(payload._cron.backfilled); } },
  });
  const first = await start();
  await until(async () => (await look("SELECT count(*) FROM graphile_worker._private_known_crontabs"))[0][0] === "1");
  await first.stop();
  await look("UPDATE graphile_worker._private_known_crontabs SET known_since = now() - interval '1 hour', last_execution = date_trunc('minute', now()) - interval '2 minutes'");
  const second = await start();
  const done = await until(() => seen.filter(Boolean).length >= 2);
  await second.stop();
  return [done, await look("SELECT identifier FROM graphile_worker._private_known_crontabs")];
}));

main();
