import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { NeighbourAnswers } from "./neighbour-answers.ts";

const TTL_MS = 10_000;
const tenantId = newId("ten");
const principal = (other: Partial<Principal> = {}): Principal => ({
  tenantId,
  subject: "key_1",
  scopes: ["agents:run"],
  credentialId: "key_1",
  actors: [],
  ...other,
});

describe("answers of neighbours", () => {
  let bus: EmbeddedBus;
  let answers: NeighbourAnswers;
  let committed: (() => void) | undefined;
  let now: number;
  const database = {
    onCommitted(topic: string, listener: () => void) {
      assert.equal(topic, "outbox.config");
      committed = listener;
      return () => {
        committed = undefined;
      };
    },
  };
  let asked: number;
  const ask = async () => ++asked;
  const get = (who = principal(), question = ["agent", ""]) => answers.get(who, question, ask);
  const later = (ms: number) => {
    now += ms;
  };
  const publish = async (subject: string) => {
    await bus.publish({ subject, id: newId("evt"), data: new Uint8Array() });
    // Listeners are told after the turn of the event loop that published.
    await new Promise((resolve) => setImmediate(resolve));
  };

  beforeEach(async () => {
    now = 1_000;
    mock.method(performance, "now", () => now);
    asked = 0;
    bus = new EmbeddedBus({ log: createLog({ level: "silent", service: "bus" }) });
    answers = new NeighbourAnswers({ ttlMs: TTL_MS });
    await answers.follow(database, bus);
  });
  afterEach(async () => {
    mock.restoreAll();
    await bus.close();
  });

  test("are asked for once within their time, and again after it", async () => {
    assert.deepEqual([await get(), await get()], [1, 1]);
    later(TTL_MS - 1);
    assert.equal(await get(), 1);
    later(1);
    assert.equal(await get(), 2);
  });

  test("are served to no other tenant, no other user and no other set of scopes", async () => {
    assert.equal(await get(), 1);
    const others = [
      { tenantId: newId("ten") },
      { userId: "usr_1" },
      { scopes: [] },
      { scopes: ["agents:run", "platform:admin"] },
    ];
    for (const [i, other] of others.entries()) assert.equal(await get(principal(other)), i + 2);
    assert.equal(await get(principal(), ["agent", "agt_2"]), 6);
    assert.equal(await get(principal(), ["tools", ""]), 7);
    assert.equal(await get(principal({ credentialId: "key_2" })), 1, "who may the same gets the same");
  });

  test("are not kept when they are refusals", async () => {
    const refused = answers.get(principal(), ["agent", ""], () => Promise.reject(new Error("no")));
    await assert.rejects(refused, /no/);
    assert.equal(await get(), 1);
  });

  test("are forgotten at once when this process has committed a change of configuration", async () => {
    assert.equal(await get(), 1);
    committed?.();
    assert.equal(await get(), 2);
  });

  for (const subject of [`agentmesh.config.v1.${tenantId}.agent_changed`, `agentmesh.tenant.v1.${tenantId}.changed`]) {
    test(`are forgotten when the bus tells ${subject.split(".").at(-1)}, and other tenants' are not`, async () => {
      const other = principal({ tenantId: newId("ten") });
      assert.deepEqual([await get(), await get(other)], [1, 2]);
      await publish(subject);
      assert.deepEqual([await get(other), await get()], [2, 3]);
    });
  }

  test("are not kept right after a change, for a neighbour's own cache may be behind", async () => {
    committed?.();
    assert.deepEqual([await get(), await get()], [1, 2]);
    later(1_000);
    assert.deepEqual([await get(), await get()], [3, 3]);
    await publish(`agentmesh.config.v1.${tenantId}.agent_changed`);
    assert.deepEqual([await get(), await get()], [4, 5]);
    later(1_000);
    assert.deepEqual([await get(), await get()], [6, 6]);
  });

  test("that were asked for before a change are not kept after it", async () => {
    const slow = Promise.withResolvers<number>();
    const before = answers.get(principal(), ["agent", ""], () => slow.promise);
    committed?.();
    later(2_000);
    slow.resolve(99);
    assert.equal(await before, 99);
    assert.equal(await get(), 1);
  });

  test("are not kept where nobody tells of changes, nor with no time to live", async () => {
    answers = new NeighbourAnswers({ ttlMs: TTL_MS });
    assert.deepEqual([await get(), await get()], [1, 2]);
    const following = await answers.follow(database, bus);
    assert.deepEqual([await get(), await get()], [3, 3]);
    await following.unsubscribe();
    assert.deepEqual([await get(), await get()], [4, 5]);
    answers = new NeighbourAnswers({ ttlMs: 0 });
    await answers.follow(database, bus);
    assert.deepEqual([await get(), await get()], [6, 7]);
  });

  test("do not grow without bound", async () => {
    for (let i = 0; i < 1_001; i++) await get(principal({ tenantId: newId("ten") }));
    const [first, last] = [principal(), principal({ userId: "usr_last" })];
    for (let i = 0; i < 1_000; i++) await get(first, ["agent", String(i)]);
    const before = asked;
    await get(last);
    await get(first, ["agent", "0"]);
    assert.equal(asked, before + 2, "a full tenant begins anew");
  });
});
