import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { Breakers } from "./breaker.ts";
import { CallLimits, type CallLimitsOptions, type Place } from "./call-limits.ts";
import type { ChatModel, ModelEvent, ModelRequest } from "./chat-model.ts";
import { withGuards } from "./guarded-stream.ts";
import { ModelError } from "./model-error.ts";
import { withRetry } from "./retry.ts";

const ours = { provider: "p", credentialId: "platform" };
const theirs = { provider: "p", credentialId: "own:ten_1:1" };
const never = new AbortController().signal;
const request: ModelRequest = { model: "m", system: "", messages: [], tools: [], maxTokens: 1 };

function setup(more: CallLimitsOptions = {}) {
  let now = 0;
  const limits = new CallLimits({ maxCalls: 2, now: () => now, ...more });
  return { limits, pass: (ms: number) => (now += ms) };
}

/** A model whose calls last until they are told how to end. */
function held() {
  const open: PromiseWithResolvers<void>[] = [];
  const model: ChatModel = {
    provider: "p",
    async *stream(): AsyncGenerator<ModelEvent> {
      const end = Promise.withResolvers<void>();
      open.push(end);
      yield { type: "text_delta", text: "x" };
      await end.promise;
      yield { type: "finish", reason: "end_turn" };
    },
  };
  return { model, open };
}

async function drain(model: ChatModel, signal = never, credential?: { id: string; apiKey: string }): Promise<unknown> {
  try {
    for await (const _ of model.stream(request, { signal, mayDiscard: true, ...(credential && { credential }) }));
    return undefined;
  } catch (error) {
    return error;
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn();
}

describe("limits of calls", () => {
  test("so many at a time with one key; the next goes on when one has ended, in the order of coming", async () => {
    const { limits } = setup();
    const places = [await limits.enter(ours, never), await limits.enter(ours, never)];
    const order: number[] = [];
    const noting = (n: number) => (place: Place) => {
      order.push(n);
      return place;
    };
    const waiting = [1, 2].map((n) => limits.enter(ours, never).then(noting(n)));
    await settle();
    assert.deepEqual([order, limits.use], [[], { calls: 2, waiting: 2 }]);
    places[0]?.leave();
    places[0]?.leave();
    await settle();
    assert.deepEqual([order, limits.use], [[1], { calls: 2, waiting: 1 }]);
    places[1]?.leave();
    for (const place of await Promise.all(waiting)) place.leave();
    assert.deepEqual([order, limits.use], [[1, 2], { calls: 0, waiting: 0 }]);
  });

  test("another key of the same provider, and another provider, do not wait", async () => {
    const { limits } = setup({ maxCalls: 1 });
    await limits.enter(ours, never);
    await limits.enter(theirs, never);
    await limits.enter({ ...ours, provider: "q" }, never);
    assert.deepEqual(limits.use, { calls: 3, waiting: 0 });
  });

  test("too many that wait, and a wait that is too long, are for the next model", async () => {
    const { limits } = setup({ maxCalls: 1, maxWaiting: 1, maxWaitMs: 30 });
    const refused = { kind: "overloaded", code: "too_many_calls", retryable: false };
    const place = await limits.enter(ours, never);
    const late = limits.enter(ours, never);
    await assert.rejects(limits.enter(ours, never), refused);
    await assert.rejects(late, refused);
    place.leave();
    assert.deepEqual(limits.use, { calls: 0, waiting: 0 });
  });

  test("a caller that cancels keeps no place, whether it waits or has just got one", async () => {
    const { limits } = setup({ maxCalls: 1 });
    const { model, open } = held();
    const guarded = withGuards(model, { limits });
    const place = await limits.enter(ours, never);
    const cancels = [new AbortController(), new AbortController()] as const;
    const waiting = cancels.map(({ signal }) => drain(guarded, signal));
    await settle();
    assert.deepEqual(limits.use, { calls: 1, waiting: 2 });
    cancels[0].abort(new Error("stop"));
    assert.match(String(await waiting[0]), /stop/);
    // The place is handed on, and the signal fires before its new owner has heard of it.
    place.leave();
    cancels[1].abort(new Error("stop"));
    assert.match(String(await waiting[1]), /stop/);
    assert.deepEqual([limits.use, open.length], [{ calls: 0, waiting: 0 }, 0]);
    assert.match(String(await drain(guarded, AbortSignal.abort(new Error("before")))), /before/);
  });

  test("a call that ends in any way gives its place back", async () => {
    const { limits } = setup({ maxCalls: 1 });
    const broken: ChatModel = {
      provider: "p",
      async *stream() {
        yield { type: "text_delta", text: "x" } as const;
        throw new ModelError("server", { retryable: true });
      },
    };
    const { model } = held();
    assert.equal(((await drain(withGuards(broken, { limits }))) as ModelError).kind, "server");
    for await (const _ of withGuards(model, { limits }).stream(request, { signal: never })) break;
    assert.deepEqual(limits.use, { calls: 0, waiting: 0 });
  });

  test("who waits for a place takes up no probe of a half open breaker", async () => {
    const { limits } = setup({ maxCalls: 1 });
    let now = 0;
    const breakers = new Breakers({ now: () => now, probes: 1 });
    const key = { ...ours, model: "m" };
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    now = 30_000;
    const { model, open } = held();
    const place = await limits.enter(ours, never);
    const waits = drain(withGuards(model, { breakers, limits }));
    await settle();
    breakers.enter(key)("unknown");
    place.leave();
    await settle();
    open[0]?.resolve();
    assert.equal(await waits, undefined);
    // And a breaker that is open gives the place back at once.
    breakers.enter(key)("failed");
    assert.equal(((await drain(withGuards(model, { breakers, limits }))) as ModelError).code, "breaker_open");
    assert.deepEqual(limits.use, { calls: 0, waiting: 0 });
  });

  test("a 429 with a Retry-After pauses the key for everybody who has it, and nobody else", async () => {
    const { limits, pass } = setup();
    let calls = 0;
    const model: ChatModel = {
      provider: "p",
      async *stream() {
        if (++calls === 1) {
          throw new ModelError("rate_limited", { retryable: true, status: 429, retryAfterMs: 5_000 });
        }
        yield { type: "finish", reason: "end_turn" } as const;
      },
    };
    const guarded = withGuards(model, { limits });
    assert.equal(((await drain(guarded)) as ModelError).status, 429);
    pass(1_000);
    const paused = (await drain(guarded)) as ModelError;
    assert.deepEqual([paused.kind, paused.retryable, paused.retryAfterMs], ["rate_limited", true, 4_000]);
    assert.equal(calls, 1);
    assert.equal(await drain(guarded, never, { id: "own:ten_1:1", apiKey: "k" }), undefined);
    // The retry layer waits for as long as the pause lasts.
    const waits: number[] = [];
    const sleep = async (ms: number) => void pass(waits.push(ms) && ms);
    assert.equal(await drain(withRetry(guarded, { sleep, random: () => 0 })), undefined);
    assert.deepEqual(waits, [4_000]);
    assert.deepEqual(limits.use, { calls: 0, waiting: 0 });
  });

  test("a pause is never longer than the cap, and holds for those who wait for a place, too", async () => {
    const { limits, pass } = setup({ maxCalls: 1 });
    const place = await limits.enter(ours, never);
    const waiting = limits.enter(ours, never);
    place.pause(3_600_000);
    place.pause(1_000);
    place.leave();
    await assert.rejects(waiting, { kind: "rate_limited", retryAfterMs: 60_000 });
    pass(60_000);
    (await limits.enter(ours, never)).leave();
  });

  test("forgets the pauses of keys that nobody uses when there are too many", async () => {
    const { limits } = setup({ capacity: 2 });
    for (const id of ["a", "b", "c"]) {
      const place = await limits.enter({ provider: "p", credentialId: id }, never);
      place.pause(1_000);
      place.leave();
    }
    (await limits.enter({ provider: "p", credentialId: "a" }, never)).leave();
    await assert.rejects(limits.enter({ provider: "p", credentialId: "c" }, never), { code: "key_paused" });
  });

  test("whatever comes, waits, leaves and ends: never more than the limit, and nothing is held at the end", async () => {
    const step = fc.record({ what: fc.constantFrom("enter", "enter", "end", "cancel", "turn"), which: fc.nat(8) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const { limits } = setup({ maxWaiting: 5 });
        const places: Place[] = [];
        const cancels: AbortController[] = [];
        const pending: Promise<unknown>[] = [];
        for (const { what, which } of steps) {
          if (what === "enter") {
            const controller = new AbortController();
            cancels.push(controller);
            pending.push(
              limits
                .enter(ours, controller.signal)
                .then((place) => places.push(place))
                .catch(() => {}),
            );
          } else if (what === "end") places.splice(which, 1)[0]?.leave();
          else if (what === "cancel") cancels.splice(which, 1)[0]?.abort(new Error("left"));
          else await settle();
          assert.ok(places.length <= 2);
          assert.ok(limits.use.calls <= 2 && limits.use.waiting <= 5);
        }
        for (const controller of cancels) controller.abort(new Error("over"));
        await Promise.all(pending);
        for (const place of places) place.leave();
        assert.deepEqual(limits.use, { calls: 0, waiting: 0 });
      }),
      { numRuns: 200 },
    );
  });
});
