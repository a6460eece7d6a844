import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { type BreakerReport, type BreakerState, Breakers } from "./breaker.ts";
import type { ChatModel, ModelEvent, ModelRequest } from "./chat-model.ts";
import { withGuards } from "./guarded-stream.ts";
import { ModelError, type ModelErrorKind } from "./model-error.ts";
import { withRetry } from "./retry.ts";

const key = { provider: "p", model: "m", credentialId: "platform" };
const request: ModelRequest = { model: "m", system: "", messages: [], tools: [], maxTokens: 1 };
const options = () => ({ signal: new AbortController().signal });
const broken = (kind: ModelErrorKind = "server", status?: number) =>
  new ModelError(kind, { retryable: true, ...(status !== undefined && { status }) });

function setup(more = {}) {
  let now = 0;
  const changes: string[] = [];
  const onChange = (b: BreakerReport, before: BreakerState) => changes.push(`${before} → ${b.state}`);
  const breakers = new Breakers({ now: () => now, onChange, ...more });
  return { breakers, changes, pass: (ms: number) => (now += ms) };
}

/** A model that does what is asked next. */
function scripted(steps: (Error | "ok")[]): ChatModel & { calls: number } {
  const model = {
    provider: "p",
    calls: 0,
    async *stream(): AsyncGenerator<ModelEvent> {
      const step = steps[model.calls++];
      yield { type: "text_delta", text: "x" };
      if (step instanceof Error) throw step;
      yield { type: "finish", reason: "end_turn" };
    },
  };
  return model;
}

async function drain(model: ChatModel, streamOptions = options()): Promise<unknown> {
  try {
    for await (const _event of model.stream(request, streamOptions));
    return undefined;
  } catch (error) {
    return error;
  }
}

describe("the breaker of a model", () => {
  test("opens after five failures in a row and answers at once until its time is over", () => {
    const { breakers, pass, changes } = setup();
    for (let i = 0; i < 4; i++) breakers.enter(key)("failed");
    breakers.enter(key)("succeeded");
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    assert.deepEqual(breakers.states(), [{ ...key, state: "open" }]);
    pass(29_999);
    assert.throws(() => breakers.enter(key), {
      kind: "overloaded",
      code: "breaker_open",
      retryable: false,
      retryAfterMs: 1,
    });
    pass(1);
    breakers.enter(key);
    assert.deepEqual(changes, ["closed → open", "open → half_open"]);
  });

  test("half open it lets three calls through at a time, and three successes close it", () => {
    const { breakers, pass, changes } = setup();
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    pass(30_000);
    const probes = [breakers.enter(key), breakers.enter(key), breakers.enter(key)] as const;
    assert.throws(() => breakers.enter(key), { code: "breaker_open" });
    probes[0]("unknown");
    const fourth = breakers.enter(key);
    fourth("succeeded");
    probes[1]("succeeded");
    assert.equal(breakers.states()[0]?.state, "half_open");
    probes[2]("succeeded");
    assert.deepEqual(breakers.states(), []);
    assert.equal(changes.at(-1), "half_open → closed");
  });

  test("one failure when half open opens it for its whole time, and what began before says nothing", () => {
    const { breakers, pass } = setup();
    const old = breakers.enter(key);
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    pass(30_000);
    const [first, second] = [breakers.enter(key), breakers.enter(key)];
    old("succeeded");
    first("failed");
    second("succeeded");
    pass(29_999);
    assert.throws(() => breakers.enter(key), { code: "breaker_open" });
    pass(1);
    breakers.enter(key)("failed");
    assert.equal(breakers.states()[0]?.state, "open");
  });

  test("keeps provider, model and credential apart, and no more breakers than it may", () => {
    const { breakers, changes } = setup({ capacity: 3 });
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    breakers.enter({ ...key, credentialId: "own:ten_1:1" })("succeeded");
    breakers.enter({ ...key, model: "other" })("succeeded");
    assert.throws(() => breakers.enter(key), { code: "breaker_open" });
    for (let i = 0; i < 3; i++) breakers.enter({ ...key, credentialId: `own:ten_${i}:1` })("succeeded");
    assert.deepEqual(breakers.states(), []);
    assert.equal(changes.at(-1), "open → closed");
  });

  test("only the provider's faults count", async () => {
    const faults = [broken(), broken("overloaded", 529), broken("timeout"), broken("connection")];
    faults.push(broken("malformed_stream"), broken("timeout", 408));
    for (const fault of faults) {
      const { breakers } = setup();
      const model = withGuards(scripted(Array.from({ length: 6 }, () => fault)), { breakers });
      for (let i = 0; i < 5; i++) assert.equal(await drain(model), fault);
      assert.equal(((await drain(model)) as ModelError).code, "breaker_open", fault.kind);
    }
    const others = [broken("rate_limited", 429), broken("authentication", 401), broken("invalid_request", 400)];
    others.push(broken("context_overflow", 413), broken("server", 409));
    for (const error of [...others, new Error("a bug")]) {
      const { breakers } = setup();
      const model = withGuards(scripted(Array.from({ length: 9 }, () => error)), { breakers });
      for (let i = 0; i < 9; i++) assert.equal(await drain(model), error);
    }
  });

  test("a caller that stops or cancels says nothing of the provider and gives its place back", async () => {
    const { breakers, pass } = setup();
    for (let i = 0; i < 5; i++) breakers.enter(key)("failed");
    pass(30_000);
    const model = withGuards(scripted([]), { breakers });
    for (let i = 0; i < 10; i++) {
      for await (const _event of model.stream(request, options())) break;
    }
    const aborted = AbortSignal.abort(new Error("stop"));
    for (let i = 0; i < 10; i++) assert.match(String(await drain(model, { signal: aborted })), /stop/);
    assert.equal(breakers.states()[0]?.state, "half_open");
    for (let i = 0; i < 3; i++) assert.equal(await drain(model), undefined);
    assert.deepEqual(breakers.states(), []);
  });

  test("behaviour 44: retries are one layer, and an open breaker ends them at once", async () => {
    const { breakers } = setup();
    const inner = scripted(Array.from({ length: 9 }, () => broken()));
    const waits: number[] = [];
    const model = withRetry(withGuards(inner, { breakers }), {
      maxAttempts: 9,
      random: () => 0,
      sleep: async (ms) => void waits.push(ms),
    });
    const error = await drain(model, { ...options(), mayDiscard: true } as ReturnType<typeof options>);
    assert.equal((error as ModelError).code, "breaker_open");
    assert.equal(inner.calls, 5);
    assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000]);
  });

  test("whatever happens, never more calls than probes are under way while it is half open", () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant("enter" as const) }),
      fc.record({ do: fc.constant("pass" as const), ms: fc.integer({ min: 0, max: 40_000 }) }),
      fc.record({
        do: fc.constantFrom("succeeded" as const, "failed" as const, "unknown" as const),
        which: fc.nat(20),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const { breakers, pass } = setup({ failures: 2 });
        let underWay: { settle: (verdict: "succeeded" | "failed" | "unknown") => void; probe: boolean }[] = [];
        const state = () => breakers.states()[0]?.state ?? "closed";
        for (const one of steps) {
          if (one.do === "pass") pass(one.ms);
          else if (one.do === "enter") {
            try {
              const settle = breakers.enter(key);
              underWay.push({ settle, probe: state() === "half_open" });
            } catch {
              assert.notEqual(state(), "closed");
            }
          } else {
            const [call] = underWay.splice(one.which % Math.max(1, underWay.length), 1);
            call?.settle(one.do);
          }
          if (state() !== "half_open") underWay = underWay.map((call) => ({ ...call, probe: false }));
          assert.ok(underWay.filter((call) => call.probe).length <= 3);
        }
      }),
      { numRuns: 300 },
    );
  });
});
