import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage } from "../../llm/chat-model.ts";
import { answered, said, tokens, toolTurn } from "../testing/histories.ts";
import { Context } from "./context.ts";
import { estimateContent } from "./estimate.ts";
import { placeholder } from "./evict.ts";

const keep = new Map([["shot", 2]]);
const big = tokens(500);
const shot = (n: number, more: { isError?: boolean; named?: boolean; output?: string } = {}) =>
  toolTurn({ tool: "shot", callId: `call_${n}`, output: big, ...more });

/** Ids of the calls whose results a context shows in full. */
function shown(context: Context): string[] {
  return context
    .view()
    .flatMap((message) =>
      message.role !== "tool"
        ? []
        : message.content.flatMap(({ callId, content }) =>
            JSON.stringify(content).includes("left out") ? [] : [callId],
          ),
    );
}

function contextOf(history: ModelMessage[], batch = 1): Context {
  return new Context(history, keep, batch);
}

describe("eviction", () => {
  test("behaviour 31: of n + 1 results that the model has seen the oldest is replaced by a placeholder", () => {
    const context = contextOf([said("go"), ...shot(1), ...shot(2), ...shot(3)]);
    assert.equal(context.evict(), undefined, "it has not seen the third");
    context.add([answered("ok")]);
    const saved = estimateContent([{ type: "text", text: big }]);
    const evicted = context.evict();
    assert.deepEqual(evicted?.callIds, ["call_1"]);
    assert.ok(evicted.tokensSaved > saved - 60 && evicted.tokensSaved < saved);
    assert.deepEqual(shown(context), ["call_2", "call_3"]);
    assert.equal(context.evict(), undefined, "it is told once");
    const justEnough = contextOf([...context.history], evicted.tokensSaved);
    assert.deepEqual(justEnough.evict(), evicted);
    assert.equal(contextOf([...context.history], evicted.tokensSaved + 1).evict(), undefined);
  });

  test("behaviour 31: errors are never evicted and do not count, and other tools keep everything", () => {
    const other = toolTurn({ tool: "other", callId: "call_o", output: big });
    const history = [said("go"), ...other, ...shot(1, { isError: true }), ...shot(2), ...shot(3), answered("ok")];
    const context = contextOf(history);
    assert.equal(context.evict(), undefined);
    context.add([...shot(4), answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_2"]);
    assert.deepEqual(shown(context), ["call_o", "call_1", "call_3", "call_4"]);
  });

  test("behaviour 31: a result that was stored without its tool's name counts by its call", () => {
    const context = contextOf([said("go"), ...shot(1, { named: false }), ...shot(2), ...shot(3), answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_1"]);
  });

  test("behaviour 32: more than n results of one turn are all shown once", () => {
    const calls = [1, 2, 3, 4].map((n) => ({ tool: "shot", callId: `call_${n}`, output: big }));
    const context = contextOf([said("go"), ...toolTurn(...calls)]);
    assert.equal(context.evict(), undefined);
    assert.equal(shown(context).length, 4);
    context.add([answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_1", "call_2"]);
    assert.deepEqual(shown(context), ["call_3", "call_4"]);
  });

  test("behaviour 33: the placeholder says how to read the output again, and the history keeps it", () => {
    const [, results] = shot(1);
    const [part] = results.content;
    assert.ok(part !== undefined);
    const { content, ...rest } = placeholder(part);
    assert.deepEqual(rest, { type: "tool_result", callId: "call_1", tool: "shot", isError: false });
    assert.deepEqual(content, [
      {
        type: "text",
        text: '[This output was left out to save space. If you need it again, call read_tool_output with call_id "call_1".]',
      },
    ]);
    const context = contextOf([said("go"), ...shot(1), ...shot(2), ...shot(3), answered("ok")]);
    context.evict();
    assert.deepEqual(context.find("call_1")?.content, [{ type: "text", text: big }]);
    assert.equal(context.find("call_9"), undefined);
    assert.ok(!context.history.some((message) => JSON.stringify(message).includes("left out")));
  });

  test("behaviour 34: nothing goes before a batch is worth it; then all of it goes, and between batches the view only grows", () => {
    const context = contextOf([said("go")], 1_300);
    const evicted: string[][] = [];
    let before: ModelMessage[] = [];
    for (let n = 1; n <= 11; n++) {
      context.add(shot(n));
      const now = context.evict();
      const view = context.view();
      if (now === undefined) assert.deepEqual(view.slice(0, before.length), before);
      else evicted.push(now.callIds);
      for (const [i, message] of before.entries()) if (now === undefined) assert.equal(view[i], message);
      before = view;
    }
    assert.deepEqual(evicted, [
      ["call_1", "call_2", "call_3"],
      ["call_4", "call_5", "call_6"],
    ]);
  });

  test("behaviour 34: the next run comes to the same view of the same history", () => {
    const first = contextOf([said("go")], 1_300);
    for (let n = 1; n <= 9; n++) {
      first.add(shot(n));
      first.evict();
    }
    first.add([answered("ok"), said("more")]);
    const second = contextOf([...first.history], 1_300);
    first.evict();
    second.evict();
    assert.deepEqual(second.view(), first.view());
    assert.deepEqual(shown(second), ["call_7", "call_8", "call_9"]);
  });

  test("a result that is shorter than its placeholder stays", () => {
    const context = contextOf([said("go"), ...shot(1, { output: "x" }), ...shot(2), ...shot(3), answered("ok")]);
    assert.equal(context.evict(), undefined);
    context.add([...shot(4), answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_2"]);
  });

  test("images go with their result", () => {
    const image = { type: "image", mediaType: "image/png", data: "AAAA" } as const;
    const [call, result] = shot(1);
    const [part] = result.content;
    assert.ok(part !== undefined);
    const withImage = { ...result, content: [{ ...part, content: [image] }] };
    const context = contextOf([said("go"), call, withImage, ...shot(2), ...shot(3), answered("ok")], 1_500);
    assert.equal(context.evict()?.tokensSaved, 1_600 - estimateContent(placeholder(part).content));
  });

  test("what was evicted before a history was replaced is not told of again", () => {
    const context = contextOf([said("go"), ...shot(1), ...shot(2), ...shot(3), answered("ok")]);
    context.evict();
    context.replace(context.history.slice());
    assert.deepEqual(shown(context), ["call_2", "call_3"]);
    assert.equal(context.evict(), undefined);
    context.add([...shot(4), answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_2"]);
  });

  test("what a shorter history shows again is not told of a second time when it goes", () => {
    const [one, ...rest] = [shot(1), shot(2), shot(3), shot(4)];
    const context = contextOf([said("go"), ...(one ?? []), ...rest.flat(), answered("ok")], 900);
    assert.deepEqual(context.evict()?.callIds, ["call_1", "call_2"]);
    context.replace([said("go"), ...rest.flat(), answered("ok")]);
    assert.deepEqual(shown(context), ["call_2", "call_3", "call_4"]);
    context.add([...shot(5), answered("ok")]);
    assert.deepEqual(context.evict()?.callIds, ["call_3"]);
    assert.deepEqual(shown(context), ["call_4", "call_5"]);
  });
});
