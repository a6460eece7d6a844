import { join } from "node:path";
import { test } from "node:test";
import { spawnTied, type TiedChild } from "#platform/process/tied-child.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { nothingHeld } from "./checkers.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { newTenant } from "./new-tenant.ts";
import { permitsHeld } from "./permits-held.ts";
import { quantile, report } from "./report.ts";
import { messageOf } from "./scripted-model.ts";
import { LONG } from "./seed.ts";

/** Callers of the noisy tenant for the one of the quiet tenant. */
const TIMES = 1_000;
const SLOWER_PERCENT = 20;
/** Quiet and noise in turn, so that what else this machine does falls on both. */
const TURNS = LONG ? 40 : 4;
const TURN_MS = 6_000;
/** Unmeasured: the noisy callers come, or what they had begun comes to its end. */
const COMING_MS = 3_500;
const LEAVING_MS = 1_500;
/** A measurement over the bar is repeated this often at most: somebody else's work on this machine is no noise of a tenant. */
const REPEATS = 1;

/** What every turn plays: about a third of a second. */
const PLAY = { turns: 0, deltas: 6, paceMs: 50, toolMs: 0 };

/** Nobody dies here, and the edge has its usual limits. */
const UNHURRIED = { AGENTMESH_AGENT__LEASE: "10s", AGENTMESH_AGENT__HEARTBEAT: "3s" };

interface Measured {
  readonly quietMs: number;
  readonly noisyMs: number;
  readonly samples: number;
}

describeFaults(
  "a tenant with a thousand callers beside one with one",
  { agents: 2, settings: UNHURRIED, usualRates: true },
  (suite) => {
    test("hardly slows it down, and keeps no permit", { timeout: LIMIT_MS }, async (t) => {
      const { mesh } = suite();
      const admin = new RestClient(mesh.gateways[0]?.baseUrl ?? "", mesh.adminKey);
      const [quiet, noisy] = [await newTenant(admin, "quiet", "STARTER"), await newTenant(admin, "noisy", "STARTER")];
      const caller = new QuietCaller(admin.as(quiet));
      const noise = new Noise(mesh.gateways[0]?.baseUrl ?? "", noisy);
      try {
        await noise.ready();
        await caller.turnsFor(2_000);
        let measured = await measure(caller, noise);
        for (let repeat = 1; slowerPercent(measured) >= SLOWER_PERCENT && repeat <= REPEATS; repeat++) {
          t.diagnostic(`${said(measured)}; measured again (${repeat} of ${REPEATS})`);
          measured = await measure(caller, noise);
        }
        const { turns, refused } = await noise.end();
        // Whoever is refused is told to stay away until there is likely to be room.
        const busy = turns > 100 && refused > TIMES / 2;
        report("turns and refusals of the noisy tenant", `${turns}, ${refused}`, `> 100, > ${TIMES / 2}`, busy);
        const slower = slowerPercent(measured);
        report("quiet tenant's p99 slower by, %", said(measured), `< ${SLOWER_PERCENT}`, slower < SLOWER_PERCENT);
        const held = nothingHeld({ permits: await permitsHeld(mesh.redis.url) });
        report("I10 permits held at idle", held.length, "0", held.length === 0, held);
      } catch (error) {
        throw new AggregateError([error], `${(error as Error).message}\n${mesh.complaints()}`);
      } finally {
        await noise.end();
      }
    });
  },
);

async function measure(caller: QuietCaller, noise: Noise): Promise<Measured> {
  const quiet: number[] = [];
  const noisy: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    quiet.push(...(await caller.turnsFor(TURN_MS)));
    noise.toggle();
    await caller.turnsFor(COMING_MS);
    noisy.push(...(await caller.turnsFor(TURN_MS)));
    noise.toggle();
    await caller.turnsFor(LEAVING_MS);
  }
  const samples = Math.min(quiet.length, noisy.length);
  return { quietMs: quantile(quiet, 0.99), noisyMs: quantile(noisy, 0.99), samples };
}

function slowerPercent({ quietMs, noisyMs }: Measured): number {
  return (noisyMs / quietMs - 1) * 100;
}

function said(measured: Measured): string {
  const { quietMs, noisyMs, samples } = measured;
  const figures = `${Math.round(quietMs)} ms alone, ${Math.round(noisyMs)} ms beside ${TIMES} callers`;
  return `${slowerPercent(measured).toFixed(1)} (${figures}; ${samples} turns each in ${TURNS} windows)`;
}

/** One caller who asks for one turn after the other. */
class QuietCaller {
  readonly #rest: RestClient;

  constructor(rest: RestClient) {
    this.#rest = rest;
  }

  /** How long each turn of a span of time took, in milliseconds. Throws when one is not answered. */
  async turnsFor(forMs: number): Promise<number[]> {
    const took: number[] = [];
    for (const end = performance.now() + forMs; performance.now() < end; ) {
      const began = performance.now();
      const { status, body } = await this.#rest.call("POST", "/api/v1/chat", {
        message: messageOf({ tag: "quiet", ...PLAY }),
      });
      if (status !== 200) throw new Error(`the quiet tenant was answered ${status}: ${JSON.stringify(body)}`);
      took.push(performance.now() - began);
    }
    return took;
  }
}

/** The callers of the noisy tenant, in a process of their own. */
class Noise {
  readonly #child: TiedChild;
  readonly #lines: string[] = [];

  constructor(gateway: string, key: string) {
    const args = [gateway, key, String(TIMES), messageOf({ tag: "noisy", ...PLAY })];
    this.#child = spawnTied(process.execPath, [join(import.meta.dirname, "noisy-tenant.ts"), ...args], {
      onLine: (line) => void this.#lines.push(line),
    });
  }

  ready(): Promise<void> {
    return until(() => this.#lines.includes("ready"), `the noisy tenant: ${this.#lines.join("\n")}`);
  }

  /** Begins the noise, or ends it. */
  toggle(): void {
    this.#child.kill("SIGUSR2");
  }

  async end(): Promise<{ turns: number; refused: number }> {
    await this.#child.stop("SIGTERM");
    const [, turns, refused] = /turns (\d+) refused (\d+)/.exec(this.#lines.join("\n")) ?? [];
    return { turns: Number(turns), refused: Number(refused) };
  }
}
