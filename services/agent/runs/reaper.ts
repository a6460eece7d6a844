import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { LeaseLost } from "../errors.ts";
import { claimExpired } from "../store/lease-store.ts";
import { eventsOfType, runById, SEQ_BLOCK } from "../store/run-store.ts";
import { finishRun, ownerLost } from "./run-end.ts";
import { RunLog } from "./run-log.ts";
import { UsageTotal } from "./usage-total.ts";

const BATCH = 50;

export interface ReaperOptions {
  database: Database;
  owner: string;
  address: string;
  leaseMs: number;
  everyMs: number;
  log: Log;
  /** Tells watchers everywhere that a run has new durable events. */
  announce(tenantId: string, event: AgentEvent): void;
  /** Told of each run that was ended, for the metrics. */
  onReaped(tenantId: string, runId: string): void;
}

/**
 * Ends runs whose owner is gone: takes their lease with the next epoch (so that the old owner, should it wake, can write
 * nothing), declares the open step void, and appends run_failed OWNER_LOST. Every replica runs one; the claim decides.
 */
export class Reaper {
  readonly #options: ReaperOptions;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;

  constructor(options: ReaperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#working ??= this.reap().finally(() => {
        this.#working = undefined;
      });
    }, this.#options.everyMs);
  }

  /** What it has taken and not ended is found again, by another process, when its own lease expires. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopped.abort();
    await this.#working;
  }

  /** One round. Never throws: what fails now is found again when the lease that it took expires. */
  async reap(): Promise<void> {
    const { database, owner, address, leaseMs } = this.#options;
    const { signal } = this.#stopped;
    try {
      for (;;) {
        const claimed = await database.worker((tx) => claimExpired(tx, { owner, address, leaseMs }, BATCH), { signal });
        for (const { tenantId, runId } of claimed) {
          // One run that cannot be ended must not keep the others.
          await this.#end(tenantId, runId).catch((error: unknown) => this.#failed(error, { run_id: runId }));
          signal.throwIfAborted();
        }
        if (claimed.length < BATCH) return;
      }
    } catch (error) {
      this.#failed(error, {});
    }
  }

  #failed(error: unknown, about: { run_id?: string }): void {
    if (this.#stopped.signal.aborted) return;
    this.#options.log.warn({ err: error, ...about }, "agent.reaper.failed");
  }

  async #end(tenantId: string, runId: string): Promise<void> {
    const { database, owner, leaseMs } = this.#options;
    const { signal } = this.#stopped;
    const { run, steps } = await database.tenant(
      tenantId,
      async (tx) => ({ run: await runById(tx, runId), steps: await eventsOfType(tx, runId, "step_completed") }),
      { signal, readOnly: true },
    );
    if (run === undefined || run.owner !== owner) return;
    const usage = new UsageTotal();
    for (const bytes of steps) {
      const { payload } = fromBinary(AgentEventSchema, bytes);
      if (payload.case === "stepCompleted" && payload.value.usage !== undefined) usage.add(payload.value.usage);
    }
    const runLog = new RunLog({
      database,
      fence: { tenantId, runId, owner, epoch: run.epoch },
      ids: { runId, sessionId: run.session_id, agentId: run.agent_id },
      lastDurableSeq: run.last_seq,
      nextSeq: run.seq_reserved - SEQ_BLOCK + 1n,
      retryForMs: leaseMs,
      onCommitted: (event) => this.#options.announce(tenantId, event),
    });
    if (run.open_step !== 0) {
      runLog.append({
        body: { payload: { case: "itemDiscarded", value: { step: run.open_step, cause: "owner_lost" } } },
      });
    }
    const abandon = () => runLog.abandon();
    signal.addEventListener("abort", abandon, { once: true });
    try {
      await finishRun(runLog, ownerLost(), { usage: usage.summary(), call: callOf(run.principal, signal) });
      this.#options.onReaped(tenantId, runId);
    } catch (error) {
      if (!(error instanceof LeaseLost)) throw error;
    } finally {
      signal.removeEventListener("abort", abandon);
    }
  }
}

/** The call on whose behalf the dead owner worked, as far as the run has kept it. */
function callOf(principal: Principal, signal: AbortSignal): Call {
  return { principal, signal, requestId: "", ip: "", userAgent: "" };
}
