import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, text, thinking, used } from "../llm/testing/scripted-model.ts";
import { answers, outline, play, resultsIn, user } from "./testing/play.ts";

const answer = (said: string): Script => [...text(said), finish()];
const calls = (...names: string[]): Script => [...names.flatMap((name) => call(name)), finish("tool_use")];
const hiddenIn = (history: ModelMessage[]) =>
  history.filter((message) => message.role === "user" && message.hidden === true);
const reasons = (events: { type: string }[]) => events.flatMap((e) => ("reason" in e ? [e.reason] : []));

describe("the loop ends", () => {
  test("behaviour 1: with the text of a reply without calls", async () => {
    const { result, history, events } = await play([answer("Hello there")]);
    assert.deepEqual(result, {
      outcome: "ANSWERED",
      text: "Hello there",
      usage: [
        {
          provider: "scripted",
          model: "m-1",
          inputTokens: 0,
          cacheReadTokens: 0,
          cacheWriteTokens: 0,
          outputTokens: 0,
        },
      ],
    });
    assert.deepEqual(history.at(-1), { role: "assistant", content: [{ type: "text", text: "Hello there" }] });
    assert.deepEqual(outline(events), [
      "step_started",
      "message_started",
      "text_delta",
      "model_called",
      "message_completed",
      "step_completed",
    ]);
  });

  test("behaviour 1: with an empty text when the model says nothing, and a notice says so", async () => {
    const { result, history, events } = await play([[finish()]]);
    assert.equal(result?.outcome, "ANSWERED");
    assert.equal(result.text, "");
    assert.equal(history.length, 1);
    assert.deepEqual(reasons(events), ["EMPTY_ANSWER"]);
  });

  test("behaviour 2: with a tool that says it is done, in either mode, and stores its result", async () => {
    const tools = { finishUp: { run: async () => ({ ...answers("ok"), done: { message: "All done" } }) } };
    for (const requireDoneTool of [false, true]) {
      const { result, history, events } = await play([calls("finishUp")], { tools, requireDoneTool });
      assert.deepEqual([result?.outcome, result?.text], ["DONE_TOOL", "All done"]);
      assert.deepEqual(resultsIn(history), [["call_1", "ok", false]]);
      assert.deepEqual(history.at(-1), { role: "assistant", content: [{ type: "text", text: "All done" }] });
      assert.ok(events.some((event) => event.type === "message_completed"));
    }
  });

  test("behaviour 2: with the built-in done tool, whose message is the answer and is not said twice", async () => {
    const script = [...text("It is 42."), ...call("done", { message: "It is 42." }), finish("tool_use")];
    const { result, events, history } = await play([script], { requireDoneTool: true });
    assert.deepEqual([result?.outcome, result?.text], ["DONE_TOOL", "It is 42."]);
    assert.equal(events.filter((event) => event.type === "message_completed").length, 1);
    assert.deepEqual(
      resultsIn(history).map(([, , isError]) => isError),
      [false],
    );
  });

  test("behaviours 3 and 4: a text-only reply does not end a run that needs the done tool: a hidden reminder follows", async () => {
    const { result, model, history } = await play(
      [answer("Finished!"), [...call("done", { message: "Yes" }), finish("tool_use")]],
      { requireDoneTool: true },
    );
    assert.equal(result?.outcome, "DONE_TOOL");
    const reminder = model.requests[1]?.messages.at(-1);
    assert.ok(reminder?.role === "user" && reminder.hidden);
    assert.match(JSON.stringify(reminder), /`done`/);
    assert.deepEqual(hiddenIn(history), [reminder]);
    assert.ok(model.requests.every(({ tools }) => tools.some(({ name }) => name === "done")));
  });

  test("behaviour 4: after k text-only replies in a row it is INCOMPLETE; a tool turn between them starts the count anew", async () => {
    const end = await play([answer("a"), answer("b")], { requireDoneTool: true });
    assert.deepEqual([end.result?.outcome, end.result?.text], ["INCOMPLETE", "b"]);
    assert.equal(hiddenIn(end.history).length, 1);
    const again = await play([answer("a"), calls("t"), answer("b"), answer("c")], {
      requireDoneTool: true,
      tools: { t: {} },
    });
    assert.deepEqual([again.result?.outcome, again.result?.text], ["INCOMPLETE", "c"]);
    const three = await play([answer("a"), answer("b"), answer("c")], {
      requireDoneTool: true,
      limits: { maxTextOnlyReplies: 3 },
    });
    assert.deepEqual([three.result?.outcome, three.result?.text], ["INCOMPLETE", "c"]);
  });

  test("behaviour 9: after exactly n tool turns with one call of the model in which tools are forbidden", async () => {
    for (const maxIterations of [1, 3]) {
      const turns = Array.from({ length: maxIterations }, () => calls("t"));
      const { result, model, executed } = await play([...turns, answer("So far so good")], {
        tools: { t: {} },
        limits: { maxIterations },
      });
      assert.deepEqual([result?.outcome, result?.text], ["MAX_ITERATIONS", "So far so good"]);
      assert.equal(executed.length, maxIterations);
      assert.deepEqual(
        model.requests.map((request) => request.toolChoice),
        [...turns.map(() => "auto"), "none"],
      );
      assert.equal(model.requests.at(-1)?.tools.length, 1);
    }
  });

  test("behaviour 10: the last answer is stored with its hidden request, billed, and a failed attempt is asked again", async () => {
    const retry = { type: "retry", attempt: 2, delayMs: 5, kind: "overloaded" } as const;
    const summary: Script = [used(3), retry, used(5, 1, 2, 7), ...text("Sum"), finish()];
    const { result, history, events } = await play([[used(1), ...calls("t")], summary], {
      tools: { t: {} },
      limits: { maxIterations: 1 },
    });
    assert.deepEqual(result?.usage, [
      { provider: "scripted", model: "m-1", inputTokens: 9, cacheReadTokens: 1, cacheWriteTokens: 2, outputTokens: 7 },
    ]);
    assert.deepEqual(
      history.slice(-2).map((message) => message.role),
      ["user", "assistant"],
    );
    assert.equal(hiddenIn(history).length, 1);
    assert.ok(reasons(events).includes("MODEL_RETRY"));
  });

  test("behaviour 9: a call in the last answer is not made", async () => {
    const { result, executed, events } = await play([calls("t"), [...text("Hm"), ...call("t"), finish("tool_use")]], {
      tools: { t: {} },
      limits: { maxIterations: 1 },
    });
    assert.deepEqual([result?.outcome, result?.text, executed.length], ["MAX_ITERATIONS", "Hm", 1]);
    assert.ok(events.some((event) => event.type === "item_discarded" && event.cause === "not_executed"));
  });

  test("behaviours 11 and 12: open work gives one more turn after a hidden message, and the text before it is still told", async () => {
    let asked = 0;
    const unfinishedWork = async () => (asked++ === 0 ? "Two todos are open." : undefined);
    const { result, history, events } = await play([answer("I am done."), answer("Now I am.")], { unfinishedWork });
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "Now I am."]);
    assert.deepEqual(hiddenIn(history), [
      { role: "user", hidden: true, content: [{ type: "text", text: "Two todos are open." }] },
    ]);
    assert.equal(events.filter((event) => event.type === "message_completed").length, 2);
    assert.equal(asked, 1);
  });

  test("behaviour 13: at the token limit as LENGTH, and a call that was cut with it is not made", async () => {
    const half: Script = [
      ...text("Half a"),
      { type: "tool_call_started", id: "x", name: "t" },
      { type: "tool_arguments_delta", id: "x", json: '{"a' },
    ];
    const cut = await play(
      [[...half, { type: "tool_call", id: "x", name: "t", argumentsJson: '{"a' }, finish("length")]],
      { tools: { t: {} } },
    );
    assert.deepEqual([cut.result?.outcome, cut.result?.text, cut.executed], ["LENGTH", "Half a", []]);
    assert.deepEqual(cut.history.at(-1), { role: "assistant", content: [{ type: "text", text: "Half a" }] });
    const last = await play([calls("t"), [...text("Half"), finish("length")]], {
      tools: { t: {} },
      limits: { maxIterations: 1 },
    });
    assert.equal(last.result?.outcome, "MAX_ITERATIONS");
    assert.deepEqual(reasons(last.events), ["ANSWER_CUT"]);
  });

  test("behaviour 13: at a refusal as REFUSED, without making calls", async () => {
    const { result, executed } = await play([[...text("I can't"), ...call("t"), finish("refusal")]], {
      tools: { t: {} },
    });
    assert.deepEqual([result?.outcome, result?.text, executed], ["REFUSED", "I can't", []]);
  });

  test("behaviour 13: a pause is gone on from, with the same message sent back, and the answer is all of it", async () => {
    const { result, model, events } = await play([
      [...thinking("Hm"), ...text("One "), finish("pause")],
      answer("two"),
    ]);
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "One two"]);
    assert.equal(model.requests[1]?.messages.at(-1)?.role, "assistant");
    assert.equal(events.filter((event) => event.type === "step_completed").length, 2);
  });

  test("behaviour 13: a model that pauses for ever is INCOMPLETE", async () => {
    const pauses = Array.from({ length: 3 }, (): Script => [...text("a "), finish("pause")]);
    const { result, events } = await play(pauses, { limits: { maxPauses: 2 } });
    assert.deepEqual([result?.outcome, result?.text], ["INCOMPLETE", "a a a "]);
    assert.deepEqual(reasons(events), ["ANSWER_CUT"]);
  });

  test("behaviour 13: a reason that is not known is an answer with a notice", async () => {
    for (const script of [[...text("Well"), finish("other")], [...text("Well")]]) {
      const { result, events } = await play([script]);
      assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "Well"]);
      assert.deepEqual(reasons(events), ["STOP_REASON_UNKNOWN"]);
    }
  });

  test("by throwing the model's error, after the step is completed without a message", async () => {
    const failure = new ModelError("server", { retryable: true });
    const { error, events, history } = await play([[used(7), ...thinking("Hm"), ...text("Half"), failure]]);
    assert.equal(error, failure);
    assert.equal(history.length, 1);
    assert.deepEqual(outline(events).slice(-3), ["item_discarded", "model_called", "step_completed"]);
    const last = events.at(-1);
    assert.ok(last?.type === "step_completed" && last.finishReason === "error" && last.usage.inputTokens === 7);
  });
});

describe("every request of the loop", () => {
  test("behaviour 17: has the system prompt once, as configuration", async () => {
    const { model, history } = await play([calls("t"), answer("ok")], {
      tools: { t: {} },
      history: [user("a"), { role: "assistant", content: [{ type: "text", text: "b" }] }, user("c")],
    });
    assert.deepEqual(
      model.requests.map((request) => request.system),
      ["Be brief.", "Be brief."],
    );
    assert.ok(!JSON.stringify(history).includes("Be brief."));
  });

  test("behaviour 15: is made on a repaired history, of which a notice tells", async () => {
    const broken: ModelMessage[] = [
      user("a"),
      { role: "assistant", content: [{ type: "tool_call", callId: "call_x", name: "t", argumentsJson: "{}" }] },
      user("b"),
    ];
    const { model, events, result } = await play([answer("ok")], { history: broken, tools: { t: {} } });
    assert.equal(result?.outcome, "ANSWERED");
    assert.deepEqual(events[0], {
      type: "notice",
      reason: "HISTORY_REPAIRED",
      message: "An earlier run broke off; its open tool calls were closed.",
      facts: { added: "1", dropped: "0" },
      retrying: false,
    });
    assert.deepEqual(
      resultsIn([...(model.requests[0]?.messages ?? [])]).map(([id, , isError]) => [id, isError]),
      [["call_x", true]],
    );
  });

  test("behaviour 43: has the thinking of the tool loop in it, unchanged and in its place", async () => {
    const redacted = {
      type: "thinking",
      text: "",
      signature: "ZGF0YQ==",
      redacted: true,
      origin: "anthropic",
    } as const;
    const script: Script = [
      ...thinking("Hm.", "abc"),
      { type: "thinking", part: redacted },
      ...text("Now"),
      ...call("t", { a: 1 }, "toolu_9"),
      finish("tool_use"),
    ];
    const { model } = await play([script, answer("ok")], { tools: { t: {} } });
    assert.deepEqual(model.requests[1]?.messages[1], {
      role: "assistant",
      content: [
        { type: "thinking", text: "Hm.", signature: "abc", origin: "anthropic" },
        redacted,
        { type: "text", text: "Now" },
        { type: "tool_call", callId: "call_1", providerCallId: "toolu_9", name: "t", argumentsJson: '{"a":1}' },
      ],
    });
  });

  test("passes on temperature, metadata, limits and the call's own key", async () => {
    const { model } = await play([answer("ok")], {
      temperature: 0.5,
      metadata: { userId: "u" },
      limits: { maxTokens: 77 },
    });
    const { temperature, metadata, maxTokens } = model.requests[0] ?? {};
    assert.deepEqual([temperature, metadata, maxTokens], [0.5, { userId: "u" }, 77]);
  });
});

describe("the events of the loop", () => {
  test("behaviour 18: come in the order thinking, text, then for each call start, arguments, request, result", async () => {
    const script: Script = [
      ...thinking("Let me see."),
      ...text("I will look."),
      ...call("a", { x: 1 }),
      ...call("b"),
      finish("tool_use"),
    ];
    const { events } = await play([script, answer("ok")], { tools: { a: {}, b: {} } });
    const first = events.slice(0, events.findIndex((event) => event.type === "step_completed") + 1);
    assert.deepEqual(outline(first), [
      "step_started",
      "reasoning_delta",
      "message_started",
      "text_delta",
      "tool_call_started",
      "tool_call_arguments_delta",
      "tool_call_started",
      "tool_call_arguments_delta",
      "model_called",
      "reasoning_completed",
      "message_completed",
      "tool_call_requested",
      "calls_planned",
      "tool_call_completed",
      "step_completed",
    ]);
  });

  test("behaviour 19: have one step_completed for each step, with what it adds to the history and costs", async () => {
    const { events } = await play(
      [
        [used(1, 2, 3, 4), ...calls("t")],
        [used(5), ...answer("ok")],
      ],
      { tools: { t: {} } },
    );
    const steps = events.filter((event) => event.type === "step_completed");
    assert.deepEqual(
      steps.map(({ step, finishReason, messages }) => [step, finishReason, messages.map(({ role }) => role)]),
      [
        [1, "tool_use", ["assistant", "tool"]],
        [2, "end_turn", ["assistant"]],
      ],
    );
    assert.deepEqual(steps[0]?.usage, {
      provider: "scripted",
      model: "m-1",
      inputTokens: 1,
      cacheReadTokens: 2,
      cacheWriteTokens: 3,
      outputTokens: 4,
    });
  });

  test("behaviour 21: offsets count UTF-8 bytes", async () => {
    const { events } = await play([answer("é 你好 😀 end")]);
    const offsets = events.flatMap((event) => (event.type === "text_delta" ? [event.offset] : []));
    assert.deepEqual(offsets, [0, 3, 10, 15]);
  });

  test("behaviour 23: tell of a retry, and a discard voids what was shown of the step", async () => {
    const retry = { type: "retry", attempt: 2, delayMs: 1_000, kind: "connection" } as const;
    const script: Script = [
      used(4),
      ...thinking("Hm"),
      ...text("Half"),
      ...call("t"),
      { type: "discard" },
      retry,
      used(6),
      ...text("Whole"),
      finish(),
    ];
    const { events, result, history } = await play([script], { tools: { t: {} } });
    assert.deepEqual(
      events.find((event) => event.type === "item_discarded"),
      { type: "item_discarded", step: 1, cause: "model_retry" },
    );
    assert.deepEqual(
      events.find((event) => event.type === "notice"),
      {
        type: "notice",
        reason: "MODEL_RETRY",
        message: "The model did not answer; trying again.",
        facts: { attempt: "2", delay_ms: "1000", kind: "connection" },
        retrying: true,
      },
    );
    assert.equal(result?.text, "Whole");
    assert.equal(result.usage[0]?.inputTokens, 10);
    assert.deepEqual(history.at(-1), { role: "assistant", content: [{ type: "text", text: "Whole" }] });
  });

  test("give the same notice of a model once in a run", async () => {
    const notice = { type: "notice", reason: "DEMO_MODEL", message: "m", facts: { a: "b" } } as const;
    const { events } = await play(
      [
        [notice, ...calls("t")],
        [notice, ...answer("ok")],
      ],
      { tools: { t: {} } },
    );
    assert.deepEqual(reasons(events), ["DEMO_MODEL"]);
  });

  test("cost the same for the last delta of a long message as for the first", async () => {
    // Counted, not timed: how often the text so far is looked at.
    const piece = "0123456789";
    const script = Array.from({ length: 20_000 }, () => ({ type: "text_delta", text: piece }) as const);
    const before = Buffer.byteLength;
    let counted = 0;
    Buffer.byteLength = (text, encoding) => {
      counted += (text as string).length;
      return before(text as string, encoding);
    };
    try {
      const { result } = await play([[...script, finish()]]);
      assert.equal(result?.text.length, 200_000);
    } finally {
      Buffer.byteLength = before;
    }
    assert.ok(counted <= 3 * 200_000, `${counted} characters were measured`);
  });
});
