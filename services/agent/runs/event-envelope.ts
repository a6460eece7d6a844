import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { newId } from "#platform/id.ts";

/** What an event says, without its envelope. */
export type EventPayload = NonNullable<MessageInitShape<typeof AgentEventSchema>["payload"]>;

/** A payload and the item that it is about. */
export interface EventBody {
  payload: EventPayload & { case: string };
  /** `msg_…`, `rsn_…`, `call_…`, or empty for the run itself. */
  itemId?: string | undefined;
}

/** The ids that stand in a run's durable events. */
export interface RunIds {
  runId: string;
  sessionId: string;
  agentId: string;
}

/** "text_delta" for the oneof member textDelta: the wire name of a payload. */
export function eventType(payloadCase: string): string {
  return payloadCase.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** A durable event in its full envelope. */
export function durableEvent(ids: RunIds, seq: bigint, prevSeq: bigint, body: EventBody): AgentEvent {
  return create(AgentEventSchema, {
    eventId: newId("evt"),
    ...ids,
    seq,
    prevSeq,
    occurredAt: timestampNow(),
    type: eventType(body.payload.case),
    itemId: body.itemId ?? "",
    retention: Retention.DURABLE,
    payload: body.payload,
  });
}

/** A transient event: a preview, whose envelope leaves out what its stream already says. */
export function transientEvent(runId: string, seq: bigint, body: EventBody): AgentEvent {
  return create(AgentEventSchema, {
    runId,
    seq,
    occurredAt: timestampNow(),
    type: eventType(body.payload.case),
    itemId: body.itemId ?? "",
    retention: Retention.TRANSIENT,
    payload: body.payload,
  });
}

const TERMINAL: ReadonlySet<string | undefined> = new Set(["runCompleted", "runFailed", "runCancelled"]);

/** True for the event that ends a run. */
export function isTerminal(event: AgentEvent): boolean {
  return TERMINAL.has(event.payload.case);
}
