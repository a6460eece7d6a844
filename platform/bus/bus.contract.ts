import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { reasonOf } from "../rpc/errors.ts";
import type { Bus, BusLog, BusMessage, ConsumeOptions } from "./bus.ts";
import { maxDataBytes } from "./bus.ts";

/** A bus under test; `make` may be called several times and gives buses of one mesh where there can be more than one. */
export interface BusFixture extends AsyncDisposable {
  make(options: { log: BusLog; drainMs?: number; maxPending?: number }): Bus;
}

/** What every bus does. `open` gives each test a place of its own. */
export function describeBus(
  name: string,
  open: () => Promise<BusFixture>,
  options: { skip: string | false } = { skip: false },
): void {
  describe(name, { skip: options.skip, concurrency: true }, () => {
    const run = (title: string, body: (it: Harness) => Promise<void>) =>
      test(title, { timeout: 60_000 }, async () => {
        await using fixture = await open();
        await using it = new Harness(fixture);
        await body(it);
      });

    run("a published message is handled with its subject, id, data and headers", async (it) => {
      const seen = await it.collect({ durable: "d", subjects: ["agentmesh.run.v1.>"] });
      const data = new TextEncoder().encode("payload ✓");
      await it.bus.publish({
        subject: "agentmesh.run.v1.ten_a.done",
        id: "evt_1",
        data,
        headers: { traceparent: "00-ab-cd-01" },
      });
      const [message] = await it.until(() => seen.length === 1, seen);
      assert.equal(message?.subject, "agentmesh.run.v1.ten_a.done");
      assert.equal(message.id, "evt_1");
      assert.deepEqual(Buffer.from(message.data), Buffer.from(data));
      assert.deepEqual({ ...message.headers }, { traceparent: "00-ab-cd-01" });
      assert.equal(message.attempt, 1);
    });

    run("what the publisher does with its buffer afterwards does not reach the handler", async (it) => {
      const gate = Promise.withResolvers<void>();
      const seen: number[] = [];
      await it.consume({
        parallelism: 1,
        onMessage: async (message) => {
          await gate.promise;
          seen.push(message.data[0]!);
        },
      });
      const data = Uint8Array.of(7);
      const published = it.bus.publish({ subject: "agentmesh.run.v1.ten_a", id: "evt_1", data });
      await sleep(20);
      data[0] = 99;
      gate.resolve();
      await published;
      await it.until(() => seen.length === 1);
      assert.deepEqual(seen, [7]);
    });

    run("every message is handled, many at once, bounded by parallelism", async (it) => {
      let running = 0;
      let most = 0;
      const ids = new Set<string>();
      await it.consume({
        parallelism: 4,
        onMessage: async ({ id }) => {
          running += 1;
          most = Math.max(most, running);
          await sleep(5);
          running -= 1;
          ids.add(id);
        },
      });
      await Promise.all(Array.from({ length: 100 }, (_, i) => it.publish(`evt_${i}`)));
      await it.until(() => ids.size === 100);
      assert.ok(most > 1 && most <= 4, `ran ${most} at once`);
    });

    run("parallelism holds for all subjects of a consumer together", async (it) => {
      let running = 0;
      let most = 0;
      let handled = 0;
      await it.consume({
        subjects: ["agentmesh.run.>", "agentmesh.usage.>", "agentmesh.config.>"],
        parallelism: 1,
        onMessage: async () => {
          running += 1;
          most = Math.max(most, running);
          await sleep(5);
          running -= 1;
          handled += 1;
        },
      });
      const kinds = ["run", "usage", "config"];
      const all = Array.from({ length: 30 }, (_, i) => it.publish(`evt_${i}`, `agentmesh.${kinds[i % 3]}.v1.ten_a`));
      await Promise.all(all);
      await it.until(() => handled === 30);
      assert.equal(most, 1);
    });

    run("a handler that throws gets the message again after each backoff, then no more", async (it) => {
      const at: number[] = [];
      const attempts: number[] = [];
      await it.consume({
        backoffMs: [150, 400],
        onMessage: async ({ attempt }) => {
          at.push(performance.now());
          attempts.push(attempt);
          if (attempt < 3) throw new Error("not yet");
        },
      });
      await it.publish("evt_1");
      await it.until(() => attempts.length === 3);
      await sleep(500);
      assert.deepEqual(attempts, [1, 2, 3]);
      assert.ok(at[1]! - at[0]! >= 145, `first wait ${at[1]! - at[0]!}`);
      assert.ok(at[2]! - at[1]! >= 395, `second wait ${at[2]! - at[1]!}`);
    });

    run("a failing message does not hold up the others", async (it) => {
      const handled: string[] = [];
      await it.consume({
        parallelism: 1,
        backoffMs: [2_000],
        onMessage: async ({ id, attempt }) => {
          if (id === "evt_bad" && attempt === 1) throw new Error("later");
          handled.push(id);
        },
      });
      const all = ["evt_bad", "evt_2", "evt_3"].map((id) => it.publish(id));
      await Promise.all(all);
      await it.until(() => handled.length === 3);
      assert.deepEqual(handled.slice(0, 2).sort(), ["evt_2", "evt_3"]);
    });

    run("after maxDeliver failures the message is poison: set aside once, with its last error", async (it) => {
      let tries = 0;
      const poison: { message: BusMessage; error: unknown }[] = [];
      await it.consume({
        maxDeliver: 3,
        backoffMs: [20],
        onMessage: async () => {
          tries += 1;
          throw new Error(`failure ${tries}`);
        },
        onPoison: async (message, error) => void poison.push({ message, error }),
      });
      await it.publish("evt_1");
      await it.until(() => poison.length === 1);
      await sleep(300);
      assert.equal(tries, 3);
      assert.equal(poison.length, 1);
      assert.equal(poison[0]!.message.id, "evt_1");
      assert.equal((poison[0]!.error as Error).message, "failure 3");
      assert.ok(it.logged.includes("message is poison"));
    });

    run("poison that cannot be set aside is delivered again", async (it) => {
      let kept = 0;
      await it.consume({
        maxDeliver: 1,
        backoffMs: [30],
        onMessage: async () => {
          throw new Error("no");
        },
        onPoison: async () => {
          kept += 1;
          if (kept === 1) throw new Error("the table is away");
        },
      });
      await it.publish("evt_1");
      await it.until(() => kept === 2);
    });

    run("consumers of one durable share the messages, two durables get all of them", async (it) => {
      const a1: string[] = [];
      const a2: string[] = [];
      const b: string[] = [];
      const into = (list: string[]) => async (message: BusMessage) => {
        list.push(message.id);
        await sleep(2);
      };
      await it.consume({ durable: "a", parallelism: 1, onMessage: into(a1) });
      await it.consume({ durable: "a", parallelism: 1, onMessage: into(a2) });
      await it.consume({ durable: "b", onMessage: into(b) });
      const ids = Array.from({ length: 40 }, (_, i) => `evt_${i}`);
      await Promise.all(ids.map((id) => it.publish(id)));
      await it.until(() => a1.length + a2.length === 40 && b.length === 40);
      assert.deepEqual([...a1, ...a2].sort(), [...ids].sort());
      assert.deepEqual([...b].sort(), [...ids].sort());
      assert.ok(a1.length > 0 && a2.length > 0, `shared as ${a1.length} and ${a2.length}`);
    });

    run("a consumer that is busy leaves messages to the others", async (it) => {
      const gate = Promise.withResolvers<void>();
      let started = 0;
      await it.consume({
        parallelism: 1,
        onMessage: async () => {
          started += 1;
          await gate.promise;
        },
      });
      const all = [it.publish("evt_0")];
      await it.until(() => started === 1);
      const others = await it.collect({ parallelism: 1 });
      for (let i = 1; i <= 10; i++) all.push(it.publish(`evt_${i}`));
      await it.until(() => others.length === 10);
      gate.resolve();
      await Promise.all(all);
      assert.equal(started, 1);
    });

    run("an id is delivered once, also when it is published at the same time or on another subject", async (it) => {
      const seen = await it.collect({});
      await Promise.all([it.publish("evt_1"), it.publish("evt_1"), it.publish("evt_1")]);
      await it.publish("evt_1");
      await it.publish("evt_1", "agentmesh.run.v1.ten_other");
      await it.publish("evt_2");
      await it.until(() => seen.length >= 2);
      await sleep(100);
      assert.deepEqual(seen.map(({ id }) => id).sort(), ["evt_1", "evt_2"]);
    });

    run("wildcards: * is one token, > is the rest", async (it) => {
      const star = await it.collect({ durable: "star", subjects: ["agentmesh.*.v1.ten_a.done"] });
      const rest = await it.collect({ durable: "rest", subjects: ["agentmesh.run.>"] });
      const exact = await it.collect({ durable: "exact", subjects: ["agentmesh.usage.v1.ten_a.done"] });
      const subjects = [
        "run.v1.ten_a.done",
        "usage.v1.ten_a.done",
        "run.v1.ten_a",
        "run.v1.ten_a.done.late",
        "config.v2.ten_a.done",
      ];
      for (const [i, subject] of subjects.entries()) await it.publish(`evt_${i}`, `agentmesh.${subject}`);
      await it.until(() => star.length >= 2 && rest.length >= 3 && exact.length >= 1);
      await sleep(50);
      const ids = (list: BusMessage[]) => list.map(({ id }) => id).sort();
      assert.deepEqual(ids(star), ["evt_0", "evt_1"]);
      assert.deepEqual(ids(rest), ["evt_0", "evt_2", "evt_3"]);
      assert.deepEqual(ids(exact), ["evt_1"]);
    });

    run("listeners see what is published and what is notified; durables do not get notifications", async (it) => {
      const heard: BusMessage[] = [];
      await it.bus.listen("agentmesh.run.v1.*", (message) => void heard.push(message));
      const durable = await it.collect({ durable: "d", subjects: ["agentmesh.>"] });
      await it.publish("evt_1", "agentmesh.run.v1.ten_a");
      it.bus.notify("agentmesh.run.v1.ten_b", Uint8Array.of(1, 2));
      it.bus.notify("agentmesh.usage.v1.ten_b", Uint8Array.of(3));
      await it.until(() => heard.length === 2 && durable.length === 1);
      await sleep(100);
      assert.deepEqual(heard.map(({ subject, id }) => [subject, id]).sort(), [
        ["agentmesh.run.v1.ten_a", "evt_1"],
        ["agentmesh.run.v1.ten_b", ""],
      ]);
      assert.deepEqual([...heard.find(({ id }) => id === "")!.data], [1, 2]);
      assert.equal(durable.length, 1);
    });

    run("a listener that throws harms nobody", async (it) => {
      let heard = 0;
      await it.bus.listen("agentmesh.>", () => {
        throw new Error("careless");
      });
      await it.bus.listen("agentmesh.>", () => void heard++);
      it.bus.notify("agentmesh.run.v1.ten_a", new Uint8Array());
      await it.publish("evt_1");
      await it.until(() => heard === 2);
      assert.ok(it.logged.includes("bus listener failed"));
    });

    run("unsubscribe ends a listener", async (it) => {
      let heard = 0;
      let others = 0;
      const listener = await it.bus.listen("agentmesh.>", () => void heard++);
      await it.bus.listen("agentmesh.>", () => void others++);
      it.bus.notify("agentmesh.run.v1.ten_a", new Uint8Array());
      await it.until(() => heard === 1 && others === 1);
      await listener.unsubscribe();
      it.bus.notify("agentmesh.run.v1.ten_a", new Uint8Array());
      await it.until(() => others === 2);
      assert.equal(heard, 1);
    });

    run(
      "unsubscribe stops deliveries, waits for running handlers, and the durable keeps what comes next",
      async (it) => {
        const gate = Promise.withResolvers<void>();
        const first: string[] = [];
        let started = 0;
        const consumer = await it.consume({
          onMessage: async ({ id }) => {
            started += 1;
            await gate.promise;
            first.push(id);
          },
        });
        const one = it.publish("evt_1");
        await it.until(() => started === 1);
        let stopped = false;
        const stopping = consumer.unsubscribe().then(() => {
          stopped = true;
        });
        await sleep(50);
        assert.equal(stopped, false, "a handler was still running");
        gate.resolve();
        await stopping;
        await one;
        assert.deepEqual(first, ["evt_1"]);
        const two = it.publish("evt_2");
        await sleep(100);
        assert.equal(started, 1);
        const second = await it.collect({});
        await two;
        await it.until(() => second.length === 1);
        assert.deepEqual([first, second[0]!.id], [["evt_1"], "evt_2"]);
      },
    );

    run("close waits for running handlers and their messages count as handled", async (it) => {
      let done = 0;
      let started = 0;
      await it.consume({
        onMessage: async () => {
          started += 1;
          await sleep(200);
          done += 1;
        },
      });
      const published = it.publish("evt_1");
      await it.until(() => started === 1);
      await Promise.all([it.bus.close(), it.bus.close()]);
      assert.equal(done, 1);
      await published;
    });

    run("a closed bus refuses with DEPENDENCY_DOWN and keeps quiet", async (it) => {
      await it.bus.close();
      const down = (error: unknown) => reasonOf(error) === "DEPENDENCY_DOWN";
      await assert.rejects(it.publish("evt_1"), down);
      await assert.rejects(it.bus.ping(), down);
      await assert.rejects(it.consume({}), down);
      await assert.rejects(
        it.bus.listen("agentmesh.>", () => {}),
        down,
      );
      it.bus.notify("agentmesh.run.v1.ten_a", new Uint8Array());
    });

    run(
      "a handler that never settles does not hold up close beyond the drain time, and its signal aborts",
      async (it) => {
        const bus = it.another({ drainMs: 200 });
        let aborted = false;
        let started = false;
        await bus.consume({
          durable: "d",
          subjects: ["agentmesh.>"],
          onMessage: async (_message, signal) => {
            started = true;
            signal.addEventListener("abort", () => {
              aborted = true;
            });
            await new Promise(() => {});
          },
        });
        bus.publish({ subject: "agentmesh.run.v1.ten_a", id: "evt_1", data: new Uint8Array() }).catch(() => {});
        await it.until(() => started);
        const start = performance.now();
        await bus.close();
        assert.ok(performance.now() - start < 5_000);
        assert.equal(aborted, true);
      },
    );

    run("a handler that is given up at unsubscribe loses the message to the next consumer", async (it) => {
      const bus = it.another({ drainMs: 50 });
      let started = false;
      const stuck = await bus.consume({
        durable: "d",
        subjects: ["agentmesh.>"],
        onMessage: async (_message, signal) => {
          started = true;
          await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        },
      });
      const published = bus.publish({ subject: "agentmesh.run.v1.ten_a", id: "evt_1", data: new Uint8Array() });
      await it.until(() => started);
      await stuck.unsubscribe();
      const attempts: number[] = [];
      await bus.consume({
        durable: "d",
        subjects: ["agentmesh.>"],
        onMessage: async ({ attempt }) => void attempts.push(attempt),
      });
      await published;
      await it.until(() => attempts.length === 1);
      assert.ok(attempts[0]! <= 2, `given back ${attempts[0]! - 1} times`);
    });

    run("a slow handler is not given the message twice while it works", async (it) => {
      const attempts: number[] = [];
      await it.consume({
        ackWaitMs: 1_000,
        onMessage: async ({ attempt }) => {
          attempts.push(attempt);
          await sleep(3_000);
        },
      });
      await it.publish("evt_1");
      await sleep(3_500);
      assert.deepEqual(attempts, [1]);
    });

    run("a handler that takes longer than its timeout is aborted and has failed", async (it) => {
      const attempts: number[] = [];
      await it.consume({
        timeoutMs: 100,
        backoffMs: [20],
        onMessage: async ({ attempt }, signal) => {
          attempts.push(attempt);
          if (attempt === 1) await sleep(20_000, undefined, { signal });
        },
      });
      await it.publish("evt_1");
      await it.until(() => attempts.length === 2);
    });

    run("publish, ping: an aborted signal is the error", async (it) => {
      const reason = new Error("the caller left");
      const signal = AbortSignal.abort(reason);
      await assert.rejects(
        it.bus.publish({ subject: "agentmesh.run.v1.t", id: "evt_1", data: new Uint8Array() }, signal),
        reason,
      );
      await assert.rejects(it.bus.ping(signal), reason);
      await it.bus.ping();
    });

    run(
      "malformed subjects, ids, headers and options are TypeErrors, too much data is PAYLOAD_TOO_LARGE",
      async (it) => {
        const data = new Uint8Array();
        const subject = "agentmesh.run.v1.ten_a";
        for (const bad of [
          "agentmesh",
          "run.v1",
          "agentmesh..a",
          "agentmesh.*",
          "agentmesh.>",
          "agentmesh.a b",
          "agentmesh.a\r\nPUB x",
          `agentmesh.${"x".repeat(260)}`,
        ]) {
          await assert.rejects(it.bus.publish({ subject: bad, id: "evt_1", data }), TypeError, bad);
          assert.throws(() => it.bus.notify(bad, data), TypeError, bad);
        }
        for (const id of ["", "a b", "é", "x".repeat(129)])
          await assert.rejects(it.bus.publish({ subject, id, data }), TypeError);
        for (const headers of [{ "Nats-Rollup": "all" }, { "nats-rollup": "all" }, { "a b": "c" }, { a: "b\r\nc" }]) {
          await assert.rejects(
            it.bus.publish({ subject, id: "evt_1", data, headers: headers as Record<string, string> }),
            TypeError,
          );
        }
        const tooLarge = (error: unknown) => reasonOf(error) === "PAYLOAD_TOO_LARGE";
        await assert.rejects(
          it.bus.publish({ subject, id: "evt_1", data: new Uint8Array(maxDataBytes + 1) }),
          tooLarge,
        );
        await assert.rejects(
          it.bus.publish({ subject, id: "evt_1", data, headers: { a: "x".repeat(20_000) } }),
          tooLarge,
        );
        for (const subjects of [[], ["agentmesh.>.a"], ["agentmesh.run.>", "agentmesh.*.v1"]]) {
          await assert.rejects(it.consume({ subjects }), TypeError);
        }
        for (const options of [
          { durable: "A.b" },
          { parallelism: 0 },
          { maxDeliver: 1.5 },
          { backoffMs: [] },
          { ackWaitMs: -1 },
        ]) {
          await assert.rejects(it.consume(options), TypeError, JSON.stringify(options));
        }
        await assert.rejects(
          it.bus.listen("other.>", () => {}),
          TypeError,
        );
      },
    );

    run("the largest message passes", async (it) => {
      const seen = await it.collect({});
      const data = new Uint8Array(maxDataBytes).fill(5);
      const headers = { a: "x".repeat(16_000) };
      await it.bus.publish({ subject: "agentmesh.run.v1.ten_a", id: "evt_1", data, headers });
      await it.until(() => seen.length === 1);
      assert.equal(seen[0]!.data.length, maxDataBytes);
      assert.equal(seen[0]!.headers["a"]?.length, 16_000);
    });
  });
}

/** The buses of one test, and short forms for what most tests do. */
class Harness implements AsyncDisposable {
  readonly bus: Bus;
  /** The messages of everything that was logged. */
  readonly logged: string[] = [];
  readonly #fixture: BusFixture;
  readonly #buses: Bus[] = [];
  readonly #log: BusLog;

  constructor(fixture: BusFixture) {
    this.#fixture = fixture;
    const log = (_fields: object, message: string) => void this.logged.push(message);
    this.#log = { info: log, warn: log, error: log };
    this.bus = this.another({});
  }

  another(options: { drainMs?: number; maxPending?: number }): Bus {
    const bus = this.#fixture.make({ log: this.#log, ...options });
    this.#buses.push(bus);
    return bus;
  }

  consume(options: Partial<ConsumeOptions>) {
    return this.bus.consume({ durable: "d", subjects: ["agentmesh.>"], onMessage: async () => {}, ...options });
  }

  async collect(options: Partial<ConsumeOptions>): Promise<BusMessage[]> {
    const seen: BusMessage[] = [];
    await this.consume({ ...options, onMessage: async (message) => void seen.push(message) });
    return seen;
  }

  /** Publishes when the bus is there; at the start of a test it may still be connecting. */
  async publish(id: string, subject = "agentmesh.run.v1.ten_a"): Promise<void> {
    await this.bus.publish({ subject, id, data: new TextEncoder().encode(id) });
  }

  async until<T>(condition: () => boolean, value?: T): Promise<T> {
    const deadline = performance.now() + 20_000;
    while (!condition()) {
      if (performance.now() > deadline) assert.fail(`waited 20 s in vain; logged: ${this.logged.join(", ")}`);
      await sleep(5);
    }
    return value as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#buses.map((bus) => bus.close()));
  }
}
