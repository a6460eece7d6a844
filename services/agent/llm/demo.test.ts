import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { runLoop } from "../engine/loop.ts";
import type { ToolSpec } from "../engine/tool-spec.ts";
import type { ModelEvent, ModelMessage, ModelRequest } from "./chat-model.ts";
import { createDemoModel, estimateTokens, pieces } from "./demo.ts";
import { readIntents } from "./demo-intent.ts";

const tools: ToolSpec[] = [
  {
    name: "current_time",
    description: "The time.",
    inputSchema: { type: "object", properties: { timezone: { type: "string" } }, additionalProperties: false },
    concurrencySafe: true,
  },
  {
    name: "calculator",
    description: "Computes.",
    inputSchema: {
      type: "object",
      properties: { expression: { type: "string" } },
      required: ["expression"],
      additionalProperties: false,
    },
    concurrencySafe: true,
  },
  {
    name: "todo",
    description: "A list.",
    inputSchema: {
      type: "object",
      properties: { action: { enum: ["add", "list", "complete"] }, text: { type: "string" }, id: { type: "integer" } },
      required: ["action"],
      additionalProperties: false,
    },
  },
];

const user = (text: string): ModelMessage => ({ role: "user", content: [{ type: "text", text }] });
const request = (messages: ModelMessage[], more: Partial<ModelRequest> = {}): ModelRequest => ({
  model: "demo",
  system: "",
  messages,
  tools,
  maxTokens: 100,
  ...more,
});

async function events(asked: ModelRequest, model = createDemoModel({ paceMs: 0 })): Promise<ModelEvent[]> {
  const seen: ModelEvent[] = [];
  for await (const event of model.stream(asked, { signal: new AbortController().signal })) seen.push(event);
  return seen;
}

/** A conversation that goes through the loop, with tools that answer as the platform's do. */
function conversation(more: { requireDoneTool?: boolean; tools?: ToolSpec[] } = {}) {
  const history: ModelMessage[] = [];
  const list: string[] = [];
  const called: string[] = [];
  let ids = 0;
  const say = async (said: string): Promise<string> => {
    history.push(user(said));
    const loop = runLoop({
      models: [{ kind: "primary", model: createDemoModel({ paceMs: 0 }), modelName: "demo", contextWindow: 200_000 }],
      system: "",
      history: [...history],
      tools: more.tools ?? tools,
      async executeTool({ name, argumentsJson }) {
        const input = JSON.parse(argumentsJson) as Record<string, string>;
        called.push(`${name} ${argumentsJson}`);
        return { content: [{ type: "text", text: run(name, input) }] };
      },
      limits: { maxIterations: 5, maxTokens: 1_000 },
      requireDoneTool: more.requireDoneTool ?? false,
      newItemId: (kind) => `${kind}_${++ids}`,
      signal: new AbortController().signal,
    });
    for (let next = await loop.next(); ; next = await loop.next()) {
      if (next.done) return next.value.text;
      if (next.value.type === "step_completed") history.push(...next.value.messages);
    }
  };
  const run = (name: string, input: Record<string, string>): string => {
    if (name === "calculator") return input["expression"] === "17 * 23" ? "391" : '{"result":42}';
    if (name === "current_time") return '{"time":"2026-11-03T14:05:09Z","timezone":"UTC"}';
    if (input["action"] === "add") list.push(input["text"] ?? "");
    return input["action"] === "list"
      ? JSON.stringify({ items: list.map((text, id) => ({ id, text, done: false })) })
      : "ok";
  };
  return { say, called };
}

describe("the demo model", () => {
  test("says that it is a demo model in the first answer, and not in every one", async () => {
    const { say } = conversation();
    assert.equal(
      await say("Hello!"),
      "Hello! What can I do for you? (I am agentmesh's built-in demo model. Set ANTHROPIC_API_KEY and Claude answers instead.)",
    );
    assert.equal(await say("Thanks"), "You're welcome! Anything else?");
    assert.match(await say("Who are you?"), /demo model/);
    assert.match(await say("Write me a novel"), /demo model/);
  });

  test("looks at the clock and calculates in one turn, and answers with what the tools said", async () => {
    const { say, called } = conversation();
    const answer = await say("What time is it, and what is 17 * 23?");
    assert.deepEqual(called, ["current_time {}", 'calculator {"expression":"17 * 23"}']);
    assert.match(answer, /^It is 14:05 on Tuesday, 3 November 2026 \(UTC\)\. 17 × 23 is 391\. \(I am .*demo model/);
  });

  test("keeps a to-do list over many turns, and remembers a name", async () => {
    const { say, called } = conversation();
    await say("My name is Ada.");
    assert.equal(await say("What's on my to-do list?"), "Your to-do list is empty. Enjoy it while it lasts!");
    assert.equal(await say("Remind me to water the plants."), "Done: “water the plants” is on your to-do list now.");
    assert.equal(await say("Add milk and eggs to my list"), "Done: “milk and eggs” is on your to-do list now.");
    assert.equal(await say("Show my list"), "This is on your to-do list:\n- water the plants\n- milk and eggs");
    assert.equal(await say("Mark 1 as done"), "Well done! I have ticked off “1”.");
    assert.equal(called.at(-1), 'todo {"action":"complete","id":1}');
    assert.equal(await say("What is my name?"), "You told me that your name is Ada.");
    assert.equal(await say("What did I just say?"), "Before that you said: “What is my name?”");
  });

  test("speaks Chinese when it is spoken to in Chinese", async () => {
    const { say, called } = conversation();
    assert.equal(
      await say("现在几点？另外 (3+4)*6 等于多少？"),
      "现在是2026年11月3日星期二 14:05（UTC）。(3+4) × 6 等于 42。（我是 agentmesh 自带的演示模型；设置 ANTHROPIC_API_KEY 后由 Claude 回答。）",
    );
    assert.equal(await say("提醒我给花浇水"), "好的，已把“给花浇水”加入您的待办清单。");
    assert.equal(await say("我的待办清单里有什么？"), "您的待办清单：\n- 给花浇水");
    await say("东京现在几点");
    assert.equal(called.at(-1), 'current_time {"timezone":"Asia/Tokyo"}');
    assert.match(await say("讲个笑话"), /演示模型/);
  });

  test("ends with the done tool where its agent needs it, saying the answer once", async () => {
    const { say } = conversation({ requireDoneTool: true });
    assert.match(await say("What is 17 * 23?"), /^17 × 23 is 391\./);
    assert.equal(await say("Thank you"), "You're welcome! Anything else?");
  });

  test("calls no tool that it has not got or may not use, and says what it can do", async () => {
    const none = conversation({ tools: [] });
    assert.match(await none.say("What time is it?"), /I have no tools here/);
    const one = conversation({ tools: tools.filter(({ name }) => name === "calculator") });
    assert.match(await one.say("What can you do?"), /^I can do arithmetic\. Try “What is 17 \* 23\?”\./);
    const forbidden = await events(request([user("What is 1 + 1?")], { toolChoice: "none" }));
    assert.ok(!forbidden.some((event) => event.type === "tool_call"));
  });

  test("tells of a tool that failed", async () => {
    const seen = await events(
      request([
        user("What is 1 / 0?"),
        { role: "assistant", content: [{ type: "tool_call", callId: "c", name: "calculator", argumentsJson: "{}" }] },
        {
          role: "tool",
          content: [
            { type: "tool_result", callId: "c", content: [{ type: "text", text: "Division by zero." }], isError: true },
          ],
        },
      ]),
    );
    const said = seen.flatMap((event) => (event.type === "text_delta" ? [event.text] : [])).join("");
    assert.match(said, /^That did not work, I'm afraid: Division by zero\./);
  });

  test("streams in small deltas, text before calls, usage and finish at the end, the same each time", async () => {
    const asked = request([user("What time is it in Tokyo, and what is 6 times 7?")]);
    const seen = await events(asked);
    assert.deepEqual(await events(asked), seen);
    const types = seen.map((event) => event.type).filter((type, i, all) => type !== all[i - 1]);
    const oneCall = ["tool_call_started", "tool_arguments_delta", "tool_call"];
    assert.deepEqual(types, ["usage", "text_delta", ...oneCall, ...oneCall.slice(0, 3), "usage", "finish"]);
    assert.ok(seen.filter((event) => event.type === "text_delta").length > 5);
    assert.deepEqual(seen.at(-1), { type: "finish", reason: "tool_use" });
    const ids = seen.flatMap((event) => (event.type === "tool_call" ? [event.id] : []));
    assert.deepEqual(ids, ["demo_1", "demo_2"]);
    const usage = seen.findLast((event) => event.type === "usage");
    assert.ok(usage && usage.provider === "demo" && usage.inputTokens > 50 && usage.outputTokens > 5);
  });

  test("stops at once when its signal fires", async () => {
    const abort = new AbortController();
    const reason = new Error("stop");
    const seen: ModelEvent[] = [];
    await assert.rejects(async () => {
      for await (const event of createDemoModel({ paceMs: 60_000 }).stream(request([user("Hi")]), {
        signal: abort.signal,
      })) {
        seen.push(event);
        setImmediate(() => abort.abort(reason));
      }
    }, reason);
    assert.equal(seen.length, 1);
  });

  test("begins with a notice where it stands in for another model", async () => {
    const [first] = await events(
      request([user("Hi")], { model: "claude-x" }),
      createDemoModel({ paceMs: 0, substitute: true }),
    );
    assert.deepEqual(first, {
      type: "notice",
      reason: "DEMO_MODEL",
      message: "No API key for claude-x is configured; the built-in demo model answers in its place.",
      facts: { model: "claude-x" },
    });
  });

  test("reads arithmetic in words and signs, and no dates, times or ranges", () => {
    const cases: [string, string | undefined][] = [
      ["what is 12 plus 30 times 2?", "12 + 30 * 2"],
      ["1,234 × 5", "1234 * 5"],
      ["(1 + 2) * 3 = ?", "(1 + 2) * 3"],
      ["what's 15% of 80", "15 / 100 * 80"],
      ["the square root of 144", "sqrt(144)"],
      ["2 to the power of 10?", "2 ^ 10"],
      ["100 除以 8 再见", "100 / 8"],
      ["what is -3 + 4?", "-3 + 4"],
      ["Is 5 x 6 30?", "5 * 6"],
      ["I was born on 2001-02-03 at 12:30", undefined],
      ["open 24/7", undefined],
      ["I have 3 cats", undefined],
      ["", undefined],
    ];
    for (const [text, expression] of cases) {
      const intent = readIntents(text).find(({ kind }) => kind === "arithmetic");
      assert.equal(intent?.kind === "arithmetic" ? intent.expression : undefined, expression, text);
    }
  });

  test("answers anything at all, and its pieces joined are its answer", async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.string({ unit: "binary" })), async (text) => {
        assert.equal(pieces(text).join(""), text);
        const seen = await events(request([user(text)]));
        assert.equal(seen.at(-1)?.type, "finish");
      }),
    );
    assert.equal(estimateTokens("你好 word"), 4);
    for (const hostile of ["what is ", "remind me to ", "((((", "9 9 ", "1+", "我的名字叫"]) {
      await events(request([user(hostile.repeat(100_000 / hostile.length))]));
    }
  });
});
