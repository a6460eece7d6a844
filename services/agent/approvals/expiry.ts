import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { servicePrincipal } from "#platform/rpc/principal.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { approvalById, dueApprovals } from "../store/approval-store.ts";
import { clientCallsOf, dueClientCalls, settleClientCall } from "../store/client-call-store.ts";
import { advanceWith } from "./client-results.ts";
import { settle } from "./settle-approval.ts";
import { type Advanced, lockSuspended, type OnAdvanced } from "./suspended-run.ts";

const BATCH = 50;

export interface ExpiryOptions {
  database: Database;
  everyMs: number;
  log: Log;
  onAdvanced: OnAdvanced;
}

/** Ends what people and callers were waited for in vain: it counts as denied or failed, and the runs go on. Every replica looks; a row's lock decides. */
export class ApprovalExpiry {
  readonly #options: ExpiryOptions;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;

  constructor(options: ExpiryOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#working ??= this.sweep().finally(() => {
        this.#working = undefined;
      });
    }, this.#options.everyMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopped.abort();
    await this.#working;
  }

  /** One round. Never throws: what fails now is found again in the next one. */
  async sweep(): Promise<void> {
    try {
      await this.#each(dueApprovals, ({ tenantId, approvalId }) => this.#expire(tenantId, approvalId));
      await this.#each(dueClientCalls, (due) => this.#expireCall(due));
    } catch (error) {
      this.#failed(error);
    }
  }

  async #each<D>(
    find: (tx: Tx, limit: number) => Promise<D[]>,
    expire: (due: D) => Promise<Advanced | undefined>,
  ): Promise<void> {
    const { database, onAdvanced } = this.#options;
    const { signal } = this.#stopped;
    for (;;) {
      const due = await database.worker((tx) => find(tx, BATCH), { signal, readOnly: true });
      let ended = 0;
      for (const one of due) {
        // One that cannot be ended must not keep the others.
        const advanced = await expire(one).catch((error: unknown) => this.#failed(error));
        if (advanced === undefined) continue;
        ended++;
        onAdvanced(advanced);
      }
      signal.throwIfAborted();
      if (due.length < BATCH || ended === 0) return;
    }
  }

  #failed(error: unknown): undefined {
    if (!this.#stopped.signal.aborted) this.#options.log.warn({ err: error }, "agent.approval_expiry.failed");
  }

  #expireCall({ tenantId, runId, callId }: { tenantId: string; runId: string; callId: string }) {
    return this.#options.database.tenant(
      tenantId,
      async (tx) => {
        const run = await lockSuspended(tx, runId);
        const [call] = await clientCallsOf(tx, runId, [callId]);
        if (run === undefined || call?.state !== "WAITING") return undefined;
        await settleClientCall(tx, runId, callId, { state: "EXPIRED" });
        const text = `Nobody has executed the call of "${call.tool}" in time.`;
        const outcome = { content: [{ type: "text" as const, text }], isError: true };
        return advanceWith(tx, run, [{ callId, outcome }], tenantId);
      },
      { signal: this.#stopped.signal },
    );
  }

  #expire(tenantId: string, approvalId: string): Promise<Advanced | undefined> {
    const { signal } = this.#stopped;
    const principal = { ...servicePrincipal("agent", []), tenantId };
    const call: Call = { principal, signal, requestId: "", ip: "", userAgent: "" };
    return this.#options.database.tenant(
      tenantId,
      async (tx) => {
        const asked = await approvalById(tx, approvalId);
        const run = asked && (await lockSuspended(tx, asked.run_id));
        // Somebody may have decided while the run's row was waited for.
        const pending = run && (await approvalById(tx, approvalId));
        if (run === undefined || pending?.state !== ApprovalState.PENDING) return undefined;
        const nobody = { resolvedBy: "", comment: "", editedArgumentsJson: "", answerJson: "" };
        return settle(tx, call, run, pending, { state: ApprovalState.EXPIRED, ...nobody });
      },
      { signal },
    );
  }
}
