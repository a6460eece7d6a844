import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { call, finish, type Script, text } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import { sliceText } from "./slice-text.ts";
import { said, tokens, toolTurn } from "./testing/histories.ts";
import { answers, play, resultsIn, type Tool } from "./testing/play.ts";
import type { OutputPart } from "./tool-spec.ts";

const answer = (words: string): Script => [...text(words), finish()];
const calls = (...names: string[]): Script => [...names.flatMap((name) => call(name)), finish("tool_use")];
const read = (input: object): Script => [...call("read_tool_output", input), finish("tool_use")];
const says = (output: string, more: object = {}): Tool => ({ run: async () => ({ ...answers(output), ...more }) });
const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);

describe("a tool's output", () => {
  test("behaviour 30: that was cut says how to read on, once, and the model is offered the means", async () => {
    const t = says("0123456789", { truncated: true });
    const { model, events, history } = await play([calls("t"), answer("ok")], { tools: { t } });
    const shown =
      '0123456789[The output was cut here. To read on, call read_tool_output with call_id "call_1" and offset 10.]';
    assert.deepEqual(resultsIn(history), [["call_1", shown, false]]);
    assert.deepEqual(
      model.requests.map(({ tools }) => tools.map(({ name }) => name)),
      [["t"], ["t", "read_tool_output"]],
    );
    assert.equal(of(events, "tool_call_completed")[0]?.truncated, true);
    const said = says("0123 [Read on with read_tool_output: call_id x, offset 4.]", { truncated: true });
    const own = await play([calls("t"), answer("ok")], { tools: { t: said } });
    assert.equal(resultsIn(own.history)[0]?.[1], "0123 [Read on with read_tool_output: call_id x, offset 4.]");
    const next = await play([answer("ok")], { tools: { t }, history: [said_(), ...history.slice(1), said_()] });
    assert.equal(next.model.requests[0]?.tools.length, 2, "a later run knows of it");
  });

  test("behaviour 30: of 50 MB is cut to a part of the model's window", async () => {
    const t = says("é".repeat(25 * 1024 * 1024), { structuredJson: `"${"x".repeat(2 * 1024 * 1024)}"` });
    const { history, events } = await play([calls("t"), answer("ok")], {
      tools: { t },
      rungs: [{ contextWindow: 50_000 }],
    });
    const [[, shown] = []] = resultsIn(history);
    assert.ok(shown !== undefined);
    assert.ok(shown.startsWith("é".repeat(25_000)) && shown.length < 25_200);
    assert.match(shown, /offset 50000\.\]$/);
    assert.equal(of(events, "tool_call_completed")[0]?.structuredJson, "");
    const small = await play([calls("t"), answer("ok")], {
      tools: { t },
      rungs: [{ contextWindow: 30_000 }],
      limits: { maxTokens: 10 },
    });
    assert.match(resultsIn(small.history)[0]?.[1] ?? "", /offset 30000/);
    const least = await play([calls("t"), answer("ok")], { tools: { t }, rungs: [{ contextWindow: 100 }] });
    assert.match(resultsIn(least.history)[0]?.[1] ?? "", /offset 16384/);
    const most = await play([calls("t"), answer("ok")], { tools: { t }, rungs: [{ contextWindow: 9_000_000 }] });
    assert.match(resultsIn(most.history)[0]?.[1] ?? "", /offset 1048576/);
  });

  test("behaviour 30: in many parts is cut over all of them; huge images and countless parts are left out", async () => {
    const part = (words: string) => ({ type: "text", text: words }) as const;
    const image = (length: number) => ({ type: "image", mediaType: "image/png", data: "A".repeat(length) }) as const;
    const run = (content: object[]): Tool => ({ run: async () => ({ content: content as never }) });
    const rungs = [{ contextWindow: 20_000 }];
    const one = await play([calls("t"), answer("ok")], {
      tools: { t: run([part("a".repeat(20_000)), part("b"), part(""), image(8)]) },
      rungs,
    });
    const [[, shown] = []] = resultsIn(one.history);
    assert.match(shown ?? "", /^a{20000}\[image\/png\]\[The output was cut/);
    const exact = await play([calls("t"), answer("ok")], { tools: { t: run([part("a".repeat(20_000))]) }, rungs });
    assert.equal(resultsIn(exact.history)[0]?.[1].length, 20_000);
    const large = await play([calls("t"), answer("ok")], {
      tools: { t: run([image(7 * 1024 * 1024 + 1), image(7 * 1024 * 1024)]) },
    });
    assert.equal(resultsIn(large.history)[0]?.[1], "[An image of type image/png is too large to be shown.][image/png]");
    const many = await play([calls("t"), answer("ok")], {
      tools: { t: run(Array.from({ length: 101 }, () => part("x"))) },
    });
    assert.match(resultsIn(many.history)[0]?.[1] ?? "", /^x{100}\[The output was cut/);
  });

  test("behaviour 7: that is binary or no output at all is defined", async () => {
    const binary = String.fromCharCode(0, 1, 0xd800, 0xffff, 7);
    const tools = {
      binary: says(binary),
      nothing: { run: async () => undefined as never },
      odd: { run: async () => ({ content: "text" }) as never },
      parts: { run: async () => ({ content: [null] }) as never },
    };
    const { history, result } = await play([calls("binary", "nothing", "odd", "parts"), answer("ok")], { tools });
    assert.equal(result?.text, "ok");
    assert.deepEqual(resultsIn(history), [
      ["call_1", binary.toWellFormed(), false],
      ["call_2", "nothing ran", false],
      ["call_3", 'The tool "odd" failed.', true],
      ["call_4", 'The tool "parts" failed.', true],
    ]);
  });

  test("tells how many calls are left, and of an escalation", async () => {
    const escalation = { reason: "angry", priority: "high" } as const;
    const { events } = await play([calls("t", "u"), answer("ok")], {
      tools: { t: says("x", { callsLeft: 0 }), u: says("y", { escalation }) },
    });
    const [t, u] = of(events, "tool_call_completed");
    assert.deepEqual([t?.callsLeft, u && "callsLeft" in u], [0, false]);
    assert.deepEqual(of(events, "escalated"), [{ type: "escalated", ...escalation }]);
    assert.ok(events.findIndex(({ type }) => type === "escalated") > events.indexOf(u as EngineEvent));
  });
});

function said_() {
  return said("next");
}

describe("an evicted output", () => {
  const shot = (n: number, more = "") => ({ ...says(`${n} ${more}${tokens(3_000)} end`), ephemeral: 1 });

  test("behaviours 31, 33 and 23: is told of, replaced in the next request, and read again from the history", async () => {
    let n = 0;
    const t: Tool = { ephemeral: 1, run: async () => answers(`${++n} ${tokens(5_000)} end`) };
    const { events, model, history } = await play(
      [calls("t"), calls("t"), read({ call_id: "call_1" }), read({ call_id: "call_1", offset: 16_384 }), answer("ok")],
      { tools: { t } },
    );
    const [evicted] = of(events, "tool_outputs_evicted");
    assert.deepEqual(evicted?.callIds, ["call_1"]);
    assert.ok(evicted.tokensSaved > 4_900);
    assert.deepEqual(
      model.requests[0]?.tools.map(({ name }) => name),
      ["t", "read_tool_output"],
    );
    const shown = resultsIn([...(model.requests[3]?.messages ?? [])]);
    assert.match(shown[0]?.[1] ?? "", /left out.*call_id "call_1"/);
    assert.match(shown[1]?.[1] ?? "", /^2 word/);
    assert.match(
      shown[2]?.[1] ?? "",
      /^1 (word)+wo\[This is up to byte 16384 of 20006\. Read on with offset 16384\.\]$/,
    );
    const last = resultsIn(history).at(-1);
    assert.match(last?.[1] ?? "", /^rd(word)+ end\[This is the end of the output\.\]$/);
    assert.match(resultsIn(history)[0]?.[1] ?? "", /^1 word/, "the history keeps it");
  });

  test("behaviour 33: is read outside when the history holds it no more, or holds a part", async () => {
    const asked: [string, number][] = [];
    const part: OutputPart = { text: "outside", totalBytes: 90, nextOffset: 50 };
    const readToolOutput = async (callId: string, offset: number) => {
      asked.push([callId, offset]);
      return callId === "call_gone" || callId === "call_1" ? part : undefined;
    };
    const t = { ...says("part", { truncated: true }), ephemeral: 1 };
    const { history } = await play(
      [
        calls("t"),
        read({ call_id: "call_gone" }),
        read({ call_id: "call_1", offset: 43 }),
        read({ call_id: "x" }),
        answer("ok"),
      ],
      { tools: { t }, readToolOutput },
    );
    assert.deepEqual(asked, [
      ["call_gone", 0],
      ["call_1", 43],
      ["x", 0],
    ]);
    const pointed = "outside[This is up to byte 50 of 90. Read on with offset 50.]";
    assert.deepEqual(resultsIn(history).slice(1), [
      ["call_2", pointed, false],
      ["call_3", pointed, false],
      ["call_4", 'There is no output of a call "x".', true],
    ]);
    const within = await play([calls("t"), read({ call_id: "call_1" }), answer("ok")], { tools: { t } });
    assert.match(resultsIn(within.history)[1]?.[1] ?? "", /^part.*end of the output/s);
  });

  test("behaviour 33: comes with its images, and a reader that fails is a result", async () => {
    const image = { type: "image", mediaType: "image/png", data: "AAAA" } as const;
    const t: Tool = {
      ephemeral: 1,
      run: async () => ({ content: [{ type: "text", text: "a" }, image, { type: "text", text: "b" }] }),
    };
    const readToolOutput = () => Promise.reject(new Error("secret"));
    const { history } = await play(
      [
        calls("t"),
        read({ call_id: "call_1" }),
        read({ call_id: "call_1", offset: 2 }),
        read({ call_id: "gone" }),
        answer("ok"),
      ],
      { tools: { t }, readToolOutput },
    );
    assert.deepEqual(
      resultsIn(history)
        .slice(1)
        .map(([, words]) => words),
      [
        "a\nb[image/png][This is the end of the output.]",
        "b[This is the end of the output.]",
        'The tool "read_tool_output" failed.',
      ],
    );
  });

  test("the built-in reader replaces a tool of its name, and is not there where nothing can be read", async () => {
    const { model, history } = await play([calls("read_tool_output"), answer("ok")], {
      tools: { read_tool_output: {}, t: {} },
    });
    assert.deepEqual(
      model.requests[0]?.tools.map(({ name }) => name),
      ["t"],
    );
    assert.match(resultsIn(history)[0]?.[1] ?? "", /There is no tool "read_tool_output"/);
    const reads = await play([read({}), read({ call_id: "x", offset: -1 }), answer("ok")], {
      tools: { shot: shot(1) },
    });
    assert.match(resultsIn(reads.history)[0]?.[1] ?? "", /parameter "call_id" is missing/);
    assert.match(resultsIn(reads.history)[1]?.[1] ?? "", /parameter "offset"/);
  });

  test("calls of the reader run side by side", async () => {
    const history = [said("go"), ...toolTurn({ tool: "t", callId: "call_a", output: "A" }), said("again")];
    const script: Script = [
      ...call("read_tool_output", { call_id: "call_a" }),
      ...call("read_tool_output", { call_id: "call_a" }),
      finish("tool_use"),
    ];
    const played = await play([script, answer("ok")], { history, tools: { t: { ephemeral: 1 } } });
    assert.equal(resultsIn(played.history).length, 3);
  });
});

describe("a slice of a text", () => {
  test("begins and ends with a whole character", () => {
    assert.deepEqual(sliceText("héllo", 0, 10), { text: "héllo", end: 6 });
    assert.deepEqual(sliceText("héllo", 0, 6), { text: "héllo", end: 6 });
    assert.deepEqual(sliceText("héllo", 0, 2), { text: "h", end: 1 });
    assert.deepEqual(sliceText("héllo", 0, 3), { text: "hé", end: 3 });
    assert.deepEqual(sliceText("héllo", 2, 2), { text: "ll", end: 5 });
    assert.deepEqual(sliceText("héllo", 4, 9), { text: "lo", end: 6 });
    assert.deepEqual(sliceText("héllo", 99, 9), { text: "", end: 6 });
    assert.deepEqual(sliceText("é", 1, 9), { text: "", end: 2 });
    assert.deepEqual(sliceText("😀😀", 0, 7), { text: "😀", end: 4 });
    assert.deepEqual(sliceText("", 0, 7), { text: "", end: 0 });
  });
});
