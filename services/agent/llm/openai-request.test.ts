import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { chatRefusal } from "#platform/testing/model-server/check-chat-request.ts";
import type { ModelMessage, ModelRequest } from "./chat-model.ts";
import { type CompletionsBodyOptions, toCompletionsBody } from "./openai-request.ts";

const image = { type: "image", mediaType: "image/png", data: "aGk=" } as const;
const text = (words: string) => ({ type: "text", text: words }) as const;
const user = (words: string): ModelMessage => ({ role: "user", content: [text(words)] });
const request: ModelRequest = {
  model: "llama-4",
  system: "Be brief.",
  messages: [user("6*7?")],
  tools: [{ name: "calculator", description: "Computes.", inputSchema: { type: "object" } }],
  maxTokens: 1_000,
};

function bodyOf(more: Partial<ModelRequest> = {}, options: Partial<CompletionsBodyOptions> = {}) {
  const body = toCompletionsBody({ ...request, ...more }, { baseUrl: "http://models.internal/v1", ...options });
  assert.equal(chatRefusal(JSON.parse(JSON.stringify(body))), undefined);
  return body;
}

const toolLoop: ModelMessage[] = [
  user("6*7 and a picture?"),
  {
    role: "assistant",
    content: [
      { type: "thinking", text: "Hm.", signature: "", origin: "openai" },
      { type: "thinking", text: "secret", signature: "c2ln", origin: "anthropic" },
      text("Let me see."),
      { type: "tool_call", callId: "call_1", providerCallId: "p1", name: "calculator", argumentsJson: '{"e":"6*7"}' },
      { type: "tool_call", callId: "call_2", name: "camera", argumentsJson: "{broken" },
      { type: "tool_call", callId: "call_3", providerCallId: "x".repeat(41), name: "", argumentsJson: "" },
    ],
  },
  {
    role: "tool",
    content: [
      { type: "tool_result", callId: "call_1", content: [text("42")], isError: false },
      { type: "tool_result", callId: "call_2", content: [text("here"), image], isError: false },
      { type: "tool_result", callId: "call_3", content: [text("unknown tool")], isError: true },
    ],
  },
];

describe("a request to Chat Completions", () => {
  test("behaviour 42: results are messages after their calls, an error says so, images follow as a user's message", () => {
    const { messages } = bodyOf({ messages: [...toolLoop, { ...user("hurry"), hidden: true } as ModelMessage] });
    assert.deepEqual(messages.slice(2), [
      {
        role: "assistant",
        content: "Let me see.",
        tool_calls: [
          { id: "p1", type: "function", function: { name: "calculator", arguments: '{"e":"6*7"}' } },
          {
            id: "call_2",
            type: "function",
            function: { name: "camera", arguments: '{"invalid_arguments":"{broken"}' },
          },
          { id: "call_3", type: "function", function: { name: "unnamed", arguments: "{}" } },
        ],
      },
      { role: "tool", tool_call_id: "p1", content: "42" },
      { role: "tool", tool_call_id: "call_2", content: "here\n[image: in the next message]" },
      { role: "tool", tool_call_id: "call_3", content: "Error: unknown tool" },
      {
        role: "user",
        content: [
          { type: "text", text: "[shown by the tool call call_2]" },
          { type: "image_url", image_url: { url: "data:image/png;base64,aGk=" } },
          { type: "text", text: "hurry" },
        ],
      },
    ]);
  });

  test("behaviour 43: reasoning goes back inside the loop that it belongs to, to servers that showed it, and not to OpenAI", () => {
    const thoughts = (body: ReturnType<typeof bodyOf>) =>
      body.messages.flatMap((m) => ("reasoning_content" in m ? [m.reasoning_content] : []));
    assert.deepEqual(thoughts(bodyOf({ messages: toolLoop })), ["Hm."]);
    const answered = [...toolLoop, { role: "assistant", content: [text("42")] } as ModelMessage, user("Thanks")];
    assert.deepEqual(thoughts(bodyOf({ messages: answered })), []);
    assert.deepEqual(thoughts(bodyOf({ messages: toolLoop, model: "gpt-6-sol" })), []);
  });

  test("ids of messages and what is hidden stay here", () => {
    const messages = [{ ...user("x"), id: "msg_1", hidden: true } as ModelMessage];
    assert.deepEqual(bodyOf({ messages }).messages, [
      { role: "system", content: "Be brief." },
      { role: "user", content: "x" },
    ]);
  });

  test("messages without content are left out, neighbours of one role are one message", () => {
    const empty: ModelMessage = { role: "assistant", content: [text("  ")] };
    assert.deepEqual(bodyOf({ system: "", messages: [user("a"), empty, user(""), user("b")] }).messages, [
      { role: "user", content: "a\n\nb" },
    ]);
  });

  test("a result without text and an image that no model sees are told in words", () => {
    const messages: ModelMessage[] = [
      { role: "assistant", content: [{ type: "tool_call", callId: "call_1", name: "t", argumentsJson: "[]" }] },
      { role: "tool", content: [{ type: "tool_result", callId: "call_1", content: [], isError: false }] },
      { role: "user", content: [{ type: "image", mediaType: "image/tiff", data: "x" }] },
    ];
    assert.deepEqual(bodyOf({ system: "", messages }).messages.slice(1), [
      { role: "tool", tool_call_id: "call_1", content: "(no output)" },
      { role: "user", content: [{ type: "text", text: "[image of type image/tiff, which you cannot see]" }] },
    ]);
  });

  test("instructions are a developer's for OpenAI's models that think and the system's for all others", () => {
    assert.equal(bodyOf({ model: "gpt-6-sol" }).messages[0]?.role, "developer");
    assert.equal(bodyOf({ model: "gpt-4o" }).messages[0]?.role, "system");
    assert.equal(bodyOf().messages[0]?.role, "system");
  });

  test("the output's limit has the name that server and model know, or the configured one", () => {
    const limits = (more: Partial<ModelRequest>, options: Partial<CompletionsBodyOptions> = {}) => {
      const { max_tokens, max_completion_tokens } = bodyOf(more, options);
      return [max_tokens, max_completion_tokens];
    };
    assert.deepEqual(limits({}), [1_000, undefined]);
    assert.deepEqual(limits({ model: "gpt-6-sol" }), [undefined, 1_000]);
    assert.deepEqual(limits({ model: "gpt-4o" }, { baseUrl: "https://api.openai.com/v1" }), [undefined, 1_000]);
    assert.deepEqual(limits({ model: "gpt-4o" }, { baseUrl: "https://api.openai.com.evil.example" }), [
      1_000,
      undefined,
    ]);
    assert.deepEqual(limits({ model: "gpt-6-sol" }, { maxTokensField: "max_tokens" }), [1_000, undefined]);
    assert.deepEqual(limits({}, { maxTokensField: "max_completion_tokens" }), [undefined, 1_000]);
    assert.deepEqual(limits({ maxTokens: 10_000_000 }), [16_384, undefined]);
    assert.deepEqual(limits({ maxTokens: 0 }), [1, undefined]);
  });

  test("tools and the choice among them are left out where there are none or nothing is chosen", () => {
    assert.ok(!("tool_choice" in bodyOf()));
    assert.equal(bodyOf({ toolChoice: "any" }).tool_choice, "required");
    assert.equal(bodyOf({ toolChoice: "none" }).tool_choice, "none");
    assert.deepEqual(bodyOf({ toolChoice: { tool: "calculator" } }).tool_choice, {
      type: "function",
      function: { name: "calculator" },
    });
    const without = bodyOf({ tools: [], toolChoice: "none", messages: toolLoop });
    assert.ok(!("tools" in without) && !("tool_choice" in without));
  });

  test("the end user's id has the field that the server knows", () => {
    const metadata = { userId: "u1" };
    assert.equal(bodyOf({ metadata }).user, "u1");
    const official = bodyOf({ metadata }, { baseUrl: "https://api.openai.com/v1" });
    assert.deepEqual([official.user, official.safety_identifier], [undefined, "u1"]);
  });
});
