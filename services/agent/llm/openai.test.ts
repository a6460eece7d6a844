import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { inspect } from "node:util";
import { OpenAI } from "openai";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import { createTenantFetch } from "#platform/egress/tenant-fetch.ts";
import { type ModelServer, startModelServer } from "#platform/testing/model-server/server.ts";
import { type ChatQuirks, fails, says, type Turn, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import type { ModelEvent, ModelRequest, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { createOpenAiModel, type OpenAiModelOptions } from "./openai.ts";
import { toCompletionsBody } from "./openai-request.ts";

const request: ModelRequest = {
  model: "gpt-6-sol",
  system: "Be brief.",
  messages: [{ role: "user", content: [{ type: "text", text: "6*7?" }] }],
  tools: [{ name: "calculator", description: "Computes.", inputSchema: { type: "object" } }],
  maxTokens: 1_000,
};

const everything: Turn = {
  ...turnOf(
    { type: "thinking", thinking: "Überlegen 😀", signature: "" },
    { type: "text", text: "Let me compute: 6×7 …" },
    toolUse("calculator", { expression: "6*7", nested: { list: [1, "😀"] } }),
    toolUse("calculator", {}),
  ),
  usage: { input_tokens: 11, cache_read_input_tokens: 22, cache_creation_input_tokens: 33, output_tokens: 44 },
};

async function until(condition: () => boolean) {
  for (let i = 0; i < 400 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(condition(), "the condition never became true");
}

describe("a model behind Chat Completions", () => {
  let server: ModelServer;
  const door = createOperatorFetch({ headersTimeoutMs: 1_000, bodyIdleTimeoutMs: 1_000 });
  const key = "sk-secret-platform";
  const model = (more: Partial<OpenAiModelOptions> = {}) =>
    createOpenAiModel({ fetch: door.fetch, apiKey: key, baseUrl: `${server.url}/v1`, ...more });
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
  const callsOf = (seen: ModelEvent[]) =>
    seen.flatMap((e) => (e.type === "tool_call" ? [[e.name, JSON.parse(e.argumentsJson)]] : []));
  const textOf = (seen: ModelEvent[]) => seen.map((e) => (e.type === "text_delta" ? e.text : "")).join("");

  before(async () => {
    server = await startModelServer({ strict: true });
  });
  afterEach(() => server.reset());
  after(async () => {
    await door.close();
    await server.close();
  });

  test("its events say what the SDK's own stream says of the same bytes", async () => {
    const sdk = new OpenAI({ apiKey: key, baseURL: `${server.url}/v1`, maxRetries: 0, fetch: door.fetch });
    const reasons = { end_turn: "end_turn", max_tokens: "length", refusal: "refusal" } as const;
    const turns: [Turn, string][] = [
      [everything, "tool_use"],
      [{ ...everything, together: true }, "tool_use"],
      [{ ...everything, deltas: 200 }, "tool_use"],
      ...Object.entries(reasons).map(([stopReason, ours]): [Turn, string] => [says("done", { stopReason }), ours]),
    ];
    for (const [turn, reason] of turns) {
      server.script(turn, turn);
      const body = toCompletionsBody(request, { baseUrl: server.url });
      let theirText = "";
      const theirArgs: string[] = [];
      let prompt = 0;
      for await (const chunk of await sdk.chat.completions.create(body)) {
        prompt = chunk.usage?.prompt_tokens ?? prompt;
        const delta = chunk.choices[0]?.delta;
        theirText += delta?.content ?? "";
        for (const call of delta?.tool_calls ?? []) {
          theirArgs[call.index] = (theirArgs[call.index] ?? "") + (call.function?.arguments ?? "");
        }
      }
      const mine = await events();
      assert.equal(textOf(mine), theirText);
      assert.deepEqual(
        mine.flatMap((e) => (e.type === "tool_call" ? [e.argumentsJson] : [])),
        theirArgs,
      );
      assert.deepEqual(mine.at(-1), { type: "finish", reason });
      const usage = mine.findLast((event) => event.type === "usage");
      assert.ok(usage);
      assert.equal(usage.inputTokens + usage.cacheReadTokens + usage.cacheWriteTokens, prompt);
    }
  });

  test("behaviour 21: deltas come before what they complete, and joined they are it", async () => {
    server.script(everything);
    const seen = await events();
    const thought = seen.map((e) => (e.type === "thinking_delta" ? e.text : "")).join("");
    assert.equal(thought, "Überlegen 😀");
    assert.deepEqual(seen.find((event) => event.type === "thinking")?.part, {
      type: "thinking",
      text: thought,
      signature: "",
      origin: "openai",
    });
    const calls = seen.filter((event) => event.type === "tool_call");
    assert.equal(calls.length, 2);
    for (const call of calls) {
      const deltas = seen.filter((event) => event.type === "tool_arguments_delta" && event.id === call.id);
      assert.equal(
        deltas.map((event) => event.type === "tool_arguments_delta" && event.json).join(""),
        call.argumentsJson,
      );
      assert.ok(seen.indexOf(call) > seen.indexOf(deltas.at(-1) as ModelEvent));
    }
  });

  test("behaviour 45: cached tokens are counted once, reasoning stays inside the output", async () => {
    server.script(everything);
    assert.deepEqual(
      (await events()).findLast((event) => event.type === "usage"),
      {
        type: "usage",
        provider: "openai",
        model: "gpt-6-sol",
        inputTokens: 11,
        cacheReadTokens: 22,
        cacheWriteTokens: 33,
        outputTokens: 44,
      },
    );
  });

  test("the oddities of servers change nothing about the answer", async () => {
    const oddities: ChatQuirks[] = [
      { crlf: true },
      { comments: true },
      { noDone: true },
      { noUsage: true },
      { noUsage: true, noDone: true },
      { noFinish: true },
      { wholeCalls: true },
      { wholeCalls: true, objectArguments: true },
      { noCallIds: true },
      { noCallIds: true, wholeCalls: true },
      { noCallIndex: true },
      { noCallIndex: true, wholeCalls: true },
      { noCallIds: true, noCallIndex: true, wholeCalls: true },
      { noCallIds: true, noCallIndex: true },
      { oneCallIndex: true },
      { oneCallIndex: true, wholeCalls: true },
      { reasoningField: "reasoning" },
      { crlf: true, comments: true, noDone: true, noCallIds: true, wholeCalls: true, objectArguments: true },
    ];
    for (const chat of oddities) {
      server.script({ ...everything, chat });
      const seen = await events();
      const what = JSON.stringify(chat);
      assert.equal(textOf(seen), "Let me compute: 6×7 …", what);
      assert.deepEqual(
        callsOf(seen),
        [
          ["calculator", { expression: "6*7", nested: { list: [1, "😀"] } }],
          ["calculator", {}],
        ],
        what,
      );
      const ids = seen.flatMap((event) => (event.type === "tool_call" ? [event.id] : []));
      assert.equal(new Set(ids).size, 2, what);
      assert.ok(ids.every((id) => id !== ""));
      assert.deepEqual(seen.at(-1), { type: "finish", reason: "tool_use" }, what);
      assert.equal(
        seen.some((event) => event.type === "notice" && event.reason === "USAGE_MISSING"),
        chat.noUsage ?? false,
        what,
      );
    }
  });

  test("each status is the error that the caller can act on", async () => {
    const cases: [Turn, Partial<ModelError>][] = [
      [fails(429, { headers: { "retry-after": "7" } }), { kind: "rate_limited", retryable: true, retryAfterMs: 7_000 }],
      [fails(429, { headers: { "retry-after-ms": "250" } }), { kind: "rate_limited", retryAfterMs: 250 }],
      [
        fails(429, { type: "insufficient_quota", errorCode: "insufficient_quota" }),
        { kind: "rate_limited", retryable: false, code: "insufficient_quota" },
      ],
      [fails(402), { kind: "rate_limited", retryable: false }],
      [fails(500), { kind: "server", retryable: true }],
      [fails(503), { kind: "overloaded", retryable: true }],
      [fails(502, { rawBody: "<html>" }), { kind: "server", retryable: true }],
      [fails(504), { kind: "timeout", retryable: true }],
      [fails(408), { kind: "timeout", retryable: true }],
      [fails(409), { kind: "server", retryable: true }],
      [fails(400), { kind: "invalid_request", retryable: false }],
      [
        fails(404, { errorCode: "model_not_found" }),
        { kind: "invalid_request", retryable: false, code: "model_not_found" },
      ],
      [fails(422), { kind: "invalid_request", retryable: false }],
      [fails(401, { errorCode: "invalid_api_key" }), { kind: "authentication", retryable: false }],
      [fails(403), { kind: "authentication", retryable: false }],
      [fails(413), { kind: "context_overflow", retryable: false }],
      [fails(400, { errorCode: "context_length_exceeded" }), { kind: "context_overflow", retryable: false }],
      [
        fails(400, { message: "This model's maximum context length is 8192 tokens. However, you requested 9000" }),
        { kind: "context_overflow", retryable: false },
      ],
      [fails(500, { message: "the request exceeds the available context size" }), { kind: "context_overflow" }],
    ];
    for (const [turn, expected] of cases) {
      const error = await failure(turn);
      for (const [name, value] of Object.entries(expected)) {
        assert.equal(error[name as keyof ModelError], value, `${name} of ${JSON.stringify(turn.error)}`);
      }
      assert.match(error.requestId ?? "", /^req_/);
    }
  });

  test("silence, a broken connection and an answer that just ends are errors, never a hang", async () => {
    const cut = (how: "break" | "end", afterBytes: number) => says("a b", { fault: { cut: { afterBytes, how } } });
    assert.equal((await failure({ fault: { hang: "before_headers" } })).kind, "timeout");
    assert.equal((await failure(says("a b", { fault: { hang: { afterEvents: 2 } } }))).kind, "timeout");
    assert.equal((await failure(cut("break", 300))).kind, "connection");
    assert.equal((await failure(cut("end", 300))).kind, "malformed_stream");
    assert.equal((await failure(cut("end", 0))).kind, "malformed_stream");
    assert.equal((await failure({ content: [], chat: { noFinish: true } })).kind, "malformed_stream");
    const nobody = model({ baseUrl: "http://127.0.0.1:1/v1" });
    await assert.rejects(events({}, {}, nobody), { kind: "connection", retryable: true });
  });

  test("an error in the middle comes after what was said before it", async () => {
    const errorEvent = { afterEvents: 2, type: "overloaded_error", message: "Overloaded" };
    server.script(says("one two", { fault: { errorEvent } }));
    const seen: ModelEvent[] = [];
    await assert.rejects(
      async () => {
        for await (const e of model().stream(request, { signal: new AbortController().signal })) seen.push(e);
      },
      { kind: "overloaded", retryable: true },
    );
    assert.deepEqual(seen, [{ type: "text_delta", text: "one " }]);
  });

  test("an abort at any time rejects with the signal's reason and frees the socket", async () => {
    const reason = new Error("stop");
    await assert.rejects(events({ signal: AbortSignal.abort(reason) }), reason);
    server.script({ fault: { hang: "before_headers" } }, says("one two", { fault: { hang: { afterEvents: 2 } } }));
    for (let i = 0; i < 2; i++) {
      const abort = new AbortController();
      const failed = assert.rejects(events({ signal: abort.signal }), reason);
      await until(() => server.requests.length === i + 1);
      abort.abort(reason);
      await failed;
      await until(() => server.requests[i]?.abandoned === true);
    }
  });

  test("behaviour 48: a call takes its own key before the platform's, and no key is in an error", async () => {
    const own = { apiKey: "sk-secret-tenant", id: "own:ten_1:1" };
    server.script(says("a"), says("b"));
    await events();
    await events({ credential: own });
    assert.deepEqual(
      server.requests.map((r) => r.apiKey),
      [key, "sk-secret-tenant"],
    );
    for (const turn of [fails(401), fails(500), says("x", { fault: { cut: { afterBytes: 300, how: "break" } } })]) {
      const error = await failure(turn, { credential: own });
      assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes("sk-secret"));
    }
    await assert.rejects(events({ credential: { apiKey: "sk-secret-\n", id: "x" } }), { kind: "authentication" });
    const none = createOpenAiModel({ fetch: door.fetch, baseUrl: server.url });
    await assert.rejects(events({}, {}, none), { kind: "authentication", retryable: false });
  });

  test("an address of a tenant's is asked through the tenant's door only, with the tenant's key only", async () => {
    const asked: string[] = [];
    const tenantFetch: typeof globalThis.fetch = (input, init) => {
      asked.push(String(input));
      return door.fetch(input, init);
    };
    const credential = { apiKey: "sk-tenant", baseUrl: `${server.url}/v1`, id: "own:ten_1:1" };
    server.script(says("a"));
    await events({ credential }, {}, model({ baseUrl: "http://127.0.0.1:1", tenantFetch }));
    assert.deepEqual(asked, [`${server.url}/v1/chat/completions`]);
    assert.equal(server.requests[0]?.apiKey, "sk-tenant");
    await assert.rejects(events({ credential }), { kind: "authentication", code: "address_refused" });
  });

  test("a tenant's address that is not public is refused at once, whatever its name says", async () => {
    const guarded = createTenantFetch({ resolve: async () => ["10.0.0.1"] });
    const from = model({ tenantFetch: guarded.fetch });
    for (const baseUrl of [`${server.url}/v1`, "https://127.0.0.1/v1", "https://models.example/v1", "no address"]) {
      const credential = { apiKey: "sk-secret-tenant", baseUrl, id: "own:ten_1:1" };
      const error: unknown = await events({ credential }, {}, from).catch((e: unknown) => e);
      assert.ok(error instanceof ModelError, baseUrl);
      assert.deepEqual([error.code, error.retryable], ["address_refused", false], baseUrl);
      assert.ok(!inspect(error, { depth: 9 }).includes("sk-secret"));
    }
    await guarded.close();
    assert.equal(server.requests.length, 0);
  });

  test("a tenant's server that says too much or trickles for ever is an error", async () => {
    const limits = {
      resolve: async () => ["127.0.0.1"],
      trustedOrigins: [server.url.replace("127.0.0.1", "m.example")],
    };
    const credential = { apiKey: "k", baseUrl: `${limits.trustedOrigins[0]}/v1`, id: "own:ten_1:1" };
    const small = createTenantFetch({ ...limits, maxBodyBytes: 2_000 });
    server.script(says("word ".repeat(1_000)));
    const tooMuch = events({ credential }, {}, model({ tenantFetch: small.fetch }));
    await assert.rejects(tooMuch, { kind: "malformed_stream", retryable: false });
    const hasty = createTenantFetch({ ...limits, totalTimeoutMs: 300 });
    server.script(says("word ".repeat(1_000), { paceMs: 20 }));
    await assert.rejects(events({ credential }, {}, model({ tenantFetch: hasty.fetch })), { kind: "timeout" });
    await small.close();
    await hasty.close();
  });

  test("a temperature goes only to models that take one, others are told of in a notice", async () => {
    server.script(says("a"), says("b"));
    const ignored = await events({}, { temperature: 0.5 });
    assert.equal(ignored[0]?.type === "notice" && ignored[0].reason, "TEMPERATURE_IGNORED");
    assert.ok(!("temperature" in (server.requests[0]?.chat ?? {})));
    await events({}, { temperature: 1.5, model: "gpt-4o" });
    assert.equal(server.requests[1]?.chat?.["temperature"], 1.5);
  });
});
