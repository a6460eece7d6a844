import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ChatModel, ModelEvent, ModelRequest, RetryEvent, StreamOptions } from "./chat-model.ts";
import { ModelError, type ModelErrorFacts, type ModelErrorKind } from "./model-error.ts";
import { abortableSleep, type RetryOptions, withRetry } from "./retry.ts";

const request: ModelRequest = { model: "m", system: "", messages: [], tools: [], maxTokens: 1 };
const fault = (kind: ModelErrorKind, facts: Partial<ModelErrorFacts> = {}) =>
  new ModelError(kind, { retryable: true, ...facts });
const said = (text: string): ModelEvent => ({ type: "text_delta", text });
const finish: ModelEvent = { type: "finish", reason: "end_turn" };

/** Answers each call with the next list: events are given, an error ends it. */
function playing(...calls: (ModelEvent | Error)[][]) {
  let made = 0;
  const model: ChatModel = {
    provider: "test",
    async *stream() {
      for (const step of calls[made++] ?? []) {
        if (step instanceof Error) throw step;
        yield step;
      }
    },
  };
  return { model, made: () => made };
}

async function run(calls: (ModelEvent | Error)[][], stream: Partial<StreamOptions> = {}, options: RetryOptions = {}) {
  const waits: number[] = [];
  const { model, made } = playing(...calls);
  const retrying = withRetry(model, { random: () => 0, sleep: async (ms) => void waits.push(ms), ...options });
  const events: ModelEvent[] = [];
  let error: unknown;
  try {
    for await (const event of retrying.stream(request, { signal: new AbortController().signal, ...stream })) {
      events.push(event);
    }
  } catch (e) {
    error = e;
  }
  return { events, waits, error, made: made() };
}

describe("the retry layer", () => {
  test("behaviour 44: waits about 1, 2, 4, 8 s with at most a tenth of jitter, then gives the last error", async () => {
    const calls = Array.from({ length: 9 }, () => [fault("overloaded", { status: 529 })]);
    const plain = await run(calls);
    assert.deepEqual(plain.waits, [1_000, 2_000, 4_000, 8_000]);
    assert.equal(plain.made, 5);
    assert.equal((plain.error as ModelError).kind, "overloaded");
    const jittered = await run(calls, {}, { random: () => 0.999_999 });
    assert.deepEqual(jittered.waits, [1_100, 2_200, 4_400, 8_800]);
    const capped = await run(calls, {}, { maxAttempts: 9 });
    assert.deepEqual(capped.waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
  });

  test("behaviour 44: a Retry-After is waited for, up to the cap", async () => {
    const asked = (retryAfterMs: number) => [fault("rate_limited", { retryAfterMs })];
    const { waits } = await run([asked(7_000), asked(0), asked(3_600_000), [said("ok"), finish]]);
    assert.deepEqual(waits, [7_000, 0, 60_000]);
  });

  test("behaviour 44: what asking again cannot mend fails at once, programming errors too", async () => {
    for (const error of [fault("invalid_request", { retryable: false }), new TypeError("x is undefined")]) {
      const { waits, made, error: thrown } = await run([[error]]);
      assert.deepEqual([waits, made, thrown], [[], 1, error]);
    }
  });

  test("behaviour 23: a retry is an event, and the caller is told, before the wait", async () => {
    const told: RetryEvent[] = [];
    const { events } = await run([[fault("timeout")], [said("ok"), finish]], { onRetry: (retry) => told.push(retry) });
    const retry = { type: "retry", attempt: 2, delayMs: 1_000, kind: "timeout" };
    assert.deepEqual(events, [retry, said("ok"), finish]);
    assert.deepEqual(told, [retry]);
  });

  test("once output was handed on, a failure is final unless the caller allows a discard", async () => {
    const calls = () => [
      [said("half"), fault("connection")],
      [said("whole"), finish],
    ];
    const strict = await run(calls());
    assert.equal((strict.error as ModelError).kind, "connection");
    assert.deepEqual(strict.events, [said("half")]);
    const lenient = await run(calls(), { mayDiscard: true });
    assert.deepEqual(lenient.events, [
      said("half"),
      { type: "discard" },
      { type: "retry", attempt: 2, delayMs: 1_000, kind: "connection" },
      said("whole"),
      finish,
    ]);
  });

  test("usage and notices are not output: a failure after them is retried without a discard", async () => {
    const usage: ModelEvent = {
      type: "usage",
      provider: "p",
      model: "m",
      inputTokens: 1,
      cacheReadTokens: 0,
      cacheWriteTokens: 0,
      outputTokens: 0,
    };
    const notice: ModelEvent = { type: "notice", reason: "R", message: "m" };
    const { events } = await run([[notice, usage, fault("connection")], [finish]]);
    assert.deepEqual(
      events.map((event) => event.type),
      ["notice", "usage", "retry", "finish"],
    );
  });

  test("the signal ends the wait at once, with its reason", async () => {
    const abort = new AbortController();
    const reason = new Error("enough");
    const { model, made } = playing([fault("overloaded")], [finish]);
    const stream = withRetry(model).stream(request, { signal: abort.signal })[Symbol.asyncIterator]();
    assert.equal((await stream.next()).value.type, "retry");
    const waiting = stream.next();
    abort.abort(reason);
    await assert.rejects(waiting, reason);
    assert.equal(made(), 1);
  });

  test("an abort is never taken for a failure", async () => {
    const abort = new AbortController();
    const reason = new Error("enough");
    abort.abort(reason);
    const { error, waits } = await run([[fault("connection")]], { signal: abort.signal });
    assert.deepEqual([error, waits], [reason, []]);
  });

  test("a caller that stops reading ends the model's stream", async () => {
    let ended = false;
    const model: ChatModel = {
      provider: "test",
      async *stream() {
        try {
          yield said("a");
          yield said("b");
        } finally {
          ended = true;
        }
      },
    };
    for await (const _event of withRetry(model).stream(request, { signal: new AbortController().signal })) break;
    assert.ok(ended);
  });

  test("the sleep leaves no listener behind and ends with its signal", async () => {
    const abort = new AbortController();
    await abortableSleep(1, abort.signal);
    const sleeping = abortableSleep(60_000, abort.signal);
    abort.abort(new Error("up"));
    await assert.rejects(sleeping, /up/);
    await assert.rejects(abortableSleep(60_000, abort.signal), /up/);
  });
});
