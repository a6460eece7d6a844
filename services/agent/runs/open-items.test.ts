import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { durableEvent, type EventBody, transientEvent } from "./event-envelope.ts";
import { EventQueue, MAX_QUEUED_BYTES } from "./event-queue.ts";
import { LiveFeed } from "./live-feed.ts";
import { OpenItemsModel } from "./open-items.ts";

const ids = { runId: "run_1", sessionId: "ses_1", agentId: "agt_1" };
const delta = (seq: bigint, itemId: string, text: string) =>
  transientEvent("run_1", seq, { itemId, payload: { case: "textDelta", value: { offset: 0n, text } } });
const completed = (seq: bigint, itemId: string) =>
  durableEvent(ids, seq, 0n, { itemId, payload: { case: "messageCompleted", value: { parts: [] } } });
const discarded = (seq: bigint, itemId: string) =>
  durableEvent(ids, seq, 0n, { itemId, payload: { case: "itemDiscarded", value: { step: 1, cause: "model_retry" } } });

describe("what is open", () => {
  test("is what was shown of an item until it is completed or discarded", () => {
    const model = new OpenItemsModel();
    model.apply(delta(2n, "msg_a", "Hel"));
    model.apply(delta(3n, "msg_b", "x"));
    model.apply(delta(4n, "msg_a", "lo"));
    model.apply(discarded(5n, "msg_b"));
    const { asOfSeq, items } = model.snapshot();
    assert.equal(asOfSeq, 5n);
    assert.deepEqual(
      items.map(({ itemId, kind, content }) => ({ itemId, kind, content })),
      [{ itemId: "msg_a", kind: "message", content: "Hello" }],
    );
    model.apply(completed(6n, "msg_a"));
    assert.deepEqual(model.snapshot().items, []);
  });

  test("is void as a whole when a step is discarded", () => {
    const model = new OpenItemsModel();
    model.apply(delta(2n, "msg_a", "a"));
    model.apply(delta(3n, "msg_b", "b"));
    model.apply(discarded(4n, ""));
    assert.deepEqual(model.snapshot().items, []);
  });

  test("is the same for who was told in the middle and who saw everything", () => {
    const event = fc.record({ kind: fc.constantFrom("delta", "done", "void"), item: fc.integer({ min: 0, max: 3 }) });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), fc.nat(40), (steps, cut) => {
        const events: AgentEvent[] = steps.map(({ kind, item }, i) => {
          const seq = BigInt(i + 1);
          if (kind === "delta") return delta(seq, `msg_${item}`, `${i},`);
          return kind === "done" ? completed(seq, `msg_${item}`) : discarded(seq, `msg_${item}`);
        });
        const whole = new OpenItemsModel();
        for (const one of events) whole.apply(one);
        const first = new OpenItemsModel();
        for (const one of events.slice(0, cut)) first.apply(one);
        const joined = OpenItemsModel.from(first.snapshot());
        for (const one of events.slice(cut)) joined.apply(one);
        assert.deepEqual(joined.snapshot(), whole.snapshot());
      }),
    );
  });
});

describe("a reader's queue", () => {
  const signal = new AbortController().signal;

  test("gives events in order, and says when it is closed", async () => {
    const queue = new EventQueue();
    queue.push(delta(1n, "msg_a", "a"));
    queue.push(delta(2n, "msg_a", "b"));
    queue.end("closed");
    assert.equal(queue.ended, undefined, "not while something waits");
    assert.equal(await queue.wait(signal, 1_000), "ready");
    assert.deepEqual(
      queue.take().map(({ seq }) => seq),
      [1n, 2n],
    );
    assert.equal(queue.ended, "closed");
  });

  test("wakes a waiting reader for an event, an end, an abort and silence", async () => {
    const waits: [string, (queue: EventQueue, abort: AbortController) => void, string][] = [
      ["event", (queue) => queue.push(delta(1n, "msg_a", "a")), "ready"],
      ["end", (queue) => queue.end("closed"), "ready"],
      ["abort", (_, abort) => abort.abort(), "ready"],
      ["silence", () => {}, "idle"],
    ];
    for (const [what, happens, expected] of waits) {
      const queue = new EventQueue();
      const abort = new AbortController();
      const waiting = queue.wait(abort.signal, 50);
      happens(queue, abort);
      assert.equal(await waiting, expected, what);
    }
  });

  test("drops everything and says so when its reader lets too much pile up, and never grows beyond its bound", () => {
    const queue = new EventQueue();
    const text = "x".repeat(10_000);
    const enough = Math.ceil(MAX_QUEUED_BYTES / text.length);
    for (let seq = 1n; seq <= enough; seq++) queue.push(delta(seq, "msg_a", text));
    assert.equal(queue.ended, "lagged");
    assert.deepEqual(queue.take(), []);
  });
});

describe("a live feed", () => {
  test("gives a joiner what is open and everything after it, none twice and none missing", () => {
    const feed = new LiveFeed();
    for (let seq = 1n; seq <= 5n; seq++) feed.push(delta(seq, "msg_a", String(seq)));
    using joined = feed.subscribe();
    for (let seq = 6n; seq <= 9n; seq++) feed.push(delta(seq, "msg_a", String(seq)));
    assert.equal(joined.open.asOfSeq, 5n);
    assert.equal(joined.open.items[0]?.content, "12345");
    assert.deepEqual(
      joined.queue.take().map(({ seq }) => seq),
      [6n, 7n, 8n, 9n],
    );
  });

  test("forgets readers who left, and tells those who stay when it closes", () => {
    const feed = new LiveFeed();
    const left = feed.subscribe();
    const stays = feed.subscribe();
    left[Symbol.dispose]();
    assert.equal(feed.subscribers, 1);
    feed.push(delta(1n, "msg_a", "a"));
    assert.deepEqual(left.queue.take(), []);
    feed.close();
    stays.queue.take();
    assert.equal(stays.queue.ended, "closed");
    assert.equal(feed.subscribe().queue.ended, "closed", "who comes late is told at once");
  });
});

test("an event's type is its payload's name on the wire", () => {
  const body: EventBody = { payload: { case: "toolCallArgumentsDelta", value: {} } };
  assert.equal(transientEvent("run_1", 1n, body).type, "tool_call_arguments_delta");
});
