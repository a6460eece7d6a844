import { after, before, describe } from "node:test";
import { skipWithout } from "#platform/testing/missing-server.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import type { Random } from "#tests/conformance/random.ts";
import { type FaultMesh, type FaultMeshOptions, startFaultMesh } from "./fault-mesh.ts";
import { Load } from "./load.ts";
import type { Play } from "./scripted-model.ts";
import { LONG } from "./seed.ts";
import { Stored } from "./stored.ts";

/** A mesh to break, and the eyes that look past it. */
export interface FaultSuite {
  readonly mesh: FaultMesh;
  readonly stored: Stored;
  /** Callers that keep so many runs going. */
  load(inFlight: number, play?: (tag: string, random: Random) => Play): Load;
}

/** The time limit of one test of faults: below what the runner allows a file in the short form. */
export const LIMIT_MS = LONG ? 3 * 3_600_000 : 240_000;

/** Runs the tests of `body` against a mesh of their own. */
export function describeFaults(
  title: string,
  options: FaultMeshOptions,
  body: (suite: () => FaultSuite) => void,
): void {
  const skip = skipWithoutPostgres() || skipWithout("redis-server") || skipWithout("nats-server");
  describe(title, { skip }, () => {
    let suite: FaultSuite | undefined;
    let loads = 0;
    before(
      async () => {
        const mesh = await startFaultMesh(options);
        const stored = new Stored(mesh.database.superuserUrl);
        const gateways = mesh.gateways.map(({ baseUrl }) => baseUrl);
        const { adminKey, approverKey } = mesh;
        suite = {
          mesh,
          stored,
          load: (inFlight, play = anyPlay) =>
            new Load({ name: `load${++loads}-`, gateways, adminKey, approverKey, inFlight, play }),
        };
      },
      { timeout: 90_000 },
    );
    after(async () => {
      await suite?.stored[Symbol.asyncDispose]();
      await suite?.mesh[Symbol.asyncDispose]();
    });
    body(() => suite as FaultSuite);
  });
}

/** Up to three turns with tools and an answer, a few seconds; some are refused, wait to be allowed, or are told more. */
function anyPlay(tag: string, random: Random): Play {
  return {
    tag,
    turns: random.below(4),
    deltas: 4 + random.below(8),
    paceMs: 60 + random.below(120),
    toolMs: random.below(500),
    ...random.pick<Partial<Play>>([{}, {}, {}, {}, {}, {}, {}, { refused: true }, { asks: true }, { says: true }]),
  };
}
