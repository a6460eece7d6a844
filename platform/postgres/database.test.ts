import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import pg from "pg";
import { newId } from "#platform/id.ts";
import type { AppError } from "#platform/rpc/errors.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import type { Database } from "./database.ts";

const services = [{ schema: "notes", dir: join(import.meta.dirname, "fixtures/notes") }];

describe("database", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  let db: Database;
  const [a, b] = [newId("ten"), newId("ten")];

  before(async () => {
    t = await testDatabase({ services });
    db = t.db;
    for (const tenant of [a, b]) {
      await db.tenant(tenant, async (tx) => {
        await tx.execute("INSERT INTO notes.note (tenant_id, id, body) VALUES ($1, 'one', $2)", [
          tenant,
          `of ${tenant}`,
        ]);
        await tx.execute("INSERT INTO notes.job (tenant_id, id, secret) VALUES ($1, 'job', 'hush')", [tenant]);
      });
    }
  });
  after(() => t.drop());

  describe("tenant transactions", () => {
    test("run as agentmesh_app and see and change their tenant's rows only", async () => {
      await db.tenant(a, async (tx) => {
        assert.deepEqual(await tx.one("SELECT current_user AS who, agentmesh.current_tenant() AS tenant"), {
          who: "agentmesh_app",
          tenant: a,
        });
        assert.deepEqual(await tx.query("SELECT body FROM notes.note"), [{ body: `of ${a}` }]);
        assert.equal(await tx.execute("UPDATE notes.note SET body = 'mine' WHERE tenant_id = $1", [b]), 0);
        assert.equal(await tx.execute("DELETE FROM notes.note WHERE tenant_id = $1", [b]), 0);
      });
      assert.deepEqual(await db.tenant(b, (tx) => tx.query("SELECT body FROM notes.note")), [{ body: `of ${b}` }]);
    });

    test("cannot write another tenant's row, nor move one to another tenant", async () => {
      const policy = { code: "42501" };
      await assert.rejects(
        db.tenant(a, (tx) => tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'x')", [b])),
        policy,
      );
      await assert.rejects(
        db.tenant(a, (tx) => tx.execute("UPDATE notes.note SET tenant_id = $1", [b])),
        policy,
      );
    });

    test("leave nothing on the connection: without a tenant a read raises, on a fresh and on a used connection", async () => {
      const one = t.open({ max: 1 });
      const bare = new pg.Client({ connectionString: t.url });
      await bare.connect();
      try {
        const asApp = ["BEGIN", "SET LOCAL ROLE agentmesh_app", "SELECT * FROM notes.note"];
        await assert.rejects(bare.query(asApp.join(";")), /no tenant is set/);
        await bare.query("ROLLBACK");
        await bare.query(`BEGIN; SET LOCAL app.tenant_id = '${a}'; COMMIT`);
        await assert.rejects(bare.query(asApp.join(";")), /no tenant is set/);
        await bare.query("ROLLBACK");
        await assert.rejects(
          bare.query("BEGIN; SET LOCAL ROLE agentmesh_app; INSERT INTO notes.note (tenant_id, id) VALUES ('', 'x')"),
          /no tenant is set|row-level security|tenant_id_form/,
        );
        await bare.query("ROLLBACK");
      } finally {
        await bare.end();
      }
      for (const tenant of [a, b, a]) {
        assert.equal((await one.tenant(tenant, (tx) => tx.query("SELECT FROM notes.note"))).length, 1);
        await assert.rejects(
          one.worker((tx) => tx.query("SELECT FROM notes.note")),
          { code: "42501" },
        );
      }
    });

    test("refuse what is not a tenant id before a connection is asked for", async () => {
      for (const bad of ["", "ten_", "x", `${a}'; SELECT 1; --`, a.replace("ten_", "usr_"), a.toUpperCase()]) {
        await assert.rejects(
          db.tenant(bad, () => assert.fail("not reached")),
          TypeError,
        );
      }
    });

    test("the login itself reaches no table", async () => {
      const bare = new pg.Client({ connectionString: t.url });
      await bare.connect();
      await assert.rejects(bare.query("SELECT * FROM notes.note"), /permission denied/);
      await bare.end();
    });

    test("the owner sees no row, for row-level security is forced", async () => {
      const owner = new pg.Client({ connectionString: t.ownerUrl });
      await owner.connect();
      assert.equal((await owner.query("SELECT * FROM notes.note")).rows.length, 0);
      await owner.end();
    });

    test("roll back when the function throws, and pass its error on", async () => {
      const error = new Error("on purpose");
      const failing = db.tenant(a, async (tx) => {
        await tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'gone')", [a]);
        throw error;
      });
      await assert.rejects(failing, (thrown) => thrown === error);
      assert.equal(await db.tenant(a, (tx) => tx.one("SELECT FROM notes.note WHERE id = 'gone'")), undefined);
    });

    test("do not report success when a failed statement's error was swallowed", async () => {
      const swallowing = db.tenant(a, async (tx) => {
        await tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'lost')", [a]);
        await tx.query("SELECT 1/0").catch(() => {});
      });
      await assert.rejects(swallowing, /rolled back/);
    });

    test("can be read only, and of another isolation", async () => {
      const write = db.tenant(a, (tx) => tx.execute("DELETE FROM notes.note"), { readOnly: true });
      await assert.rejects(write, { name: "DatabaseError", code: "25006" });
      const level = await db.tenant(a, (tx) => tx.one("SHOW transaction_isolation"), { isolation: "serializable" });
      assert.deepEqual(level, { transaction_isolation: "serializable" });
    });

    test("a transaction cannot be used after its end", async () => {
      const kept = await db.tenant(a, async (tx) => tx);
      await assert.rejects(kept.query("SELECT 1"), /is over/);
    });
  });

  describe("worker transactions", () => {
    test("see all tenants' rows of a table that lets them, and only its granted columns", async () => {
      const rows = await db.worker((tx) => tx.query("SELECT tenant_id, id FROM notes.job ORDER BY tenant_id"));
      assert.deepEqual(
        rows,
        [a, b].sort().map((tenant_id) => ({ tenant_id, id: "job" })),
      );
      assert.equal(await db.worker((tx) => tx.execute("UPDATE notes.job SET owner = 'me'")), 2);
      for (const refused of [
        "SELECT secret FROM notes.job",
        "UPDATE notes.job SET id = 'x'",
        "DELETE FROM notes.job",
        "SELECT FROM notes.comment",
      ]) {
        await assert.rejects(
          db.worker((tx) => tx.query(refused)),
          { code: "42501" },
          refused,
        );
      }
    });
  });

  describe("statements", () => {
    test("values come back as documented", async () => {
      const row = await db.tenant(a, (tx) =>
        tx.one(
          `SELECT 9007199254740991::int8 AS big, ARRAY[1,NULL]::int8[] AS bigs, count(*) AS count, 1.10::numeric AS exact,
             '2026-01-02T03:04:05.678Z'::timestamptz AS at, '2026-01-02'::date AS day, '2026-01-02 03:04:05.678901'::timestamp AS local,
             '{"a":[1]}'::jsonb AS doc, '\\x00ff'::bytea AS bytes, NULL AS nothing FROM notes.note`,
        ),
      );
      assert.deepEqual(row, {
        big: Number.MAX_SAFE_INTEGER,
        bigs: [1, null],
        count: 1,
        exact: "1.10",
        at: new Date("2026-01-02T03:04:05.678Z"),
        day: "2026-01-02",
        local: "2026-01-02 03:04:05.678901",
        doc: { a: [1] },
        bytes: Buffer.of(0, 255),
        nothing: null,
      });
      await assert.rejects(
        db.tenant(a, (tx) => tx.one("SELECT 9007199254740992::int8 AS big")),
        RangeError,
      );
    });

    test("parameters go as they are: dates, bytes, bigints, lists, objects, undefined", async () => {
      const at = new Date("2026-05-06T07:08:09.123Z");
      const row = await db.tenant(a, (tx) =>
        tx.one(
          "SELECT $1::timestamptz AS at, $2::bytea AS bytes, $3::int8 AS big, $4::text[] AS list, $5::jsonb AS doc, $6::text AS nothing",
          [at, new Uint8Array([1, 2]), 12n, ["x", "y,z"], { k: "v" }, undefined],
        ),
      );
      assert.deepEqual(row, {
        at,
        bytes: Buffer.of(1, 2),
        big: 12,
        list: ["x", "y,z"],
        doc: { k: "v" },
        nothing: null,
      });
    });

    test("run one after another although they were started together", async () => {
      const got = await db.tenant(a, (tx) =>
        Promise.all([1, 2, 3].map((n) => tx.one("SELECT $1::int AS n, txid_current() AS tx", [n]))),
      );
      assert.deepEqual(
        got.map((row) => row?.["n"]),
        [1, 2, 3],
      );
      assert.equal(new Set(got.map((row) => row?.["tx"])).size, 1);
    });

    test("never hold two statements", async () => {
      for (const prepare of [true, false]) {
        const other = t.open({ prepare });
        await assert.rejects(
          other.tenant(a, (tx) => tx.query("SELECT 1; SELECT 2")),
          { code: "42601" },
        );
      }
    });

    test("more distinct texts than are kept prepared still work", async () => {
      const one = t.open({ max: 1 });
      await one.tenant(a, async (tx) => {
        for (let i = 0; i < 520; i++) await tx.query(`SELECT ${i} AS n`);
        assert.deepEqual(await tx.one("SELECT count(*) AS kept FROM pg_prepared_statements"), { kept: 500 });
        assert.deepEqual(await tx.one("SELECT 3 AS n"), { n: 3 });
        assert.deepEqual(await tx.one("SELECT 519 AS n"), { n: 519 });
      });
    });

    test("one() throws when there are more rows", async () => {
      await assert.rejects(
        db.tenant(a, (tx) => tx.one("SELECT generate_series(1, 2)")),
        /returned 2/,
      );
    });

    test("a savepoint undoes what failed and keeps the rest", async () => {
      await db.tenant(a, async (tx) => {
        await tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'kept')", [a]);
        await assert.rejects(
          tx.savepoint(async () => {
            await tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'undone')", [a]);
            await tx.savepoint(() => tx.execute("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'kept')", [a]));
          }),
          { name: "UniqueViolation" },
        );
        assert.equal(await tx.savepoint(async () => 7), 7);
      });
      const ids = await db.tenant(a, (tx) =>
        tx.query("DELETE FROM notes.note WHERE id IN ('kept', 'undone') RETURNING id"),
      );
      assert.deepEqual(ids, [{ id: "kept" }]);
    });
  });

  describe("locks", () => {
    test("a key is held by one transaction at a time, whatever its parts look like glued together", async () => {
      const [held, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const holder = db.tenant(a, async (tx) => {
        await tx.lockKey("agent", "x", "y");
        held.resolve();
        await release.promise;
      });
      await held.promise;
      const tries = (...name: string[]) => db.worker((tx) => tx.tryLockKey(...name));
      assert.equal(await tries("agent", "x", "y"), false);
      assert.equal(await tries("agent", "x,y"), true);
      let locked = false;
      const waiting = db.worker((tx) => tx.lockKey("agent", "x", "y")).then(() => (locked = true));
      await sleep(50);
      assert.equal(locked, false);
      release.resolve();
      await holder;
      await waiting;
    });
  });

  describe("commits", () => {
    test("listeners of a topic are called after the commit, and not after a rollback", async () => {
      const topic = randomUUID();
      let calls = 0;
      const stop = db.onCommitted(topic, () => calls++);
      await db.tenant(a, async (tx) => {
        tx.announce(topic);
        tx.announce(topic);
        await tx.query("SELECT 1");
        assert.equal(calls, 0);
      });
      assert.equal(calls, 1);
      await assert.rejects(
        db.tenant(a, async (tx) => {
          tx.announce(topic);
          await tx.query("SELECT 1/0");
        }),
      );
      stop();
      await db.tenant(a, async (tx) => tx.announce(topic));
      assert.equal(calls, 1);
    });
  });

  describe("a last statement", () => {
    const insert = "INSERT INTO notes.note (tenant_id, id) VALUES (agentmesh.current_tenant(), $1) RETURNING id";
    const ids = () => db.tenant(a, (tx) => tx.query<{ id: string }>("SELECT id FROM notes.note WHERE id LIKE 'last%'"));

    test("commits, gives its rows, and lets nothing come after it", async () => {
      const rows = await db.tenant(a, async (tx) => {
        await tx.execute(insert, ["last-1"]);
        const finished = tx.finish(insert, ["last-2"]);
        await assert.rejects(tx.query("SELECT 1"), /the transaction is over/);
        return finished;
      });
      assert.deepEqual(rows, [{ id: "last-2" }]);
      assert.equal((await ids()).length, 2);
      await db.tenant(a, (tx) => tx.finish("DELETE FROM notes.note WHERE id LIKE 'last%'"));
      assert.deepEqual(await ids(), []);
    });

    test("that fails undoes all, says why, and leaves a connection that works", async () => {
      const one = t.open({ max: 1 });
      const failing = one.tenant(a, async (tx) => {
        await tx.execute(insert, ["last-1"]);
        await tx.finish(insert, ["last-1"]);
      });
      await assert.rejects(failing, { name: "UniqueViolation" });
      assert.deepEqual(await one.tenant(a, (tx) => tx.query("SELECT FROM notes.note WHERE id LIKE 'last%'")), []);
    });

    test("behind a statement that had failed is no success", async () => {
      const swallowed = db.tenant(a, async (tx) => {
        await tx.query("SELECT 1/0").catch(() => {});
        await tx.finish(insert, ["last-1"]).catch(() => {});
      });
      await assert.rejects(swallowed, /rolled back/);
      assert.deepEqual(await ids(), []);
    });

    test("is not interrupted by the caller's leave, which would leave its outcome unknown", async () => {
      const leave = new AbortController();
      const late = db.tenant(
        a,
        (tx) => {
          const rows = tx.finish("SELECT pg_sleep(0.1)");
          setImmediate(() => leave.abort());
          return rows;
        },
        { signal: leave.signal },
      );
      assert.equal((await late).length, 1);
      assert.ok(leave.signal.aborted);
      const sent = new AbortController();
      const never = db.tenant(
        a,
        async (tx) => {
          sent.abort(new Error("left"));
          return tx.finish(insert, ["last-1"]);
        },
        { signal: sent.signal },
      );
      await assert.rejects(never, /left/);
      assert.deepEqual(await ids(), []);
    });
  });

  test("a transaction whose start fails runs nothing, and says why", async () => {
    const one = t.open({ max: 1 });
    const starts = { nonsense: "42601", "serializable; SET LOCAL ROLE nobody_at_all": "22023" };
    for (const [isolation, code] of Object.entries(starts)) {
      const broken = one.tenant(a, (tx) => tx.finish("INSERT INTO notes.note (tenant_id, id) VALUES ($1, 'no')", [a]), {
        isolation: isolation as never,
      });
      await assert.rejects(broken, { code });
    }
    assert.deepEqual(await one.tenant(a, (tx) => tx.query("SELECT FROM notes.note WHERE id = 'no'")), []);
  });

  describe("close", () => {
    test("waits for a running transaction, gives its connections back and refuses what comes later", async () => {
      const own = t.open();
      const started = Promise.withResolvers<void>();
      const running = own.tenant(a, async (tx) => {
        started.resolve();
        return tx.one("SELECT pg_sleep(0.1), 1 AS done");
      });
      await started.promise;
      await Promise.all([own.close(), own.close()]);
      assert.equal((await running)?.["done"], 1);
      assert.deepEqual(own.use(), { total: 0, idle: 0, waiting: 0 });
      await assert.rejects(own.ping(), (error: AppError) => error.code === Code.Unavailable);
    });
  });
});
