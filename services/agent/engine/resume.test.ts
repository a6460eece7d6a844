import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "../llm/anthropic-request.ts";
import type { ChatModel, ModelMessage } from "../llm/chat-model.ts";
import { call, finish, type Script, text } from "../llm/testing/scripted-model.ts";
import type { EngineEvent, LoopResult } from "./events.ts";
import { runLoop } from "./loop.ts";
import type { ResumedStep, ResumedWork } from "./loop-input.ts";
import { answers, resultsIn, user } from "./testing/play.ts";
import type { ExecuteTool, ToolOutcome } from "./tool-spec.ts";

/** What a service would find stored of a run: what its events said, as far as they came. */
class Stored {
  readonly history: ModelMessage[] = [user("Go")];
  readonly events: EngineEvent[] = [];
  #open: (ResumedStep & { outcomes: Map<string, ToolOutcome> }) | undefined;
  #nextStep = 1;
  #toolTurns = 0;
  #lastFinish: string | undefined;

  take(event: EngineEvent): void {
    this.events.push(event);
    if (event.type === "step_started") this.#nextStep = event.step + 1;
    if (event.type === "calls_planned") {
      this.#toolTurns++;
      this.#open = {
        step: event.step,
        usage: event.usage,
        messages: structuredClone(event.messages),
        outcomes: new Map(),
      };
    }
    if (event.type === "tool_call_completed") {
      this.#open?.outcomes.set(event.itemId, { content: event.content, isError: event.isError });
    }
    if (event.type === "step_completed") {
      this.#lastFinish = event.finishReason;
      this.history.push(...structuredClone(event.messages));
      this.#open = undefined;
    }
  }

  get resume(): ResumedWork {
    return {
      nextStep: this.#nextStep,
      toolTurns: this.#toolTurns,
      ...(this.#lastFinish !== undefined && { lastFinish: this.#lastFinish }),
      ...(this.#open !== undefined && { openStep: this.#open }),
    };
  }

  hasOutcome(callId: string): boolean {
    return this.events.some((event) => event.type === "tool_call_completed" && event.itemId === callId);
  }
}

/** Plays the script that belongs to the turn that the history has come to. */
function modelOf(scripts: Script[]): ChatModel {
  return {
    provider: "scripted",
    async *stream(request) {
      assert.equal(refusal(toMessagesBody(request), "2026-10-21"), undefined, "the provider would refuse this request");
      const turn = request.messages.filter(({ role }) => role === "assistant").length;
      for (const event of scripts[turn] ?? assert.fail(`there is no turn ${turn}`)) yield event as never;
    },
  };
}

let ids = 0;

/** One attempt, which ends after so many events or by itself. */
async function attempt(
  stored: Stored,
  scripts: Script[],
  executeTool: ExecuteTool,
  { events = Number.POSITIVE_INFINITY, isFirst = false, maxIterations = 10 } = {},
): Promise<LoopResult | undefined> {
  const loop = runLoop({
    models: [{ kind: "primary", model: modelOf(scripts), modelName: "m-1", contextWindow: 200_000 }],
    system: "",
    history: structuredClone(stored.history),
    tools: ["a", "b", "c"].map((name) => ({
      name,
      description: name,
      inputSchema: { type: "object" },
      concurrencySafe: name === "c",
    })),
    executeTool,
    limits: { maxIterations, maxTokens: 100 },
    requireDoneTool: false,
    newItemId: (kind) => `${kind}_${++ids}`,
    signal: new AbortController().signal,
    ...(!isFirst && { resume: stored.resume }),
  });
  for (let n = 0; n < events; n++) {
    const { done, value } = await loop.next();
    if (done === true) return value;
    stored.take(value);
  }
  await loop.return(undefined as never);
  return undefined;
}

const calls = (...names: string[]): Script => [
  ...text("I look."),
  ...names.flatMap((name) => call(name)),
  finish("tool_use"),
];
const answer: Script = [...text("It is done."), finish()];

describe("a run that is taken up again", () => {
  test("wherever it broke off: no call with an outcome is made again, and the history is that of an unbroken run", async () => {
    const turn = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 4 });
    const plan = fc.record({ turns: fc.array(turn, { maxLength: 3 }), cuts: fc.array(fc.nat(40), { maxLength: 6 }) });
    await fc.assert(
      fc.asyncProperty(plan, async ({ turns, cuts }) => {
        const scripts = [...turns.map((names) => calls(...names)), answer];
        const stored = new Stored();
        const made: string[] = [];
        const execute: ExecuteTool = async ({ callId, name }) => {
          assert.equal(stored.hasOutcome(callId), false, "a call with an outcome is made again");
          made.push(callId);
          return answers(`${name} ran`);
        };
        for (const [i, events] of cuts.entries()) {
          if ((await attempt(stored, scripts, execute, { events, isFirst: i === 0 })) !== undefined) return;
        }
        const result = await attempt(stored, scripts, execute, { isFirst: cuts.length === 0 });
        assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "It is done."]);
        assert.deepEqual(
          resultsIn(stored.history).map(([, said]) => said),
          turns.flat().map((name) => `${name} ran`),
        );
        assert.equal(stored.history.length, 1 + 2 * turns.length + 1);
        const requested = stored.events.flatMap((e) => (e.type === "tool_call_requested" ? [e.itemId] : []));
        assert.ok(
          made.every((callId) => requested.includes(callId)),
          "what was made had been requested",
        );
        const steps = stored.events.flatMap((e) => (e.type === "step_started" ? [e.step] : []));
        assert.deepEqual(
          steps,
          [...steps].sort((x, y) => x - y),
        );
        assert.equal(new Set(steps).size, steps.length, "no number is given to two steps");
      }),
      { numRuns: 300 },
    );
  });

  test("turns of earlier attempts count for the limit", async () => {
    const scripts = [calls("a"), calls("a"), answer];
    const stored = new Stored();
    const execute: ExecuteTool = async () => answers("ran");
    const whole = new Stored();
    const unbroken = await attempt(whole, scripts, execute, { isFirst: true, maxIterations: 2 });
    assert.equal(unbroken?.outcome, "MAX_ITERATIONS");
    const until = whole.events.findIndex(({ type }) => type === "step_completed") + 1;
    await attempt(stored, scripts, execute, { isFirst: true, maxIterations: 2, events: until });
    const resumed = await attempt(stored, scripts, execute, { maxIterations: 2 });
    assert.equal(resumed?.outcome, "MAX_ITERATIONS");
    assert.equal(stored.history.length, whole.history.length);
  });
});

describe("a call that is suspended", () => {
  test("leaves its step open; those before it have run, those behind it wait; then the step goes on", async () => {
    const stored = new Stored();
    const scripts = [calls("c", "a", "b"), answer];
    const made: string[] = [];
    let decided = false;
    const execute: ExecuteTool = async ({ name }) => {
      if (name === "a" && !decided) return { suspended: true };
      made.push(name);
      return answers(`${name} ran`);
    };
    const first = await attempt(stored, scripts, execute, { isFirst: true });
    assert.equal(first?.outcome, "SUSPENDED");
    const planned = stored.events.find((event) => event.type === "calls_planned");
    assert.deepEqual(
      first?.waiting?.map(({ callId }) => callId),
      planned?.calls.slice(1).map(({ callId }) => callId),
    );
    assert.deepEqual(made, ["c"]);
    assert.equal(
      stored.events.some(({ type }) => type === "step_completed"),
      false,
    );
    assert.equal((await attempt(stored, scripts, execute))?.outcome, "SUSPENDED", "nothing was decided yet");
    decided = true;
    assert.equal((await attempt(stored, scripts, execute))?.outcome, "ANSWERED");
    assert.deepEqual(made, ["c", "a", "b"]);
    assert.deepEqual(
      stored.events.flatMap((event) => (event.type === "step_completed" ? [[event.step, event.finishReason]] : [])),
      [
        [1, "tool_use"],
        [2, "end_turn"],
      ],
    );
    assert.deepEqual(
      resultsIn(stored.history).map(([, said]) => said),
      ["c ran", "a ran", "b ran"],
    );
  });

  test("does not keep its safe neighbours from running", async () => {
    const stored = new Stored();
    let asked = 0;
    const execute: ExecuteTool = async () => (asked++ === 0 ? { suspended: true } : answers("ran"));
    const { waiting } = (await attempt(stored, [calls("c", "c", "c"), answer], execute, { isFirst: true })) ?? {};
    assert.equal(waiting?.length, 1);
    assert.equal(stored.events.filter(({ type }) => type === "tool_call_completed").length, 2);
  });

  test("is answered as cancelled when the run is", async () => {
    const stored = new Stored();
    const controller = new AbortController();
    const loop = runLoop({
      models: [{ kind: "primary", model: modelOf([calls("a", "b"), answer]), modelName: "m", contextWindow: 100_000 }],
      system: "",
      history: [user("Go")],
      tools: [{ name: "a", description: "", inputSchema: { type: "object" } }],
      executeTool: async () => {
        controller.abort(new Error("cancelled"));
        return { suspended: true };
      },
      limits: { maxIterations: 5, maxTokens: 100 },
      requireDoneTool: false,
      newItemId: (kind) => `${kind}_${++ids}`,
      signal: controller.signal,
    });
    await assert.rejects(async () => {
      for await (const event of loop) stored.take(event);
    }, /cancelled/);
    assert.deepEqual(
      resultsIn(stored.history).map(([, , isError]) => isError),
      [true, true],
    );
  });
});
