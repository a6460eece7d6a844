import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { servicePrincipal } from "#platform/rpc/principal.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { approvalById, dueApprovals } from "../store/approval-store.ts";
import { settle } from "./settle-approval.ts";
import { type Advanced, lockSuspended, type OnAdvanced } from "./suspended-run.ts";

const BATCH = 50;

export interface ExpiryOptions {
  database: Database;
  everyMs: number;
  log: Log;
  onAdvanced: OnAdvanced;
}

/** Ends approvals whose time is over: they count as denied, and their runs go on. Every replica looks; a row's lock decides. */
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
    const { database, onAdvanced } = this.#options;
    const { signal } = this.#stopped;
    try {
      for (;;) {
        const due = await database.worker((tx) => dueApprovals(tx, BATCH), { signal, readOnly: true });
        let ended = 0;
        for (const { tenantId, approvalId } of due) {
          // One that cannot be ended must not keep the others.
          const advanced = await this.#expire(tenantId, approvalId).catch((error: unknown) => this.#failed(error));
          if (advanced === undefined) continue;
          ended++;
          onAdvanced(advanced);
        }
        signal.throwIfAborted();
        if (due.length < BATCH || ended === 0) return;
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): undefined {
    if (!this.#stopped.signal.aborted) this.#options.log.warn({ err: error }, "agent.approval_expiry.failed");
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
