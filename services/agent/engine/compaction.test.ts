import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, scriptedModel, text, used } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import type { CompactionSettings } from "./loop-input.ts";
import { answered, said, tokens, toolTurn } from "./testing/histories.ts";
import { play, resultsIn } from "./testing/play.ts";

const answer = (words: string): Script => [...text(words), finish()];
const summary = answer("Here:\n<summary>They talked.</summary>");
const compaction: CompactionSettings = { thresholdRatio: 0.7, summaryPrompt: "Keep names.", keepTurns: 1 };
const overflow = new ModelError("context_overflow", { retryable: false, status: 413 });
const small = [{ contextWindow: 10_000 }];

const first = said("My order 17 is late", "msg_first");
const last = said("And now?", "msg_last");
const turns = [1, 2, 3].flatMap((n) => [...toolTurn({ tool: "t", callId: `call_old${n}`, output: tokens(2_450) })]);
const long = [first, ...turns, answered("Wait.", "msg_wait"), last];
const short = [first, answered("Wait.", "msg_wait"), last];

const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const notices = (events: EngineEvent[]) => of(events, "notice").map(({ reason, facts }) => [reason, facts]);
const textOf = (message: ModelMessage | undefined) =>
  (message?.content ?? []).map((part) => ("text" in part ? part.text : "")).join("");

describe("compaction", () => {
  test("behaviour 35: at the ratio of the window the history is compacted before the model is asked", async () => {
    const { model, events, result } = await play([summary, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
    });
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "Soon."]);
    assert.equal(model.requests.length, 2);
    const [compacted] = of(events, "context_compacted");
    assert.ok(compacted !== undefined);
    assert.ok(compacted.tokensBefore >= 7_000 && compacted.tokensAfter < 200);
    assert.deepEqual(events[0]?.type, "model_called");
    assert.deepEqual(
      events.slice(1, 3).map(({ type }) => type),
      ["context_compacted", "step_started"],
    );
  });

  test("behaviour 35: below it not, and without a configuration never", async () => {
    const below = await play([answer("Soon.")], { history: short, rungs: small, compaction });
    assert.deepEqual(of(below.events, "context_compacted"), []);
    const off = await play([answer("Soon.")], { history: long, rungs: small });
    assert.deepEqual(of(off.events, "context_compacted"), []);
  });

  test("behaviour 35: by what the last call really used", async () => {
    const script: Script = [used(10, 6_970, 0, 20), ...call("t"), finish("tool_use")];
    const history = [first, answered(tokens(1_000)), answered("x"), last];
    const options = { history, rungs: small, compaction, tools: { t: {} } };
    const reached = await play([script, summary, answer("Soon.")], options);
    assert.equal(of(reached.events, "context_compacted").length, 1);
    const less: Script = [used(10, 6_000, 0, 20), ...call("t"), finish("tool_use")];
    const not = await play([less, answer("Soon.")], options);
    assert.equal(of(not.events, "context_compacted").length, 0);
  });

  test("behaviour 37: a large fresh result counts before the model is asked with it", async () => {
    const tools = { t: { run: async () => ({ content: [{ type: "text" as const, text: tokens(4_000) }] }) } };
    const script: Script = [used(4_000), ...call("t"), finish("tool_use")];
    const history = [first, answered(tokens(1_000)), answered("x"), last];
    const { events, model } = await play([script, summary, answer("Soon.")], {
      history,
      rungs: small,
      compaction,
      tools,
    });
    const [compacted] = of(events, "context_compacted");
    assert.ok(compacted !== undefined && compacted.tokensBefore > 7_000);
    assert.equal(resultsIn([...(model.requests[2]?.messages ?? [])]).length, 1, "the fresh result is still there");
  });

  test("behaviour 37: the provider's overflow compacts and asks once more", async () => {
    const { events, result, model } = await play([[overflow], summary, answer("Soon.")], { history: long, compaction });
    assert.equal(result?.text, "Soon.");
    assert.equal(model.requests.length, 3);
    assert.deepEqual(notices(events), [["CONTEXT_OVERFLOW", { model: "m-1" }]]);
    assert.deepEqual(
      of(events, "step_completed").map(({ finishReason, messages }) => [finishReason, messages.length]),
      [
        ["error", 0],
        ["end_turn", 1],
      ],
    );
  });

  test("behaviour 37: a second overflow in the same turn ends the run, as one that nothing can be done about does", async () => {
    const twice = await play([[overflow], summary, [overflow]], { history: long, compaction });
    assert.equal(twice.error, overflow);
    const nothing = await play([[overflow]], { history: [first], compaction });
    assert.equal(nothing.error, overflow);
    const noSummary = await play([[overflow], answer("<summary></summary>")], { history: long, compaction });
    assert.equal(noSummary.error, overflow);
  });

  test("behaviour 37: each turn has its own second try", async () => {
    const tools = { t: { run: async () => ({ content: [{ type: "text" as const, text: tokens(500) }] }) } };
    const turn = (): Script => [...call("t"), finish("tool_use")];
    const scripts = [[overflow], summary, turn(), turn(), [overflow], summary, answer("Soon.")];
    const { result, events } = await play(scripts, { history: long, compaction, tools });
    assert.equal(result?.text, "Soon.");
    assert.equal(of(events, "context_compacted").length, 2);
  });

  test("behaviour 37: without compaction the history is trimmed, and asked with once more", async () => {
    const { events, result, model } = await play([[overflow], answer("Soon.")], { history: long });
    assert.equal(result?.text, "Soon.");
    assert.deepEqual(notices(events), [
      ["CONTEXT_OVERFLOW", { model: "m-1" }],
      ["HISTORY_TRIMMED", { messages: "2" }],
    ]);
    assert.ok((model.requests[1]?.messages.length ?? 0) < long.length);
  });

  test("behaviour 38: system prompt, original request, open todos and the last turns survive", async () => {
    const openTodos = async () => ["Refund order 17"];
    const { model, events, history } = await play([summary, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
      openTodos,
    });
    const request = model.requests[1];
    assert.equal(request?.system, "Be brief.");
    const [original, stands, ...tail] = request.messages;
    assert.equal(textOf(original), "My order 17 is late");
    assert.match(textOf(stands), /They talked\.\n\nTodos that are still open:\n- Refund order 17/);
    assert.deepEqual(tail.map(textOf), ["Wait.", "And now?"]);
    const [compacted] = of(events, "context_compacted");
    assert.ok(compacted !== undefined);
    const { summary: said, messages, firstKeptMessageId, keptMessageIds, message } = compacted;
    assert.deepEqual(
      [said, messages, firstKeptMessageId, keptMessageIds],
      ["They talked.", 6, "msg_wait", ["msg_first"]],
    );
    assert.equal(textOf(message), textOf(stands));
    assert.match(message.id ?? "", /^msg_\d+$/);
    assert.equal(history.length, long.length + 1, "nothing stored is lost");
  });

  test("behaviour 38: todos that cannot be read do not stop it", async () => {
    const openTodos = () => Promise.reject(new Error("away"));
    const options = { history: long, rungs: small, compaction, openTodos };
    const { result } = await play([summary, answer("Soon.")], options);
    assert.equal(result?.text, "Soon.");
  });

  test("behaviour 38: of a long piece of work the request that is being worked on survives", async () => {
    const turn = (): Script => [...call("t"), finish("tool_use")];
    const tools = { t: { run: async () => ({ content: [{ type: "text" as const, text: tokens(2_400) }] }) } };
    const { model, events } = await play([turn(), turn(), turn(), summary, answer("Soon.")], {
      history: short,
      rungs: small,
      compaction,
      tools,
    });
    const [compacted] = of(events, "context_compacted");
    assert.deepEqual(compacted?.keptMessageIds, ["msg_first", "msg_last"]);
    const [original, request, stands, ...tail] = model.requests[4]?.messages ?? [];
    assert.deepEqual([textOf(original), textOf(request)], ["My order 17 is late", "And now?"]);
    assert.match(textOf(stands), /^<conversation_summary>/);
    assert.deepEqual(
      tail.map(({ role }) => role),
      ["assistant", "tool"],
    );
  });

  test("behaviour 39: an empty, cut, refused or failed summary changes nothing, and a notice says so", async () => {
    const cases: [Script, Record<string, string>][] = [
      [answer("<summary> </summary>"), { cause: "empty" }],
      [[finish()], { cause: "empty" }],
      [[...text("They tal"), finish("length")], { cause: "truncated" }],
      [[...text("They tal"), finish("pause")], { cause: "truncated" }],
      [[...text("I can't"), finish("refusal")], { cause: "refused" }],
      [answer(tokens(9_000)), { cause: "not_shorter" }],
      [[new ModelError("server", { retryable: true })], { cause: "model_failed", kind: "server" }],
    ];
    for (const [script, facts] of cases) {
      const { model, events, result } = await play([script, answer("Soon.")], {
        history: long,
        rungs: small,
        compaction,
      });
      assert.equal(result?.text, "Soon.");
      assert.deepEqual(notices(events), [["COMPACTION_FAILED", facts]]);
      assert.equal(model.requests[1]?.messages.length, long.length);
    }
  });

  test("behaviour 39: after a failure it is not tried in every turn", async () => {
    const empty = answer("<summary></summary>");
    const turn = (): Script => [...call("t"), finish("tool_use")];
    const same = await play([empty, turn(), turn(), answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
      tools: { t: {} },
    });
    assert.equal(same.result?.text, "Soon.");
    assert.equal(same.model.requests.length, 4, "one call for a summary, and three turns");
    assert.equal(notices(same.events).length, 1);
    const large = { run: async () => ({ content: [{ type: "text" as const, text: tokens(600) }] }) };
    const grown = await play([empty, turn(), summary, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
      tools: { t: large },
    });
    assert.equal(of(grown.events, "context_compacted").length, 1);
  });

  test("behaviour 40: the summary is asked of the run's model with its tools, forbidden, on the same prefix", async () => {
    const { model } = await play([summary, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
      tools: { t: {} },
      metadata: { userId: "u" },
    });
    const [asked, next] = model.requests;
    assert.deepEqual([asked?.model, asked?.system, asked?.toolChoice], ["m-1", "Be brief.", "none"]);
    assert.deepEqual(asked?.tools, next?.tools);
    assert.deepEqual(asked?.metadata, { userId: "u" });
    assert.equal(asked?.maxTokens, 1_250);
    assert.deepEqual(
      asked?.messages.slice(0, -1),
      long.slice(0, 7).map(({ id: _, ...message }) => message),
    );
    assert.match(textOf(asked?.messages.at(-1)), /^Keep names\./);
  });

  test("behaviours 40 and 46: a configured model writes it, with its own credential, and is billed for it", async () => {
    const writer = scriptedModel([used(500, 0, 0, 30), ...summary]);
    const credential = { apiKey: "k", id: "own:ten:1" };
    const summaryModel = {
      kind: "primary",
      model: writer,
      modelName: "s-1",
      credential,
      contextWindow: 9_000,
    } as const;
    const { events, result } = await play([[used(9), ...answer("Soon.")]], {
      history: long,
      rungs: small,
      compaction: { ...compaction, summaryModel },
    });
    assert.equal(writer.requests[0]?.model, "s-1");
    const [booked, turn] = of(events, "model_called");
    const { usage, ...rest } = booked ?? {};
    assert.equal(usage?.inputTokens, 500);
    assert.deepEqual(rest, {
      type: "model_called",
      step: 1,
      purpose: "summary",
      provider: "scripted",
      model: "m-1",
      credentialId: "own:ten:1",
      aborted: false,
    });
    assert.deepEqual([turn?.purpose, turn?.credentialId], ["turn", "platform"]);
    assert.equal(result?.usage[0]?.inputTokens, 509);
    const [step] = of(events, "step_completed");
    assert.equal(step?.usage.inputTokens, 9, "a step's usage is its own");
  });

  test("behaviour 40: a configured model that fails is stood in for by the run's own", async () => {
    const writer = scriptedModel([used(3), new ModelError("overloaded", { retryable: true })]);
    const summaryModel = { kind: "primary", model: writer, modelName: "s-1", contextWindow: 9_000 } as const;
    const { events } = await play([summary, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction: { ...compaction, summaryModel },
    });
    assert.equal(of(events, "context_compacted").length, 1);
    assert.deepEqual(
      of(events, "model_called").map(({ purpose, aborted }) => [purpose, aborted]),
      [
        ["summary", true],
        ["summary", false],
        ["turn", false],
      ],
    );
  });

  test("behaviours 23 and 40: a retry of the summary is told of and billed", async () => {
    const retry = { type: "retry", attempt: 2, delayMs: 5, kind: "overloaded" } as const;
    const script: Script = [used(7), ...text("Half"), { type: "discard" }, retry, used(8), ...summary];
    const { events, result } = await play([script, answer("Soon.")], { history: long, rungs: small, compaction });
    assert.deepEqual(
      notices(events).map(([reason]) => reason),
      ["MODEL_RETRY"],
    );
    assert.equal(result?.usage[0]?.inputTokens, 15);
    assert.equal(of(events, "context_compacted")[0]?.summary, "They talked.");
  });

  test("a request for a summary that would not fit is cut, and asked once more with half when it still did not", async () => {
    const large = [1, 2, 3].flatMap((n) => toolTurn({ tool: "t", callId: `call_l${n}`, output: tokens(4_000) }));
    const history = [first, ...large, answered("Wait."), last];
    const { model, result } = await play([[overflow], summary, answer("Soon.")], { history, rungs: small, compaction });
    assert.equal(result?.text, "Soon.");
    const size = (i: number) => JSON.stringify(model.requests[i]?.messages).length;
    assert.ok(size(0) < 4 * 10_000);
    assert.ok(size(1) < size(0));
    const never = await play([[overflow], [overflow], answer("Soon.")], { history, rungs: small, compaction });
    assert.deepEqual(notices(never.events), [
      ["COMPACTION_FAILED", { cause: "model_failed", kind: "context_overflow" }],
    ]);
  });

  test("a history of 100 000 tokens takes one call of the model, and a second compaction takes the first summary in", async () => {
    const turn = (n: number) => toolTurn({ tool: "t", callId: `call_h${n}`, output: tokens(2_000) });
    const history = [
      first,
      ...Array.from({ length: 50 }, (_, n) => turn(n)).flat(),
      answered("Wait.", "msg_wait"),
      last,
    ];
    const rungs = [{ contextWindow: 128_000 }];
    const once = await play([summary, answer("Soon.")], { history, rungs, compaction });
    const [compacted] = of(once.events, "context_compacted");
    assert.ok(compacted !== undefined && compacted.tokensBefore > 100_000 && compacted.tokensAfter < 200);
    assert.equal(once.model.requests.length, 2);
    assert.equal(JSON.stringify(once.model.requests[0]?.messages).includes("left out here"), false);
    const next = [first, compacted.message, ...history.slice(-2), ...once.history.slice(-1)];
    const more = [...next, said("more"), ...Array.from({ length: 50 }, (_, n) => turn(n)).flat(), said("end")];
    const again = await play([summary, answer("Soon.")], { history: more, rungs, compaction });
    assert.match(textOf(again.model.requests[0]?.messages[1]), /^<conversation_summary>/);
    const [second] = of(again.events, "context_compacted");
    assert.deepEqual(second?.keptMessageIds[0], "msg_first");
    assert.ok(!JSON.stringify(again.model.requests[1]?.messages.slice(0, 1)).includes("conversation_summary"));
  });

  test("a middle that would save little is not worth a call of the model", async () => {
    const history = [first, answered("x"), answered(tokens(7_500)), last];
    const { model } = await play([answer("Soon.")], { history, rungs: small, compaction });
    assert.equal(model.requests.length, 1);
  });

  test("behaviours 14 and 46: a cancel while the summary is written ends the run with what it cost, outside of a step", async () => {
    const abort = new AbortController();
    const reason = new Error("stop");
    const stop = () => abort.abort(reason);
    const options = { history: long, rungs: small, compaction, signal: abort.signal };
    const { error, events } = await play([[used(40), ...text("They"), stop]], options);
    assert.equal(error, reason);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["model_called"],
    );
    const [booked] = of(events, "model_called");
    assert.deepEqual([booked?.aborted, booked?.usage.inputTokens], [true, 40]);
    const later = new AbortController();
    const openTodos = () => {
      later.abort(reason);
      return new Promise<string[]>(() => {});
    };
    const hanging = await play([summary], { ...options, signal: later.signal, openTodos });
    assert.equal(hanging.error, reason);
  });

  test("behaviour 38: the next run, given what the event names, sees what this one saw", async () => {
    const turn = (): Script => [...call("t"), finish("tool_use")];
    const tools = { t: { run: async () => ({ content: [{ type: "text" as const, text: tokens(2_400) }] }) } };
    const scripts = [turn(), turn(), turn(), summary, turn(), turn(), summary, answer("Soon.")];
    const { events, model } = await play(scripts, { history: short, rungs: small, compaction, tools });
    const compactions = of(events, "context_compacted");
    assert.equal(compactions.length, 2);
    const { keptMessageIds, message, firstKeptMessageId } = compactions[1] as EngineEvent & {
      type: "context_compacted";
    };
    const stored = [...short, ...of(events, "step_completed").flatMap(({ messages }) => messages)];
    const from = stored.findIndex(({ id }) => id === firstKeptMessageId);
    assert.ok(from > 0);
    const reloaded = [...stored.filter(({ id }) => keptMessageIds.includes(id ?? "")), message, ...stored.slice(from)];
    const next = await play([answer("ok")], { history: [...reloaded, said("more")], tools, rungs: small, compaction });
    const seen = model.requests.at(-1)?.messages ?? [];
    assert.deepEqual(next.model.requests[0]?.messages.slice(0, seen.length), seen);
  });

  test("a fault of the program in the call for a summary ends the run, outside of a step", async () => {
    const bug = new TypeError("bug");
    const { error, events } = await play([[used(3), bug]], { history: long, rungs: small, compaction });
    assert.equal(error, bug);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["model_called"],
    );
  });

  test("calls in a summary's answer are not made", async () => {
    const script: Script = [...text("<summary>They talked.</summary>"), ...call("t"), finish("tool_use")];
    const { executed, result } = await play([script, answer("Soon.")], {
      history: long,
      rungs: small,
      compaction,
      tools: { t: {} },
    });
    assert.deepEqual([executed, result?.text], [[], "Soon."]);
  });
});

const tiny = [{ contextWindow: 1_000 }];

describe("trimming", () => {
  test("behaviour 38: drops the oldest turns where there is no compaction, and keeps the original request and the last turns", async () => {
    const history = [first, ...[1, 2, 3, 4, 5, 6].flatMap((n) => [answered(tokens(150)), said(`q${n}`)])];
    const { model, events } = await play([answer("Soon.")], { history, rungs: tiny, limits: { maxTokens: 200 } });
    const asked = model.requests[0]?.messages ?? [];
    assert.equal(textOf(asked[0]), "My order 17 is late");
    assert.deepEqual(asked.slice(-6).map(textOf), history.slice(-6).map(textOf));
    const [[reason, facts] = []] = notices(events);
    assert.equal(reason, "HISTORY_TRIMMED");
    assert.equal(Number((facts as Record<string, string>)["messages"]), history.length - asked.length);
  });

  test("leaves a history that fits as it is", async () => {
    const { model, events } = await play([answer("Soon.")], {
      history: short,
      rungs: tiny,
      limits: { maxTokens: 200 },
    });
    assert.deepEqual([model.requests[0]?.messages.length, notices(events)], [3, []]);
  });

  const rounds = (count: number) => [
    said(tokens(1)),
    ...Array.from({ length: count }, () => [answered(tokens(996)), said(tokens(1))]).flat(),
  ];
  const dropped = async (count: number, maxTokens: number) => {
    const options = { history: rounds(count), rungs: small, limits: { maxTokens }, system: "" };
    const { events } = await play([answer("Soon.")], options);
    return notices(events).map(([, facts]) => (facts as Record<string, string>)["messages"]);
  };

  test("leaves room for the answer, at most half of the window, and goes below it so that the next turns fit too", async () => {
    assert.deepEqual(await dropped(7, 2_000), []);
    assert.deepEqual(await dropped(8, 2_000), ["5"]);
    assert.deepEqual(await dropped(4, 50_000), []);
    assert.deepEqual(await dropped(5, 50_000), ["3"]);
  });

  test("takes half of a conversation that the provider found too long, and gives up where nothing can go", async () => {
    const overflow = new ModelError("context_overflow", { retryable: false });
    const { events } = await play([[overflow], answer("Soon.")], { history: rounds(12), system: "" });
    assert.deepEqual(notices(events).at(-1), ["HISTORY_TRIMMED", { messages: "13" }]);
    const nothing = await play([[overflow]], { history: rounds(2) });
    assert.deepEqual([nothing.error, nothing.model.requests.length], [overflow, 1]);
  });
});
