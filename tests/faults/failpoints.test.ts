import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "#tests/conformance/random.ts";
import { auditRuns } from "./audit-runs.ts";
import { IN_FLIGHT_PER_FAULT } from "./busy-replica.ts";
import { declaredFailpoints } from "./declared-failpoints.ts";
import { LEASE_MS, type Replica } from "./fault-mesh.ts";
import { describeFaults, type FaultSuite, LIMIT_MS } from "./fault-suite.ts";
import { report } from "./report.ts";
import { LONG, SEED } from "./seed.ts";

const ROUNDS = LONG ? 3 : 1;
/** On a machine that does other things, too, a process is up and busy only after a while. */
const REACHED_WITHIN_MS = 60_000;

/** About how often a failpoint of these files is visited before its process dies of it; others once. */
const VISITS: Readonly<Record<string, number>> = {
  "run-begin": 4,
  runs: 4,
  "run-log": 10,
  "run-work": 4,
  "run-tools": 4,
  "run-executor": 3,
  "run-end": 3,
  "live-runs": 8,
  tools: 4,
  journal: 4,
};

/** The load deletes nothing (erasure.test.ts does), and neither has a run tried again nor sends it messages. */
const NOT_OF_THE_LOAD = /^(eraser\.|retry-run\.|send-input\.|runs\.after-(retry|send)$)/;
/** Failpoints of a reaper that ends a run, which it does only where runs are not taken up. */
const ENDS_LOST_RUNS = /^reaper\..*-end$/;
const NEVER_TAKEN_UP = { AGENTMESH_AGENT__MAX_ATTEMPTS: "1" };

/** Deaths at failpoints: which of them nobody reached, and how many runs were in flight at each death. */
class Deaths {
  readonly missed: string[] = [];
  readonly inFlight: number[] = [];
  readonly #suite: FaultSuite;
  readonly #random = new Random(SEED);

  constructor(suite: FaultSuite) {
    this.#suite = suite;
  }

  /** Starts the victim again with this failpoint armed and waits until it has died of it; it is left dead. */
  async at(name: string, victim: Replica, meanwhile: () => Promise<void> = () => sleep(100)): Promise<void> {
    const visits = VISITS[name.slice(0, name.indexOf("."))] ?? 1;
    await victim.kill();
    await victim.start(`${name}:kill@${visits + this.#random.below(visits)}`);
    let dead = false;
    void victim.process.exited.then(() => {
      dead = true;
    });
    const late = Date.now() + REACHED_WITHIN_MS;
    while (!dead && Date.now() < late) await meanwhile();
    if (!dead) this.missed.push(name);
    else this.inFlight.push([...(await this.#suite.stored.inFlight()).values()].flat().length);
  }

  report(names: readonly string[]): void {
    const killed = this.inFlight.length;
    const wanted = names.length * ROUNDS;
    report("failpoints that killed", killed, `= ${wanted}`, killed === wanted, this.missed);
    const least = Math.min(...this.inFlight);
    report("runs in flight per failpoint", least, `>= ${IN_FLIGHT_PER_FAULT}`, least >= IN_FLIGHT_PER_FAULT);
  }
}

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

/** Has an agent lose its runs. */
async function dieBeside(agent: Replica): Promise<void> {
  await sleep(1_000);
  await agent.kill();
  await sleep(LEASE_MS * 1.5);
  await agent.start();
}

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
