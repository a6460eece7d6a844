import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Transport } from "@connectrpc/connect";
import fc from "fast-check";
import type { Endpoint } from "./endpoint.ts";
import { Replicas } from "./replicas.ts";

const idle = {} as Transport;

/** Replicas whose connections are never used. */
function replicasOf(count: number) {
  const closed = new Set<string>();
  const targets = Array.from({ length: count }, (_, id) => ({ baseUrl: `http://10.0.0.${id}:1`, name: undefined }));
  const replicas = new Replicas(targets, {
    open: ({ baseUrl }) => ({ transport: idle, close: () => void closed.add(baseUrl) }),
  });
  return { replicas, closed };
}

describe("the replicas of a module", () => {
  test("are never ejected by more than half, the last one never, and one can always be picked", () => {
    const event = fc.record({ id: fc.nat(9), breaks: fc.boolean(), later: fc.nat(3_000) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(event, { maxLength: 200 }), (count, events) => {
        const { replicas } = replicasOf(count);
        const all = replicas.endpoints;
        let now = 0;
        for (const { id, breaks, later } of events) {
          now += later;
          const one = all[id % count] as Endpoint;
          if (breaks) replicas.broke(one, now);
          else one.answered(5, now);
          const ejected = all.filter((endpoint) => endpoint.ejected(now));
          assert.ok(ejected.length <= Math.floor(count / 2), `${ejected.length} of ${count}`);
          const picked = replicas.pick([], now);
          assert.ok(picked !== undefined && !ejected.includes(picked));
        }
      }),
    );
  });

  test("are left alone after broken calls in a row, longer every time, and not for broken calls between good ones", () => {
    const { replicas } = replicasOf(2);
    const [one] = replicas.endpoints as [Endpoint];
    for (let time = 0; time < 20; time++) {
      replicas.broke(one, 0);
      replicas.broke(one, 0);
      one.answered(1, 0);
    }
    assert.equal(one.ejected(0), false);
    for (let time = 0; time < 3; time++) replicas.broke(one, 0);
    assert.equal(one.ejected(1_500), true);
    assert.equal(one.ejected(2_500), false);
    replicas.broke(one, 2_500);
    assert.equal(one.ejected(2_500 + 3_000), true, "one broken call on probation, and twice the time");
  });

  test("are not asked twice for one call", () => {
    const { replicas } = replicasOf(3);
    const tried: Endpoint[] = [];
    for (let attempt = 0; attempt < 3; attempt++) {
      const picked = replicas.pick(tried, 0);
      assert.ok(picked !== undefined && !tried.includes(picked));
      tried.push(picked);
    }
    assert.equal(replicas.pick(tried, 0), undefined);
  });

  test("that are slow or busy get less, and a slow one is tried again after a while", () => {
    const { replicas } = replicasOf(2);
    const [slow, quick] = replicas.endpoints as [Endpoint, Endpoint];
    for (let sample = 0; sample < 10; sample++) {
      slow.answered(1_000, 0);
      quick.answered(10, 0);
    }
    assert.equal(replicas.pick([], 0), quick);
    for (let calls = 0; calls < 200; calls++) quick.begin();
    assert.equal(replicas.pick([], 0), slow);
    assert.ok(slow.cost(120_000) < quick.cost(0));
  });

  test("that DNS no longer names end with their last call, and all end with the link", async () => {
    const closed: (string | undefined)[] = [];
    let ips = ["10.0.0.1", "10.0.0.2"];
    const replicas = new Replicas([{ baseUrl: "http://many:1", name: "many" }], {
      resolve: async () => ips,
      refreshMs: 0,
      open: ({ ip }) => ({ transport: idle, close: () => void closed.push(ip) }),
    });
    await replicas.fresh(performance.now());
    const [first, second] = replicas.endpoints as [Endpoint, Endpoint];
    first.begin();
    ips = ["10.0.0.3", "10.0.0.4"];
    await new Promise((resolve) => setTimeout(resolve, 5));
    void replicas.fresh(performance.now());
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(closed, ["10.0.0.2"]);
    assert.equal(replicas.endpoints.includes(second), false);
    first.end();
    assert.deepEqual(closed, ["10.0.0.2", "10.0.0.1"]);
    replicas.close();
    assert.deepEqual(new Set(closed), new Set(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]));
    assert.equal(replicas.pick([], 0), undefined);
  });
});
