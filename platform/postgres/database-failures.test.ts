import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import pg from "pg";
import { newId } from "#platform/id.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { createFaultProxy, type FaultProxy } from "#platform/testing/fault-proxy.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import type { Database, Tx } from "./database.ts";
import { isUniqueViolation, TransactionConflict, UniqueViolation } from "./errors.ts";
import { retryConflicts } from "./retry-conflicts.ts";

const services = [{ schema: "notes", dir: join(import.meta.dirname, "fixtures/notes") }];
const tenant = newId("ten");

function appError(code: Code, reason: string) {
  return (error: unknown) => {
    assert.ok(error instanceof AppError, `${error}`);
    assert.deepEqual([error.code, error.reason], [code, reason]);
    return true;
  };
}
const unavailable = (error: unknown) => {
  appError(Code.Unavailable, "DEPENDENCY_DOWN")(error);
  assert.ok(((error as AppError).retryAfterMs ?? 0) > 0);
  assert.deepEqual((error as AppError).facts, { dependency: "postgres" });
  return true;
};

describe("database failures", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  let admin: pg.Client;

  before(async () => {
    t = await testDatabase({ services });
    admin = new pg.Client({ connectionString: t.superuserUrl });
    await admin.connect();
  });
  after(async () => {
    await admin.end();
    await t.drop();
  });

  /** Resolves once the server runs no statement with this text any more. */
  async function gone(text: string): Promise<void> {
    for (let i = 0; i < 100; i++) {
      const { rows } = await admin.query(
        "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()",
        [`%${text}%`],
      );
      if (rows.length === 0) return;
      await sleep(50);
    }
    assert.fail("the server still runs it after 5 s");
  }

  async function backends(application: string): Promise<number[]> {
    const { rows } = await admin.query("SELECT pid FROM pg_stat_activity WHERE application_name = $1", [application]);
    return rows.map((row) => row.pid);
  }

  describe("cancellation", () => {
    test("a signal that is aborted already keeps the transaction from starting", async () => {
      const reason = new Error("left");
      const never = t.db.tenant(tenant, () => assert.fail("not reached"), { signal: AbortSignal.abort(reason) });
      await assert.rejects(never, (error) => error === reason);
    });

    test("ends the wait for a connection at once, and the pool goes on", async () => {
      const db = t.open({ max: 1, acquireTimeoutMs: 60_000 });
      const [held, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const holder = db.tenant(tenant, async () => {
        held.resolve();
        await release.promise;
      });
      await held.promise;
      const [reason, controller] = [new Error("left"), new AbortController()];
      const waiting = db.tenant(tenant, () => assert.fail("not reached"), { signal: controller.signal });
      controller.abort(reason);
      await assert.rejects(waiting, (error) => error === reason);
      await assert.rejects(db.ping(AbortSignal.timeout(50)), { name: "TimeoutError" });
      await assert.rejects(
        db.tenant(tenant, async () => 1, { deadline: Date.now() + 50 }),
        appError(Code.DeadlineExceeded, "DEADLINE"),
      );
      release.resolve();
      await holder;
      assert.equal(await db.tenant(tenant, async () => 1), 1);
      assert.equal(db.use().total, 1);
    });

    test("ends a running statement here at once and on the server soon, and its locks are free", async () => {
      const db = t.open();
      const [reason, controller] = [new Error("left"), new AbortController()];
      const running = db.tenant(
        tenant,
        async (tx) => {
          await tx.lockKey("cancelled");
          setTimeout(() => controller.abort(reason), 50);
          await tx.query("SELECT pg_sleep(60), 'cancel me'");
        },
        { signal: controller.signal },
      );
      await assert.rejects(running, (error) => error === reason);
      await gone("cancel me");
      assert.equal(await db.tenant(tenant, (tx) => tx.tryLockKey("cancelled")), true);
    });

    test("between statements rolls back and keeps the connection", async () => {
      const db = t.open({ max: 1, applicationName: "between" });
      const [reason, controller] = [new Error("left"), new AbortController()];
      await db.ping();
      const [pid] = await backends("between");
      const running = db.tenant(
        tenant,
        async (tx) => {
          await tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'aborted')", [tenant]);
          controller.abort(reason);
        },
        { signal: controller.signal },
      );
      await assert.rejects(running, (error) => error === reason);
      assert.equal(await db.tenant(tenant, (tx) => tx.one("SELECT FROM notes.note WHERE id = 'aborted'")), undefined);
      assert.deepEqual(await backends("between"), [pid]);
    });
  });

  describe("limits", () => {
    test("a statement that takes longer than the limit or the deadline is DEADLINE_EXCEEDED", async () => {
      const late = appError(Code.DeadlineExceeded, "DEADLINE");
      const sleepy = (tx: Tx) => tx.query("SELECT pg_sleep(60)");
      await assert.rejects(t.open({ statementTimeoutMs: 50 }).tenant(tenant, sleepy), late);
      await assert.rejects(t.db.tenant(tenant, sleepy, { deadline: Date.now() + 50 }), late);
    });

    test("too long a wait for a connection is UNAVAILABLE", async () => {
      const db = t.open({ max: 1, acquireTimeoutMs: 500 });
      await db.tenant(tenant, () =>
        assert.rejects(
          db.tenant(tenant, async () => 1),
          unavailable,
        ),
      );
    });

    test("a transaction that its process leaves idle is ended by the server and frees its locks", async () => {
      const db = t.open({ idleInTransactionMs: 50 });
      const idle = db.tenant(tenant, async (tx) => {
        await tx.lockKey("idle");
        await sleep(400);
        await tx.query("SELECT 1");
      });
      await assert.rejects(idle, unavailable);
      assert.equal(await db.tenant(tenant, (tx) => tx.tryLockKey("idle")), true);
    });
  });

  describe("a server that goes away", () => {
    let proxy: FaultProxy;
    let db: Database;
    before(async () => {
      proxy = await createFaultProxy({ port: Number(new URL(t.url).port) });
      const url = new URL(t.url);
      url.port = String(proxy.port);
      db = t.open({ connection: { url: url.href }, acquireTimeoutMs: 500, statementTimeoutMs: 300 });
    });
    after(async () => {
      await db.close();
      await proxy.close();
    });
    const works = async () => assert.deepEqual(await db.tenant(tenant, (tx) => tx.one("SELECT 1 AS n")), { n: 1 });

    test("before the connection, in a statement, between statements: UNAVAILABLE, and it works again after", async () => {
      await works();
      proxy.refuse();
      proxy.reset();
      await assert.rejects(
        db.tenant(tenant, async () => 1),
        unavailable,
      );
      await assert.rejects(db.ping(), unavailable);
      proxy.heal();
      await works();
      const cut = db.tenant(tenant, (tx) => {
        setTimeout(() => proxy.reset(), 50);
        return tx.query("SELECT pg_sleep(60)");
      });
      await assert.rejects(cut, unavailable);
      await works();
      const between = db.tenant(tenant, async (tx) => {
        proxy.cut();
        await sleep(50);
        return tx.query("SELECT 1");
      });
      await assert.rejects(between, unavailable);
      await works();
    });

    test("does not hang when packets vanish, with no deadline and no signal", async () => {
      await works();
      proxy.blackHole();
      await assert.rejects(
        db.tenant(tenant, (tx) => tx.query("SELECT 1")),
        unavailable,
      );
      await assert.rejects(db.ping(), unavailable);
      proxy.heal();
      await works();
      await db
        .tenant(tenant, async (tx) => {
          await tx.query("SELECT 1");
          proxy.blackHole();
          await assert.rejects(tx.query("SELECT 2"), unavailable);
          throw new Error("seen");
        })
        .catch((error) => assert.equal(error.message, "seen"));
      proxy.heal();
      await works();
    });

    test("a backend that is ended by an administrator is UNAVAILABLE, and free connections that die are replaced", async () => {
      const own = t.open({ applicationName: "ended", max: 2 });
      const ended = own.tenant(tenant, async (tx) => {
        const [pid] = await backends("ended");
        await admin.query("SELECT pg_terminate_backend($1)", [pid]);
        await sleep(50);
        await tx.query("SELECT 1");
      });
      await assert.rejects(ended, unavailable);
      await own.ping();
      for (const pid of await backends("ended")) await admin.query("SELECT pg_terminate_backend($1)", [pid]);
      await sleep(50);
      await own.ping();
    });
  });

  describe("conflicts", () => {
    const insert = (tx: Tx, id: string, body = "") =>
      tx.execute("INSERT INTO notes.note (tenant_id, id, body) VALUES ($1, $2, $3)", [tenant, id, body]);

    test("a unique violation is typed and names its constraint", async () => {
      const twice = t.db.tenant(tenant, async (tx) => {
        await insert(tx, "twice");
        await insert(tx, "twice");
      });
      await assert.rejects(twice, (error) => {
        assert.ok(error instanceof UniqueViolation);
        const named = [undefined, "note_pkey", "other"].map((name) => isUniqueViolation(error as unknown, name));
        assert.deepEqual(named, [true, true, false]);
        assert.deepEqual([error.code, error.constraint, error.table], ["23505", "note_pkey", "notes.note"]);
        return true;
      });
    });

    test("a deadlock is ABORTED for one of the two, which succeeds when it is run again", async () => {
      await t.db.tenant(tenant, async (tx) => {
        for (const id of ["x", "y"]) await insert(tx, id);
      });
      const both = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
      let runs = 0;
      const crossing = (first: string, second: string, mine: 0 | 1) =>
        retryConflicts(() =>
          t.db.tenant(tenant, async (tx) => {
            runs++;
            const touch = (id: string) => tx.execute("UPDATE notes.note SET size = size + 1 WHERE id = $1", [id]);
            await touch(first);
            both[mine].resolve();
            await both[mine === 0 ? 1 : 0].promise;
            await touch(second);
          }),
        );
      await Promise.all([crossing("x", "y", 0), crossing("y", "x", 1)]);
      assert.ok(runs >= 3, "one of the two was run again; more often when it overtakes the other's wake-up");
      const sizes = await t.db.tenant(tenant, (tx) => tx.query("SELECT size FROM notes.note WHERE id IN ('x', 'y')"));
      assert.deepEqual(sizes, [{ size: 2 }, { size: 2 }]);
    });

    test("serializable transactions that conflict all succeed with retries, and are ABORTED without", async () => {
      await t.db.tenant(tenant, (tx) => insert(tx, "counter"));
      const increment = () =>
        t.db.tenant(
          tenant,
          async (tx) => {
            const row = await tx.one<{ size: number }>("SELECT size FROM notes.note WHERE id = 'counter'");
            await tx.execute("UPDATE notes.note SET size = $1 WHERE id = 'counter'", [(row?.size ?? 0) + 1]);
          },
          { isolation: "serializable" },
        );
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, increment));
      const lost = outcomes.filter((outcome) => outcome.status === "rejected");
      assert.ok(lost.length > 0);
      for (const { reason } of lost) appError(Code.Aborted, "CONCURRENT_CHANGE")(reason);
      await Promise.all(Array.from({ length: 5 }, () => retryConflicts(increment, { attempts: 30 })));
      const counter = await t.db.tenant(tenant, (tx) => tx.one("SELECT size FROM notes.note WHERE id = 'counter'"));
      assert.deepEqual(counter, { size: 8 - lost.length + 5 });
    });

    test("retries end after the given attempts and pass other errors on at once", async () => {
      let runs = 0;
      const failing = (error: Error) =>
        retryConflicts(
          async () => {
            runs++;
            throw error;
          },
          { attempts: 3 },
        );
      await assert.rejects(failing(new TransactionConflict()), appError(Code.Aborted, "CONCURRENT_CHANGE"));
      assert.equal(runs, 3);
      await assert.rejects(failing(new Error("other")), /other/);
      assert.equal(runs, 4);
    });

    test("a statement whose table was changed under it by a migration is ABORTED once, then works", async () => {
      const db = t.open({ max: 1 });
      await admin.query(
        "CREATE TABLE notes.changing AS SELECT 1 AS n; GRANT SELECT ON notes.changing TO agentmesh_app",
      );
      const read = () => db.tenant(tenant, (tx) => tx.one("SELECT * FROM notes.changing"));
      assert.deepEqual(await read(), { n: 1 });
      await admin.query("ALTER TABLE notes.changing ADD m int");
      assert.deepEqual(await retryConflicts(read), { n: 1, m: null });
      await admin.query("DROP TABLE notes.changing");
    });
  });

  describe("errors", () => {
    test("show neither values nor the statement", async () => {
      const secret = "hush-hush";
      const bad: [string, unknown[]][] = [
        ["INSERT INTO notes.note (tenant_id, id, body) SELECT $1, $2, $2 FROM generate_series(1, 2)", [tenant, secret]],
        ["SELECT $1::int", [secret]],
        ["SELECT $1::jsonb", [`{${secret}`]],
        ["INSERT INTO notes.comment (tenant_id, note_id, id) VALUES ($1, $2, $2)", [tenant, secret]],
        ["SELECT agentmesh_missing($1::text)", [secret]],
      ];
      for (const [sql, params] of bad) {
        await assert.rejects(
          t.db.tenant(tenant, (tx) => tx.query(sql, params)),
          (error: Error) => {
            const shown = [error.message, error.stack, JSON.stringify(error), String(error.cause)].join();
            assert.ok(!shown.includes(secret), shown);
            assert.match(error.message, /PostgreSQL error [0-9A-Z]{5}/);
            assert.equal(error.cause, undefined);
            return true;
          },
        );
      }
    });

    test("text that PostgreSQL cannot store is the caller's fault", async () => {
      const invalid = appError(Code.InvalidArgument, "FIELD_INVALID");
      await assert.rejects(
        t.db.tenant(tenant, (tx) => tx.query("SELECT $1::text", ["a\0b"])),
        invalid,
      );
      await assert.rejects(
        t.db.tenant(tenant, (tx) => tx.query("SELECT $1::jsonb", [JSON.stringify({ a: "\0" })])),
        invalid,
      );
    });
  });
});
