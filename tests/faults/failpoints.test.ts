import { test } from "node:test";
import { auditRuns } from "./audit-runs.ts";
import { Deaths, dieBeside, ENDS_LOST_RUNS, ROUNDS } from "./deaths.ts";
import { declaredFailpoints } from "./declared-failpoints.ts";
import type { Replica } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";

/** The load deletes nothing; erasure.test.ts does. */
const NOT_OF_THE_LOAD = /^eraser\./;

describeFaults("an agent that dies at a failpoint, at every one", {}, (suite) => {
  test("loses no event, acts once, and leaves runs that others take", { timeout: LIMIT_MS }, async () => {
    const { mesh, stored } = suite();
    const names = declaredFailpoints("agent").filter(
      (name) => !NOT_OF_THE_LOAD.test(name) && !ENDS_LOST_RUNS.test(name),
    );
    const ofReaper = names.filter((name) => name.startsWith("reaper."));
    const deaths = new Deaths(suite());
    const [first, second, third] = mesh.agents as [Replica, Replica, Replica];
    await using load = suite().load(90);
    for (let round = 0; round < ROUNDS; round++) {
      const others = names.filter((name) => !ofReaper.includes(name));
      const victims = [first, second].map(async (victim) => {
        for (let name = others.shift(); name !== undefined; name = others.shift()) await deaths.at(name, victim);
        await victim.kill();
        await victim.start();
      });
      await Promise.all(victims);
      // What the reaper does takes somebody who dies beside it, and nobody else who could be faster.
      await second.kill();
      for (const name of ofReaper) await deaths.at(name, first, () => dieBeside(third));
      await first.kill();
      await Promise.all([first.start(), second.start()]);
    }
    await load.finish();
    await auditRuns(mesh, load, stored);
    deaths.report(names);
  });
});

describeFaults("a tool service that dies at a failpoint, at every one", {}, (suite) => {
  const names = declaredFailpoints("tool");
  test("acts once", { timeout: LIMIT_MS, skip: names.length === 0 && "it has none" }, async () => {
    const { mesh, stored } = suite();
    const deaths = new Deaths(suite());
    await using load = suite().load(90);
    for (let round = 0; round < ROUNDS; round++) {
      for (const name of names) await deaths.at(name, mesh.services);
      await mesh.services.kill();
      await mesh.services.start();
    }
    await load.finish();
    // What a run needs at its start and for its tools was away.
    await auditRuns(mesh, load, stored, ["DEPENDENCY_DOWN"]);
    deaths.report(names);
  });
});
