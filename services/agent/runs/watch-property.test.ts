import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { type DrivenRun, driveRun } from "../testing/driven-run.ts";
import { assertRising, durable } from "../testing/watching.ts";
import { MAX_QUEUED_BYTES } from "./event-queue.ts";
import { type WatchFrame, watchRun } from "./watch.ts";

/** What a run does next. A burst is more than a reader's queue holds, so that everyone who watches lags. */
type Step = "delta" | "burst" | "note" | "complete" | "discard" | "flush" | "pause";

interface WatcherPlan {
  /** The step before which it joins. */
  at: number;
  /** Replica that it asks: the owner, or the other one. */
  replica: 0 | 1;
  /** What it has seen before: nothing, everything so far, or a part of it. */
  seen: "nothing" | "all" | "half";
  liveOnly: boolean;
  /** Milliseconds that it takes over a frame now and then. */
  slow: number;
  /** Milliseconds that each of its looks at the database takes longer; the run goes on meanwhile. */
  lag: number;
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Step>("delta") },
  { weight: 1, arbitrary: fc.constant<Step>("burst") },
  { weight: 4, arbitrary: fc.constantFrom<Step>("note", "complete", "flush", "pause") },
  { weight: 1, arbitrary: fc.constant<Step>("discard") },
);
const watcher: fc.Arbitrary<WatcherPlan> = fc.record({
  at: fc.nat(40),
  replica: fc.constantFrom(0, 1),
  seen: fc.constantFrom("nothing", "all", "half"),
  liveOnly: fc.boolean(),
  slow: fc.constantFrom(0, 0, 1, 3),
  lag: fc.constantFrom(0, 0, 2, 5),
});

/** What a reader holds: texts of open items, by id. */
type Held = Map<string, string>;

describe("watching a run", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  const bus = new EmbeddedBus({ log: createLog({ level: "silent", service: "bus" }) });
  const drain = new AbortController().signal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, bus: () => bus, agent: { lease: "5m", reaper_interval: "1m" } });
  });
  after(() => mesh[Symbol.asyncDispose]());

  test("shows every durable event after the cursor once and in order, and previews only where they fit", async () => {
    const plan = fc.tuple(fc.array(step, { maxLength: 40 }), fc.array(watcher, { minLength: 1, maxLength: 5 }));
    await fc.assert(
      fc.asyncProperty(plan, async ([steps, watchers]) => {
        const run = await driveRun(mesh, mesh.one, principalOf(newId("ten"), TENANT_SCOPES));
        const script = new Script(run);
        const reading: Promise<void>[] = [];
        for (let i = 0; i <= steps.length; i++) {
          for (const one of watchers) if (Math.min(one.at, steps.length) === i) reading.push(watch(run, script, one));
          const next = steps[i];
          if (next !== undefined) await script.play(next);
        }
        await run.end();
        const failed = (await Promise.allSettled(reading)).find(({ status }) => status === "rejected");
        if (failed?.status === "rejected") throw failed.reason;
        await mesh.settled();
      }),
      { numRuns: 40 },
    );
  });

  async function watch(run: DrivenRun, script: Script, plan: WatcherPlan): Promise<void> {
    const { replica, seen, liveOnly, slow, lag } = plan;
    const before = script.shown.slice(0, seen === "nothing" ? 0 : script.shown.length / (seen === "half" ? 2 : 1));
    const afterSeq = before.at(-1)?.seq ?? 0n;
    const held: Held = new Map();
    for (const event of before) apply(held, event);
    const { liveRuns, remoteTails } = (replica === 0 ? mesh.one : mesh.two).service;
    const database: Database = {
      ...mesh.db,
      async tenant(tenantId, fn, options) {
        if (lag > 0) await sleep(lag);
        return mesh.db.tenant(tenantId, fn, options);
      },
    };
    const deps = { database, bus, liveRuns, remoteTails, heartbeatMs: 10_000, drain };
    const options = { runId: run.runId, afterSeq, liveOnly, reach: { endUserId: undefined } };
    const frames: WatchFrame[] = [];
    for await (const frame of watchRun(deps, run.call, options)) {
      frames.push(frame);
      if (slow > 0 && frames.length % 3 === 0) await sleep(slow);
    }
    const events = frames.flatMap((frame) => (frame.kind === "event" ? [frame.event] : []));
    assertRising(events);
    const stored = (await run.stored()).map((bytes) => fromBinary(AgentEventSchema, bytes));
    const caughtUp = frames.find((frame) => frame.kind === "caught_up");
    assert.ok(caughtUp !== undefined);
    const expected = stored.filter(({ seq }) => seq > afterSeq);
    const got = durable(events);
    if (liveOnly) assert.deepEqual(got, expected.slice(expected.length - got.length), "no hole after the first one");
    else assert.deepEqual(got, expected);
    assert.equal(events.at(-1)?.type, "run_cancelled");
    for (const frame of frames) {
      if (frame.kind === "open_items") show(held, frame.open);
      if (frame.kind === "event") apply(held, frame.event, { strict: !liveOnly || held.size > 0 });
    }
  }
});

/** Plays steps into a run's log and keeps what was shown. */
class Script {
  readonly shown: AgentEvent[] = [];
  readonly #run: DrivenRun;
  #item = 0;
  #text = "";

  constructor(run: DrivenRun) {
    this.#run = run;
    const { feed } = run.log;
    const push = feed.push.bind(feed);
    feed.push = (event) => {
      this.shown.push(event);
      push(event);
    };
  }

  async play(next: Step): Promise<void> {
    const { log } = this.#run;
    switch (next) {
      case "delta":
        return this.#say("é".repeat(1 + (this.shown.length % 5)));
      case "burst":
        for (let i = 0; i < 12; i++) this.#say("x".repeat(MAX_QUEUED_BYTES / 8));
        return;
      case "note":
        return log.append({ body: { payload: { case: "notice", value: { reason: "NOTE" } } } });
      case "complete": {
        if (this.#text === "") return;
        const parts = [{ part: { case: "text" as const, value: { text: this.#text } } }];
        log.append({ body: { itemId: `msg_${this.#item}`, payload: { case: "messageCompleted", value: { parts } } } });
        return this.#close();
      }
      case "discard":
        log.append({ body: { payload: { case: "itemDiscarded", value: { step: 1, cause: "model_retry" } } } });
        return this.#close();
      case "flush":
        return log.flush();
      case "pause":
        return sleep(3);
    }
    await nextTurn();
  }

  #say(text: string): void {
    const { log } = this.#run;
    const itemId = `msg_${this.#item}`;
    if (this.#text === "") log.transient({ itemId, payload: { case: "messageStarted", value: {} } });
    log.transient({
      itemId,
      payload: { case: "textDelta", value: { offset: BigInt(Buffer.byteLength(this.#text)), text } },
    });
    this.#text += text;
  }

  #close(): void {
    this.#item++;
    this.#text = "";
  }
}

function show(held: Held, { items }: OpenItems): void {
  for (const { itemId, content } of items) held.set(itemId, content);
}

/** Applies an event as a careful reader does; `strict`: every delta must fit. */
function apply(held: Held, { payload, itemId, seq }: AgentEvent, { strict = true } = {}): void {
  if (payload.case === "messageStarted") held.set(itemId, "");
  if (payload.case === "textDelta") {
    const before = held.get(itemId);
    const fits = before !== undefined && Buffer.byteLength(before) === Number(payload.value.offset);
    if (strict) assert.ok(fits, `the delta ${seq} of ${itemId} continues what the reader holds`);
    if (fits) held.set(itemId, before + payload.value.text);
  }
  if (payload.case === "messageCompleted") {
    const [part] = payload.value.parts;
    const whole = part?.part.case === "text" ? part.part.value.text : "";
    assert.ok(whole.startsWith(held.get(itemId) ?? ""), "what the reader holds is where the message begins");
    held.delete(itemId);
  }
  if (payload.case === "itemDiscarded") held.clear();
}
