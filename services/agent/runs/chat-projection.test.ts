import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { OpenItemsSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { type ChatEventInit, ChatProjection } from "./chat-projection.ts";
import { durableEvent, type EventBody, transientEvent } from "./event-envelope.ts";
import { OpenItemsModel } from "./open-items.ts";

const ids = { runId: "run_1", sessionId: "ses_1", agentId: "agt_1" };
const turn = { runId: "run_1", sessionId: "ses_1" };

const text = (offset: number, piece: string): EventBody => ({
  itemId: "msg_a",
  payload: { case: "textDelta", value: { offset: BigInt(offset), text: piece } },
});
const message = (whole: string): EventBody => ({
  itemId: "msg_a",
  payload: { case: "messageCompleted", value: { parts: [{ part: { case: "text", value: { text: whole } } }] } },
});
const discarded: EventBody = { payload: { case: "itemDiscarded", value: { step: 1, cause: "model_retry" } } };

let seq = 0n;
const preview = (body: EventBody): AgentEvent => transientEvent("run_1", ++seq, body);
const stored = (body: EventBody): AgentEvent => durableEvent(ids, ++seq, 0n, body);

function screen(events: readonly ChatEventInit[]): string {
  let shown = "";
  for (const { payload } of events) {
    if (payload?.case === "text") shown += payload.value.content;
    if (payload?.case === "openItems") shown += payload.value.items?.map((item) => item.content).join("") ?? "";
    if (payload?.case === "retract") shown = "";
  }
  return shown;
}

describe("a chat client's view", () => {
  test("is the text as it comes, and nothing again at the message's end", () => {
    const view = new ChatProjection(turn);
    const events = [preview(text(0, "Grü")), preview(text(4, "ße")), stored(message("Grüße"))];
    assert.deepEqual(
      events.flatMap((event) => view.of(event)).map(({ payload }) => payload?.case),
      ["text", "text"],
    );
  });

  test("is the whole text of a message that was complete before the stream joined", () => {
    assert.equal(screen(new ChatProjection(turn).of(stored(message("Grüße")))), "Grüße");
  });

  test("never has a piece that does not continue what it has; the rest comes with the message's end", () => {
    const view = new ChatProjection(turn);
    const events = [preview(text(0, "one ")), preview(text(8, "three ")), preview(text(0, "one "))];
    const shown = [...events, stored(message("one two three "))].flatMap((event) => view.of(event));
    assert.equal(screen(shown), "one two three ");
    assert.equal(shown.length, 2);
  });

  test("takes back an open message by its name, and leaves alone what is complete or was never shown", () => {
    const view = new ChatProjection(turn);
    view.of(preview(text(0, "false start")));
    assert.deepEqual(
      view.of(stored(discarded)).map(({ payload }) => payload),
      [{ case: "retract", value: { itemId: "msg_a" } }],
    );
    assert.deepEqual(view.of(stored(discarded)), []);
    view.of(preview(text(0, "done")));
    view.of(stored(message("done")));
    assert.deepEqual(view.of(stored(discarded)), [], "calls were discarded, not the message");
  });

  test("gets a message that was open when it joined as open items, without reasoning and arguments", () => {
    const view = new ChatProjection(turn);
    const items = [
      { itemId: "rsn_a", kind: "reasoning", content: "hm" },
      { itemId: "msg_a", kind: "message", content: "one " },
    ];
    const [opened, ...none] = view.opened(create(OpenItemsSchema, { asOfSeq: 9n, items }));
    assert.deepEqual(none, []);
    assert.ok(opened?.payload?.case === "openItems");
    assert.deepEqual(
      opened.payload.value.items?.map(({ itemId }) => itemId),
      ["msg_a"],
    );
    assert.equal(opened.seq, 9n);
    assert.equal(screen(view.of(preview(text(4, "two")))), "two");
    assert.deepEqual(view.opened(create(OpenItemsSchema, { asOfSeq: 9n, items: [items[0] ?? {}] })), []);
  });

  test("reads the whole text once, wherever the stream breaks off and is joined again", () => {
    const pieces = fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 4 }), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(pieces, fc.nat(12), fc.nat(12), (parts, a, b) => {
        let offset = 0;
        const deltas = parts.map((part) => {
          const event = preview(text(offset, part));
          offset += Buffer.byteLength(part);
          return event;
        });
        const [from, to] = a < b ? [a, b] : [b, a];
        // What the feed has shown when the stream joins it again, after it missed the pieces between.
        const model = new OpenItemsModel();
        for (const event of deltas.slice(0, to)) model.apply(event);
        const view = new ChatProjection(turn);
        const shown = [
          ...deltas.slice(0, from).flatMap((event) => view.of(event)),
          ...view.opened(model.snapshot()),
          ...deltas.slice(to).flatMap((event) => view.of(event)),
          ...view.of(stored(message(parts.join("")))),
        ];
        assert.equal(screen(shown), parts.join(""));
      }),
    );
  });
});
