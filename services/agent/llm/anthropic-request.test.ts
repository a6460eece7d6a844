import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "./anthropic-request.ts";
import type { ModelMessage, ModelRequest } from "./chat-model.ts";

const tools = ["calculator", "todo"].map((name) => ({ name, description: name, inputSchema: { type: "object" } }));
const request = (messages: ModelMessage[], more: Partial<ModelRequest> = {}): ModelRequest => ({
  model: "claude-sonnet-5-5",
  system: "Be brief.",
  messages,
  tools,
  maxTokens: 1_000,
  ...more,
});
const body = (messages: ModelMessage[], more: Partial<ModelRequest> = {}) => {
  const made = toMessagesBody(request(messages, more));
  assert.equal(refusal(made, "2026-10-21"), undefined);
  return made;
};
const user = (text: string, hidden = false): ModelMessage => ({
  role: "user",
  content: [{ type: "text", text }],
  ...(hidden && { hidden }),
});
const text = (said: string) => ({ type: "text", text: said });
const mark = { cache_control: { type: "ephemeral" } };

/** A history of `turns` tool turns with two calls each. */
function toolTurns(turns: number): ModelMessage[] {
  const messages = [user("Begin")];
  for (let i = 0; i < turns; i++) {
    messages.push(
      {
        role: "assistant",
        content: [
          { type: "text", text: `turn ${i}` },
          {
            type: "tool_call",
            callId: `call_a${i}`,
            providerCallId: `toolu_a${i}`,
            name: "calculator",
            argumentsJson: "{}",
          },
          { type: "tool_call", callId: `call_b${i}`, name: "todo", argumentsJson: '{"x":1}' },
        ],
      },
      {
        role: "tool",
        content: [
          { type: "tool_result", callId: `call_a${i}`, content: [{ type: "text", text: "1" }], isError: false },
          { type: "tool_result", callId: `call_b${i}`, content: [{ type: "text", text: "no" }], isError: true },
        ],
      },
    );
  }
  return messages;
}

describe("a request to Anthropic's API", () => {
  test("another provider's ids of calls are replaced where this one would refuse them", () => {
    const turn = (n: number, providerCallId?: string): ModelMessage[] => [
      {
        role: "assistant",
        content: [
          {
            type: "tool_call",
            callId: `call_${n}`,
            ...(providerCallId && { providerCallId }),
            name: "todo",
            argumentsJson: "{}",
          },
        ],
      },
      { role: "tool", content: [{ type: "tool_result", callId: `call_${n}`, content: [], isError: false }] },
    ];
    const history = [user("x"), ...turn(1, "same"), ...turn(2, "same"), ...turn(3, "functions.todo:0"), ...turn(4)];
    const ids = body(history).messages.flatMap(({ content }) =>
      typeof content === "string" ? [] : content.flatMap((block) => (block.type === "tool_use" ? [block.id] : [])),
    );
    assert.deepEqual(ids, ["same", "call_2", "call_3", "call_4"]);
  });

  test("behaviour 41: at most four cache breakpoints: the last tool, the system prompt and the two newest user messages", () => {
    const made = body(toolTurns(5));
    const marked = JSON.stringify(made).match(/"cache_control":\{"type":"ephemeral"\}/g) ?? [];
    assert.equal(marked.length, 4);
    assert.ok(!JSON.stringify(made).includes("null"));
    assert.deepEqual(
      made.tools?.map((tool) => "cache_control" in tool),
      [false, true],
    );
    assert.deepEqual(made.system, [{ type: "text", text: "Be brief.", ...mark }]);
    const places = made.messages.flatMap((message, i) =>
      JSON.stringify(message).includes("cache_control") ? [i] : [],
    );
    assert.deepEqual(places, [8, 10]);
  });

  test("behaviour 42: the results of a turn are one user message, errors are marked, images stay images", () => {
    const messages = toolTurns(1);
    const results = messages[2] as Extract<ModelMessage, { role: "tool" }>;
    results.content[0]!.content = [
      { type: "text", text: "a chart" },
      { type: "image", mediaType: "image/png", data: "AAAA" },
      { type: "image", mediaType: "image/tiff", data: "BBBB" },
    ];
    messages.push(user("Go on", true));
    assert.deepEqual(body(messages).messages.at(-1), {
      role: "user",
      content: [
        {
          type: "tool_result",
          tool_use_id: "toolu_a0",
          content: [
            text("a chart"),
            { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
            text("[image of type image/tiff, which you cannot see]"),
          ],
        },
        { type: "tool_result", tool_use_id: "call_b0", content: [text("no")], is_error: true },
        { ...text("Go on"), ...mark },
      ],
    });
  });

  test("behaviour 43: thinking goes back unchanged, signed and redacted; that of another provider is left out", () => {
    const thinking = { type: "thinking", text: "Hm.", signature: "c2ln", origin: "anthropic" } as const;
    const redacted = {
      type: "thinking",
      text: "",
      signature: "ZGF0YQ==",
      redacted: true,
      origin: "anthropic",
    } as const;
    const call = { type: "tool_call", callId: "call_1", name: "todo", argumentsJson: "{}" } as const;
    const foreign = { ...thinking, origin: "other" };
    const made = body([
      user("Hi"),
      { role: "assistant", content: [thinking, redacted, foreign, call] },
      { role: "tool", content: [{ type: "tool_result", callId: "call_1", content: [], isError: false }] },
    ]);
    assert.deepEqual(made.messages[1]?.content, [
      { type: "thinking", thinking: "Hm.", signature: "c2ln" },
      { type: "redacted_thinking", data: "ZGF0YQ==" },
      { type: "tool_use", id: "call_1", name: "todo", input: {} },
    ]);
  });

  test("images of the user are sent as images", () => {
    const made = body([{ role: "user", content: [{ type: "image", mediaType: "image/jpeg", data: "QUJD" }] }]);
    assert.deepEqual(made.messages[0]?.content, [
      { type: "image", source: { type: "base64", media_type: "image/jpeg", data: "QUJD" }, ...mark },
    ]);
  });

  test("arguments that are no object are shown to the model inside one", () => {
    for (const [argumentsJson, input] of [
      ["", {}],
      ["{bad", { invalid_arguments: "{bad" }],
      ["[1]", { invalid_arguments: "[1]" }],
      ["null", { invalid_arguments: "null" }],
      ['{"a":1}', { a: 1 }],
    ] as const) {
      const made = body([
        user("Hi"),
        { role: "assistant", content: [{ type: "tool_call", callId: "call_1", name: "todo", argumentsJson }] },
        { role: "tool", content: [{ type: "tool_result", callId: "call_1", content: [], isError: true }] },
      ]);
      assert.deepEqual(made.messages[1]?.content, [{ type: "tool_use", id: "call_1", name: "todo", input }]);
    }
  });

  test("a message without content is left out, and what is between two answers is one message", () => {
    const made = body([user("a"), { role: "assistant", content: [{ type: "text", text: "" }] }, user(""), user("b")]);
    assert.deepEqual(made.messages, [{ role: "user", content: [text("a"), { ...text("b"), ...mark }] }]);
  });

  test("system, tools and user id are sent only when there are any, and max_tokens as far as the model can", () => {
    const made = body([user("Hi")], { system: "", tools: [], maxTokens: 9_999_999 });
    assert.deepEqual(Object.keys(made).sort(), ["max_tokens", "messages", "model", "stream"]);
    assert.equal(made.max_tokens, 128_000);
    assert.deepEqual(body([user("Hi")], { metadata: { userId: "u1" } }).metadata, { user_id: "u1" });
  });

  test("a history with calls can be continued by an agent that has no tools", () => {
    const made = body(toolTurns(1), { tools: [] });
    assert.deepEqual(
      made.tools?.map((tool) => "name" in tool && tool.name),
      ["unavailable"],
    );
    assert.deepEqual(made.tool_choice, { type: "none" });
  });

  test("the tool choice is sent with the tools, which stay when calls are forbidden", () => {
    assert.deepEqual(body([user("Hi")]).tool_choice, { type: "auto" });
    assert.deepEqual(body([user("Hi")], { toolChoice: "none" }).tool_choice, { type: "none" });
    assert.equal(body([user("Hi")], { toolChoice: "none" }).tools?.length, 2);
    assert.deepEqual(body([user("Hi")], { toolChoice: { tool: "todo" } }).tool_choice, { type: "tool", name: "todo" });
  });
});
