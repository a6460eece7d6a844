import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ApprovalPendingSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { enqueue } from "#platform/postgres/outbox.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { EventBody } from "../runs/event-envelope.ts";
import { maskedJson } from "../runs/masked-output.ts";
import type { RunLog } from "../runs/run-log.ts";
import type { MaskRule } from "../runs/stream-mask.ts";
import { insertApproval, type NewApproval } from "../store/approval-store.ts";
import { insertClientCall } from "../store/client-call-store.ts";
import type { Awaited } from "../store/run-store.ts";
import { ALLOWED_DECISIONS } from "./decisions.ts";
import type { Pause } from "./gates.ts";

/** What belongs to a suspension. */
export interface PauseContext {
  /** Who the run works for, for audit rows. */
  call: Call;
  endUserId: string;
  /** Hidden in all that leaves the run. */
  hides: MaskRule | undefined;
}

/**
 * Writes that a run waits: the questions, run_suspended and the run's state in one transaction under the fence. Nobody
 * owns the run afterwards. Throws when that could not be written.
 */
export async function suspendRun(
  log: RunLog,
  { awaiting, requests, clientCalls }: Pause,
  context: PauseContext,
): Promise<void> {
  for (const request of requests) {
    log.append({ body: requested(request, context.hides), within: (tx) => ask(tx, log, request, context) });
  }
  for (const call of clientCalls) log.append({ within: (tx) => insertClientCall(tx, log.ids.runId, call) });
  log.append({ body: suspended(awaiting), suspend: awaiting });
  await log.flush();
  failpoint("suspend-run.after-store");
}

/** The event that tells what a run waits for. */
export function suspended(awaiting: readonly Awaited[]): EventBody {
  return { payload: { case: "runSuspended", value: { awaiting: awaiting.map(awaitedToProto) } } };
}

/** The wire form of something awaited. */
export function awaitedToProto({ call_id: callId, tool, kind, approval_id: approvalId }: Awaited) {
  return { callId, tool, kind, approvalId };
}

function requested(request: NewApproval, hides: MaskRule | undefined): EventBody {
  const { approvalId, callId, tool, kind, argumentsJson, argumentsSha256, risk, reason } = request;
  const value = {
    approvalId,
    tool,
    kind,
    argumentsJson: hides === undefined ? argumentsJson : maskedJson(hides, argumentsJson),
    argumentsSha256,
    risk,
    reason,
    allowedDecisions: [...ALLOWED_DECISIONS],
    requiresOtherPrincipal: request.requiresOtherPrincipal,
    expireTime: timestampFromDate(request.expireTime),
  };
  return { itemId: callId, payload: { case: "approvalRequested", value } };
}

async function ask(tx: Tx, log: RunLog, request: NewApproval, { call, endUserId }: PauseContext): Promise<void> {
  const { runId, sessionId, agentId } = log.ids;
  const { approvalId, callId, tool, risk, reason, argumentsSha256 } = request;
  const { tenantId } = call.principal;
  await insertApproval(tx, runId, request);
  await audit(tx, "agent", call, {
    type: "approval.requested",
    resource: approvalId,
    sessionId,
    details: { run_id: runId, call_id: callId, tool, risk, reason, arguments_sha256: argumentsSha256 },
  });
  const pending = { approvalId, runId, sessionId, agentId, endUserId, tool, risk };
  const expireTime = timestampFromDate(request.expireTime);
  await enqueue(tx, "agent", {
    subject: `agentmesh.approval.v1.${tenantId}.requested`,
    eventId: newId("evt"),
    tenantId,
    payload: toBinary(ApprovalPendingSchema, create(ApprovalPendingSchema, { ...pending, expireTime })),
  });
}
