import assert from "node:assert/strict";
import { test } from "node:test";
import { describeMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

// biome-ignore lint/suspicious/noExplicitAny: frames are looked into field by field
type Frame = any;

const DURABLE = "RETENTION_DURABLE";

describeMesh("the event stream of a run", (mesh) => {
  const rest = (baseUrl = mesh().baseUrl) => new RestClient(baseUrl, mesh().adminKey);

  async function start(message: string): Promise<string> {
    const { status, body } = await rest().call("POST", "/api/v1/runs", { message });
    assert.equal(status, 200, JSON.stringify(body));
    return body.run.run_id;
  }

  test("replays a finished run from any cursor, the same durable events each time, and ends", async () => {
    const runId = await start('[[tool:calculator {"expression":"6*7"}]] what is it?');
    const all = await frames(rest(), runId);
    const events = eventsOf(all);
    assert.equal(events[0].type, "run_started");
    assert.equal(events.at(-1).type, "run_completed");
    assertChain(durable(events));
    const stored = durable(events);
    for (const { seq } of stored) {
      const rest_ = eventsOf(await frames(rest(), runId, { after: seq }));
      assert.deepEqual(
        durable(rest_),
        stored.filter((event) => BigInt(event.seq) > BigInt(seq)),
      );
    }
    const { body } = await rest().call("GET", `/api/v1/runs/${runId}/events?page_size=200`);
    assert.deepEqual(body.events, stored);
  });

  test("gives who joins in the middle what is open, and deltas that continue exactly there", async () => {
    const runId = await start("[[slow 15]] [[deltas 60]] Tell me a long story about nothing in particular, please.");
    const early: Frame[] = [];
    for await (const frame of stream(rest(), runId)) {
      early.push(frame);
      if (eventsOf(early).filter(({ type }) => type === "text_delta").length >= 10) break;
    }
    const joined = await frames(rest(), runId);
    const opened = joined.find(({ open_items }) => open_items !== undefined)?.open_items;
    assert.ok(opened !== undefined && opened.items.length === 1, "an open message");
    const [item] = opened.items;
    let text = item.content;
    for (const { type, item_id, text_delta } of eventsOf(joined)) {
      if (type !== "text_delta" || item_id !== item.item_id) continue;
      assert.equal(Number(text_delta.offset), Buffer.byteLength(text), "the delta continues where the reader is");
      text += text_delta.text;
    }
    const completed = eventsOf(joined).find(({ type }) => type === "message_completed");
    assert.equal(text, completed.message_completed.parts[0].text.text);
    assertRising(eventsOf(joined));
  });

  test("takes Last-Event-ID for a cursor and sends signs of order", async () => {
    const runId = await start("short");
    const all = eventsOf(await frames(rest(), runId));
    const seq = all[0].seq;
    const resumed = await frames(rest(), runId, { headers: { "last-event-id": seq } });
    assert.deepEqual(durable(eventsOf(resumed)), durable(all).slice(1));
    assert.ok(resumed.some(({ caught_up }) => caught_up !== undefined));
  });
});

describeMesh(
  "a run whose process is killed with -9",
  (mesh) => {
    test("is gone on with by another replica from its last step, and a watcher loses and doubles nothing", async () => {
      const { adminKey, baseUrl } = mesh();
      const first = new RestClient(baseUrl, adminKey);
      const other = await mesh().gatewayTo("agent-2");
      const second = new RestClient(other.baseUrl, adminKey);
      const message = '[[tool:calculator {"expression":"6*7"}]] [[slow 100]] [[deltas 100]] talk for a while';
      const { body } = await first.call("POST", "/api/v1/runs", { message });
      const runId = body.run.run_id;

      const seen: Frame[] = [];
      const tailed: Frame[] = [];
      const watching = (async () => {
        for await (const frame of stream(second, runId)) tailed.push(frame);
      })();
      try {
        for await (const frame of stream(first, runId)) {
          seen.push(frame);
          const deltas = eventsOf(seen).filter(({ type }) => type === "text_delta");
          if (deltas.length >= 30) await mesh().processes.get("agent")?.kill();
          if (deltas.length >= 30) break;
        }
      } catch {
        // The stream may break before the loop is left.
      }
      const last = eventsOf(seen).at(-1);
      const rest = eventsOf(await frames(second, runId, { after: last.seq }));
      const whole = eventsOf(await frames(second, runId));
      await watching;

      assert.deepEqual([...durable(eventsOf(seen)), ...durable(rest)], durable(whole), "nothing lost, nothing twice");
      assertChain(durable(whole));
      assertRising([...eventsOf(seen), ...rest]);
      const terminal = whole.at(-1);
      assert.equal(terminal.type, "run_completed");
      const resumed = whole.filter(({ type }: Frame) => type === "run_resumed");
      assert.deepEqual(
        resumed.map(({ run_resumed }: Frame) => run_resumed),
        [{ cause: "owner_lost", attempt: 2 }],
      );
      // The tool had answered before the process died: it is not asked again, while the broken answer is, from the beginning.
      const count = (wanted: string) => whole.filter(({ type }: Frame) => type === wanted).length;
      assert.deepEqual([count("tool_call_requested"), count("tool_call_completed")], [1, 1]);
      const answer = whole.filter(({ type }: Frame) => type === "message_completed").at(-1);
      assert.equal(terminal.run_completed.response, answer.message_completed.parts[0].text.text);
      assert.equal(whole.filter(({ type }: Frame) => /^run_(completed|failed|cancelled)$/.test(type)).length, 1);
      // Who watched by the other replica from the beginning got the deltas through it, and the end.
      assert.ok(eventsOf(tailed).some(({ type }) => type === "text_delta"));
      assert.deepEqual(durable(eventsOf(tailed)), durable(whole));
      // The session is free again.
      const again = await second.call("POST", "/api/v1/chat", {
        message: "still there?",
        session_id: body.run.session_id,
      });
      assert.equal(again.status, 200, JSON.stringify(again.body));
    });
  },
  ["distributed"],
);

async function* stream(
  client: RestClient,
  runId: string,
  { after, headers = {} }: { after?: string; headers?: Record<string, string> } = {},
): AsyncGenerator<Frame> {
  const query = after === undefined ? "" : `?after_seq=${after}`;
  for await (const { data } of client.stream("GET", `/api/v1/runs/${runId}/events:stream${query}`, undefined, {
    headers,
  })) {
    yield JSON.parse(data);
  }
}

async function frames(...options: Parameters<typeof stream>): Promise<Frame[]> {
  const all: Frame[] = [];
  for await (const frame of stream(...options)) all.push(frame);
  return all;
}

function eventsOf(all: readonly Frame[]): Frame[] {
  return all.flatMap(({ event }) => (event === undefined ? [] : [event]));
}

function durable(events: readonly Frame[]): Frame[] {
  return events.filter(({ retention }) => retention === DURABLE);
}

function assertChain(events: readonly Frame[]): void {
  let previous = "0";
  for (const { seq, prev_seq } of events) {
    assert.equal(prev_seq, previous, "the chain of durable events is whole");
    previous = seq;
  }
}

function assertRising(events: readonly Frame[]): void {
  for (const [i, { seq }] of events.entries()) {
    if (i > 0) assert.ok(BigInt(seq) > BigInt(events[i - 1].seq), `seq rises at ${seq}`);
  }
}
