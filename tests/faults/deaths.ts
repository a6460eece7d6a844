import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "#tests/conformance/random.ts";
import { IN_FLIGHT_PER_FAULT } from "./busy-replica.ts";
import { LEASE_MS, type Replica } from "./fault-mesh.ts";
import type { FaultSuite } from "./fault-suite.ts";
import { report } from "./report.ts";
import { LONG, SEED } from "./seed.ts";

export const ROUNDS = LONG ? 3 : 1;
/** On a machine that does other things, too, a process is up and busy only after a while. */
const REACHED_WITHIN_MS = 60_000;

/** What a failpoint waits for, and how long at most: many of these runs end before it is reached. */
const IN_FLIGHT_WHEN_ARMED = IN_FLIGHT_PER_FAULT * 3;
const ARMED_WITHIN_MS = 10_000;

/** About how often a failpoint, or one of these files, is visited before its process dies of it; others once. */
const VISITS: Readonly<Record<string, number>> = {
  "runs.after-retry": 1,
  "runs.after-send": 1,
  "run-begin": 4,
  runs: 4,
  "run-log": 10,
  "run-work": 4,
  "run-tools": 4,
  "run-executor": 3,
  "run-end": 3,
  "live-runs": 8,
  approvals: 2,
  tools: 4,
  journal: 4,
};

/** Failpoints of a reaper that ends a run, which it does only where runs are not taken up. */
export const ENDS_LOST_RUNS = /^reaper\..*-end$/;

/** Deaths at failpoints: which of them nobody reached, and how many runs were in flight at each death. */
export class Deaths {
  readonly missed: string[] = [];
  readonly inFlight: number[] = [];
  readonly #suite: FaultSuite;
  readonly #random = new Random(SEED);

  constructor(suite: FaultSuite) {
    this.#suite = suite;
  }

  /**
   * Starts the victim again, arms this failpoint in it when enough runs are in flight, and waits until it has died of it;
   * it is left dead.
   */
  async at(name: string, victim: Replica, meanwhile: () => Promise<void> = () => sleep(100)): Promise<void> {
    const visits = VISITS[name] ?? VISITS[name.slice(0, name.indexOf("."))] ?? 1;
    await victim.kill();
    await victim.start(`${name}:kill@${visits + this.#random.below(visits)}`);
    let dead = false;
    void victim.process.exited.then(() => {
      dead = true;
    });
    const armed = Date.now() + ARMED_WITHIN_MS;
    while ((await this.#inFlight()) < IN_FLIGHT_WHEN_ARMED && Date.now() < armed) await sleep(50);
    victim.process.signal("SIGUSR2");
    const late = Date.now() + REACHED_WITHIN_MS;
    while (!dead && Date.now() < late) await meanwhile();
    if (!dead) this.missed.push(name);
    else this.inFlight.push(await this.#inFlight());
  }

  async #inFlight(): Promise<number> {
    return [...(await this.#suite.stored.inFlight()).values()].flat().length;
  }

  report(names: readonly string[]): void {
    const killed = this.inFlight.length;
    const wanted = names.length * ROUNDS;
    report("failpoints that killed", killed, `= ${wanted}`, killed === wanted, this.missed);
    const least = Math.min(...this.inFlight);
    report("runs in flight per failpoint", least, `>= ${IN_FLIGHT_PER_FAULT}`, least >= IN_FLIGHT_PER_FAULT);
  }
}

/** Has an agent lose its runs. */
export async function dieBeside(agent: Replica): Promise<void> {
  await sleep(1_000);
  await agent.kill();
  await sleep(LEASE_MS * 1.5);
  await agent.start();
}
