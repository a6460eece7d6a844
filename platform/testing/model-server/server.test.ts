import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Anthropic, APIConnectionError, AuthenticationError, BadRequestError, RateLimitError } from "@anthropic-ai/sdk";
import type { MessageCreateParamsNonStreaming, MessageParam } from "@anthropic-ai/sdk/resources/messages";
import { type ModelServer, startModelServer } from "./server.ts";
import { fails, says, toolUse, turnOf } from "./turn.ts";

const calculator = { name: "calculator", input_schema: { type: "object" as const } };
const ask = (content: MessageParam["content"], more: object = {}): MessageCreateParamsNonStreaming => ({
  model: "claude-sonnet-5-5",
  max_tokens: 1_000,
  messages: [{ role: "user", content }],
  tools: [calculator],
  ...more,
});

async function until(condition: () => boolean) {
  for (let i = 0; i < 400 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(condition(), "the condition never became true");
}

describe("the scripted model server, asked by Anthropic's SDK", () => {
  let server: ModelServer;
  const client = (apiKey = "sk-test") => new Anthropic({ apiKey, baseURL: server.url, maxRetries: 0, logLevel: "off" });

  before(async () => {
    server = await startModelServer();
  });
  after(() => server.close());
  afterEach(() => server.reset());

  const full = turnOf(
    { type: "thinking", thinking: "First, multiply.", signature: "c2ln" },
    { type: "redacted_thinking", data: "ZGF0YQ==" },
    { type: "text", text: "Let me see: 6×7 😀 …" },
    toolUse("calculator", { expression: "6*7", note: 'quote " and 😀' }),
  );

  test("a streamed message equals the same message in one piece", async () => {
    const usage = { input_tokens: 11, cache_read_input_tokens: 22, cache_creation_input_tokens: 33, output_tokens: 44 };
    server.script({ ...full, usage }, { ...full, usage, deltas: 3 }, { ...full, usage, together: true });
    const whole = await client().messages.create(ask("6*7?"));
    for (let i = 0; i < 2; i++) {
      const streamed = await client().messages.stream(ask("6*7?")).finalMessage();
      assert.deepEqual(streamed.content, whole.content);
      assert.equal(streamed.stop_reason, "tool_use");
      assert.deepEqual({ ...streamed.usage }, { ...whole.usage });
    }
    assert.equal(whole.usage.cache_read_input_tokens, 22);
  });

  test("an answer is streamed in as many deltas as asked for, at the pace asked for", async () => {
    server.script(says("x".repeat(400), { deltas: 200 }), says("a b c", { paceMs: 20 }));
    let deltas = 0;
    for await (const event of client().messages.stream(ask("go"))) if (event.type === "content_block_delta") deltas++;
    assert.equal(deltas, 200);
    const started = performance.now();
    await client().messages.stream(ask("go")).finalMessage();
    assert.ok(performance.now() - started >= 55);
  });

  test("errors have the statuses, bodies and headers of the real API", async () => {
    server.script(
      fails(429, { headers: { "retry-after": "3" } }),
      fails(429, { errorCode: "enforced_spend_limit_reached" }),
      fails(529),
      fails(400),
      fails(401),
      fails(500),
      fails(502, { rawBody: "<html>bad gateway</html>" }),
    );
    const failure = async () => {
      const error: unknown = await client()
        .messages.create(ask("?"))
        .catch((e: unknown) => e);
      return error as RateLimitError;
    };
    const limited = await failure();
    assert.ok(limited instanceof RateLimitError);
    assert.equal(limited.headers.get("retry-after"), "3");
    assert.equal(limited.type, "rate_limit_error");
    assert.match(limited.requestID ?? "", /^req_/);
    assert.equal((await failure()).errorCode, "enforced_spend_limit_reached");
    assert.equal((await failure()).type, "overloaded_error");
    assert.ok((await failure()) instanceof BadRequestError);
    assert.ok((await failure()) instanceof AuthenticationError);
    assert.equal((await failure()).status, 500);
    assert.equal((await failure()).status, 502);
  });

  test("an error event after the 200 and a broken connection fail the stream", async () => {
    server.script(
      says("one two three", {
        fault: { errorEvent: { afterEvents: 4, type: "overloaded_error", message: "Overloaded" } },
      }),
      says("one two three", { fault: { cut: { afterBytes: 600, how: "break" } } }),
      says("one two three", { fault: { cut: { afterBytes: 600, how: "end" } } }),
    );
    const final = () => client().messages.stream(ask("go")).finalMessage();
    await assert.rejects(final(), { type: "overloaded_error" });
    await assert.rejects(final());
    await assert.rejects(final());
  });

  test("a hanging answer is abandoned by the client and leaves no socket", async () => {
    server.script(says("one two", { fault: { hang: { afterEvents: 3 } } }), { fault: { hang: "before_headers" } });
    for (let i = 0; i < 2; i++) {
      const stream = client().messages.stream(ask("go"));
      const failed = assert.rejects(stream.finalMessage());
      await until(() => server.requests.length === i + 1 && server.openSockets() > 0);
      stream.abort();
      await failed;
      await until(() => server.requests[i]?.abandoned === true);
    }
  });

  test("unknown events are passed over by the SDK and raw text is put in where it was asked for", async () => {
    const raw = 'event: sparkle\ndata: {"type":"sparkle"}\n\n';
    server.script(says("fine", { fault: { insert: { afterEvents: 2, raw } } }));
    const message = await client().messages.stream(ask("go")).finalMessage();
    assert.deepEqual(message.content, [{ type: "text", text: "fine" }]);
  });

  test("scripts are served in order, by key, by model and by a predicate before that", async () => {
    server.script(says("first"), says("second"));
    server.when({ apiKey: "sk-other" }, says("for the other key"));
    server.when({ where: (r) => r.headers["traceparent"] === "00-1" }, (r) =>
      says(`${r.body.messages.length} message`),
    );
    const text = async (c: Anthropic, headers = {}) => {
      const [block] = (await c.messages.create(ask("?"), { headers })).content;
      return block?.type === "text" ? block.text : undefined;
    };
    assert.equal(await text(client()), "first");
    assert.equal(await text(client("sk-other")), "for the other key");
    assert.equal(await text(client(), { traceparent: "00-1" }), "1 message");
    assert.equal(server.pending(), 1);
    assert.equal(await text(client()), "second");
    assert.equal(server.requests[1]?.apiKey, "sk-other");
    assert.equal(server.requests[2]?.headers["traceparent"], "00-1");
  });

  test("requests that the real API would refuse are refused", async () => {
    const use = { type: "tool_use" as const, id: "toolu_1", name: "calculator", input: {} };
    const result = { type: "tool_result" as const, tool_use_id: "toolu_1", content: "42" };
    const mark = { cache_control: { type: "ephemeral" as const } };
    const refused: [object, RegExp][] = [
      [{ messages: [{ role: "user", content: [{ type: "text", text: "" }] }] }, /non-empty/],
      [
        {
          messages: [
            { role: "user", content: "a" },
            { role: "assistant", content: [use] },
          ],
        },
        /without results/,
      ],
      [
        {
          messages: [
            { role: "user", content: "a" },
            { role: "assistant", content: [use] },
            { role: "user", content: "b" },
          ],
        },
        /without `tool_result`/,
      ],
      [{ messages: [{ role: "user", content: [result] }] }, /unexpected `tool_use_id`/],
      [
        {
          messages: [
            { role: "user", content: "a" },
            { role: "assistant", content: [use] },
            { role: "user", content: [result, result] },
          ],
        },
        /single result/,
      ],
      [
        {
          messages: [
            { role: "user", content: "a" },
            { role: "assistant", content: [use] },
            { role: "user", content: [result] },
          ],
          tools: [],
        },
        /tools: required/,
      ],
      [
        {
          messages: [
            { role: "user", content: Array.from({ length: 5 }, () => ({ type: "text", text: "x", ...mark })) },
          ],
        },
        /maximum of 4/,
      ],
      [{ temperature: 1 }, /temperature: Extra inputs/],
      [{ max_tokens: "many" }, /max_tokens/],
    ];
    for (const [change, words] of refused) {
      await assert.rejects(client().messages.create(ask("?", change)), (error: unknown) => {
        assert.ok(error instanceof BadRequestError, String(error));
        assert.match(error.message, words);
        return true;
      });
    }
    const anonymous = await fetch(`${server.url}/v1/messages`, { method: "POST", body: JSON.stringify(ask("?")) });
    assert.equal(anonymous.status, 401);
  });

  test("models are listed", async () => {
    const ids: string[] = [];
    for await (const model of client().models.list()) ids.push(model.id);
    assert.ok(ids.includes("claude-sonnet-5-5"));
  });

  test("without a script it repeats the user, and markers steer it", async () => {
    const text = (content: { type: string; text?: string }[]) =>
      content.map((block) => block.text ?? block.type).join("|");
    const reply = async (prompt: string, more = {}) => client().messages.create(ask(prompt, more));
    assert.equal(text((await reply("hello there")).content), "You said: hello there");
    assert.equal(text((await reply("[[think]] well")).content), "thinking|You said: well");
    assert.equal((await reply("[[length]] well")).stop_reason, "max_tokens");
    assert.deepEqual((await reply("[[empty]]")).content, []);
    await assert.rejects(reply("[[error 529]]"), { status: 529 });

    const prompt = 'do [[tool:calculator {"expression":"6*7","deep":{"a":[1]}}]] [[tool:calculator {}]]';
    const calls = (await reply(prompt)).content.filter((block) => block.type === "tool_use");
    assert.deepEqual(
      calls.map((call) => call.input),
      [{ expression: "6*7", deep: { a: [1] } }, {}],
    );
    const messages = [
      { role: "user", content: prompt },
      { role: "assistant", content: calls },
      {
        role: "user",
        content: calls.map((call, i) => ({ type: "tool_result", tool_use_id: call.id, content: `r${i}` })),
      },
    ];
    assert.equal(text((await reply("", { messages })).content), "The tools answered: r0; r1.");
    assert.equal(
      text((await reply("[[tool:calculator {}]] x", { tool_choice: { type: "none" } })).content),
      "You said: x",
    );
    let deltas = 0;
    for await (const e of client().messages.stream(ask("[[deltas 200]]")))
      if (e.type === "content_block_delta") deltas++;
    assert.equal(deltas, 200);
  });

  test("closing it breaks open answers and frees the port", async () => {
    const other = await startModelServer();
    other.script({ fault: { hang: "before_headers" } });
    const open = new Anthropic({ apiKey: "k", baseURL: other.url, maxRetries: 0 }).messages.create(ask("?"));
    const failed = assert.rejects(open, APIConnectionError);
    await until(() => other.openSockets() === 1);
    await other.close();
    await failed;
    assert.equal(other.openSockets(), 0);
  });
});

test("the scripted model server runs as a process of its own and stops on SIGTERM", async () => {
  const main = fileURLToPath(new URL("main.ts", import.meta.url));
  const child = spawn(process.execPath, [main, "--deltas", "7"], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  try {
    const [line] = (await once(createInterface(child.stdout), "line")) as [string];
    const { url } = JSON.parse(line) as { url: string };
    const client = new Anthropic({ apiKey: "any", baseURL: url, maxRetries: 0 });
    let deltas = 0;
    for await (const event of client.messages.stream(ask("hello"))) if (event.type === "content_block_delta") deltas++;
    assert.equal(deltas, 7);
  } finally {
    child.kill("SIGTERM");
  }
  assert.deepEqual(await exited, [0, null]);
});
