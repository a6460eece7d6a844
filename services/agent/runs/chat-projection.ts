import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ChatEventSchema, OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { ContentPart } from "#gen/agentmesh/common/v1/content_pb.ts";
import type { Status } from "#gen/google/rpc/status_pb.ts";
import { PendingItems } from "./pending-items.ts";
import { infoIn } from "./run-end.ts";

export type ChatEventInit = MessageInitShape<typeof ChatEventSchema>;

/** Which turn a chat stream is about; stands in its last event. */
export interface Turn {
  runId: string;
  /** The session id that the caller knows: its own UUID when it came with one. */
  sessionId: string;
  /** How far the run had come when the stream began: it does not end with a wait that was over by then. */
  asOf?: bigint;
}

/**
 * A chat client's view of a run: a projection of its events with the same seq. A chat client appends what it is shown, so
 * a piece of text is shown only where it continues what was shown before; what a stream has missed of a message, because
 * it joined late or lagged, comes with the message's end.
 */
export class ChatProjection {
  readonly #asOf: bigint;
  readonly #ids: Pick<Turn, "runId" | "sessionId">;
  readonly #pending = new PendingItems();
  /** Bytes that were shown of each message that is open. */
  readonly #shown = new Map<string, number>();

  constructor(turn: Turn) {
    const { runId, sessionId, asOf = 0n } = turn;
    this.#asOf = asOf;
    this.#ids = { runId, sessionId };
  }

  /** The chat client's events for one of the run; none for what a chat client needs not see. */
  of(event: AgentEvent): ChatEventInit[] {
    const { payload, seq, itemId } = event;
    switch (payload.case) {
      case "textDelta": {
        const { offset, text: content } = payload.value;
        const shown = this.#shown.get(itemId) ?? 0;
        if (Number(offset) !== shown) return [];
        this.#shown.set(itemId, shown + Buffer.byteLength(content));
        return [{ seq, payload: { case: "text", value: { content, itemId } } }];
      }
      case "messageCompleted": {
        const shown = this.#shown.get(itemId) ?? 0;
        this.#shown.delete(itemId);
        return rest(seq, itemId, textOf(payload.value.parts), shown);
      }
      case "itemDiscarded": {
        const open = itemId === "" ? [...this.#shown.keys()] : [itemId].filter((id) => this.#shown.has(id));
        for (const id of open) this.#shown.delete(id);
        return open.map((id) => ({ seq, payload: { case: "retract", value: { itemId: id } } }));
      }
      case "toolCallRequested": {
        this.#pending.see(event);
        const { tool, argumentsJson: argsJson, clientExecuted } = payload.value;
        return [{ seq, payload: { case: "toolCall", value: { tool, argsJson, callId: itemId, clientExecuted } } }];
      }
      case "toolCallCompleted": {
        const { tool, content, isError } = payload.value;
        const value = { tool, result: textOf(content), callId: itemId, isError };
        return [{ seq, payload: { case: "toolResult", value } }];
      }
      case "notice": {
        const { reason, message } = payload.value;
        return [{ seq, payload: { case: "notice", value: { reason, message } } }];
      }
      case "approvalRequested": {
        this.#pending.see(event);
        const { $typeName: _name, $unknown: _unknown, argumentsJson: argsJson, ...asked } = payload.value;
        return [{ seq, payload: { case: "approval", value: { ...asked, argsJson, callId: itemId } } }];
      }
      case "approvalResolved":
        this.#pending.see(event);
        return [];
      case "runSuspended": {
        if (seq < this.#asOf) return [];
        const value = { ...this.#ids, state: RunState.SUSPENDED, ...this.#pending.of(payload.value.awaiting) };
        return [{ seq, payload: { case: "final", value } }];
      }
      case "runCompleted": {
        const { response, usage, outcome } = payload.value;
        const value = { content: response, response, ...this.#ids, state: RunState.COMPLETED, outcome };
        return [{ seq, payload: { case: "final", value: usage === undefined ? value : { ...value, usage } } }];
      }
      case "runCancelled": {
        const { usage } = payload.value;
        const value = { ...this.#ids, state: RunState.CANCELLED };
        return [{ seq, payload: { case: "final", value: usage === undefined ? value : { ...value, usage } } }];
      }
      case "runFailed": {
        const { error, retry } = payload.value;
        const { code, reason, message } = failureOf(error);
        return [{ seq, payload: { case: "error", value: { code, reason, message, retry, ...this.#ids } } }];
      }
      default:
        return [];
    }
  }

  /** What is open where the stream joined the run: messages that are new to it as open items, the rest of others as text. */
  opened({ asOfSeq, items }: OpenItems): ChatEventInit[] {
    const events: ChatEventInit[] = [];
    const joined = items.filter(({ kind, itemId }) => kind === "message" && !this.#shown.has(itemId));
    if (joined.length > 0) {
      events.push({ seq: asOfSeq, payload: { case: "openItems", value: { asOfSeq, items: joined } } });
    }
    for (const { kind, itemId, content } of items) {
      if (kind !== "message") continue;
      const shown = this.#shown.get(itemId);
      if (shown !== undefined) events.push(...rest(asOfSeq, itemId, content, shown));
      this.#shown.set(itemId, Buffer.byteLength(content));
    }
    return events;
  }
}

/** What follows the first `shown` bytes of a message. Pieces are whole characters, so the cut is too. */
function rest(seq: bigint, itemId: string, text: string, shown: number): ChatEventInit[] {
  if (Buffer.byteLength(text) <= shown) return [];
  const content = Buffer.from(text).subarray(shown).toString();
  return [{ seq, payload: { case: "text", value: { content, itemId } } }];
}

/** What a run failed with, for people and machines. */
export interface Failure {
  /** Canonical code, such as "UNAVAILABLE". */
  code: string;
  reason: string;
  message: string;
  facts: Record<string, string>;
}

/** Code, reason, message and facts of a run's failure. */
export function failureOf(error: Status | undefined): Failure {
  const info = infoIn(error);
  const code = Code[error?.code ?? Code.Unknown] ?? "Unknown";
  return {
    code: code
      .replace(/(?!^)[A-Z]/g, "_$&")
      .toUpperCase()
      .replace("CANCELED", "CANCELLED"),
    reason: info?.reason ?? "",
    message: error?.message ?? "",
    facts: { ...info?.metadata },
  };
}

/** The text of content parts, images left out. */
export function textOf(content: readonly ContentPart[]): string {
  return content.map(({ part }) => (part.case === "text" ? part.value.text : "")).join("");
}
