import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { PLANS } from "./plan.ts";
import { insertTable, table } from "./report.ts";
import { runBench } from "./run-bench.ts";
import { quantile, spread } from "./statistics.ts";
import { TARGETS } from "./target.ts";

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
    assert.ok(results.creates.every(({ createsPerSecond }) => createsPerSecond > 0));
    assert.deepEqual(
      results.open.map(({ target }) => target),
      plan.open.targets,
    );
    const text = table(results);
    for (const label of Object.values(TARGETS)) assert.ok(text.includes(`| ${label} |`), label);
    assert.doesNotMatch(text, /NaN|Infinity|undefined/);
  });

  test("replaces what stands between the markers and nothing else", () => {
    const before = "a\n<!-- bench:start -->\nold\n<!-- bench:end -->\nb\n";
    assert.equal(insertTable(before, "new"), "a\n<!-- bench:start -->\nnew\n<!-- bench:end -->\nb\n");
    assert.throws(() => insertTable("no markers", "new"), /bench:start/);
  });

  test("takes the median between the two values in the middle", () => {
    assert.deepEqual(spread([4, 1, 3, 2]), { median: 2.5, min: 1, max: 4 });
    assert.equal(quantile([1, 2, 3], 1), 3);
  });
});
