import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { SingleFlight } from "./single-flight.ts";

/** A load that ends when it is told to. */
function slow() {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const signals: AbortSignal[] = [];
  const load = (signal: AbortSignal) => {
    signals.push(signal);
    signal.addEventListener("abort", () => reject(signal.reason));
    return promise;
  };
  return { load, signals, resolve, reject };
}

describe("single flight", () => {
  test("callers of one key share a load, other keys have their own", async () => {
    const flights = new SingleFlight<string>();
    const a = slow();
    const b = slow();
    const all = [flights.run("a", a.load), flights.run("a", a.load), flights.run("b", b.load)];
    a.resolve("A");
    b.resolve("B");
    assert.deepEqual(await Promise.all(all), ["A", "A", "B"]);
    assert.deepEqual([a.signals.length, b.signals.length, flights.size], [1, 1, 0]);
    assert.equal(a.signals[0]!.aborted, false, "a load that has ended is not aborted");
  });

  test("a failure reaches every caller and is not kept", async () => {
    const flights = new SingleFlight<string>();
    const first = slow();
    const all = [flights.run("a", first.load), flights.run("a", first.load)];
    first.reject(new Error("no"));
    for (const each of all) await assert.rejects(each, /no/);
    assert.equal(await flights.run("a", async () => "yes"), "yes");
  });

  test("a load that throws at once is a rejection", async () => {
    const flights = new SingleFlight<string>();
    const thrown = flights.run("a", () => {
      throw new Error("at once");
    });
    await assert.rejects(thrown, /at once/);
    assert.equal(flights.size, 0);
  });

  test("one caller's abort is its own; the last one to leave aborts the load", async () => {
    const flights = new SingleFlight<string>();
    const { load, signals } = slow();
    const [one, two] = [new AbortController(), new AbortController()];
    const first = flights.run("a", load, one.signal);
    const second = flights.run("a", load, two.signal);
    one.abort(new Error("one left"));
    await assert.rejects(first, /one left/);
    assert.equal(signals[0]!.aborted, false);
    two.abort(new Error("two left"));
    await assert.rejects(second, /two left/);
    assert.equal(signals[0]!.aborted, true);
    assert.equal(flights.size, 0);
  });

  test("who comes after everyone has left gets a load of its own", async () => {
    const flights = new SingleFlight<string>();
    const gone = new AbortController();
    const stuck = flights.run("a", () => new Promise(() => {}), gone.signal);
    gone.abort(new Error("left"));
    await assert.rejects(stuck, /left/);
    assert.equal(await flights.run("a", async () => "fresh"), "fresh");
  });

  test("an aborted signal loads nothing", async () => {
    const flights = new SingleFlight<string>();
    await assert.rejects(
      flights.run("a", async () => assert.fail(), AbortSignal.abort(new Error("early"))),
      /early/,
    );
  });

  test("in any order of coming, leaving and loading: one load at a time, everyone has an outcome, nothing is left", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
        async (scheduler, leaves) => {
          const flights = new SingleFlight<string>();
          let loading = 0;
          let most = 0;
          const load = async (signal: AbortSignal) => {
            loading += 1;
            most = Math.max(most, loading);
            const free = () => {
              loading -= 1;
            };
            signal.addEventListener("abort", free, { once: true });
            await scheduler.schedule(Promise.resolve(), "load");
            if (!signal.aborted) free();
            signal.removeEventListener("abort", free);
            return "loaded";
          };
          const outcomes = leaves.map(async (leave) => {
            const leaving = new AbortController();
            await scheduler.schedule(Promise.resolve(), "come");
            const outcome = flights.run("a", load, leaving.signal).catch((error: Error) => error.message);
            if (leave) {
              await scheduler.schedule(Promise.resolve(), "leave");
              leaving.abort(new Error("left"));
            }
            return outcome;
          });
          await scheduler.waitAll();
          for (const [i, outcome] of (await Promise.all(outcomes)).entries()) {
            assert.ok(outcome === "loaded" || (leaves[i] && outcome === "left"), outcome);
          }
          assert.ok(most <= 1);
          assert.deepEqual([flights.size, loading], [0, 0]);
        },
      ),
      { numRuns: 500 },
    );
  });
});
