import { createHash } from "node:crypto";
import { ApprovalKind, ApprovalState, AwaitedKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { newId } from "#platform/id.ts";
import { type ApprovalRules, reasonToAsk } from "../domain/approval-rules.ts";
import type { WaitingCall } from "../engine/events.ts";
import type { ToolCall, ToolOutcome, ToolSpec } from "../engine/tool-spec.ts";
import type { ApprovalRow, NewApproval } from "../store/approval-store.ts";
import type { NewClientCall } from "../store/client-call-store.ts";
import type { Awaited } from "../store/run-store.ts";
import { answerOutcome, deniedOutcome, editedNote, unknownOutcome } from "./decided-outcomes.ts";

/** What is to be done with a call. */
export type Verdict =
  /** Execute it with these arguments, under this key, which is the run's own where it is undefined. */
  | { kind: "execute"; argumentsJson: string; requestKey?: string; note?: string }
  | { kind: "decided"; outcome: ToolOutcome }
  | { kind: "wait" };

/** What a run waits for, and what has to be asked for that: of people, and of its caller. */
export interface Pause {
  awaiting: Awaited[];
  requests: NewApproval[];
  clientCalls: NewClientCall[];
}

export interface GatesOptions {
  runId: string;
  rules: ApprovalRules;
  tools: readonly ToolSpec[];
  /** Of this run, in the order in which they were asked. */
  approvals: readonly ApprovalRow[];
}

/**
 * Which calls of a run may be made: about each one people are asked where the rules say so, and what they have decided is
 * kept to. What the run's caller executes is waited for. Of several questions about one call the newest counts.
 */
export class Gates {
  readonly #options: GatesOptions;
  readonly #tools: ReadonlyMap<string, ToolSpec>;
  readonly #asked: ReadonlyMap<string, ApprovalRow>;
  /** Calls whose outcome has turned out to be unknown. */
  readonly #unknown = new Set<string>();

  constructor(options: GatesOptions) {
    this.#options = options;
    this.#tools = new Map(options.tools.map((tool) => [tool.name, tool]));
    this.#asked = new Map(options.approvals.map((approval) => [approval.call_id, approval]));
  }

  verdict(call: ToolCall): Verdict {
    if (this.#unknown.has(call.callId)) return { kind: "wait" };
    const approval = this.#asked.get(call.callId);
    if (approval === undefined) {
      return this.#reason(call.name) === undefined && !this.#isClients(call.name)
        ? { kind: "execute", argumentsJson: call.argumentsJson }
        : { kind: "wait" };
    }
    // Its caller has it now.
    if (this.#isClients(call.name) && approval.state === ApprovalState.APPROVED) return { kind: "wait" };
    return approval.kind === ApprovalKind.UNKNOWN_OUTCOME
      ? this.#ofUnknown(approval, call)
      : this.#ofCall(approval, call);
  }

  /** Told of each outcome; true: people are asked what it was. */
  asksAbout({ callId, name }: ToolCall, outcome: ToolOutcome): boolean {
    if (outcome.unknown !== true || this.#tools.get(name)?.asksWhenUnknown !== true) return false;
    this.#unknown.add(callId);
    return true;
  }

  /** What the run waits for with these calls. All questions that can be asked are asked together. */
  pause(waiting: readonly WaitingCall[], now: number): Pause {
    const pause: Pause = { awaiting: [], requests: [], clientCalls: [] };
    for (const call of waiting) {
      const { callId: call_id, name: tool } = call;
      const earlier = this.#asked.get(call_id);
      if (earlier?.state === ApprovalState.PENDING && !this.#unknown.has(call_id)) {
        pause.awaiting.push({ call_id, tool, kind: AwaitedKind.APPROVAL, approval_id: earlier.approval_id });
        continue;
      }
      const request = this.#request(call, earlier, now);
      if (request === undefined) {
        if (!this.#isClients(tool) || this.verdict(call).kind !== "wait") continue;
        const expireTime = new Date(now + this.#options.rules.expireAfterMs);
        pause.clientCalls.push({ callId: call_id, tool, expireTime });
        pause.awaiting.push({ call_id, tool, kind: AwaitedKind.TOOL_RESULTS, approval_id: "" });
        continue;
      }
      pause.requests.push(request);
      pause.awaiting.push({ call_id, tool, kind: AwaitedKind.APPROVAL, approval_id: request.approvalId });
    }
    return pause;
  }

  #ofCall(approval: ApprovalRow, call: ToolCall): Verdict {
    switch (approval.state) {
      case ApprovalState.APPROVED: {
        const edited = approval.edited_arguments_json;
        // What was shown and approved, not what else may have become of the model's text.
        if (edited === "") return { kind: "execute", argumentsJson: approval.arguments_json };
        return { kind: "execute", argumentsJson: edited, note: editedNote(edited) };
      }
      case ApprovalState.ANSWERED:
        return { kind: "decided", outcome: answerOutcome(approval.answer_json) };
      case ApprovalState.PENDING:
        return { kind: "wait" };
      default:
        return { kind: "decided", outcome: deniedOutcome(call.name, approval) };
    }
  }

  #ofUnknown(approval: ApprovalRow, call: ToolCall): Verdict {
    switch (approval.state) {
      case ApprovalState.APPROVED: {
        const argumentsJson = approval.edited_arguments_json || approval.arguments_json;
        // Another key: that of the first try stands for its unknown outcome for good.
        const requestKey = `${this.#options.runId}/${call.callId}/${approval.approval_id}`;
        return { kind: "execute", argumentsJson, requestKey };
      }
      case ApprovalState.ANSWERED:
        return { kind: "decided", outcome: answerOutcome(approval.answer_json) };
      case ApprovalState.PENDING:
        return { kind: "wait" };
      default:
        return { kind: "decided", outcome: unknownOutcome(approval.comment) };
    }
  }

  #reason(tool: string): "policy" | "risk" | undefined {
    const spec = this.#tools.get(tool);
    return spec && reasonToAsk(this.#options.rules, spec);
  }

  #isClients(tool: string): boolean {
    return this.#tools.get(tool)?.client === true;
  }

  #request({ callId, name, argumentsJson }: WaitingCall, earlier: ApprovalRow | undefined, now: number) {
    const { rules } = this.#options;
    const spec = this.#tools.get(name);
    const isUnknown = this.#unknown.has(callId);
    const reason = isUnknown ? "unknown_outcome" : earlier === undefined ? this.#reason(name) : undefined;
    if (spec === undefined || reason === undefined) return undefined;
    const executed = earlier?.edited_arguments_json || earlier?.arguments_json || argumentsJson;
    return {
      approvalId: newId("apr"),
      callId,
      tool: name,
      kind: isUnknown ? ApprovalKind.UNKNOWN_OUTCOME : ApprovalKind.CALL,
      risk: spec.risk ?? 0,
      argumentsJson: executed,
      argumentsSha256: digestOf(executed),
      schemaJson: JSON.stringify(spec.checkedSchema ?? spec.inputSchema),
      reason,
      requiresOtherPrincipal: rules.requiresOtherPrincipal,
      expireTime: new Date(now + rules.expireAfterMs),
    } satisfies NewApproval;
  }
}

/** SHA-256 of a call's arguments in lower-case hexadecimal: what an approver confirms to have seen. */
export function digestOf(argumentsJson: string): string {
  return createHash("sha256").update(argumentsJson).digest("hex");
}
