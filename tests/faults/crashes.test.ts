import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "#tests/conformance/random.ts";
import { auditRuns } from "./audit-runs.ts";
import { busyReplica, IN_FLIGHT_PER_FAULT } from "./busy-replica.ts";
import { LEASE_MS } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { quantile, report } from "./report.ts";
import { LONG, SEED } from "./seed.ts";
import type { StoredRun } from "./stored.ts";

const INTERRUPTED = LONG ? 2_000 : 200;

interface Kill {
  readonly at: number;
  /** What the victim had in flight. */
  readonly runs: readonly string[];
}

describeFaults("agents that are killed with -9 at any moment", {}, (suite) => {
  test("lose no event, act once, and leave runs that others take", { timeout: LIMIT_MS }, async () => {
    const { mesh, stored } = suite();
    const random = new Random(SEED);
    await using load = suite().load(70);
    const kills: Kill[] = [];
    const until = Date.now() + LIMIT_MS - 60_000;
    while ((await stored.interrupted()) < INTERRUPTED && Date.now() < until) {
      const { victim, runs } = await busyReplica(mesh, stored, random);
      await victim.kill();
      kills.push({ at: Date.now(), runs });
      await sleep(random.below(300));
      await victim.start();
    }
    await load.finish();
    const runs = await auditRuns(mesh, load, stored);
    const hit = await stored.interrupted();
    const least = Math.min(...kills.map((kill) => kill.runs.length));
    report("runs in flight per kill", least, `>= ${IN_FLIGHT_PER_FAULT}`, least >= IN_FLIGHT_PER_FAULT);
    report("interrupted runs", hit, `>= ${INTERRUPTED}`, hit >= INTERRUPTED);
    const waits = takeoverTimes(kills, runs);
    const p99 = Math.round(quantile(waits, 0.99));
    const shown = `${p99} (median ${Math.round(quantile(waits, 0.5))}, most ${Math.round(Math.max(...waits))})`;
    report("takeover p99 ms", shown, `<= ${LEASE_MS + 2_000}`, p99 <= LEASE_MS + 2_000);
  });
});

/** How long after each kill another owner wrote to the runs that it hit; one hit again before that counts from then on. */
function takeoverTimes(kills: readonly Kill[], runs: ReadonlyMap<string, StoredRun>): number[] {
  return kills.flatMap(({ at, runs: hit }) =>
    hit.flatMap((runId) => {
      const run = runs.get(runId);
      const next = run !== undefined && run.owners > 1 ? run.writtenAt.find((written) => written > at) : undefined;
      if (next === undefined) return [];
      const again = kills.some((other) => other.at > at && other.at < next && other.runs.includes(runId));
      return again ? [] : [next - at];
    }),
  );
}
