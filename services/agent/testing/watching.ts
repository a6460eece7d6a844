import assert from "node:assert/strict";
import { type AgentEvent, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { StreamRunEventsResponse } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { onward } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import type { Replica } from "./agent-mesh.ts";

export type Frame = StreamRunEventsResponse["frame"];

/** A reader of a run's events, reading in the background. */
export interface Reading {
  readonly frames: Frame[];
  readonly events: AgentEvent[];
  /** Resolves when the stream has ended; with what it failed with, or undefined. */
  readonly ended: Promise<unknown>;
  leave(): void;
  /** Resolves when `condition` holds. */
  until(condition: (reading: Reading) => boolean, what: string): Promise<void>;
}

export interface ReadOptions {
  afterSeq?: bigint;
  liveOnly?: boolean;
  types?: string[];
  omitTransient?: boolean;
}

/** Watches a run through a replica. */
export function read(replica: Replica, principal: Principal, runId: string, options: ReadOptions = {}): Reading {
  const caller = new AbortController();
  const call = { principal, signal: caller.signal, requestId: "req_watch", ip: "", userAgent: "" };
  const frames: Frame[] = [];
  const events: AgentEvent[] = [];
  const follow = async () => {
    for await (const { frame } of replica.runs.streamRunEvents({ runId, ...options }, onward(call))) {
      frames.push(frame);
      if (frame.case === "event") events.push(frame.value);
    }
  };
  const reading: Reading = {
    frames,
    events,
    ended: follow().then(
      () => undefined,
      (error: unknown) => error,
    ),
    leave: () => caller.abort(),
    until: (condition, what) => until(() => condition(reading), what),
  };
  return reading;
}

export function deltas({ events }: Pick<Reading, "events">): AgentEvent[] {
  return events.filter(({ payload }) => payload.case === "textDelta");
}

export function durable(events: readonly AgentEvent[]): AgentEvent[] {
  return events.filter(({ retention }) => retention === Retention.DURABLE);
}

/** The chain of durable events is whole from its first one on. */
export function assertChain(events: readonly AgentEvent[], from = 0n): void {
  let previous = from;
  for (const { seq, prevSeq } of durable(events)) {
    assert.equal(prevSeq, previous, `the event before ${seq} was seen`);
    previous = seq;
  }
}

export function assertRising(events: readonly AgentEvent[]): void {
  for (const [i, { seq }] of events.entries()) {
    if (i > 0) assert.ok(seq > (events[i - 1]?.seq ?? 0n), `seq rises at ${seq}`);
  }
}

/**
 * What a careful reader makes of the frames: a delta is applied where it continues what the reader holds. Returns how
 * many deltas did not fit, and fails when a completed message differs from what fitted.
 */
export function assertDeltasFit(frames: readonly Frame[]): number {
  const held = new Map<string, string>();
  let unfit = 0;
  for (const frame of frames) {
    if (frame.case === "openItems") for (const { itemId, content } of frame.value.items) held.set(itemId, content);
    if (frame.case !== "event") continue;
    const { itemId, payload } = frame.value;
    if (payload.case === "messageStarted") held.set(itemId, "");
    if (payload.case === "textDelta") {
      const before = held.get(itemId) ?? "";
      if (Buffer.byteLength(before) === Number(payload.value.offset)) held.set(itemId, before + payload.value.text);
      else unfit++;
    }
    if (payload.case === "messageCompleted" && unfit === 0 && held.has(itemId)) {
      const [part] = payload.value.parts;
      const whole = part?.part.case === "text" ? part.part.value.text : "";
      assert.equal(held.get(itemId), whole, "deltas make the message");
    }
    if (payload.case === "messageCompleted") held.delete(itemId);
  }
  return unfit;
}

export function openItems({ frames }: Pick<Reading, "frames">): OpenItems[] {
  return frames.flatMap((frame) => (frame.case === "openItems" ? [frame.value] : []));
}

const TERMINAL = new Set(["run_completed", "run_failed", "run_cancelled"]);

/** The order rules of a run's stored events: begun once, ended once and last, every step and every call closed. */
export function assertWellFormed(events: readonly AgentEvent[]): void {
  assertChain(events);
  assertRising(events);
  const types = events.map(({ type }) => type);
  assert.equal(types[0], "run_started");
  assert.deepEqual(types.filter((type) => TERMINAL.has(type)).length, 1, "one end");
  assert.ok(TERMINAL.has(types.at(-1) ?? ""), "nothing after the end");
  let step = 0;
  const calls = new Set<string>();
  for (const { payload, itemId } of events) {
    if (payload.case === "stepStarted") {
      assert.equal(step, 0, "one step at a time");
      step = payload.value.step;
    }
    if (payload.case === "stepCompleted") {
      assert.equal(payload.value.step, step);
      assert.equal(calls.size, 0, "every call was answered");
      step = 0;
    }
    if (payload.case === "toolCallRequested") calls.add(itemId);
    if (payload.case === "toolCallCompleted") assert.ok(calls.delete(itemId), "an answer to a call");
    if (payload.case === "itemDiscarded" && itemId === "") {
      calls.clear();
      if (["owner_lost", "not_stored", "not_begun"].includes(payload.value.cause)) step = 0;
    }
  }
  assert.equal(step, 0, "every step is completed or void");
}
