import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ResolveApprovalRequest } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import type { Cursor } from "../domain/cursor.ts";
import { reaches, readReach } from "../domain/ownership.ts";
import * as store from "../store/approval-store.ts";
import { runById } from "../store/run-store.ts";
import { checkApprover, checkDecision } from "./decision.ts";
import { settle } from "./settle-approval.ts";
import { lockSuspended, type OnAdvanced } from "./suspended-run.ts";

export interface ApprovalsDeps {
  database: Database;
  onAdvanced: OnAdvanced;
}

/** A decision as it is asked for. */
export type DecisionRequest = Omit<ResolveApprovalRequest, "$typeName" | "$unknown">;

/** Questions to people: who may see them, and who may decide. */
export class Approvals {
  readonly #deps: ApprovalsDeps;

  constructor(deps: ApprovalsDeps) {
    this.#deps = deps;
  }

  async get(call: Call, approvalId: string): Promise<store.ApprovalRow> {
    return this.#tenant(call, (tx) => this.#find(tx, call, approvalId));
  }

  async list(
    call: Call,
    filter: Omit<store.ApprovalFilter, "endUserId">,
    page: { limit: number; after: Cursor | undefined },
  ): Promise<store.ApprovalRow[]> {
    const { endUserId } = readReach(call.principal);
    return this.#tenant(call, (tx) => store.listApprovals(tx, { ...filter, endUserId }, page));
  }

  /**
   * Decides an approval. The first valid decision counts; the run goes on when nothing else is awaited. Throws
   * APPROVER_NOT_ALLOWED, APPROVAL_ALREADY_RESOLVED, APPROVAL_EXPIRED, FIELD_INVALID or SCHEMA_VIOLATION.
   */
  async resolve(
    call: Call,
    request: DecisionRequest,
  ): Promise<{ approval: store.ApprovalRow; appliedThrough: bigint }> {
    const { requestId, ...content } = request;
    const method = "ApprovalService.ResolveApproval";
    const key = { schema: "agent", call, method, requestId, request: canonical(content) };
    const { approvalId } = request;
    const settled = await this.#tenant(call, async (tx) => {
      const { run_id: runId } = await this.#find(tx, call, approvalId);
      // The run first: whoever ends or advances it takes the same way.
      const suspended = await lockSuspended(tx, runId);
      const run = suspended ?? (await runById(tx, runId)) ?? raise(notFound("approval"));
      checkApprover(call.principal, run, await this.#find(tx, call, approvalId));
      let advanced: Awaited<ReturnType<typeof settle>> | undefined;
      await idempotent(tx, key, async () => {
        const approval = await this.#find(tx, call, approvalId);
        const decision = checkDecision(approval, request);
        if (approval.state === ApprovalState.PENDING) {
          if (suspended === undefined) throw new Error("an approval is pending and its run does not wait");
          advanced = await settle(tx, call, suspended, approval, { ...decision, resolvedBy: call.principal.subject });
        }
        return new Uint8Array();
      });
      return { approval: await this.#find(tx, call, approvalId), advanced, run };
    });
    const { approval, advanced, run } = settled;
    failpoint("approvals.after-resolve");
    if (advanced !== undefined) this.#deps.onAdvanced(advanced);
    return { approval, appliedThrough: advanced?.newest.seq ?? run.last_seq };
  }

  async #find(tx: Tx, call: Call, approvalId: string): Promise<store.ApprovalRow> {
    const approval = await store.approvalById(tx, approvalId);
    // Who decides for a tenant need not be the user whom the run is for.
    if (approval === undefined || !reaches(readReach(call.principal), approval)) throw notFound("approval");
    return approval;
  }

  #tenant<T>(call: Call, fn: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#deps.database.tenant(call.principal.tenantId, fn, { signal: call.signal, deadline: call.deadline });
  }
}
