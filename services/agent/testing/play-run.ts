import assert from "node:assert/strict";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { callAs } from "#platform/testing/service-under-test.ts";
import type { AgentMesh } from "./agent-mesh.ts";
import { assertWellFormed, durable, read } from "./watching.ts";

/** A run that was played to its end. */
export interface PlayedRun {
  runId: string;
  sessionId: string;
  /** As they were shown. */
  events: AgentEvent[];
  /** As they are stored. */
  stored: AgentEvent[];
}

type Payload = AgentEvent["payload"];

/** Starts a run, watches it to its end, and checks what is stored of it. */
export async function playRun(
  mesh: AgentMesh,
  me: Principal,
  request: { message?: string; sessionId?: string; endUserId?: string; context?: Record<string, string> } = {},
): Promise<PlayedRun> {
  const { run } = await mesh.one.runs.startRun({ message: "go", ...request }, callAs(me));
  const { runId = "", sessionId = "" } = run ?? {};
  const reading = read(mesh.one, me, runId);
  assert.equal(await reading.ended, undefined);
  const stored: AgentEvent[] = [];
  for (let pageToken = ""; ; ) {
    const page = await mesh.one.runs.listRunEvents({ runId, pageSize: 200, pageToken }, callAs(me));
    stored.push(...page.events);
    pageToken = page.nextPageToken;
    if (pageToken === "") break;
  }
  assert.deepEqual(durable(reading.events), stored);
  assertWellFormed(stored);
  return { runId, sessionId, events: reading.events, stored };
}

/** Payloads of one kind, in order. */
export function payloads<C extends NonNullable<Payload["case"]>>(events: readonly AgentEvent[], kind: C) {
  return events.flatMap(({ payload }) =>
    payload.case === kind ? [payload.value as Extract<Payload, { case: C }>["value"]] : [],
  );
}

/** Reasons of the notices, in order. */
export function notices(events: readonly AgentEvent[]): string[] {
  return payloads(events, "notice").map(({ reason }) => reason);
}

/** The end of a run that has a result. */
export function completion({ events }: Pick<PlayedRun, "events">) {
  const end = events.at(-1)?.payload;
  assert.ok(end?.case === "runCompleted", `${end?.case}`);
  return end.value;
}

/** The texts of a request of the scripted server, by role. */
export function sent(request: { body: { messages: { role: string; content: unknown }[] } } | undefined): string[] {
  return (request?.body.messages ?? []).map(({ role, content }) => `${role}: ${textIn(content)}`);
}

function textIn(content: unknown): string {
  if (typeof content === "string") return content;
  return (content as { type: string; text?: string; name?: string; content?: unknown }[])
    .map((block) => block.text ?? (block.type === "tool_use" ? `[${block.name}]` : textIn(block.content ?? "")))
    .join("|");
}
