import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage, ToolResultPart } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, text, used } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import type { CompactionSettings } from "./loop-input.ts";
import { answered, said, tokens, toolTurn } from "./testing/histories.ts";
import { play, user } from "./testing/play.ts";
import { readToolOutputName } from "./tool-spec.ts";

const answer = (words: string): Script => [...text(words), finish()];
const asks = (name: string): Script => [...call(name), finish("tool_use")];
const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const overflow = new ModelError("context_overflow", { retryable: false });
const long = [
  said("first"),
  ...[1, 2, 3].flatMap((n) => toolTurn({ tool: "t", callId: `call_old${n}`, output: tokens(2_450) })),
  answered("Wait."),
  said("last"),
];

describe("a cancel", () => {
  const reason = new Error("stop");

  test("before the run has begun leaves nothing, not even word of a repair", async () => {
    const [orphan] = toolTurn({ tool: "t", callId: "call_1" });
    const history = [user("Go"), orphan, user("And?")];
    const { error, events, model } = await play([], { history, signal: AbortSignal.abort(reason) });
    assert.deepEqual([error, events, model.requests], [reason, [], []]);
  });

  test("between two steps touches the context no more", async () => {
    const abort = new AbortController();
    const run = async () => ({ content: [{ type: "text" as const, text: tokens(4_000) }] });
    const { error, events } = await play([asks("t")], {
      history: long,
      rungs: [{ contextWindow: 11_000 }],
      tools: { t: { run } },
      signal: abort.signal,
      onEvent: ({ type }) => type === "step_completed" && abort.abort(reason),
    });
    assert.equal(error, reason);
    assert.equal(events.at(-1)?.type, "step_completed");
  });

  test("while the context is made shorter begins no step", async () => {
    const abort = new AbortController();
    const { error, events } = await play([], {
      history: long,
      rungs: [{ contextWindow: 5_000 }],
      signal: abort.signal,
      onEvent: ({ type }) => type === "notice" && abort.abort(reason),
    });
    assert.equal(error, reason);
    assert.deepEqual(
      events.map((event) => event.type === "notice" && event.reason),
      ["HISTORY_TRIMMED"],
    );
  });
});

describe("a conversation that the provider finds too long", () => {
  test("is trimmed once in a turn: what is still too long after that is the end, although more could go", async () => {
    const { error, model, events } = await play([[overflow], [overflow]], { history: long });
    assert.equal(error, overflow);
    assert.equal(model.requests.length, 2);
    assert.deepEqual(
      of(events, "notice").map(({ reason, retrying }) => [reason, retrying]),
      [
        ["CONTEXT_OVERFLOW", true],
        ["HISTORY_TRIMMED", false],
      ],
    );
  });

  test("has its summary booked with the step that comes, not with the one that failed", async () => {
    const compaction: CompactionSettings = { thresholdRatio: 0.99, summaryPrompt: "Keep.", keepTurns: 1 };
    const summary: Script = [used(50), ...answer("<summary>They talked.</summary>")];
    const { events, result } = await play([[overflow], summary, answer("Soon.")], { history: long, compaction });
    assert.equal(result?.text, "Soon.");
    assert.deepEqual(
      of(events, "model_called").map(({ step, purpose }) => [step, purpose]),
      [
        [2, "summary"],
        [2, "turn"],
      ],
    );
  });
});

describe("an answer of last resort", () => {
  test("stands in the failed step, behind what the model had shown, which is void", async () => {
    const error = new ModelError("server", { retryable: false });
    const { events, result } = await play([[...text("Ha"), error]], {
      lastResort: async () => ({ kind: "canned", text: "Please call us." }),
    });
    assert.equal(result?.outcome, "DEGRADED");
    assert.deepEqual(of(events, "item_discarded"), [{ type: "item_discarded", step: 1, cause: "model_failed" }]);
    assert.deepEqual(
      of(events, "step_completed").map(({ step, finishReason }) => [step, finishReason]),
      [[1, "error"]],
    );
  });
});

describe("a repaired history", () => {
  test("is told of also when something was only dropped", async () => {
    const stray = toolTurn({ tool: "t", callId: "call_nobodys" })[1];
    const { events, result } = await play([answer("Hi")], { history: [stray, user("Go")] });
    assert.equal(result?.text, "Hi");
    const [told] = of(events, "notice");
    assert.deepEqual([told?.reason, told?.facts], ["HISTORY_REPAIRED", { added: "0", dropped: "1" }]);
  });
});

describe("reading outputs again", () => {
  const result = (callId: string, more: Partial<ToolResultPart> = {}): ToolResultPart => ({
    type: "tool_result",
    callId,
    tool: "t",
    content: [{ type: "text", text: "out" }],
    isError: false,
    ...more,
  });
  const offered = async (...results: ToolResultPart[]) => {
    const [asked] = toolTurn(...results.map(({ callId }) => ({ tool: "t", callId })));
    const history: ModelMessage[] = [
      user("Go"),
      asked,
      { role: "tool", content: results },
      answered("Ok"),
      user("And?"),
    ];
    const { model } = await play([answer("Hi")], { history, tools: { t: {} } });
    return model.requests[0]?.tools.some(({ name }) => name === readToolOutputName);
  };

  test("is offered when one output of the history was cut, and not where all are whole", async () => {
    assert.equal(await offered(result("call_1"), result("call_2", { truncated: true })), true);
    assert.equal(await offered(result("call_1"), result("call_2")), false);
  });

  test("outputs are taken away in batches of 2 000 tokens where nothing else is said", async () => {
    const evicted = async (size: number, evictionBatch?: number) => {
      const turns = [1, 2].flatMap((n) => toolTurn({ tool: "t", callId: `call_${n}`, output: tokens(size) }));
      const history = [user("Go"), ...turns, answered("Ok"), user("And?")];
      const limits = evictionBatch === undefined ? {} : { evictionBatch };
      const { events } = await play([answer("Hi")], { history, limits, tools: { t: { ephemeral: 1 } } });
      return of(events, "tool_outputs_evicted").flatMap(({ callIds }) => callIds);
    };
    assert.deepEqual(await evicted(1_900), []);
    assert.deepEqual(await evicted(2_100), ["call_1"]);
    assert.deepEqual(await evicted(1_900, 1_500), ["call_1"]);
  });
});
