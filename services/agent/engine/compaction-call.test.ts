import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage, StreamOptions } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, scriptedModel, text, used } from "../llm/testing/scripted-model.ts";
import { estimateFrame, estimateMessages } from "./context/estimate.ts";
import type { EngineEvent } from "./events.ts";
import type { CompactionSettings } from "./loop-input.ts";
import { answered, said, tokens, toolTurn } from "./testing/histories.ts";
import { play } from "./testing/play.ts";

const answer = (words: string): Script => [...text(words), finish()];
const summary = answer("<summary>They talked.</summary>");
const compaction: CompactionSettings = { thresholdRatio: 0.7, summaryPrompt: "Keep names.", keepTurns: 1 };
const window = 10_000;
const rungs = [{ contextWindow: window }];
const first = said("My order 17 is late", "msg_first");
const last = said("And now?", "msg_last");
const turns = [1, 2, 3].flatMap((n) => toolTurn({ tool: "t", callId: `call_old${n}`, output: tokens(2_450) }));
const long = [first, ...turns, answered("Wait.", "msg_wait"), last];

const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const textOf = (message: ModelMessage | undefined) =>
  (message?.content ?? []).map((part) => ("text" in part ? part.text : "")).join("");

describe("when a history is compacted", () => {
  test("behaviour 35: at the threshold to the token, by what the last call used and what came since", async () => {
    const history = [first, answered(tokens(1_200)), answered("x"), last];
    const tokensBefore = async (usedTokens: number) => {
      const scripts = [[used(usedTokens), ...call("t"), finish("tool_use")], summary, answer("Soon.")];
      const { events } = await play(scripts, { history, rungs, compaction, tools: { t: {} } });
      return of(events, "context_compacted")[0]?.tokensBefore;
    };
    // The result that is added to it has so many tokens, whatever it was before.
    const added = ((await tokensBefore(8_000)) ?? 0) - 8_000;
    assert.ok(added > 0 && added < 100);
    assert.equal(await tokensBefore(7_000 - added), 7_000);
    assert.equal(await tokensBefore(6_999 - added), undefined);
  });
});

describe("the call for a summary", () => {
  /** How a summary was asked for: the options of its call. */
  async function optionsOf(credential?: { apiKey: string; id: string }): Promise<StreamOptions | undefined> {
    let seen: StreamOptions | undefined;
    const look: Script[number] = (options) => {
      seen = options;
    };
    const own = credential === undefined ? {} : { credential };
    await play([[look, ...summary], answer("Soon.")], { history: long, rungs: [{ ...rungs[0], ...own }], compaction });
    return seen;
  }

  test("behaviour 40: is made with the credential of its model, or with none, and may be tried again when it breaks", async () => {
    const credential = { apiKey: "k", id: "own:ten:1" };
    const own = await optionsOf(credential);
    assert.deepEqual([own?.credential, own?.mayDiscard], [credential, true]);
    assert.equal("credential" in ((await optionsOf()) ?? {}), false);
  });

  test("behaviour 40: has as much of the history as fits, beside tools, prompt and answer", async () => {
    const round = 110;
    const history = [
      first,
      ...Array.from({ length: 150 }, (_, n) => [answered(tokens(50)), said(`${tokens(round - 62)}${n}`)]).flat(),
    ];
    const system = tokens(1_000);
    const { model } = await play([summary, answer("Soon.")], { history, rungs, compaction, system, tools: { t: {} } });
    const [asked] = model.requests;
    assert.ok(asked !== undefined);
    const taken = estimateFrame(system, asked.tools) + estimateMessages(asked.messages) + asked.maxTokens;
    assert.ok(taken <= window * 0.95, `${taken} tokens are too many`);
    assert.ok(taken > window * 0.95 - 2 * round, `${taken} tokens are too few`);
  });

  test("behaviour 46: books nothing for a call that told of no usage before it failed", async () => {
    const failed: Script = [new ModelError("server", { retryable: true })];
    const { events } = await play([failed, answer("Soon.")], { history: long, rungs, compaction });
    assert.deepEqual(
      of(events, "model_called").map(({ purpose, aborted }) => [purpose, aborted]),
      [["turn", false]],
    );
  });

  test("behaviour 40: another model is asked only where the configured one failed, not where its summary is no good", async () => {
    const writer = scriptedModel(answer("<summary> </summary>"));
    const summaryModel = { kind: "primary", model: writer, modelName: "s-1", contextWindow: 9_000 } as const;
    const { events, model } = await play([answer("Soon.")], {
      history: long,
      rungs,
      compaction: { ...compaction, summaryModel },
    });
    assert.deepEqual([writer.requests.length, model.requests.length], [1, 1]);
    assert.deepEqual(
      of(events, "notice").map(({ facts }) => facts),
      [{ cause: "empty" }],
    );
  });

  test("a cancel in it is no failed summary, also where the model's own error comes first", async () => {
    const abort = new AbortController();
    const reason = new Error("stop");
    const script: Script = [() => abort.abort(reason), new ModelError("connection", { retryable: true })];
    const model = {
      provider: "scripted",
      async *stream(_: unknown, options: StreamOptions) {
        for (const step of script) {
          if (step instanceof Error) throw step;
          if (typeof step === "function") await step(options);
          else yield step;
        }
      },
    };
    const { error, events } = await play([], {
      history: long,
      rungs: [{ ...rungs[0], model }],
      compaction,
      signal: abort.signal,
    });
    assert.deepEqual([error, events], [reason, []]);
  });

  test("a cancel while todos are read changes nothing", async () => {
    const abort = new AbortController();
    const reason = new Error("stop");
    const openTodos = () => {
      abort.abort(reason);
      return new Promise<string[]>(() => {});
    };
    const options = { history: long, rungs, compaction, signal: abort.signal, openTodos };
    const { error, events } = await play([[used(4), ...summary]], options);
    assert.equal(error, reason);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["model_called"],
    );
  });
});

describe("what a summary stands for", () => {
  test("behaviour 38: without open todos it does not speak of any", async () => {
    for (const openTodos of [undefined, async () => []]) {
      const more = openTodos === undefined ? {} : { openTodos };
      const { model } = await play([summary, answer("Soon.")], { history: long, rungs, compaction, ...more });
      const [, stands] = model.requests[1]?.messages ?? [];
      assert.match(textOf(stands), /\n\nThey talked\.\n<\/conversation_summary>$/);
    }
  });

  test("messages without an id, as a repair makes them, are not named", async () => {
    const { id: _, ...nameless } = answered("Wait.");
    const { events } = await play([summary, answer("Soon.")], {
      history: [first, ...turns, nameless as ModelMessage, last],
      rungs,
      compaction,
    });
    const [compacted] = of(events, "context_compacted");
    assert.deepEqual([compacted?.firstKeptMessageId, compacted?.keptMessageIds], ["msg_last", ["msg_first"]]);
  });
});
