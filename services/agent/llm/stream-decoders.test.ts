import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { toChatEvents } from "#platform/testing/model-server/chat-events.ts";
import { toMessage, toStreamEvents } from "#platform/testing/model-server/message-events.ts";
import { type Turn, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { AnthropicStreamDecoder } from "./anthropic-stream.ts";
import type { ModelEvent, ModelRequest } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { CompletionsStreamDecoder } from "./openai-stream.ts";
import { createProviderModel, maxEventLength, type StreamDecoder } from "./provider-model.ts";

const request: ModelRequest = { model: "m", system: "", messages: [], tools: [], maxTokens: 1 };
const turn: Turn = turnOf(
  { type: "thinking", thinking: "Überlegen 😀", signature: "c2ln" },
  { type: "text", text: "Let me compute: 6×7 …" },
  toolUse("calculator", { expression: "6*7", list: [1, "😀"] }),
  toolUse("clock", {}),
);
const message = toMessage(turn, "msg_1", "m", 400);
const textOf = (events: { text: string }[]) => events.map((event) => event.text).join("");

interface Face {
  name: string;
  decoder: () => StreamDecoder;
  recorded: string;
  /** Lines of JSON that belong to no stream, or out of place. */
  strange: string[];
}

const faces: Face[] = [
  {
    name: "Anthropic's stream",
    decoder: () => new AnthropicStreamDecoder(),
    recorded: textOf(toStreamEvents(turn, message)),
    strange: [
      '{"type":"content_block_stop","index":0}',
      '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":7}}',
      '{"type":"content_block_start","index":"0","content_block":null}',
      '{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":{}}}',
      '{"type":"content_block_delta","index":1,"delta":null}',
      '{"type":"message_delta","delta":null,"usage":{"output_tokens":"many"}}',
      '{"type":"message_start","message":null}',
      '{"type":"message_stop"}',
      '{"type":"error","error":null}',
      '{"type":"brand_new"}',
    ],
  },
  {
    name: "a Chat Completions stream",
    decoder: () => new CompletionsStreamDecoder(),
    recorded: textOf(toChatEvents(turn, message, true)),
    strange: [
      '{"choices":null}',
      '{"choices":[null,7,{"index":3,"delta":{"content":"another"}}]}',
      '{"choices":[{"index":0,"delta":null,"finish_reason":7}]}',
      '{"choices":[{"index":0,"delta":{"content":{"a":1},"tool_calls":"x"}}]}',
      '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":null}]}}]}',
      '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":-1,"id":7,"function":{"name":[],"arguments":7}}]}}]}',
      '{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":"x"}}',
      '{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":99}}}',
      '{"error":{}}',
      '{"error":"overloaded"}',
      "[DONE]",
    ],
  },
];

/** What comes of a body of these pieces: the events, and the error if there is one. */
async function play(face: Face, pieces: Uint8Array[]): Promise<{ events: ModelEvent[]; error?: unknown }> {
  const model = createProviderModel({
    provider: "p",
    decoder: face.decoder,
    notices: () => [],
    open: async () => ({ body: bodyOf(pieces) }) as unknown as Response,
    toModelError: (error) => error as ModelError,
  });
  const events: ModelEvent[] = [];
  try {
    for await (const event of model.stream(request, { signal: new AbortController().signal })) events.push(event);
  } catch (error) {
    return { events, error };
  }
  return { events };
}

async function* bodyOf(pieces: Uint8Array[]) {
  yield* pieces;
}

/** Exactly one finish, and last; or no finish and a ModelError. */
function assertOneEnd({ events, error }: { events: ModelEvent[]; error?: unknown }, what: string): void {
  const finishes = events.filter((event) => event.type === "finish").length;
  if (error === undefined) {
    assert.equal(finishes, 1, what);
    assert.equal(events.at(-1)?.type, "finish", what);
  } else {
    assert.equal(finishes, 0, what);
    assert.ok(error instanceof ModelError, `${what}: ${String(error)}`);
  }
  for (const event of events) {
    const text = "text" in event ? event.text : "json" in event ? event.json : "";
    assert.ok(text.isWellFormed(), what);
    if (event.type === "usage") {
      const counts = [event.inputTokens, event.cacheReadTokens, event.cacheWriteTokens, event.outputTokens];
      assert.ok(
        counts.every((count) => Number.isFinite(count) && count >= 0),
        what,
      );
    }
  }
}

/** The events with deltas joined, so that only what they say is compared; made-up ids are left out. */
function said(events: ModelEvent[]): string {
  const joined: ModelEvent[] = [];
  for (const event of events) {
    const last = joined.at(-1);
    if (event.type === "text_delta" && last?.type === "text_delta") last.text += event.text;
    else if (event.type === "thinking_delta" && last?.type === "thinking_delta") last.text += event.text;
    else if (event.type === "tool_arguments_delta" && last?.type === "tool_arguments_delta" && last.id === event.id) {
      last.json += event.json;
    } else joined.push({ ...event });
  }
  return JSON.stringify(joined);
}

for (const face of faces) {
  const bytes = new TextEncoder().encode(face.recorded);
  describe(face.name, () => {
    test("cut after any byte it is one error, or whole", async () => {
      const whole = await play(face, [bytes]);
      assert.equal(whole.error, undefined);
      let wholeBefore = 0;
      for (let i = 0; i < bytes.length; i++) {
        const result = await play(face, [bytes.subarray(0, i)]);
        assertOneEnd(result, `cut after ${i} bytes`);
        if (result.error === undefined) wholeBefore++;
      }
      // Only what says nothing more may be missing: the last line ends, `[DONE]`, and usage where the reason was given.
      assert.ok(wholeBefore < 500, `${wholeBefore} of ${bytes.length} cuts went unnoticed`);
      if (face.name.startsWith("Anthropic")) assert.ok(wholeBefore <= 2);
    });

    test("split after any byte it says the same", async () => {
      const whole = said((await play(face, [bytes])).events);
      for (let i = 1; i < bytes.length; i++) {
        const result = await play(face, [bytes.subarray(0, i), bytes.subarray(i)]);
        assert.equal(said(result.events), whole, `split after ${i} bytes`);
      }
    });

    test("in pieces of any size, with CR LF and with comments it says the same", async () => {
      const whole = said((await play(face, [bytes])).events);
      const changed = face.recorded.replaceAll("\n\n", "\n\n: keep-alive\n\n");
      for (const variant of [face.recorded, changed, face.recorded.replaceAll("\n", "\r\n")]) {
        const all = new TextEncoder().encode(variant);
        for (const size of [1, 2, 3, 7, 64]) {
          const pieces = [];
          for (let i = 0; i < all.length; i += size) pieces.push(all.subarray(i, i + size));
          assert.equal(said((await play(face, pieces)).events), whole, `pieces of ${size}`);
        }
      }
    });

    test("whatever is left out, said twice, moved or made up, it has one end", async () => {
      const frames = face.recorded.split("\n\n").filter((frame) => frame !== "");
      const strange = fc.oneof(
        fc.constantFrom(...face.strange).map((data) => `data: ${data}`),
        fc.json().map((json) => `data: ${json}`),
        fc.constantFrom("event: brand_new\ndata: {}", "data", ":", "id: 7", "retry: x", "data: {", "data: \u0000"),
      );
      const edit = fc.record({
        at: fc.nat(frames.length),
        remove: fc.nat({ max: 2 }),
        insert: fc.array(fc.oneof(strange, fc.constantFrom(...frames)), { maxLength: 3 }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 4 }), async (edits) => {
          const mutated = [...frames];
          for (const { at, remove, insert } of edits) mutated.splice(at, remove, ...insert);
          const body = `${mutated.join("\n\n")}\n\n`;
          assertOneEnd(await play(face, [new TextEncoder().encode(body)]), body);
        }),
        { numRuns: 500 },
      );
    });

    test("whatever bytes are changed, it has one end", async () => {
      const change = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
      await fc.assert(
        fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
          const mutated = bytes.slice();
          for (const [at, value] of changes) mutated[at] = value;
          assertOneEnd(await play(face, [mutated]), JSON.stringify(changes));
        }),
        { numRuns: 500 },
      );
    });

    test("a line of 50 MB is an error long before its end", async () => {
      const piece = new TextEncoder().encode("x".repeat(1024 * 1024));
      let read = 0;
      async function* endless() {
        yield new TextEncoder().encode("data: ");
        for (; read < 50; read++) yield piece;
      }
      const result = await play({ ...face }, endless() as unknown as Uint8Array[]);
      assert.ok(result.error instanceof ModelError);
      assert.equal(result.error.kind, "malformed_stream");
      assert.ok(read * piece.length <= maxEventLength + 2 * piece.length, `${read} MB were read`);
    });

    test("a stream that never ends is bounded", async () => {
      const piece = new TextEncoder().encode(": keep-alive\n\n".repeat(80_000));
      let read = 0;
      async function* endless() {
        for (;;) {
          read++;
          yield piece;
        }
      }
      const result = await play(face, endless() as unknown as Uint8Array[]);
      assert.ok(result.error instanceof ModelError && !result.error.retryable);
      assert.ok(read < 200);
    });
  });
}

test("tool calls without number or without end are an error", async () => {
  const face = faces[1] as Face;
  const call = (index: number, args = "") =>
    `data: {"choices":[{"delta":{"tool_calls":[{"index":${index},"id":"c${index}","function":{"name":"t","arguments":${JSON.stringify(args)}}}]}}]}\n\n`;
  const many = Array.from({ length: 300 }, (_, i) => call(i)).join("");
  const large = call(0, "x".repeat(1024 * 1024)).repeat(20);
  for (const body of [many, large]) {
    const result = await play(face, [new TextEncoder().encode(body)]);
    assert.ok(result.error instanceof ModelError && result.error.kind === "malformed_stream");
  }
});
