import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { sse, toMessage, toStreamEvents } from "#platform/testing/model-server/message-events.ts";
import { type Turn, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { AnthropicStreamDecoder } from "./anthropic-stream.ts";
import type { ModelEvent } from "./chat-model.ts";

const turn = turnOf(
  { type: "thinking", thinking: "Überlegen 😀 …", signature: "c2ln" },
  { type: "redacted_thinking", data: "ZGF0YQ==" },
  { type: "text", text: "Grüße 你好 😀!" },
  toolUse("calculator", { expression: "6*7", note: "😀" }),
  toolUse("noop", {}),
);

function streamText(turn: Turn): string {
  const events = toStreamEvents(turn, toMessage(turn, "msg_1", "claude-sonnet-5-5", 400));
  return events.map((event) => event.text).join("");
}

function decode(pieces: Iterable<Uint8Array | string>) {
  const decoder = new AnthropicStreamDecoder();
  const utf8 = new TextDecoder();
  const events: ModelEvent[] = [];
  for (const piece of pieces) {
    events.push(...decoder.feed(typeof piece === "string" ? piece : utf8.decode(piece, { stream: true })));
  }
  return { decoder, events };
}

/** Deltas joined, so that streams that were cut into other pieces compare equal. */
function joined(events: ModelEvent[]): ModelEvent[] {
  const out: ModelEvent[] = [];
  for (const event of events) {
    const last = out.at(-1);
    if (event.type === "usage") continue;
    if (event.type === "text_delta" && last?.type === "text_delta")
      out[out.length - 1] = { ...last, text: last.text + event.text };
    else if (event.type === "thinking_delta" && last?.type === "thinking_delta")
      out[out.length - 1] = { ...last, text: last.text + event.text };
    else if (event.type === "tool_arguments_delta" && last?.type === "tool_arguments_delta")
      out[out.length - 1] = { ...last, json: last.json + event.json };
    else out.push(event);
  }
  return out;
}

describe("the decoder of Anthropic's stream", () => {
  const text = streamText(turn);
  const bytes = Buffer.from(text);
  const whole = decode([text]);

  test("gives every block in order, each after its deltas, and the finish last", () => {
    const types = whole.events.map((event) => event.type);
    assert.deepEqual(
      types.filter((type) => type !== "usage"),
      [
        "thinking_delta",
        "thinking",
        "thinking",
        "text_delta",
        "tool_call_started",
        "tool_arguments_delta",
        "tool_call",
        "tool_call_started",
        "tool_arguments_delta",
        "tool_call",
        "finish",
      ],
    );
    assert.ok(whole.decoder.complete);
    assert.deepEqual(
      whole.events.find((event) => event.type === "thinking"),
      {
        type: "thinking",
        part: { type: "thinking", text: "Überlegen 😀 …", signature: "c2ln", origin: "anthropic" },
      },
    );
    assert.deepEqual(whole.events.at(-1), { type: "finish", reason: "tool_use" });
  });

  test("deltas that came in one read are one event", () => {
    assert.deepEqual(
      whole.events.filter((event) => event.type === "text_delta"),
      [{ type: "text_delta", text: "Grüße 你好 😀!" }],
    );
  });

  test("cut at any byte it is not complete, and what it gave is a prefix of the whole", () => {
    const all = joined(whole.events);
    for (let end = 0; end < bytes.length; end++) {
      const { decoder, events } = decode([bytes.subarray(0, end)]);
      assert.equal(decoder.complete, false, `complete after ${end} of ${bytes.length} bytes`);
      assert.equal(decoder.cutOff().kind, "malformed_stream");
      assert.equal(decoder.cutOff().retryable, true);
      const some = joined(events);
      assert.ok(some.length < all.length);
      assert.deepEqual(some.slice(0, -1), all.slice(0, Math.max(0, some.length - 1)));
    }
  });

  test("in whatever pieces the bytes arrive, it gives the same", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 40 }), (cuts) => {
        const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const pieces = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
        assert.deepEqual(joined(decode(pieces).events), joined(whole.events));
      }),
    );
  });

  test("lines may end in CR LF, and comments and a byte order mark are passed over", () => {
    const odd = `\ufeff: hello\r\n\r\n${text.replaceAll("\n", "\r\n")}`;
    assert.deepEqual(joined(decode([odd]).events), joined(whole.events));
  });

  test("whatever bytes come, it neither throws nor completes by chance", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 60 })), (lines) => {
        const { decoder } = decode([lines.map((line) => `data: ${line}\n\n`).join("")]);
        assert.equal(decoder.complete, false);
      }),
    );
  });

  test("ping, unknown events, unknown blocks and unknown deltas are ignored", () => {
    const blocks = [
      sse("content_block_start", { type: "content_block_start", index: 7, content_block: { type: "hologram" } }),
      sse("content_block_delta", { type: "content_block_delta", index: 7, delta: { type: "hologram_delta", x: 1 } }),
      sse("content_block_stop", { type: "content_block_stop", index: 7 }),
      sse("sparkle", { type: "sparkle", anything: [null] }),
      sse("ping", { type: "ping" }),
    ].join("");
    const withUnknown = text.replace("event: content_block_stop", `${blocks}event: content_block_stop`);
    assert.notEqual(withUnknown, text);
    assert.deepEqual(joined(decode([withUnknown]).events), joined(whole.events));
  });

  test("what cannot be understood fails the stream after the events before it", () => {
    const start = text.slice(0, text.indexOf("event: content_block_stop"));
    const bad = [
      "data: {not json}\n\n",
      "data: 7\n\n",
      sse("content_block_delta", { type: "content_block_delta", index: 9, delta: { type: "text_delta", text: "x" } }),
      sse("content_block_stop", { type: "content_block_stop", index: 9 }),
      sse("message_stop", { type: "message_stop" }),
      sse("content_block_start", { type: "content_block_start" }),
    ];
    for (const piece of bad) {
      const { decoder, events } = decode([start + piece, text]);
      assert.equal(decoder.failure?.kind, "malformed_stream", piece);
      assert.deepEqual(joined(events), [{ type: "thinking_delta", text: "Überlegen 😀 …" }]);
    }
  });

  test("an error event is the error that it names, after the events before it", () => {
    const cases = [
      ["overloaded_error", "overloaded", true],
      ["rate_limit_error", "rate_limited", true],
      ["api_error", "server", true],
      ["invalid_request_error", "invalid_request", false],
      ["authentication_error", "authentication", false],
      ["something_new", "server", true],
    ] as const;
    for (const [type, kind, retryable] of cases) {
      const error = sse("error", { type: "error", error: { type, message: "m" }, request_id: "req_1" });
      const { decoder } = decode([text.slice(0, text.indexOf("event: content_block_stop")) + error]);
      assert.equal(decoder.failure?.kind, kind);
      assert.equal(decoder.failure.retryable, retryable);
      assert.equal(decoder.failure.requestId, "req_1");
    }
  });

  test("a surrogate pair that is split over deltas comes out whole, and half a one as a replacement character", () => {
    const delta = (text: string) =>
      sse("x", { type: "content_block_delta", index: 0, delta: { type: "text_delta", text } });
    const begin =
      sse("x", { type: "message_start", message: {} }) +
      sse("x", { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } });
    const end = sse("x", { type: "content_block_stop", index: 0 }) + sse("x", { type: "message_stop" });
    const said = (pieces: string[]) => joined(decode([begin, ...pieces.map(delta), end]).events)[0];
    assert.deepEqual(said(["a\ud83d", "\ude00b"]), { type: "text_delta", text: "a😀b" });
    assert.deepEqual(said(["a\ud83d"]), { type: "text_delta", text: "a\ufffd" });
    assert.deepEqual(said(["\ude00", "b"]), { type: "text_delta", text: "\ufffdb" });
    for (const event of decode([begin, delta("a\ud83d"), delta("\ude00b"), end]).events) {
      if (event.type === "text_delta") assert.ok(event.text.isWellFormed());
    }
  });

  test("usage is cumulative, and a count that is missing leaves the one before it", () => {
    const usage = { input_tokens: 10, cache_read_input_tokens: 20, cache_creation_input_tokens: 30, output_tokens: 40 };
    const counts = decode([streamText({ ...turn, usage })]).events.filter((event) => event.type === "usage");
    assert.deepEqual(counts.at(-1), {
      type: "usage",
      provider: "anthropic",
      model: "claude-sonnet-5-5",
      inputTokens: 10,
      cacheReadTokens: 20,
      cacheWriteTokens: 30,
      outputTokens: 40,
    });
    const last = decode([
      sse("x", { type: "message_start", message: { model: "m", usage } }),
      sse("x", { type: "message_delta", delta: {}, usage: { input_tokens: null, output_tokens: 7 } }),
    ]).events.at(-1);
    assert.equal(last?.type === "usage" && last.inputTokens, 10);
    assert.equal(last?.type === "usage" && last.outputTokens, 7);
  });

  test("stop reasons are read, also those that are new", () => {
    const reasons = {
      end_turn: "end_turn",
      tool_use: "tool_use",
      max_tokens: "length",
      model_context_window_exceeded: "length",
      refusal: "refusal",
      pause_turn: "pause",
      stop_sequence: "stop_sequence",
      constructor: "other",
    };
    for (const [stopReason, reason] of Object.entries(reasons)) {
      assert.deepEqual(decode([streamText({ ...turn, stopReason })]).events.at(-1), { type: "finish", reason });
    }
    assert.deepEqual(decode([streamText({ ...turn, stopReason: null })]).events.at(-1), {
      type: "finish",
      reason: "other",
    });
  });
});
