import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { call, finish, type Script, text, thinking } from "../llm/testing/scripted-model.ts";
import { answers, outline, play, resultsIn, type Tool } from "./testing/play.ts";

const answer = (said: string): Script => [...text(said), finish()];
const calls = (...names: string[]): Script => [...names.flatMap((name) => call(name)), finish("tool_use")];
const number = { type: "object", properties: { n: { type: "number" } }, required: ["n"], additionalProperties: false };

/** Tools that wait for each other: resolved in the order in which the test says so. */
function gate() {
  const waiting = new Map<string, () => void>();
  const started: string[] = [];
  const tool = (name: string, more: Tool = {}): Tool => ({
    ...more,
    run: async () => {
      started.push(name);
      await new Promise<void>((resolve) => waiting.set(name, resolve));
      return answers(`${name} answered`);
    },
  });
  return { started, tool, release: (name: string) => waiting.get(name)?.() };
}

describe("tool calls", () => {
  test("behaviour 5: after done the rest of a turn's calls is skipped, and every call has exactly one result", async () => {
    const script: Script = [...call("a"), ...call("done", { message: "Bye" }), ...call("b"), finish("tool_use")];
    const { result, history, executed } = await play([script], { tools: { a: {}, b: {} }, requireDoneTool: true });
    assert.deepEqual([result?.outcome, result?.text], ["DONE_TOOL", "Bye"]);
    assert.deepEqual(executed, ["a {}"]);
    assert.deepEqual(resultsIn(history), [
      ["call_1", "a ran", false],
      ["call_2", "Done.", false],
      ["call_3", "The call was not made: the task had ended before it.", true],
    ]);
  });

  test("behaviour 5: a done call whose arguments are wrong does not end the run", async () => {
    const wrong: Script = [...call("done", { text: "x" }), finish("tool_use")];
    const right: Script = [...call("done", { message: "" }), finish("tool_use")];
    const { result, history } = await play([wrong, right], { requireDoneTool: true });
    assert.deepEqual([result?.outcome, result?.text], ["DONE_TOOL", ""]);
    assert.match(resultsIn(history)[0]?.[1] ?? "", /parameter "message" is missing, expected string/);
  });

  test("behaviour 6: concurrency-safe calls run together, and their results are stored in call order", async () => {
    const { started, tool, release } = gate();
    const tools = { a: tool("a", { concurrencySafe: true }), b: tool("b", { concurrencySafe: true }) };
    const playing = play([calls("a", "b"), answer("ok")], {
      tools,
      onEvent: (event) => {
        if (event.type === "tool_call_completed" && event.tool === "b") setImmediate(release, "a");
      },
    });
    while (started.length < 2) await new Promise((resolve) => setImmediate(resolve));
    release("b");
    const { events, history } = await playing;
    assert.deepEqual(
      events.flatMap((event) => (event.type === "tool_call_completed" ? [event.tool] : [])),
      ["b", "a"],
    );
    assert.deepEqual(
      resultsIn(history).map(([id, said]) => [id, said]),
      [
        ["call_1", "a answered"],
        ["call_2", "b answered"],
      ],
    );
  });

  test("behaviour 6: the others run one after the other, and never next to a safe one", async () => {
    let running = 0;
    const seen: string[] = [];
    const watch = (name: string, concurrencySafe: boolean): Tool => ({
      concurrencySafe,
      run: async () => {
        seen.push(`${name} with ${running++} others`);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        return answers(name);
      },
    });
    const tools = { safe: watch("safe", true), unsafe: watch("unsafe", false) };
    await play([calls("safe", "safe", "unsafe", "unsafe", "safe"), answer("ok")], { tools });
    assert.deepEqual(seen, [
      "safe with 0 others",
      "safe with 1 others",
      "unsafe with 0 others",
      "unsafe with 0 others",
      "safe with 0 others",
    ]);
  });

  test("behaviour 6: at most so many run at the same time, and at most so many are made in one turn", async () => {
    let running = 0;
    let most = 0;
    const t: Tool = {
      concurrencySafe: true,
      run: async () => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setImmediate(resolve));
        running--;
        return answers("ok");
      },
    };
    const script = calls(...Array.from({ length: 12 }, () => "t"));
    const { history, executed } = await play([script, answer("ok")], {
      tools: { t },
      limits: { maxParallelCalls: 3, maxCallsPerTurn: 10 },
    });
    assert.equal(most, 3);
    assert.equal(executed.length, 10);
    assert.deepEqual(
      resultsIn(history)
        .slice(10)
        .map(([, said]) => said),
      Array.from({ length: 2 }, () => "At most 10 tools can be called in one turn."),
    );
  });

  test("behaviour 7: an unknown tool, invalid JSON and a throwing tool are error results, and the loop goes on", async () => {
    const tools: Record<string, Tool> = {
      n: { inputSchema: number },
      bad: { run: () => Promise.reject(new Error("secret /srv/internal path")) },
      worse: {
        run: () => {
          throw new TypeError("not even a promise");
        },
      },
      odd: { run: async () => undefined as never },
    };
    const script: Script = [
      ...call("nosuch"),
      ...call("n", '{"n": '),
      ...call("bad"),
      ...call("worse"),
      finish("tool_use"),
    ];
    const { result, history, executed } = await play([script, answer("I see")], { tools });
    assert.equal(result?.text, "I see");
    assert.deepEqual(executed, ["bad {}", "worse {}"]);
    assert.deepEqual(resultsIn(history), [
      ["call_1", 'There is no tool "nosuch". The tools are: n, bad, worse, odd.', true],
      ["call_2", 'Invalid arguments for the tool "n": they are not valid JSON.', true],
      ["call_3", 'The tool "bad" failed.', true],
      ["call_4", 'The tool "worse" failed.', true],
    ]);
  });

  test("behaviour 7: a model that calls an unknown tool for ever is stopped by the limit of turns", async () => {
    const { result } = await play([calls("x"), calls("x"), answer("I give up")], { limits: { maxIterations: 2 } });
    assert.deepEqual([result?.outcome, result?.text], ["MAX_ITERATIONS", "I give up"]);
  });

  test("behaviour 8: wrong arguments name the parameter and what it must be, and do not reach the tool", async () => {
    const script: Script = [
      ...call("n", { n: "many", m: 1 }),
      ...call("n", "[1]"),
      ...call("n", "null"),
      finish("tool_use"),
    ];
    const { history, executed } = await play([script, answer("ok")], { tools: { n: { inputSchema: number } } });
    assert.deepEqual(executed, []);
    assert.deepEqual(
      resultsIn(history).map(([, said]) => said),
      [
        'Invalid arguments for the tool "n": parameter "m" is unknown; parameter "n" must be number, got string.',
        'Invalid arguments for the tool "n": they must be a JSON object, got array.',
        'Invalid arguments for the tool "n": they must be a JSON object, got null.',
      ],
    );
  });

  test("behaviour 24: text and images of a result are in its event and go to the model", async () => {
    const content = [
      { type: "text", text: "a chart" } as const,
      { type: "image", mediaType: "image/png", data: "AAAA" } as const,
      { type: "image", mediaType: "image/webp", data: "BBBB" } as const,
    ];
    const run = async () => ({ content, structuredJson: '{"a":1}', durationMs: 12 });
    const { events, model } = await play([calls("chart"), answer("ok")], { tools: { chart: { run } } });
    assert.deepEqual(
      events.find((event) => event.type === "tool_call_completed"),
      {
        type: "tool_call_completed",
        itemId: "call_1",
        tool: "chart",
        content,
        structuredJson: '{"a":1}',
        isError: false,
        durationMs: 12,
      },
    );
    assert.deepEqual(model.requests[1]?.messages.at(-1), {
      role: "tool",
      content: [{ type: "tool_result", callId: "call_1", tool: "chart", content, isError: false }],
    });
  });

  test("behaviour 28: defaults are filled in, in what is shown and executed", async () => {
    const inputSchema = {
      type: "object",
      properties: { unit: { type: "string", default: "km" }, n: { type: "number" } },
    };
    const script: Script = [
      ...call("n", '{"n":12345678901234567890}'),
      ...call("n", { unit: null, n: 1 }),
      finish("tool_use"),
    ];
    const { executed, events } = await play([script, answer("ok")], { tools: { n: { inputSchema } } });
    assert.deepEqual(executed[1], 'n {"n":1,"unit":"km"}');
    const shown = events.flatMap((event) => (event.type === "tool_call_requested" ? [`n ${event.argumentsJson}`] : []));
    assert.deepEqual(shown, executed);
  });

  test("a call that the model began and never gave whole is void, and the others are made", async () => {
    const script: Script = [...call("t"), ...call("t").slice(0, 2), ...thinking("Hm").slice(0, 1), finish("tool_use")];
    const { events, executed } = await play([script, answer("ok")], { tools: { t: {} } });
    assert.deepEqual(executed, ["t {}"]);
    const outlined = outline(events).slice(0, outline(events).indexOf("step_completed"));
    assert.deepEqual(outlined.slice(-4), [
      "tool_call_requested",
      "item_discarded",
      "calls_planned",
      "tool_call_completed",
    ]);
  });

  test("progress of a tool is told until it has answered, and its risk with the request", async () => {
    let late: (() => void) | undefined;
    const t: Tool = {
      risk: 3,
      run: async (_call, _signal, onProgress) => {
        onProgress({ message: "half", fraction: 0.5 });
        late = () => onProgress({ message: "too late", fraction: 1 });
        return answers("ok");
      },
    };
    const { events } = await play([calls("t"), answer("ok")], {
      tools: { t },
      onEvent: (event) => event.type === "tool_call_completed" && late?.(),
    });
    assert.deepEqual(
      events.filter((event) => event.type === "tool_call_progress"),
      [{ type: "tool_call_progress", itemId: "call_1", message: "half", fraction: 0.5 }],
    );
    assert.ok(events.some((event) => event.type === "tool_call_requested" && event.risk === 3));
  });

  test("half a surrogate pair in a result does not spoil the history", async () => {
    const run = async () => answers("x\ud83d");
    const { history } = await play([calls("t"), answer("ok")], { tools: { t: { run } } });
    assert.equal(resultsIn(history)[0]?.[1], "x\ufffd");
  });
});

describe("a cancelled run", () => {
  test("behaviour 14: during tool 2 of 3 stores results 2 and 3 as cancelled, and the next request is valid", async () => {
    const abort = new AbortController();
    const reason = new Error("the user left");
    const tools: Record<string, Tool> = {
      first: {},
      second: {
        run: async () => {
          abort.abort(reason);
          return new Promise(() => {});
        },
      },
      third: {},
    };
    const { error, history, executed, events } = await play([calls("first", "second", "third")], {
      tools,
      signal: abort.signal,
    });
    assert.equal(error, reason);
    assert.deepEqual(executed, ["first {}", "second {}"]);
    assert.deepEqual(resultsIn(history), [
      ["call_1", "first ran", false],
      ["call_2", "The call was cancelled.", true],
      ["call_3", "The call was cancelled.", true],
    ]);
    assert.deepEqual(outline(events).slice(-2), ["tool_call_completed", "step_completed"]);
  });

  test("behaviour 14: with tools side by side keeps what was answered and does not wait for those that ignore the signal", async () => {
    const abort = new AbortController();
    const { started, tool, release } = gate();
    const safe = { concurrencySafe: true };
    const tools = { a: tool("a", safe), b: tool("b", safe), c: tool("c", safe) };
    const playing = play([calls("a", "b", "c")], {
      tools,
      signal: abort.signal,
      onEvent: (event) => event.type === "tool_call_completed" && event.tool === "b" && abort.abort(),
    });
    while (started.length < 3) await new Promise((resolve) => setImmediate(resolve));
    release("b");
    const { history, error } = await playing;
    assert.equal((error as Error).name, "AbortError");
    assert.deepEqual(
      resultsIn(history).map(([, said]) => said),
      ["The call was cancelled.", "b answered", "The call was cancelled."],
    );
    // What answers later is not heard.
    release("a");
    release("c");
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(resultsIn(history).length, 3);
  });

  test("behaviour 14: a tool that fails because of the signal is cancelled, not failed", async () => {
    const abort = new AbortController();
    const run: Tool["run"] = (_call, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        abort.abort();
      });
    const { history } = await play([calls("t")], { tools: { t: { run } }, signal: abort.signal });
    assert.deepEqual(resultsIn(history), [["call_1", "The call was cancelled.", true]]);
  });

  test("behaviour 14: while the model answers keeps the text that was shown", async () => {
    for (const [script, kept] of [
      [text("I was just"), "I was just"],
      [[...text("Let me "), ...call("t").slice(0, 2)], "Let me "],
      [call("t"), undefined],
      [[], undefined],
    ] as const) {
      const abort = new AbortController();
      const reason = new Error("stop");
      const stop = () => abort.abort(reason);
      const { error, history, executed, events } = await play([[...script, stop]], {
        tools: { t: {} },
        signal: abort.signal,
      });
      assert.equal(error, reason);
      assert.deepEqual(executed, []);
      assert.deepEqual(
        history.slice(1),
        kept === undefined ? [] : [{ role: "assistant", content: [{ type: "text", text: kept }] }],
      );
      const last = events.at(-1);
      assert.ok(last?.type === "step_completed" && last.finishReason === "cancelled");
    }
  });

  test("behaviour 14: before the first and between two steps starts nothing more", async () => {
    const reason = new Error("stop");
    const before = await play([], { signal: AbortSignal.abort(reason) });
    assert.deepEqual([before.error, before.events], [reason, []]);
    const abort = new AbortController();
    const between = await play([calls("t")], {
      tools: { t: {} },
      signal: abort.signal,
      onEvent: (event) => event.type === "step_completed" && abort.abort(reason),
    });
    assert.equal(between.error, reason);
    assert.equal(between.model.requests.length, 1);
    assert.deepEqual(resultsIn(between.history), [["call_1", "t ran", false]]);
  });

  test("behaviour 14: while open work is asked for ends with the answer that there is, and so it does when that fails", async () => {
    const abort = new AbortController();
    const hangs = () => {
      abort.abort(new Error("stop"));
      return new Promise<string>(() => {});
    };
    for (const unfinishedWork of [() => Promise.reject(new Error("away")), hangs]) {
      const { result, events } = await play([answer("All done")], { unfinishedWork, signal: abort.signal });
      assert.deepEqual([result?.outcome, result?.text], ["ANSWERED", "All done"]);
      assert.equal(events.at(-1)?.type, "step_completed");
    }
  });

  test("behaviour 14: leaves no listener on its signal", async () => {
    const abort = new AbortController();
    let listeners = 0;
    const { addEventListener, removeEventListener } = abort.signal;
    abort.signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners++;
      addEventListener.apply(abort.signal, args);
    };
    abort.signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners--;
      removeEventListener.apply(abort.signal, args);
    };
    await play([calls("t"), calls("t"), answer("ok")], { tools: { t: {} }, signal: abort.signal });
    assert.equal(listeners, 0);
  });
});
