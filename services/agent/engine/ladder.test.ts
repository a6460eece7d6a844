import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelEvent, UsageEvent } from "../llm/chat-model.ts";
import { ModelError, type ModelErrorFacts, type ModelErrorKind } from "../llm/model-error.ts";
import { call, finish, type Script, scriptedModel, text, thinking, used } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import { isMalformed, Ladder } from "./ladder.ts";
import type { ModelRung } from "./loop-input.ts";
import { answered, said, tokens, toolTurn } from "./testing/histories.ts";
import { play, user } from "./testing/play.ts";

const answer = (words: string): Script => [...text(words), finish()];
const fails = (kind: ModelErrorKind, more: Partial<ModelErrorFacts> = {}) =>
  new ModelError(kind, { retryable: false, ...more });
const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const notices = (events: EngineEvent[]) => of(events, "notice").map(({ reason, facts }) => [reason, facts]);
const rung = (more: Partial<ModelRung> = {}): ModelRung => ({
  kind: "primary",
  model: scriptedModel(),
  modelName: "one",
  contextWindow: 1_000,
  ...more,
});
const two: Partial<ModelRung>[] = [{ modelName: "one" }, { kind: "fallback", modelName: "two" }];
const withSimple: Partial<ModelRung>[] = [...two, { kind: "simplified", modelName: "small" }];
const calls = (name: string): Script => [...call(name), finish("tool_use")];

describe("the ladder", () => {
  test("goes down once for each failure, and never to a rung that would fail in the same way", () => {
    const own = { apiKey: "k", id: "own:ten:1" };
    const otherProvider = { provider: "other", stream: scriptedModel().stream };
    const cases: [ModelError, Partial<ModelRung>, boolean][] = [
      [fails("overloaded"), {}, true],
      [fails("rate_limited"), {}, true],
      [fails("server"), {}, true],
      [fails("timeout"), {}, true],
      [fails("connection"), {}, true],
      [fails("malformed_stream"), {}, true],
      [fails("authentication"), {}, false],
      [fails("authentication"), { modelName: "two" }, true],
      [fails("authentication"), { credential: own }, true],
      [fails("authentication"), { model: otherProvider }, true],
      [fails("invalid_request"), { modelName: "two" }, false],
      [fails("invalid_request", { status: 404 }), { modelName: "two" }, true],
      [fails("invalid_request", { status: 404 }), { model: otherProvider }, true],
      [fails("invalid_request", { status: 404 }), {}, false],
      [fails("invalid_request", { code: "unknown_provider" }), { modelName: "two" }, true],
      [fails("invalid_request", { code: "not_found_error" }), { modelName: "two" }, true],
      [fails("invalid_request", { code: "model_not_found" }), { modelName: "two" }, true],
      [fails("context_overflow"), { modelName: "two" }, false],
      [fails("context_overflow"), { contextWindow: 1_001 }, true],
    ];
    for (const [error, to, goes] of cases) {
      const ladder = new Ladder([rung(), rung({ kind: "fallback", ...to })]);
      const said = JSON.stringify([error.kind, error.code, error.status, Object.keys(to)]);
      assert.equal(ladder.descend(error) !== undefined, goes, said);
      assert.equal(ladder.rung.kind, goes ? "fallback" : "primary", said);
      assert.equal(ladder.descend(fails("server")) !== undefined, !goes, said);
    }
  });

  test("skips rungs that cannot help, and does not go up again", () => {
    const ladder = new Ladder([rung(), rung(), rung({ kind: "fallback", modelName: "two" })]);
    assert.deepEqual(ladder.descend(fails("authentication"))?.facts, {
      from: "one",
      to: "two",
      reason: "authentication",
    });
    assert.equal(ladder.descend(fails("server")), undefined);
    assert.equal(ladder.rung.modelName, "two");
    assert.throws(() => new Ladder([]), RangeError);
  });

  test("does not take a malformed request for a fault of the model", () => {
    assert.equal(isMalformed(fails("invalid_request", { status: 400 })), true);
    assert.equal(isMalformed(fails("invalid_request", { status: 404 })), false);
    assert.equal(isMalformed(fails("server")), false);
  });
});

describe("a run whose model fails", () => {
  test("goes on with the next model for the rest of the run, in a step of its own, and says so", async () => {
    const broken: Script = [used(7), ...thinking("Hm"), ...text("Half"), fails("overloaded", { code: "breaker_open" })];
    const { result, events, model, history } = await play([broken, calls("t"), answer("Done")], {
      rungs: two,
      tools: { t: {} },
    });
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "Done"]);
    assert.deepEqual(
      model.requests.map((request) => request.model),
      ["one", "two", "two"],
    );
    assert.deepEqual(notices(events), [["MODEL_FALLBACK", { from: "one", to: "two", reason: "overloaded" }]]);
    assert.deepEqual(
      of(events, "step_completed").map(({ finishReason, messages, usage }) => [
        finishReason,
        messages.length,
        usage.inputTokens,
      ]),
      [
        ["error", 0, 7],
        ["tool_use", 2, 0],
        ["end_turn", 1, 0],
      ],
    );
    assert.ok(events.some((event) => event.type === "item_discarded" && event.cause === "model_failed"));
    assert.ok(!JSON.stringify(history).includes("Half"));
    assert.equal(result?.usage[0]?.inputTokens, 7);
  });

  test("behaviours 46 and 48: books each call with the credential that was used, also the one that failed, and tells no key", async () => {
    const own = { apiKey: "k", id: "own:ten:1" };
    const seen: unknown[] = [];
    const look: Script[number] = (options) => {
      seen.push(options.credential);
    };
    const rungs = [{ credential: own }, { kind: "fallback", modelName: "two" } as const];
    const { events } = await play(
      [
        [look, used(3), fails("timeout")],
        [look, used(5), ...answer("Done")],
      ],
      { rungs },
    );
    assert.deepEqual(seen, [own, undefined]);
    assert.deepEqual(
      of(events, "model_called").map(({ step, purpose, credentialId, aborted, usage }) => [
        step,
        purpose,
        credentialId,
        aborted,
        usage.inputTokens,
      ]),
      [
        [1, "turn", "own:ten:1", true, 3],
        [2, "turn", "platform", false, 5],
      ],
    );
    assert.ok(!JSON.stringify(events).includes('"k"'));
  });

  test("behaviour 45: a run's usage is the sum of its entries, by model", async () => {
    const by = (model: string, inputTokens: number): ModelEvent => ({ ...(used(inputTokens) as UsageEvent), model });
    const scripts = [
      [by("one", 3), fails("server")],
      [by("two", 5), ...calls("t")],
      [by("two", 7), ...answer("ok")],
    ];
    const { result, events } = await play(scripts, { rungs: two, tools: { t: {} } });
    const booked = new Map<string, number>();
    for (const { model, usage } of of(events, "model_called")) {
      booked.set(model, (booked.get(model) ?? 0) + usage.inputTokens);
    }
    assert.deepEqual(
      [...booked],
      [
        ["one", 3],
        ["two", 12],
      ],
    );
    assert.deepEqual(
      result?.usage.map(({ model, inputTokens }) => [model, inputTokens]),
      [...booked],
    );
  });

  test("behaviour 46: books an attempt that broke off, one that was cancelled, and the last answer as a summary", async () => {
    const retry = { type: "retry", attempt: 2, delayMs: 5, kind: "overloaded" } as const;
    const retried: Script = [used(3, 0, 0, 1), ...text("Ha"), { type: "discard" }, retry, used(4), ...calls("t")];
    const { events } = await play([retried, [used(5), ...answer("Sum")]], {
      tools: { t: {} },
      limits: { maxIterations: 1 },
    });
    assert.deepEqual(
      of(events, "model_called").map(({ purpose, aborted, usage }) => [
        purpose,
        aborted,
        usage.inputTokens,
        usage.outputTokens,
      ]),
      [
        ["turn", true, 3, 1],
        ["turn", false, 4, 0],
        ["summary", false, 5, 0],
      ],
    );
    const abort = new AbortController();
    const cancelled = await play([[used(6), ...text("Ha"), () => abort.abort()]], { signal: abort.signal });
    assert.deepEqual(
      of(cancelled.events, "model_called").map(({ aborted, usage }) => [aborted, usage.inputTokens]),
      [[true, 6]],
    );
    const early = await play([[retry, ...answer("ok")]]);
    assert.equal(of(early.events, "model_called").length, 1, "an attempt that used nothing is not booked");
  });

  test("comes to a simplified mode: no tools, a note in the system prompt, and the answer is the end", async () => {
    const { result, events, model } = await play(
      [calls("t"), [fails("server")], [fails("server")], [...text("Briefly."), ...call("t"), finish("tool_use")]],
      { rungs: withSimple, tools: { t: {} }, requireDoneTool: true },
    );
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "Briefly."]);
    assert.deepEqual(
      model.requests.map(({ tools }) => tools.length),
      [2, 2, 2, 0],
    );
    assert.match(model.requests[3]?.system ?? "", /^Be brief\.\n\nYou are running in a simplified mode/);
    assert.deepEqual(notices(events).at(-1), ["SIMPLIFIED_MODE", { from: "two", to: "small", reason: "server" }]);
    const bare = await play([[fails("server")], answer("x")], { rungs: [{}, { kind: "simplified" }], system: "" });
    assert.match(bare.model.requests[1]?.system ?? "", /^You are running/);
  });

  test("in simplified mode a pause is gone on from, and open work is not asked for", async () => {
    const rungs = [{}, { kind: "simplified" } as const];
    const scripts = [[fails("server")], [...text("One "), finish("pause")], answer("two")];
    const { result } = await play(scripts, { rungs, unfinishedWork: async () => "open" });
    assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "One two"]);
  });

  test("ends DEGRADED with an earlier or a prepared answer, stored and shown, when no model is left", async () => {
    for (const [kind, reason] of [
      ["cached", "CACHED_ANSWER"],
      ["canned", "CANNED_ANSWER"],
    ] as const) {
      let told: ModelError | undefined;
      const error = fails("server");
      const { result, events, history } = await play([[fails("overloaded")], [used(2), ...text("Ha"), error]], {
        rungs: two,
        lastResort: async (given) => {
          told = given;
          return { kind, text: "Please call us." };
        },
      });
      assert.equal(told, error);
      assert.deepEqual([result?.outcome, result?.text], ["DEGRADED", "Please call us."]);
      assert.deepEqual(
        notices(events).map(([name]) => name),
        ["MODEL_FALLBACK", reason],
      );
      assert.deepEqual(history.at(-1), { role: "assistant", content: [{ type: "text", text: "Please call us." }] });
      assert.ok(events.some((event) => event.type === "message_completed"));
      assert.equal(result?.usage[0]?.inputTokens, 2);
    }
  });

  test("throws the last model's error when there is no answer of last resort, or asking for it fails", async () => {
    for (const lastResort of [undefined, async () => undefined, () => Promise.reject(new Error("away"))]) {
      const error = fails("server");
      const played = await play([[error]], lastResort === undefined ? {} : { lastResort });
      assert.equal(played.error, error);
      assert.equal(of(played.events, "step_completed").at(-1)?.finishReason, "error");
    }
  });

  test("is cancelled while an answer of last resort is looked for", async () => {
    const abort = new AbortController();
    const reason = new Error("stop");
    const lastResort = () => {
      abort.abort(reason);
      return new Promise<undefined>(() => {});
    };
    const { error, events } = await play([[fails("server")]], { lastResort, signal: abort.signal });
    assert.equal(error, reason);
    assert.equal(of(events, "step_completed").at(-1)?.finishReason, "cancelled");
  });

  test("does not go down for a malformed request, a fault of the program or a cancel", async () => {
    const lastResort = async () => ({ kind: "canned", text: "x" }) as const;
    const malformed = fails("invalid_request", { status: 400 });
    for (const error of [malformed, new TypeError("bug")]) {
      const played = await play([[error]], { rungs: withSimple, lastResort });
      assert.equal(played.error, error);
      assert.equal(played.model.requests.length, 1);
    }
    const abort = new AbortController();
    const reason = new Error("stop");
    const cancelled = await play([[() => abort.abort(reason)]], {
      rungs: withSimple,
      lastResort,
      signal: abort.signal,
    });
    assert.deepEqual([cancelled.error, cancelled.model.requests.length], [reason, 1]);
  });

  test("goes to a model with a larger window when the conversation fits no other way, and not to the last resort", async () => {
    const lastResort = async () => ({ kind: "canned", text: "x" }) as const;
    const rungs = [{ contextWindow: 1_000 }, { kind: "fallback", modelName: "large", contextWindow: 9_000 } as const];
    const history = [said(tokens(300))];
    const overflow = fails("context_overflow");
    const { result, events } = await play([[overflow], answer("Fits")], { rungs, history, lastResort });
    assert.equal(result?.text, "Fits");
    assert.deepEqual(
      notices(events).map(([name]) => name),
      ["CONTEXT_OVERFLOW", "MODEL_FALLBACK"],
    );
    const never = await play([[overflow], [overflow]], { rungs, history, lastResort });
    assert.equal(never.error, overflow);
    const old = [
      said("a"),
      ...[1, 2, 3, 4, 5].flatMap((n) => toolTurn({ tool: "t", callId: `call_o${n}` })),
      answered("b"),
      said("c"),
    ];
    const shrunk = await play([[overflow], [overflow], answer("Fits")], { rungs, history: old, lastResort });
    assert.equal(shrunk.result?.text, "Fits");
  });

  test("fits the context to the window of the model that goes on", async () => {
    const history = [said("a"), ...[1, 2, 3, 4, 5, 6].flatMap((n) => [answered(tokens(300)), said(`q${n}`)])];
    const rungs = [{ contextWindow: 9_000 }, { kind: "fallback", modelName: "two", contextWindow: 2_000 } as const];
    const { events } = await play([[fails("server")], answer("ok")], { rungs, history });
    assert.deepEqual(
      notices(events).map(([name]) => name),
      ["MODEL_FALLBACK", "HISTORY_TRIMMED"],
    );
  });
});

describe("injected messages", () => {
  const note = (words: string) => ({ role: "user", content: [{ type: "text", text: words }] }) as const;

  test("are asked for before each turn, sent at its end, and stored as hidden ones", async () => {
    let turns = 0;
    const injections = () =>
      ++turns === 2 ? [{ ...note("Two calls left."), content: [...note("Two calls left.").content] }] : [];
    const { model, history } = await play([calls("t"), answer("ok")], { tools: { t: {} }, injections });
    const hidden = { ...user("Two calls left."), hidden: true };
    assert.deepEqual(model.requests[1]?.messages.at(-1), hidden);
    assert.deepEqual(history.at(-2), hidden);
    assert.equal(turns, 2);
  });

  test("are kept for the next model when a turn's first one fails, and stand before the last request", async () => {
    let asked = 0;
    const injections = () => [
      { ...note(`note ${++asked}`), content: [{ type: "text" as const, text: `note ${asked}` }] },
    ];
    const scripts = [[fails("server")], calls("t"), answer("ok")];
    const { model, history } = await play(scripts, {
      rungs: two,
      tools: { t: {} },
      injections,
      limits: { maxIterations: 1 },
    });
    assert.equal(asked, 2);
    const sent = model.requests.map(({ messages }) => JSON.stringify(messages).match(/note \d/g));
    assert.deepEqual(sent, [["note 1"], ["note 1"], ["note 1", "note 2"]]);
    assert.match(JSON.stringify(history.slice(-3, -1)), /note 2.*You have used all/);
  });
});
