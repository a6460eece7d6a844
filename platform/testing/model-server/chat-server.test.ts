import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { APIConnectionError, AuthenticationError, BadRequestError, OpenAI, RateLimitError } from "openai";
import type { ChatCompletionCreateParamsNonStreaming } from "openai/resources/chat/completions";
import { type ModelServer, startModelServer } from "./server.ts";
import { fails, says, type Turn, toolUse, turnOf } from "./turn.ts";

const parameters = { type: "object", properties: { expression: { type: "string" } } };
const request: ChatCompletionCreateParamsNonStreaming = {
  model: "gpt-6-sol",
  messages: [{ role: "user", content: "6*7?" }],
  tools: [{ type: "function", function: { name: "calculator", parameters } }],
};

describe("the scripted model server, asked by OpenAI's SDK", () => {
  let server: ModelServer;
  const client = () =>
    new OpenAI({ apiKey: "sk-test", baseURL: `${server.url}/v1`, maxRetries: 0, logLevel: "off" }).chat.completions;

  before(async () => {
    server = await startModelServer();
  });
  afterEach(() => server.reset());
  after(() => server.close());

  const turn: Turn = {
    ...turnOf({ type: "text", text: "Let me compute. 😀" }, toolUse("calculator", { expression: "6*7" })),
    usage: { input_tokens: 10, cache_read_input_tokens: 20, cache_creation_input_tokens: 3, output_tokens: 7 },
  };

  test("an answer is the same streamed and whole", async () => {
    server.script(turn, turn);
    const whole = await client().create(request);
    const streamed = await client()
      .stream({ model: request.model, messages: request.messages, stream_options: { include_usage: true } })
      .finalChatCompletion();
    assert.equal(streamed.choices[0]?.message.content, whole.choices[0]?.message.content);
    const call = whole.choices[0]?.message.tool_calls?.[0];
    assert.equal(call?.type === "function" && call.function.arguments, '{"expression":"6*7"}');
    const streamedCall = streamed.choices[0]?.message.tool_calls?.[0];
    assert.deepEqual(
      streamedCall?.type === "function" && [streamedCall.id, streamedCall.function.arguments],
      call?.type === "function" && [call.id, call.function.arguments],
    );
    assert.equal(whole.choices[0]?.finish_reason, "tool_calls");
    assert.deepEqual(streamed.usage, whole.usage);
    assert.equal(whole.usage?.prompt_tokens, 33);
  });

  test("scripts, markers and records are those of the other face", async () => {
    const answer = await client().create({ ...request, messages: [{ role: "user", content: "Hello" }] });
    assert.equal(answer.choices[0]?.message.content, "You said: Hello");
    const calls = await client().create({
      ...request,
      messages: [{ role: "user", content: '[[tool:calculator {"expression":"1+1"}]] please' }],
    });
    const call = calls.choices[0]?.message.tool_calls?.[0];
    assert.ok(call?.type === "function");
    const done = await client().create({
      ...request,
      messages: [
        { role: "user", content: '[[tool:calculator {"expression":"1+1"}]] please' },
        { role: "assistant", content: null, tool_calls: [call] },
        { role: "tool", tool_call_id: call.id, content: "2" },
      ],
    });
    assert.match(done.choices[0]?.message.content ?? "", /The tools answered: 2/);
    assert.equal(server.requests[2]?.chat?.messages.length, 3);
    assert.equal(server.requests[2]?.body.messages[2]?.role, "user");
    assert.equal(server.requests[2]?.apiKey, "sk-test");
  });

  test("errors are the API's own, and a broken stream is a broken stream", async () => {
    server.script(fails(401), fails(429, { errorCode: "insufficient_quota" }));
    await assert.rejects(client().create(request), AuthenticationError);
    await assert.rejects(
      client().create(request),
      (e) => e instanceof RateLimitError && e.code === "insufficient_quota" && /^req_/.test(e.requestID ?? ""),
    );
    server.script(says("one two three", { fault: { cut: { afterBytes: 400, how: "break" } } }));
    await assert.rejects(
      async () => {
        for await (const _chunk of await client().create({ ...request, stream: true }));
      },
      (e) => !(e instanceof BadRequestError),
    );
    const nobody = new OpenAI({ apiKey: "k", baseURL: "http://127.0.0.1:1/v1", maxRetries: 0 });
    await assert.rejects(nobody.chat.completions.create(request), APIConnectionError);
  });

  test("what a real server refuses is refused", async () => {
    const call = { id: "c1", type: "function" as const, function: { name: "calculator", arguments: "{}" } };
    const bad: Partial<ChatCompletionCreateParamsNonStreaming>[] = [
      { messages: [] },
      { messages: [{ role: "tool", tool_call_id: "x", content: "2" }] },
      { messages: [{ role: "assistant", content: null, tool_calls: [call] }] },
      {
        messages: [
          { role: "assistant", content: null, tool_calls: [call] },
          { role: "user", content: "and?" },
        ],
      },
      {
        messages: [
          { role: "assistant", content: null, tool_calls: [{ ...call, function: { name: "c", arguments: "{" } }] },
          { role: "tool", tool_call_id: "c1", content: "2" },
        ],
      },
      { tools: [{ type: "function", function: { name: "a.b", parameters } }] },
      { tools: [{ type: "function", function: { name: "a", parameters: { type: "object" } } }] },
      { tools: [{ type: "function", function: { name: "a", parameters: { ...parameters, anyOf: [] } } }] },
      { tools: [] },
      { max_tokens: 1, max_completion_tokens: 1 },
    ];
    for (const more of bad) {
      await assert.rejects(client().create({ ...request, ...more }), BadRequestError, JSON.stringify(more));
    }
  });
});
