import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { ModelEvent } from "../llm/chat-model.ts";
import { ModelError, type ModelErrorKind } from "../llm/model-error.ts";
import { call, finish, type Script, text, thinking, used } from "../llm/testing/scripted-model.ts";
import type { LoopInput, ModelRung } from "./loop-input.ts";
import { anyHistory, tokens } from "./testing/histories.ts";
import { play, type Tool } from "./testing/play.ts";

const kinds: ModelErrorKind[] = [
  "rate_limited",
  "overloaded",
  "invalid_request",
  "authentication",
  "context_overflow",
  "timeout",
  "connection",
  "malformed_stream",
  "server",
];
const reasons = ["end_turn", "tool_use", "length", "refusal", "pause", "stop_sequence", "other"] as const;
const retry = { type: "retry", attempt: 2, delayMs: 1, kind: "server" } as const;

const anyPiece: fc.Arbitrary<() => Script> = fc.oneof(
  fc.string({ unit: "grapheme" }).map((words) => () => text(words)),
  fc.constant(() => thinking("Hm")),
  fc.constantFrom("t", "slow", "bad", "big", "done", "read_tool_output", "unknown").map((name) => () => call(name)),
  fc.constant(() => call("done", { message: "Bye" })),
  fc.constant(() => call("t", "{no json")),
  fc.constant((): Script => call("t").slice(0, 2)),
  fc.nat(2_000).map((count) => () => [used(count, 0, 0, 5)]),
  fc.constant((): Script => [{ type: "discard" }, retry]),
);
const anyEnd: fc.Arbitrary<ModelEvent | Error | undefined> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...reasons).map((reason) => finish(reason)) },
  { weight: 3, arbitrary: fc.constantFrom(...kinds).map((kind) => new ModelError(kind, { retryable: false })) },
  fc.constant(undefined),
);
const anyScript: fc.Arbitrary<() => Script> = fc
  .tuple(fc.array(anyPiece, { maxLength: 5 }), anyEnd)
  .map(([pieces, end]) => () => [...pieces.flatMap((piece) => piece()), ...(end === undefined ? [] : [end])]);

const tools: Record<string, Tool> = {
  t: { ephemeral: 1, run: async () => ({ content: [{ type: "text", text: tokens(300) }] }) },
  slow: { concurrencySafe: true, run: () => new Promise((resolve) => setImmediate(resolve, undefined as never)) },
  bad: { concurrencySafe: true, run: () => Promise.reject(new Error("no")) },
  big: { run: async () => ({ content: [{ type: "text", text: tokens(9_000) }] }) },
};
const ladder: Partial<ModelRung>[] = [
  { contextWindow: 4_000 },
  { kind: "fallback", modelName: "two", contextWindow: 6_000 },
  { kind: "simplified", modelName: "three", contextWindow: 9_000 },
];
const compaction: LoopInput["compaction"] = { thresholdRatio: 0.5, summaryPrompt: "Sum up.", keepTurns: 2 };

describe("whatever models and tools do", () => {
  test("behaviours 5, 14, 19 and 20: a run ends, every step and call is completed once, and the history stays valid", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyScript, { minLength: 1, maxLength: 12 }),
        anyHistory,
        fc.record({
          rungs: fc.integer({ min: 1, max: 3 }),
          compacts: fc.boolean(),
          requireDoneTool: fc.boolean(),
          resort: fc.boolean(),
          cancelAfter: fc.option(fc.nat(60)),
        }),
        async (scripts, history, { rungs, compacts, requireDoneTool, resort, cancelAfter }) => {
          const abort = new AbortController();
          let left = cancelAfter ?? Number.POSITIVE_INFINITY;
          // A script for each call that the limits allow: models that are asked more often than that loop for ever.
          const endless = Array.from({ length: 200 }, (_, i) => (scripts[i % scripts.length] as () => Script)());
          const { result, error, events } = await play(endless, {
            tools,
            history,
            requireDoneTool,
            rungs: ladder.slice(0, rungs),
            signal: abort.signal,
            limits: { maxIterations: 4, maxTokens: 200, maxPauses: 2, evictionBatch: 400 },
            unfinishedWork: async () => "Go on.",
            ...(compacts && { compaction, openTodos: async () => ["one"] }),
            ...(resort && { lastResort: async () => ({ kind: "canned", text: "Sorry." }) as const }),
            onEvent: () => {
              if (--left < 0) abort.abort(new Error("stop"));
            },
          });
          // What must hold for every run is checked by play itself.
          assert.equal(result === undefined, error !== undefined);
          if (result === undefined && !abort.signal.aborted) assert.ok(error instanceof ModelError, String(error));
          if (result?.outcome === "DEGRADED") assert.ok(resort);
          assert.ok(events.filter(({ type }) => type === "step_started").length <= 60);
          const offers = new Set(events.flatMap((event) => (event.type === "step_started" ? [event.model] : [])));
          assert.ok(offers.size <= rungs);
        },
      ),
      { numRuns: 150 },
    );
  });
});
