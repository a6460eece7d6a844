import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Anthropic } from "@anthropic-ai/sdk";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import { toMessage, toStreamEvents } from "#platform/testing/model-server/message-events.ts";
import { type ModelServer, startModelServer } from "#platform/testing/model-server/server.ts";
import { fails, says, type Turn, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { createAnthropicModel } from "./anthropic.ts";
import { toMessagesBody } from "./anthropic-request.ts";
import type { ModelEvent, ModelRequest, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";

const request: ModelRequest = {
  model: "claude-sonnet-5-5",
  system: "Be brief.",
  messages: [{ role: "user", content: [{ type: "text", text: "6*7?" }] }],
  tools: [{ name: "calculator", description: "Computes.", inputSchema: { type: "object" } }],
  maxTokens: 1_000,
};

async function until(condition: () => boolean) {
  for (let i = 0; i < 400 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(condition(), "the condition never became true");
}

describe("Anthropic's model", () => {
  let server: ModelServer;
  const door = createOperatorFetch({ headersTimeoutMs: 1_000, bodyIdleTimeoutMs: 1_000 });
  const key = "sk-secret-platform";
  const model = (more = {}) => createAnthropicModel({ fetch: door.fetch, apiKey: key, baseUrl: server.url, ...more });
  const events = async (options: Partial<StreamOptions> = {}, asked: Partial<ModelRequest> = {}, from = model()) => {
    const seen: ModelEvent[] = [];
    const stream = from.stream({ ...request, ...asked }, { signal: new AbortController().signal, ...options });
    for await (const event of stream) seen.push(event);
    return seen;
  };
  const failure = async (turn: Turn, options: Partial<StreamOptions> = {}): Promise<ModelError> => {
    server.script(turn);
    const error: unknown = await events(options).catch((e: unknown) => e);
    assert.ok(error instanceof ModelError, String(error));
    return error;
  };

  before(async () => {
    server = await startModelServer({ strict: true });
  });
  afterEach(() => server.reset());
  after(async () => {
    await door.close();
    await server.close();
  });

  const everything: Turn = {
    ...turnOf(
      { type: "thinking", thinking: "Überlegen 😀", signature: "c2ln" },
      { type: "redacted_thinking", data: "ZGF0YQ==" },
      { type: "text", text: "Let me compute: 6×7 …" },
      toolUse("calculator", { expression: "6*7", nested: { list: [1, "😀"] } }),
      toolUse("calculator", {}),
    ),
    usage: { input_tokens: 11, cache_read_input_tokens: 22, cache_creation_input_tokens: 33, output_tokens: 44 },
  };

  test("its events say what the SDK's own stream says of the same bytes", async () => {
    const sdk = new Anthropic({ apiKey: key, baseURL: server.url, maxRetries: 0, fetch: door.fetch });
    const reasons = ["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn", "stop_sequence"];
    const turns: Turn[] = [
      everything,
      { ...everything, together: true },
      { ...everything, deltas: 200 },
      { content: [] },
      ...reasons.map((stopReason) => says("done", { stopReason })),
    ];
    const ours = {
      end_turn: "end_turn",
      tool_use: "tool_use",
      max_tokens: "length",
      refusal: "refusal",
      pause_turn: "pause",
      stop_sequence: "stop_sequence",
    };
    for (const turn of turns) {
      server.script(turn, turn);
      const theirs = await sdk.messages.stream(toMessagesBody(request)).finalMessage();
      const mine = await events();
      assert.deepEqual(contentOf(mine), theirs.content);
      assert.deepEqual(mine.at(-1), { type: "finish", reason: ours[theirs.stop_reason as keyof typeof ours] });
      const usage = mine.findLast((event) => event.type === "usage");
      assert.deepEqual(usage, {
        type: "usage",
        provider: "anthropic",
        model: theirs.model,
        inputTokens: theirs.usage.input_tokens,
        cacheReadTokens: theirs.usage.cache_read_input_tokens,
        cacheWriteTokens: theirs.usage.cache_creation_input_tokens,
        outputTokens: theirs.usage.output_tokens,
      });
    }
  });

  test("behaviour 21: deltas come before what they complete, and joined they are it", async () => {
    server.script(everything);
    const seen = await events();
    const text = (type: string) => seen.flatMap((e) => (e.type === type && "text" in e ? [e.text] : [])).join("");
    assert.equal(text("thinking_delta"), "Überlegen 😀");
    assert.equal(text("text_delta"), "Let me compute: 6×7 …");
    for (const call of seen.filter((event) => event.type === "tool_call")) {
      const deltas = seen.filter((event) => event.type === "tool_arguments_delta" && event.id === call.id);
      assert.equal(
        deltas.map((event) => event.type === "tool_arguments_delta" && event.json).join(""),
        call.argumentsJson,
      );
      assert.ok(seen.indexOf(call) > seen.indexOf(deltas.at(-1) as ModelEvent));
    }
  });

  test("the first delta is handed on while the answer is still being written", async () => {
    server.script(says("one two three", { fault: { hang: { afterEvents: 4 } } }));
    const abort = new AbortController();
    const stream = model().stream(request, { signal: abort.signal })[Symbol.asyncIterator]();
    let event = await stream.next();
    while (event.value?.type !== "text_delta") event = await stream.next();
    assert.equal(event.value.text, "one ");
    abort.abort();
    await assert.rejects(stream.next(), { name: "AbortError" });
  });

  test("each status is the error that the caller can act on", async () => {
    const cases: [Turn, Partial<ModelError>][] = [
      [fails(429, { headers: { "retry-after": "7" } }), { kind: "rate_limited", retryable: true, retryAfterMs: 7_000 }],
      [
        fails(429, { headers: { "retry-after-ms": "250" } }),
        { kind: "rate_limited", retryable: true, retryAfterMs: 250 },
      ],
      [
        fails(429, { errorCode: "enforced_spend_limit_reached" }),
        { kind: "rate_limited", retryable: false, code: "enforced_spend_limit_reached" },
      ],
      [
        fails(400, { message: "You have reached your specified API usage limits." }),
        { kind: "rate_limited", retryable: false },
      ],
      [fails(402, { type: "billing_error" }), { kind: "rate_limited", retryable: false }],
      [fails(529), { kind: "overloaded", retryable: true, code: "overloaded_error", status: 529 }],
      [fails(500), { kind: "server", retryable: true }],
      [fails(503), { kind: "server", retryable: true }],
      [fails(502, { rawBody: "<html>" }), { kind: "server", retryable: true }],
      [fails(504), { kind: "timeout", retryable: true }],
      [fails(408), { kind: "timeout", retryable: true }],
      [fails(409), { kind: "server", retryable: true }],
      [fails(400), { kind: "invalid_request", retryable: false }],
      [fails(404), { kind: "invalid_request", retryable: false }],
      [fails(401), { kind: "authentication", retryable: false, code: "authentication_error" }],
      [fails(403), { kind: "authentication", retryable: false }],
      [fails(413), { kind: "context_overflow", retryable: false }],
      [
        fails(400, { message: "prompt is too long: 212345 tokens > 200000 maximum" }),
        { kind: "context_overflow", retryable: false },
      ],
    ];
    for (const [turn, expected] of cases) {
      const error = await failure(turn);
      for (const [name, value] of Object.entries(expected)) {
        assert.equal(error[name as keyof ModelError], value, `${name} of ${JSON.stringify(turn.error)}`);
      }
      assert.match(error.requestId ?? "", /^req_/);
    }
  });

  test("a Retry-After that is a date is counted from the clock", async () => {
    const now = Date.UTC(2026, 10, 3, 12, 0, 0);
    server.script(fails(529, { headers: { "retry-after": new Date(now + 30_000).toUTCString() } }));
    const error: unknown = await events({}, {}, model({ now: () => now })).catch((e: unknown) => e);
    assert.equal((error as ModelError).retryAfterMs, 30_000);
  });

  test("silence, a broken connection and an answer that just ends are errors, never a hang", async () => {
    assert.equal((await failure({ fault: { hang: "before_headers" } })).kind, "timeout");
    assert.equal((await failure(says("a b", { fault: { hang: { afterEvents: 3 } } }))).kind, "timeout");
    assert.equal(
      (await failure(says("a b", { fault: { cut: { afterBytes: 500, how: "break" } } }))).kind,
      "connection",
    );
    assert.equal(
      (await failure(says("a b", { fault: { cut: { afterBytes: 500, how: "end" } } }))).kind,
      "malformed_stream",
    );
    assert.equal(
      (await failure(says("a b", { fault: { cut: { afterBytes: 0, how: "end" } } }))).kind,
      "malformed_stream",
    );
    const nobody = createAnthropicModel({ fetch: door.fetch, apiKey: key, baseUrl: "http://127.0.0.1:1" });
    await assert.rejects(events({}, {}, nobody), { kind: "connection", retryable: true });
  });

  test("a stream that is cut anywhere, in either way, is an error", async () => {
    server.script(everything);
    await events();
    const size = streamSize(everything);
    for (let afterBytes = 0; afterBytes < size; afterBytes += 41) {
      for (const how of ["break", "end"] as const) {
        const error = await failure({ ...everything, together: true, fault: { cut: { afterBytes, how } } });
        assert.ok(error.retryable);
        assert.equal(
          error.kind,
          how === "break" ? "connection" : "malformed_stream",
          `${how} after ${afterBytes} bytes`,
        );
      }
    }
  });

  test("an error in the middle comes after what was said before it, usage included", async () => {
    const errorEvent = { afterEvents: 4, type: "overloaded_error", message: "Overloaded" };
    server.script(says("one two", { together: false, fault: { errorEvent } }));
    const seen: ModelEvent[] = [];
    await assert.rejects(
      async () => {
        for await (const e of model().stream(request, { signal: new AbortController().signal })) seen.push(e);
      },
      { kind: "overloaded", retryable: true },
    );
    assert.deepEqual(
      seen.map((event) => event.type),
      ["usage", "text_delta"],
    );
  });

  test("an abort at any time rejects with the signal's reason and frees the socket", async () => {
    const reason = new Error("stop");
    await assert.rejects(events({ signal: AbortSignal.abort(reason) }), reason);
    server.script({ fault: { hang: "before_headers" } }, says("one two", { fault: { hang: { afterEvents: 4 } } }));
    for (let i = 0; i < 2; i++) {
      const abort = new AbortController();
      const failed = assert.rejects(events({ signal: abort.signal }), reason);
      await until(() => server.requests.length === i + 1);
      abort.abort(reason);
      await failed;
      await until(() => server.requests[i]?.abandoned === true);
    }
  });

  test("a caller that stops reading ends the request", async () => {
    server.script(says("word ".repeat(1_000), { paceMs: 5 }));
    for await (const event of model().stream(request, { signal: new AbortController().signal })) {
      if (event.type === "text_delta") break;
    }
    await until(() => server.requests[0]?.abandoned === true);
  });

  test("calls one after the other share connections, and a long-lived signal is left without listeners", async () => {
    const abort = new AbortController();
    let listeners = 0;
    const { addEventListener, removeEventListener } = abort.signal;
    abort.signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners++;
      addEventListener.apply(abort.signal, args);
    };
    abort.signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners--;
      removeEventListener.apply(abort.signal, args);
    };
    await using other = await startModelServer();
    const from = createAnthropicModel({ fetch: door.fetch, apiKey: key, baseUrl: other.url });
    for (let i = 0; i < 20; i++) await events({ signal: abort.signal }, {}, from);
    // One may still take the last bytes of its answer when the next request begins.
    assert.ok(other.openSockets() <= 2);
    assert.equal(listeners, 0);
  });

  test("behaviour 48: a call takes its own key before the platform's, and no key is in an error", async () => {
    server.script(says("a"), says("b"));
    await events();
    await events({ credential: { apiKey: "sk-secret-tenant", id: "own:1" } });
    assert.deepEqual(
      server.requests.map((r) => r.apiKey),
      [key, "sk-secret-tenant"],
    );
    for (const turn of [fails(401), fails(500), says("x", { fault: { cut: { afterBytes: 300, how: "break" } } })]) {
      const error = await failure(turn, { credential: { apiKey: "sk-secret-tenant", id: "own:1" } });
      assert.ok(!inspect(error).includes("sk-secret"));
    }
    const unsendable = await events({ credential: { apiKey: "sk-secret-\n", id: "own:2" } }).catch((e: unknown) => e);
    assert.equal((unsendable as ModelError).kind, "authentication");
    assert.ok(!inspect(unsendable).includes("sk-secret"));
    const none = createAnthropicModel({ fetch: door.fetch, baseUrl: server.url });
    await assert.rejects(events({}, {}, none), { kind: "authentication", retryable: false });
  });

  test("a temperature goes only to models that take one, others are told of in a notice", async () => {
    server.script(says("a"), says("b"), says("c"));
    const ignored = await events({}, { temperature: 0.5 });
    assert.deepEqual(ignored[0], {
      type: "notice",
      reason: "TEMPERATURE_IGNORED",
      message: "The model claude-sonnet-5-5 takes no temperature; the setting was left out.",
      facts: { model: "claude-sonnet-5-5" },
    });
    assert.ok(!("temperature" in (server.requests[0]?.body ?? {})));
    const sent = await events({}, { temperature: 1.5, model: "claude-haiku-4-5" });
    assert.equal(sent[0]?.type, "usage");
    assert.equal(server.requests[1]?.body["temperature"], 1);
    assert.equal(server.requests[1]?.headers["anthropic-version"], "2023-06-01");
    assert.equal(server.requests[1]?.headers["x-api-key"], key);
    await events({}, { model: "claude-haiku-4-5" });
    assert.notEqual(server.requests[2]?.headers["anthropic-version"], "2023-06-01");
  });
});

function streamSize(turn: Turn): number {
  const events = toStreamEvents(turn, toMessage(turn, "msg_00000001", request.model, 400));
  return Buffer.byteLength(events.map((event) => event.text).join("")) - 20;
}

/** The message that the events tell of, as the SDK builds it. */
function contentOf(events: ModelEvent[]): unknown[] {
  const content: { type: string; text?: string }[] = [];
  for (const event of events) {
    const last = content.at(-1);
    if (event.type === "text_delta") {
      if (last?.type === "text") last.text += event.text;
      else content.push({ type: "text", text: event.text });
    } else if (event.type === "thinking") {
      const { text, signature, redacted } = event.part;
      content.push(
        redacted
          ? ({ type: "redacted_thinking", data: signature } as { type: string })
          : ({ type: "thinking", thinking: text, signature } as { type: string }),
      );
    } else if (event.type === "tool_call") {
      const { id, name, argumentsJson } = event;
      content.push({ type: "tool_use", id, name, input: JSON.parse(argumentsJson) } as { type: string });
    }
  }
  return content;
}

/** Everything that a logger could find in an error. */
function inspect(error: unknown): string {
  const seen: string[] = [];
  for (let e = error; e instanceof Error; e = e.cause) {
    seen.push(String(e.stack), JSON.stringify(e), JSON.stringify(Object.entries(Object.getOwnPropertyDescriptors(e))));
  }
  return seen.join("\n");
}
