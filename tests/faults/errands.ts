import { Agent } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, ConnectError } from "@connectrpc/connect";
import type { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import type { FaultMesh } from "./fault-mesh.ts";
import { runClient } from "./load.ts";
import { newTenant } from "./new-tenant.ts";
import { messageOf, type Play } from "./scripted-model.ts";

const TIMEOUT_MS = 4_000;
const PAUSE_MS = 300;
/** Runs that a tenant of the free tier may have at the same time. */
const SMALL = 2;
const SHORT: Omit<Play, "tag"> = { turns: 0, deltas: 1, paceMs: 0, toolMs: 0 };
const LONG: Omit<Play, "tag"> = { turns: 0, deltas: 100, paceMs: 100, toolMs: 0 };

/** Calls that no load makes by itself. Each may meet a process that dies of it, and is then left to whoever comes next. */
export class Errands implements AsyncDisposable {
  readonly #rest: RestClient;
  readonly #url: string;
  readonly #agent = new Agent({ keepAlive: true });
  /** A tenant that may have {@link SMALL} runs at a time. */
  #small: Client<typeof RunService> | undefined;
  #made = 0;

  constructor({ gateways, adminKey }: FaultMesh) {
    this.#url = gateways[0]?.baseUrl ?? "";
    this.#rest = new RestClient(this.#url, adminKey);
  }

  /** Queues a run for which its tenant has no room, cancels it before it has begun, and then those that kept it waiting. */
  async cancelQueued(): Promise<void> {
    await this.#try(async () => {
      this.#small ??= runClient(this.#url, await newTenant(this.#rest, "small", "FREE"), this.#agent);
      const begun: string[] = [];
      for (let i = 0; i < SMALL; i++) begun.push(await this.#start(this.#small, LONG, false));
      const waiting = await this.#start(this.#small, SHORT, true);
      for (const runId of [waiting, ...begun]) await this.#small.cancelRun({ runId }, { timeoutMs: TIMEOUT_MS });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
  }

  async #start(runs: Client<typeof RunService>, play: Omit<Play, "tag">, background: boolean): Promise<string> {
    const { run } = await runs.startRun({ message: this.#message(play), background }, { timeoutMs: TIMEOUT_MS });
    return run?.runId ?? "";
  }

  #message(play: Omit<Play, "tag">): string {
    return messageOf({ tag: `errand${this.#made++}`, ...play });
  }

  async #try(errand: () => Promise<void>): Promise<void> {
    try {
      await errand();
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error;
    }
    await sleep(PAUSE_MS);
  }
}
