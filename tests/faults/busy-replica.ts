import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "#tests/conformance/random.ts";
import type { FaultMesh, Replica } from "./fault-mesh.ts";
import type { Stored } from "./stored.ts";

/** Runs that a replica must have in flight to be worth a fault. */
export const IN_FLIGHT_PER_FAULT = 20;
const PATIENCE_MS = 30_000;

/** A replica that has enough runs in flight, and those runs, at a random moment. */
export async function busyReplica(
  mesh: FaultMesh,
  stored: Stored,
  random: Random,
): Promise<{ victim: Replica; runs: readonly string[] }> {
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    await sleep(100 + random.below(400));
    const inFlight = await stored.inFlight();
    const busy = mesh.agents.flatMap((victim) => {
      const runs = inFlight.get(new URL(victim.baseUrl).port) ?? [];
      return runs.length > IN_FLIGHT_PER_FAULT ? [{ victim, runs }] : [];
    });
    if (busy.length > 0) return random.pick(busy);
  }
  throw new Error(`no replica has ${IN_FLIGHT_PER_FAULT} runs in flight:\n${mesh.complaints()}`);
}
