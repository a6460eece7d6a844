import { test } from "node:test";
import { auditRuns } from "./audit-runs.ts";
import { Deaths, dieBeside, ENDS_LOST_RUNS, ROUNDS } from "./deaths.ts";
import { declaredFailpoints } from "./declared-failpoints.ts";
import type { Replica } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";

const NEVER_TAKEN_UP = { AGENTMESH_AGENT__MAX_ATTEMPTS: "1" };

describeFaults(
  "an agent that dies while it ends runs that are lost for good",
  { settings: NEVER_TAKEN_UP },
  (suite) => {
    test("leaves each with one end", { timeout: LIMIT_MS }, async () => {
      const { mesh, stored } = suite();
      const names = declaredFailpoints("agent").filter((name) => ENDS_LOST_RUNS.test(name));
      const deaths = new Deaths(suite());
      const [first, second, third] = mesh.agents as [Replica, Replica, Replica];
      await using load = suite().load(90);
      await second.kill();
      for (let round = 0; round < ROUNDS; round++) {
        for (const name of names) await deaths.at(name, first, () => dieBeside(third));
      }
      await first.kill();
      await Promise.all([first.start(), second.start()]);
      await load.finish();
      await auditRuns(mesh, load, stored, ["OWNER_LOST"]);
      deaths.report(names);
    });
  },
);
