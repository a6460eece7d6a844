import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { goals } from "./goals.ts";
import { RESUMED } from "./measures/resume.ts";
import { WEIGHED } from "./measures/stored.ts";
import { PLANS } from "./plan.ts";
import { kindOf, preciseCpuMicros } from "./precise-cpu.ts";
import { insertTable, table } from "./report.ts";
import { type Results, runBench } from "./run-bench.ts";
import { quantile, spread } from "./statistics.ts";
import { TARGETS } from "./target.ts";

/** Results of one round with these turns per second for any answer, and these KiB for an open stream. */
function measuredAs(turns: Record<string, number>, kib: Record<string, number>): Results {
  const plan = { ...PLANS.full, rounds: 1, concurrency: [16] };
  const throughput = plan.deltas.flatMap((deltas) =>
    Object.entries(turns).map(([target, turnsPerSecond]) => ({
      target,
      deltas,
      concurrency: 16,
      result: { turnsPerSecond },
    })),
  );
  const paced = ["direct", "grpc", "connect", "sse"].map((target) => {
    const first = target === "direct" ? 1 : 4;
    return { target, result: { firstP50: first, firstP99: 10 * first, eventP50: 1 } };
  });
  const open = Object.entries(kib).map(([target, kibPerStream]) => ({
    target,
    result: { kibPerStream, baseKib: 150 * 1024 },
  }));
  const rounds = [{ throughput, paced, unary: { restP50: 1, connectP50: 1.1 } }];
  return { plan, rounds, open, creates: [{ createsPerSecond: 399 }] } as unknown as Results;
}

describe("the bench", () => {
  const skip = process.platform === "linux" ? false : "the bench reads /proc and needs Linux";
  test("measures every target and writes them into the table", { skip }, async () => {
    const plan = PLANS.smoke;
    const results = await runBench(plan, () => {});
    assert.equal(results.rounds.length, plan.rounds);
    const [round] = results.rounds;
    assert.ok(round !== undefined);
    const names = Object.keys(TARGETS);
    assert.deepEqual(
      round.throughput.map(({ target }) => target),
      names,
    );
    assert.deepEqual(
      round.paced.map(({ target }) => target),
      names,
    );
    for (const { target, result } of round.throughput) assert.ok(result.turnsPerSecond > 0, target);
    for (const { target, result } of round.paced) assert.ok(result.eventP99 >= result.eventP50, target);
    assert.ok(round.unary.restP50 > 0 && round.unary.connectP50 > 0);
    // Begun, the step and its message, their ends, the end.
    assert.equal(round.events.durablePerRun, 5);
    assert.ok(round.events.shownPerRun >= 2 && round.events.shownPerSecond > 0 && round.events.durablePerSecond > 0);
    assert.ok(round.background.runsPerSecond > 0 && round.background.endedP99 >= round.background.endedP50);
    assert.deepEqual(
      round.resume.map(({ run }) => run),
      Object.keys(RESUMED),
    );
    for (const { run, result } of round.resume) assert.ok(result.caughtUpP50 >= result.firstP50, run);
    const missed = new Map(round.resume.map(({ run, result }) => [run, result.missed]));
    assert.ok((missed.get("long") ?? 0) > 50, "a run of many steps has many events");
    assert.equal(missed.get("live"), 1, "of a live run only its first step was missed");
    assert.deepEqual(
      results.stored.map(({ turn }) => turn),
      Object.keys(WEIGHED),
    );
    for (const { turn, result } of results.stored) {
      const rowsOf = (name: string) => result.find(({ table }) => table === name)?.rows;
      assert.equal(rowsOf("runs"), 1, turn);
      assert.equal(rowsOf("sessions"), 1, turn);
      assert.equal(rowsOf("model_calls"), turn === "tool" ? 2 : 1, turn);
    }
    assert.ok(results.creates.every(({ createsPerSecond }) => createsPerSecond > 0));
    assert.deepEqual(
      results.open.map(({ target }) => target),
      plan.open.targets,
    );
    const text = table(results);
    for (const label of [...Object.values(TARGETS), ...Object.values(RESUMED), ...Object.values(WEIGHED)])
      assert.ok(text.includes(`| ${label} |`), label);
    assert.doesNotMatch(text, /NaN|Infinity|undefined/);
    assert.doesNotMatch(goals(results), /NaN|Infinity|undefined/);
  });

  test("replaces what stands between the markers and nothing else", () => {
    const before = "a\n<!-- bench:start -->\nold\n<!-- bench:end -->\nb\n";
    assert.equal(insertTable(before, "new"), "a\n<!-- bench:start -->\nnew\n<!-- bench:end -->\nb\n");
    assert.throws(() => insertTable("no markers", "new"), /bench:start/);
    assert.throws(() => insertTable(before, "new", "goals"), /goals:start/);
  });

  test("counts CPU time by the kind of PostgreSQL's processes", async () => {
    const before = preciseCpuMicros(process.pid);
    for (const until = performance.now() + 20; performance.now() < until; );
    assert.ok(preciseCpuMicros(process.pid) - before > 1_000);
    assert.equal(kindOf("postgres: agentmesh agentmesh [local] idle"), "backend");
    assert.equal(kindOf("postgres: autovacuum launcher "), "autovacuum launcher");
    assert.equal(kindOf("postgres: io worker 2"), "io worker");
    assert.equal(kindOf("/usr/lib/postgresql/bin/postgres -D data"), "postmaster");
    assert.equal(kindOf("node mesh/main.ts"), "other");
  });

  test("says of each goal whether every face reaches it, some do, or none", async () => {
    const text = goals(
      measuredAs({ relay: 400, grpc: 500, connect: 400, sse: 300 }, { grpc: 80, connect: 60, sse: 90 }),
    );
    const of = (what: string) => text.split("\n").find((line) => line.includes(what)) ?? "";
    assert.match(of("at 20 deltas"), /\| 0\.75–1\.25 × \| in part \|$/);
    assert.match(of("at 200 deltas"), /\| no \|$/);
    assert.match(of("time to first event"), /\| 3\.00 ms \| yes \|$/);
    assert.match(of("an open slow stream"), /\| 60\.0–90\.0 KiB \| in part \|$/);
    assert.match(of("run creates"), /\| 399 \/s \| no \|$/);
    assert.match(of("what REST adds"), /\| -0\.10 ms \| yes \|$/);
  });

  test("takes the median between the two values in the middle", () => {
    assert.deepEqual(spread([4, 1, 3, 2]), { median: 2.5, min: 1, max: 4 });
    assert.equal(quantile([1, 2, 3], 1), 3);
  });
});
