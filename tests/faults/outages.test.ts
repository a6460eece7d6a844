import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "#tests/conformance/random.ts";
import { auditRuns } from "./audit-runs.ts";
import type { FaultMesh } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import type { Load } from "./load.ts";
import { report } from "./report.ts";
import { LONG, SEED } from "./seed.ts";

const TIMES = LONG ? 20 : 5;
const BACK_WITHIN_MS = 5_000;
/** So long without an error, and the outage is over. */
const QUIET_MS = 1_500;

/** How each backend is ended and started again, and by what reasons runs may fail meanwhile. */
const BACKENDS = {
  Redis: { end: ({ redis }: FaultMesh) => redis.kill(), begin: ({ redis }: FaultMesh) => redis.start(), excused: [] },
  NATS: { end: ({ nats }: FaultMesh) => nats.kill(), begin: ({ nats }: FaultMesh) => nats.start(), excused: [] },
  PostgreSQL: {
    end: ({ postgres }: FaultMesh, random: Random) => postgres.kill(random.chance(0.5) ? "SIGQUIT" : "SIGINT"),
    begin: ({ postgres }: FaultMesh) => postgres.start(),
    excused: ["DEPENDENCY_DOWN", "INTERNAL", "OWNER_LOST"],
  },
} as const;

describeFaults("a backend that is ended and started again under load", { agents: 2 }, (suite) => {
  for (const [name, backend] of Object.entries(BACKENDS)) {
    test(`costs nothing that was acknowledged, and errors end with the outage: ${name}`, {
      timeout: LIMIT_MS,
    }, async () => {
      const { mesh, stored } = suite();
      const random = new Random(SEED);
      await using load = suite().load(40);
      await sleep(2_000);
      const windows: number[] = [];
      for (let time = 0; time < TIMES; time++) {
        await backend.end(mesh, random);
        await sleep(random.below(1_500));
        await backend.begin(mesh);
        windows.push(await errorsAfter(load, Date.now()));
        await sleep(random.below(500));
      }
      await load.finish();
      const last = load.troubles.slice(-5).map(({ call, code, message }) => `${call} ${code}: ${message}`);
      await auditRuns(mesh, load, stored, backend.excused);
      report(`${name} restarts`, TIMES, `>= ${TIMES}`, true);
      const worst = Math.max(...windows);
      report(`${name}: errors end after, ms`, worst, `<= ${BACK_WITHIN_MS}`, worst <= BACK_WITHIN_MS, last);
    });
  }
});

/** How long after the return of a backend callers still met errors. */
async function errorsAfter(load: Load, returned: number): Promise<number> {
  for (;;) {
    const last = Math.max(returned, load.troubles.at(-1)?.at ?? 0);
    if (Date.now() - last >= QUIET_MS || Date.now() - returned > 2 * BACK_WITHIN_MS) return last - returned;
    await sleep(50);
  }
}
