import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { Publication } from "#platform/bus/bus.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { newId } from "#platform/id.ts";
import { type AppError, dependencyDown } from "#platform/rpc/errors.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import type { Database } from "./database.ts";
import { enqueue, republishSince } from "./outbox.ts";
import { createOutboxRelay, type OutboxRelay, type OutboxRelayOptions } from "./outbox-relay.ts";

const [a, b] = [newId("ten"), newId("ten")];

describe("outbox relay", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  let admin: pg.Client;
  let relays: OutboxRelay[] = [];
  const lines: string[] = [];
  const log = createLog({ level: "debug", service: "test", destination: { write: (line) => lines.push(line) } });

  before(async () => {
    const dir = `${import.meta.dirname}/fixtures/notes`;
    t = await testDatabase({
      services: [
        { schema: "notes", dir },
        { schema: "other", dir: `${import.meta.dirname}/fixtures/other` },
      ],
    });
    admin = new pg.Client({ connectionString: t.superuserUrl });
    await admin.connect();
  });
  afterEach(async () => {
    await Promise.all(relays.map((relay) => relay.stop()));
    relays = [];
    lines.length = 0;
    await admin.query("TRUNCATE notes.outbox, other.outbox");
  });
  after(async () => {
    await admin.end();
    await t.drop();
  });

  /** A relay whose bus is `publish`; polls so rarely that only what wakes it counts, unless told otherwise. */
  function relay(
    publish: (m: Publication, signal?: AbortSignal) => Promise<void>,
    options: Partial<OutboxRelayOptions> = {},
  ): OutboxRelay {
    const made = createOutboxRelay({ db: t.db, schemas: ["notes"], bus: { publish }, log, pollMs: 60_000, ...options });
    relays.push(made);
    made.start();
    return made;
  }
  async function write(
    tenantId: string,
    texts: string[],
    { schema = "notes", subject = "", db = t.db }: { schema?: string; subject?: string; db?: Database } = {},
  ) {
    await db.tenant(tenantId, async (tx) => {
      for (const text of texts) {
        const name = `agentmesh.config.v1.${tenantId}${subject}`;
        await enqueue(tx, schema, { subject: name, eventId: newId("evt"), tenantId, payload: Buffer.from(text) });
      }
    });
  }
  const waiting = async () =>
    Number((await admin.query("SELECT count(*) FROM notes.outbox WHERE published_at IS NULL")).rows[0].count);
  async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
    for (let i = 0; i < 1000; i++) {
      if (await condition()) return;
      await sleep(10);
    }
    assert.fail("did not happen within 10 s");
  }
  const text = (m: Publication) => Buffer.from(m.data).toString();

  test("a commit wakes it: events are published once, with their ids and headers, in order, and marked", async () => {
    const got: Publication[] = [];
    relay(async (m) => void got.push(m));
    await until(async () => t.db.use().idle > 0);
    await write(a, ["1", "2", "3"]);
    await until(async () => (await waiting()) === 0);
    assert.deepEqual(got.map(text), ["1", "2", "3"]);
    assert.equal(new Set(got.map((m) => m.id)).size, 3);
    assert.equal(got[0]?.subject, `agentmesh.config.v1.${a}`);
    await write(a, ["4"]);
    await until(() => got.length === 4);
  });

  test("nothing is published of a transaction that rolls back", async () => {
    const got: string[] = [];
    relay(async (m) => void got.push(text(m)));
    const failing = t.db.tenant(a, async (tx) => {
      await enqueue(tx, "notes", {
        subject: `agentmesh.config.v1.${a}`,
        eventId: newId("evt"),
        tenantId: a,
        payload: Buffer.from("no"),
      });
      throw new Error("on purpose");
    });
    await assert.rejects(failing);
    await write(a, ["yes"]);
    await until(() => got.length > 0);
    assert.deepEqual(got, ["yes"]);
  });

  test("an event of another tenant, and one that the bus would refuse, cannot be written", async () => {
    const event = { eventId: newId("evt"), payload: Buffer.alloc(1) };
    const put = (m: object) =>
      t.db.tenant(a, (tx) => enqueue(tx, "notes", { ...event, subject: "agentmesh.x.v1", tenantId: a, ...m }));
    await assert.rejects(put({ tenantId: b }), { code: "42501" });
    await assert.rejects(put({ subject: "a b" }), TypeError);
    await assert.rejects(put({ eventId: "" }), TypeError);
    await assert.rejects(
      put({ payload: Buffer.alloc(2e6) }),
      (error: AppError) => error.reason === "PAYLOAD_TOO_LARGE",
    );
    await assert.rejects(
      t.db.tenant(a, (tx) => enqueue(tx, "notes; --", { ...event, subject: "agentmesh.x.v1", tenantId: a })),
      TypeError,
    );
    assert.equal(await waiting(), 0);
  });

  test("what another process left is found by polling, and by wake()", async () => {
    await write(a, ["left"], { db: t.open() });
    const got: string[] = [];
    const polling = relay(async (m) => void got.push(text(m)), { pollMs: 20 });
    await until(() => got.length === 1);
    await write(a, ["elsewhere"], { db: t.open() });
    await until(() => got.length === 2);
    await polling.stop();
    const woken = relay(async (m) => void got.push(text(m)));
    await sleep(50);
    await write(a, ["silent"], { db: t.open() });
    woken.wake();
    await until(() => got.length === 3);
  });

  test("more than one batch, of several tenants and schemas, is drained in each subject's order", async () => {
    const got: Publication[] = [];
    for (let round = 0; round < 20; round++) for (const tenant of [a, b]) await write(tenant, [`${round}`]);
    await write(a, ["in other"], { schema: "other" });
    const slowly = async (m: Publication) => {
      await sleep(Math.random() * 3);
      got.push(m);
    };
    relay(slowly, { batch: 7, schemas: ["notes", "other"] });
    await until(() => got.length === 41);
    for (const tenant of [a, b]) {
      const order = got
        .filter((m) => m.subject.endsWith(tenant))
        .map(text)
        .filter((s) => s !== "in other");
      assert.deepEqual(
        order,
        Array.from({ length: 20 }, (_, i) => `${i}`),
      );
    }
  });

  test("an event that fails holds back the later ones of its subject, no others, and goes on when it can", async () => {
    const got: string[] = [];
    let broken = true;
    const tries: string[] = [];
    relay(
      async (m) => {
        if (text(m) === "bad") tries.push(text(m));
        if (text(m) === "bad" && broken) throw new TypeError("refused");
        got.push(text(m));
      },
      { pollMs: 20, maxBackoffMs: 50, batch: 4 },
    );
    await write(a, ["bad", "after bad", "after bad 2", "after bad 3", "after bad 4"]);
    await write(b, ["good"]);
    await write(a, ["other subject"], { subject: ".x" });
    await until(() => got.length === 2 && tries.length > 3);
    assert.deepEqual(got.toSorted(), ["good", "other subject"]);
    assert.ok(lines.some((line) => line.includes("event not published") && line.includes('"attempt":1')));
    broken = false;
    await until(() => got.length === 7);
    assert.deepEqual(got.slice(2), ["bad", "after bad", "after bad 2", "after bad 3", "after bad 4"]);
  });

  test("while the bus is away it backs off and loses nothing; when it is back it drains", async () => {
    let away = true;
    let calls = 0;
    const got: string[] = [];
    relay(
      async (m) => {
        calls++;
        if (away) throw dependencyDown("event bus");
        got.push(text(m));
      },
      { pollMs: 10, maxBackoffMs: 200 },
    );
    for (let i = 0; i < 30; i++) await write(i % 2 ? a : b, [`${i}`]);
    await sleep(600);
    assert.ok(calls > 1 && calls < 60, `${calls} calls in 0.6 s`);
    assert.equal(await waiting(), 30);
    away = false;
    await until(async () => (await waiting()) === 0);
    assert.deepEqual(
      got.filter((s) => Number(s) % 2 === 1),
      Array.from({ length: 15 }, (_, i) => `${2 * i + 1}`),
    );
    assert.ok(lines.some((line) => line.includes("outbox is published again")));
  });

  test("a bus that never answers does not hold it up: others are published, stop() returns", async () => {
    const got: string[] = [];
    const stuck = relay(async (m) => (text(m) === "stuck" ? new Promise<void>(() => {}) : void got.push(text(m))), {
      publishMs: 100,
      pollMs: 20,
    });
    await write(a, ["stuck"]);
    await write(b, ["fine"]);
    await until(() => got.length === 1);
    await write(b, ["fine too"]);
    await until(() => got.length === 2);
    await stuck.stop();
    assert.equal(await waiting(), 1);
  });

  test("a crash between publishing and marking publishes again, with the same id", async () => {
    const ids: string[] = [];
    const own = t.open({ applicationName: "crashing relay" });
    relay(
      async (m) => {
        ids.push(m.id);
        if (ids.length === 1)
          await admin.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'crashing relay'",
          );
      },
      { db: own, pollMs: 20 },
    );
    await write(a, ["once"]);
    await until(async () => ids.length >= 2 && (await waiting()) === 0);
    assert.equal(ids.length, 2);
    assert.equal(ids[0], ids[1]);
  });

  test("two relays that work side by side publish everything, each event once, in order, also when one of them crashes", async () => {
    const got: Publication[] = [];
    const publish = async (m: Publication) => {
      await sleep(Math.random() * 4);
      got.push(m);
    };
    const one = t.open({ applicationName: "relay one" });
    const two = t.open({ applicationName: "relay two" });
    relay(publish, { db: one, pollMs: 5, batch: 10 });
    relay(publish, { db: two, pollMs: 5, batch: 10 });
    for (let i = 0; i < 100; i++) {
      // Not through connections that are ended: what is written then may fail, as it should.
      await write(i % 2 ? a : b, [`${i}`], { db: i % 3 ? t.db : two });
      if (i === 50)
        await admin.query(
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'relay one'",
        );
    }
    await until(async () => (await waiting()) === 0);
    const ids = new Set(got.map((m) => m.id));
    assert.equal(ids.size, 100);
    assert.ok(got.length < 100 + 25, `${got.length} publications of 100 events with one crash`);
    for (const rest of [0, 1]) {
      const first = [...new Set(got.map(text).filter((s) => Number(s) % 2 === rest))];
      assert.deepEqual(
        first,
        first.toSorted((x, y) => Number(x) - Number(y)),
      );
    }
  });

  test("events that commit out of the order of their positions are not skipped", async () => {
    const got: string[] = [];
    const [written, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    relay(async (m) => void got.push(text(m)), { pollMs: 10 });
    const late = t.db.tenant(a, async (tx) => {
      await enqueue(tx, "notes", {
        subject: "agentmesh.x.v1.late",
        eventId: newId("evt"),
        tenantId: a,
        payload: Buffer.from("earlier position"),
      });
      written.resolve();
      await release.promise;
    });
    await written.promise;
    await write(b, ["later position"]);
    await until(() => got.length === 1);
    release.resolve();
    await late;
    await until(() => got.length === 2);
    assert.deepEqual(got, ["later position", "earlier position"]);
  });

  test("published events are kept for the retention, can be published again, and are deleted after it", async () => {
    const got: string[] = [];
    relay(async (m) => void got.push(text(m)));
    await write(a, ["1", "2"]);
    await until(() => got.length === 2);
    await until(async () => (await waiting()) === 0);
    assert.equal(await t.db.worker((tx) => republishSince(tx, "notes", new Date(0))), 2);
    await until(() => got.length === 4);
    await until(async () => (await waiting()) === 0);
    assert.equal(await t.db.worker((tx) => republishSince(tx, "notes", new Date(Date.now() + 3_600_000))), 0);
    const kept = async () => (await admin.query("SELECT FROM notes.outbox")).rowCount;
    const cleaning = (retentionMs: number) => relay(async () => {}, { pollMs: 10, cleanEveryMs: 0, retentionMs });
    cleaning(3_600_000);
    await sleep(100);
    assert.equal(await kept(), 2);
    await write(a, ["waiting"], { db: t.open(), schema: "other" });
    cleaning(0);
    await until(async () => (await kept()) === 0);
    assert.equal((await admin.query("SELECT FROM other.outbox")).rowCount, 1);
  });

  test("the database going away is survived", async () => {
    const got: string[] = [];
    const own = t.open({ applicationName: "cut relay" });
    relay(async (m) => void got.push(text(m)), { db: own, pollMs: 10 });
    for (let i = 0; i < 5; i++) {
      await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut relay'");
      await write(a, [`${i}`]);
      await sleep(20);
    }
    await until(async () => (await waiting()) === 0);
    assert.deepEqual([...new Set(got)], ["0", "1", "2", "3", "4"]);
  });

  test("stop() leaves no timer, listener or connection, and a relay that never started stops too", async () => {
    const own = t.open();
    const stopped = relay(async () => {}, { db: own });
    await write(a, ["x"], { db: own });
    await until(async () => (await waiting()) === 0);
    await Promise.all([stopped.stop(), stopped.stop()]);
    assert.deepEqual([own.use().total - own.use().idle, own.use().waiting], [0, 0]);
    await write(a, ["y"], { db: own });
    await sleep(50);
    assert.equal(await waiting(), 1);
    await createOutboxRelay({ db: own, schemas: ["notes"], bus: { publish: async () => {} }, log }).stop();
  });

  test("with the embedded bus an event is marked after its handlers, and a failing handler holds back its subject only", async () => {
    await using bus = new EmbeddedBus({ log });
    const handled: string[] = [];
    let failures = 2;
    await bus.consume({
      durable: "test",
      subjects: ["agentmesh.config.v1.>"],
      backoffMs: [150],
      async onMessage(m) {
        if (m.subject.endsWith("slow") && failures-- > 0) throw new Error("not yet");
        handled.push(Buffer.from(m.data).toString());
      },
    });
    relay((m, signal) => bus.publish(m, signal), { publishMs: 50, pollMs: 20 });
    await write(a, ["slow 1", "slow 2"], { subject: ".slow" });
    await write(a, ["quick"]);
    await until(() => handled.length === 1);
    assert.equal((await waiting()) >= 2, true);
    await until(async () => (await waiting()) === 0);
    assert.deepEqual(handled, ["quick", "slow 1", "slow 2"]);
  });
});
