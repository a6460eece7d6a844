import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelMessage } from "../../llm/chat-model.ts";
import { answered, hidden, said, tokens, toolTurn } from "../testing/histories.ts";
import { estimateMessage, estimateMessages } from "./estimate.ts";
import { fitMessages, middleCut } from "./fit.ts";
import { compactionPreset, compactionPresets } from "./presets.ts";
import { summaryMessage } from "./summary.ts";
import { trimHistory } from "./trim.ts";

const textOf = (message: ModelMessage | undefined) => {
  const part = message?.content[0];
  const inner = part?.type === "tool_result" ? part.content[0] : part;
  return inner?.type === "text" ? inner.text : "";
};

describe("messages for a summary", () => {
  const front = [said("first")];
  const turn = (n: number, size: number) => toolTurn({ tool: "t", callId: `call_${n}`, output: tokens(size) });

  test("are as they are where they fit", () => {
    const middle = [...turn(1, 20_000), answered("x")];
    const all = [...front, ...middle];
    assert.deepEqual(fitMessages(front, middle, estimateMessages(all)), all);
    assert.notDeepEqual(fitMessages(front, middle, estimateMessages(all) - 1), all);
  });

  test("lose the middle of long outputs first, no more of it than needed", () => {
    const middle = [...turn(1, 20_000), ...turn(2, 1_000)];
    const fitted = fitMessages(front, middle, 12_000);
    assert.ok(estimateMessages(fitted) <= 12_000);
    assert.equal(fitted.length, 5);
    assert.match(textOf(fitted[2]), /^(word)+wo?r?d?\n\[about \d+ tokens left out here\]\n.*word$/);
    assert.equal(textOf(fitted[4]), tokens(1_000));
    assert.ok(textOf(fitMessages(front, middle, 4_000)[2]).length < 9_000);
  });

  test("lose the middle of long texts, arguments and images too, and are not changed themselves", () => {
    const image = { type: "image", mediaType: "image/png", data: "AA" } as const;
    const long = tokens(30_000);
    const call = { type: "tool_call", callId: "c", name: "t", argumentsJson: JSON.stringify({ long }) } as const;
    const think = { type: "thinking", text: "hm", signature: "s", origin: "anthropic" } as const;
    const question: ModelMessage = { role: "user", content: [{ type: "text", text: long }, image] };
    const reply: ModelMessage = { role: "assistant", content: [think, { type: "text", text: long }, call] };
    const middle = [question, reply, toolTurn({ tool: "t", callId: "c" })[1]];
    const before = structuredClone(middle);
    const [, q, r] = fitMessages(front, middle, 30_000);
    assert.deepEqual(middle, before);
    assert.ok(q?.role === "user" && r?.role === "assistant");
    assert.ok(textOf(q).length < 33_000);
    assert.deepEqual(q.content[1], { type: "text", text: "[image]" });
    assert.deepEqual(r.content[0], think);
    const reply1 = r.content[1];
    assert.ok(reply1?.type === "text" && reply1.text.length < 33_000);
    const args = r.content[2];
    assert.ok(args?.type === "tool_call");
    assert.match((JSON.parse(args.argumentsJson) as { shortened: string }).shortened, /left out here/);
    const short = { ...call, argumentsJson: "{}" };
    const kept = fitMessages(
      front,
      [question, { role: "assistant", content: [short] }, middle[2] as ModelMessage],
      20_000,
    );
    assert.deepEqual(kept[2]?.content[0], short);
  });

  test("lose the oldest rounds at last, with a note in their place; an earlier summary stays whole", () => {
    const summary = summaryMessage(tokens(600), [], "msg_s");
    const middle = [summary, ...turn(1, 100), hidden("note"), ...turn(2, 100), ...turn(3, 100)];
    const budget = estimateMessages([...front, summary, ...turn(3, 100)]) + 20;
    const fitted = fitMessages(front, middle, budget);
    assert.equal(fitted[1], summary);
    assert.deepEqual(fitted.slice(2).map(textOf), ["[5 messages left out here.]", "", tokens(100)]);
    assert.deepEqual(fitted[2], {
      role: "user",
      hidden: true,
      content: [{ type: "text", text: "[5 messages left out here.]" }],
    });
    const more = fitMessages(front, middle, budget + estimateMessages([hidden("note"), ...turn(2, 100)]));
    assert.deepEqual(more.slice(2, 4).map(textOf), ["[2 messages left out here.]", "note"]);
    const least = fitMessages(front, middle, 0);
    assert.equal(least.length, 5, "the newest round stays, whatever it takes");
    assert.deepEqual(fitMessages(front, turn(1, 900), 0).length, 3);
  });

  test("a text is cut in its middle, its beginning kept longest, and stays well-formed", () => {
    assert.equal(middleCut("abc", 3), "abc");
    assert.equal(middleCut("abcdefghijkl", 6), "abcd\n[about 2 tokens left out here]\nkl");
    assert.ok(middleCut("😀".repeat(20), 9).isWellFormed());
  });
});

describe("trimming", () => {
  const history = [said("first"), ...[1, 2, 3, 4].flatMap((n) => [answered(tokens(96)), said(`q${n}`)])];

  test("drops the oldest rounds until enough is gone", () => {
    const { history: left, dropped } = trimHistory(history, 1, 1, estimateMessage);
    assert.equal(dropped, 1);
    assert.deepEqual(
      left,
      history.filter((_, i) => i !== 1),
    );
    assert.equal(trimHistory(history, 101, 1, estimateMessage).dropped, 3);
    assert.equal(trimHistory(history, 100, 1, estimateMessage).dropped, 1);
    assert.deepEqual(trimHistory(history, 0, 1, estimateMessage), { history, dropped: 0 });
  });

  test("leaves the original request, summaries and the last turns, however much is to go", () => {
    const summary = summaryMessage("s", [], "msg_s");
    const [first, ...rest] = history as [ModelMessage, ...ModelMessage[]];
    const { history: left } = trimHistory([first, summary, ...rest], 1e9, 2, estimateMessage);
    assert.deepEqual(left, [first, summary, ...history.slice(4)]);
  });

  test("measures messages as they are shown", () => {
    assert.equal(trimHistory(history, 50, 1, () => 25).dropped, 3);
  });
});

describe("presets of compaction", () => {
  test("have the ratios and points of their business", () => {
    const all = Object.entries(compactionPresets).map(([name, preset]) => [
      name,
      preset.thresholdRatio,
      preset.keepTurns,
    ]);
    assert.deepEqual(all, [
      ["default", 0.8, 3],
      ["customer_service", 0.85, 3],
      ["coding_assistant", 0.8, 3],
      ["data_analysis", 0.75, 3],
    ]);
    const points: Record<string, RegExp[]> = {
      default: [/user wants/, /been done/, /decisions/, /open/],
      customer_service: [/main problem/, /solutions/, /satisfied/, /followed up/],
      coding_assistant: [/structure of the project/, /changed, and why/, /errors/, /still to be done/],
      data_analysis: [/data sources/, /findings/, /steps of the analysis/, /charts and reports/],
    };
    for (const [name, patterns] of Object.entries(points)) {
      const lines = compactionPreset(name)?.summaryPrompt.split("\n") ?? [];
      assert.match(lines[0] ?? "", /^Summarise /);
      assert.equal(lines.length, 5);
      for (const [i, pattern] of patterns.entries()) assert.match(lines[i + 1] ?? "", pattern);
    }
  });

  test("are found by name, and only by theirs", () => {
    assert.equal(compactionPreset("data_analysis"), compactionPresets.data_analysis);
    assert.equal(compactionPreset("toString"), undefined);
    assert.equal(compactionPreset(""), undefined);
  });
});
