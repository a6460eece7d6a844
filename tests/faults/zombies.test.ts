import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "#tests/conformance/random.ts";
import { auditRuns } from "./audit-runs.ts";
import { busyReplica, IN_FLIGHT_PER_FAULT } from "./busy-replica.ts";
import { LEASE_MS } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { report } from "./report.ts";
import { LONG, SEED } from "./seed.ts";

const ZOMBIES = LONG ? 100 : 20;

describeFaults("agents that stand still for longer than their lease", {}, (suite) => {
  test("write nothing stale when they go on", { timeout: LIMIT_MS }, async () => {
    const { mesh, stored } = suite();
    const random = new Random(SEED);
    await using load = suite().load(90);
    let least = Number.POSITIVE_INFINITY;
    for (let zombie = 0; zombie < ZOMBIES; zombie++) {
      const { victim, runs } = await busyReplica(mesh, stored, random);
      least = Math.min(least, runs.length);
      victim.process.signal("SIGSTOP");
      await sleep(LEASE_MS * 1.3 + random.below(LEASE_MS));
      victim.process.signal("SIGCONT");
    }
    await load.finish();
    await auditRuns(mesh, load, stored);
    report("zombies", ZOMBIES, `>= ${ZOMBIES}`, true);
    report("runs in flight per zombie", least, `>= ${IN_FLIGHT_PER_FAULT}`, least >= IN_FLIGHT_PER_FAULT);
    const hit = await stored.interrupted();
    report("runs taken from zombies", hit, `>= ${ZOMBIES * 5}`, hit >= ZOMBIES * 5);
  });
});
