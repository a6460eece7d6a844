import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { type Approval, ApprovalDecision } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ResolveApprovalRequest } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { type Run, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import { pause } from "#platform/abortable.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { callAs } from "#platform/testing/service-under-test.ts";
import { eventsAfter } from "../store/run-store.ts";
import type { AgentMesh, Replica } from "./agent-mesh.ts";

/** Tools for runs that wait: `pay` cannot be undone, `look` only reads. */
export function offerRiskyTools({ neighbours }: AgentMesh): void {
  const schema = {
    type: "object",
    properties: { amount: { type: "integer", minimum: 1 } },
    required: ["amount"],
    additionalProperties: false,
  };
  neighbours.agent = { ...neighbours.agent, tools: ["pay", "look"] };
  neighbours.tools.set("pay", { risk: RiskClass.DESTRUCTIVE, inputSchemaJson: JSON.stringify(schema) });
  neighbours.tools.set("look", { risk: RiskClass.READ_ONLY });
}

/** A run that was started, once it waits. */
export async function startWaiting(
  replica: Replica,
  me: Principal,
  request: { message?: string; sessionId?: string; endUserId?: string } = {},
): Promise<Run> {
  const { run } = await replica.runs.startRun({ message: "go", ...request }, callAs(me));
  return waiting(replica, me, run?.runId ?? "");
}

/** The run, once it waits. */
export async function waiting(replica: Replica, me: Principal, runId: string): Promise<Run> {
  return inState(replica, me, runId, RunState.SUSPENDED);
}

/** The run, once it is in this state. */
export async function inState(replica: Replica, me: Principal, runId: string, state: RunState): Promise<Run> {
  const patience = AbortSignal.timeout(10_000);
  for (;;) {
    const { run } = await replica.runs.getRun({ runId }, callAs(me));
    if (run?.state === state) return run;
    if (patience.aborted) assert.fail(`run ${runId} is in state ${run?.state} and not in ${state}`);
    await pause(20, patience).catch(() => {});
  }
}

/** The approvals of a run, in the order in which they were asked. */
export async function approvalsOfRun(replica: Replica, who: Principal, runId: string): Promise<Approval[]> {
  const { approvals } = await replica.approvals.listApprovals({ runId }, callAs(who));
  return approvals.toReversed();
}

/** Decides an approval that was read before. */
export async function decide(
  replica: Replica,
  who: Principal,
  { approvalId, argumentsSha256 }: Pick<Approval, "approvalId" | "argumentsSha256">,
  more: Partial<Omit<ResolveApprovalRequest, "$typeName">> = {},
) {
  const request = { approvalId, argumentsSha256, decision: ApprovalDecision.APPROVE, ...more };
  return replica.approvals.resolveApproval(request, callAs(who));
}

/** The events of a run as they are stored. */
export async function storedEvents({ db }: AgentMesh, { tenantId }: Principal, runId: string): Promise<AgentEvent[]> {
  const rows = await db.tenant(tenantId, (tx) => eventsAfter(tx, runId, 0n, 1_000));
  return rows.map((bytes) => fromBinary(AgentEventSchema, bytes));
}

/** What the tools answered, as the model was told. */
export function answersIn(events: readonly AgentEvent[]): [text: string, isError: boolean][] {
  return events.flatMap(({ payload }) => {
    if (payload.case !== "toolCallCompleted") return [];
    const { content, isError } = payload.value;
    const texts = content.map(({ part }) => (part.case === "text" ? part.value.text : ""));
    return [[texts.join("\n"), isError] as [string, boolean]];
  });
}
