import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { reasonOf } from "../rpc/errors.ts";
import { EmbeddedBus } from "./embedded-bus.ts";

const log = { info: () => {}, warn: () => {}, error: () => {} };
const event = (id: string) => ({ subject: "agentmesh.run.v1.ten_a", id, data: new Uint8Array() });
const all = { durable: "d", subjects: ["agentmesh.>"] };

describe("the embedded bus as the outbox uses it", () => {
  test("publish resolves only when every matching durable has handled the message, retries included", async () => {
    await using bus = new EmbeddedBus({ log });
    const order: string[] = [];
    await bus.consume({
      ...all,
      backoffMs: [50],
      onMessage: async ({ attempt }) => {
        order.push(`d${attempt}`);
        if (attempt === 1) throw new Error("once");
      },
    });
    await bus.consume({ ...all, durable: "slow", onMessage: async () => void order.push(await sleep(120, "slow")) });
    await bus.consume({
      ...all,
      durable: "other",
      subjects: ["agentmesh.usage.>"],
      onMessage: async () => void order.push("other"),
    });
    await bus.publish(event("evt_1"));
    assert.deepEqual(order, ["d1", "d2", "slow"]);
  });

  test("what was not handled when the bus closed rejects, so its row stays; published again it is handled", async () => {
    const first = new EmbeddedBus({ log, drainMs: 10 });
    await first.consume({
      ...all,
      parallelism: 1,
      backoffMs: [60_000],
      onMessage: async () => {
        throw new Error("the database is away");
      },
    });
    const rows = ["evt_1", "evt_2"];
    const outcomes = Promise.allSettled(rows.map((id) => first.publish(event(id))));
    await sleep(20);
    await first.close();
    for (const outcome of await outcomes) {
      assert.equal(outcome.status, "rejected");
      assert.equal(reasonOf(outcome.reason), "DEPENDENCY_DOWN");
    }
    await using second = new EmbeddedBus({ log });
    const handled: string[] = [];
    await second.consume({ ...all, onMessage: async ({ id }) => void handled.push(id) });
    await Promise.all(rows.map((id) => second.publish(event(id))));
    assert.deepEqual(handled.sort(), rows);
  });

  test("a relay that gives up and tries again joins the delivery that is under way", async () => {
    await using bus = new EmbeddedBus({ log });
    const gate = Promise.withResolvers<void>();
    let handled = 0;
    await bus.consume({
      ...all,
      onMessage: async () => {
        handled += 1;
        await gate.promise;
      },
    });
    await assert.rejects(bus.publish(event("evt_1"), AbortSignal.timeout(20)), { name: "TimeoutError" });
    const again = bus.publish(event("evt_1"));
    gate.resolve();
    await again;
    assert.equal(handled, 1);
  });

  test("more pending publications than the bound are refused, and taken again when there is room", async () => {
    await using bus = new EmbeddedBus({ log, maxPending: 2 });
    const gate = Promise.withResolvers<void>();
    await bus.consume({ ...all, onMessage: () => gate.promise });
    const taken = [bus.publish(event("evt_1")), bus.publish(event("evt_2"))];
    await assert.rejects(bus.publish(event("evt_3")), (error) => reasonOf(error) === "CONCURRENCY_LIMIT");
    gate.resolve();
    await Promise.all(taken);
    await bus.publish(event("evt_3"));
  });

  test("an id may be published again after the dedup window", async () => {
    await using bus = new EmbeddedBus({ log, dedupWindowMs: 30 });
    let handled = 0;
    await bus.consume({ ...all, onMessage: async () => void handled++ });
    await bus.publish(event("evt_1"));
    await bus.publish(event("evt_1"));
    assert.equal(handled, 1);
    await sleep(40);
    await bus.publish(event("evt_1"));
    assert.equal(handled, 2);
  });

  test("a message whose deliveries never had an outcome is poison in the end", async () => {
    await using bus = new EmbeddedBus({ log, drainMs: 0 });
    const poison: number[] = [];
    const cutOff = async () => {
      const started = Promise.withResolvers<void>();
      const consumer = await bus.consume({
        ...all,
        maxDeliver: 2,
        onMessage: (_message, signal) => {
          started.resolve();
          return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        },
        onPoison: async ({ attempt }) => {
          poison.push(attempt);
          started.resolve();
        },
      });
      await started.promise;
      await consumer.unsubscribe();
    };
    // The durable is known before its message comes.
    await (await bus.consume({ ...all, onMessage: async () => {} })).unsubscribe();
    const published = bus.publish(event("evt_1"));
    for (let i = 0; i < 5; i++) await cutOff();
    await published;
    assert.deepEqual(poison, [5]);
  });
});
