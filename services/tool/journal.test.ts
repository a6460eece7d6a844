import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { newId } from "#platform/id.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { refusal } from "#platform/testing/service-under-test.ts";
import { JournalStore } from "./store/journal-store.ts";
import { Sweeper } from "./sweeper.ts";
import { acting } from "./testing/charging-tools.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

const UNKNOWN = "The outcome of this call is not known; it may or may not have taken effect.";

/** Executions by request key. */
const ran = new Map<string, number>();
/** What a call that waits is told by the test, and the test by the call, by request key. */
const begun = new Map<string, PromiseWithResolvers<void>>();
const go = new Map<string, PromiseWithResolvers<void>>();
const gate = (of: typeof begun, key: string) => {
  const there = of.get(key) ?? Promise.withResolvers<void>();
  of.set(key, there);
  return there;
};
const count = (key: string) => ran.set(key, (ran.get(key) ?? 0) + 1).get(key);

const waits = (name: string, after: (signal: AbortSignal) => string) =>
  acting(name, async (_args, { requestKey }, signal) => {
    count(requestKey);
    gate(begun, requestKey).resolve();
    const told = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => told.resolve());
    await Promise.race([gate(go, requestKey).promise, told.promise]);
    return after(signal);
  });

const tools = [
  acting("counts", (args, { requestKey }) => ({ structured: { args, times: count(requestKey) } })),
  acting("also_counts", (_args, { requestKey }) => `${count(requestKey)}`),
  acting("shows", (_args, { requestKey }) => ({
    content: [
      { type: "text", text: `${count(requestKey)} "漢\0😀` },
      { type: "image", mediaType: "image/png", data: new Uint8Array([0, 137, 255]) },
      { type: "text", text: "x".repeat(2_000) },
    ],
    structured: { times: ran.get(requestKey), __proto__: 1 },
    escalation: { reason: "asked", priority: "high" },
  })),
  acting("refuses", (_args, { requestKey }) => {
    throw new ToolError(`refused ${count(requestKey)}`);
  }),
  acting("breaks", (_args, { requestKey }) => {
    count(requestKey);
    throw new Error("broken");
  }),
  acting(
    "hangs",
    (_args, { requestKey }) => {
      count(requestKey);
      return new Promise<never>(() => {});
    },
    { timeoutMs: 50 },
  ),
  acting("limited", (_args, { requestKey }) => `${count(requestKey)}`, { callsPerMinute: 1 }),
  acting("reads", (_args, { requestKey }) => `${count(requestKey)}`, { risk: "read_only" }),
  acting("again", (_args, { requestKey }) => `${count(requestKey)}`, { idempotent: true }),
  waits("waits", (signal) => {
    signal.throwIfAborted();
    return "done";
  }),
  waits("ends", () => "done all the same"),
  acting("deaf", (_args, { requestKey }) => {
    count(requestKey);
    gate(begun, requestKey).resolve();
    return new Promise<never>(() => {});
  }),
];

describe("a repeated call of a tool that is not idempotent", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  let other: OpenTools;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db, tools });
    other = await openTools({ database: database.open(), tools });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await other?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  const requested = (tool: string, args: object = {}) => {
    const [runId, callId] = [newId("run"), newId("call")];
    const ids = { runId, callId, sessionId: newId("ses"), endUserId: "ada" };
    return { tool, argumentsJson: JSON.stringify(args), ...ids, requestId: `${runId}/${callId}` };
  };
  const query = (by: Principal, sql: string) =>
    database.db.tenant(by.tenantId, (tx) => tx.query<Record<string, unknown>>(sql));
  const rows = (by: Principal) => query(by, "SELECT * FROM tool.tool_calls ORDER BY created_at, execution_id");
  const outcomes = async (by: Principal) => (await rows(by)).map((row) => row["outcome"]);
  const states = async (by: Principal) =>
    (await query(by, "SELECT state FROM tool.tool_journal")).map((row) => row["state"]);
  /** Executes it until its caller leaves, and waits until that is written down. */
  const left = async (by: Principal, request: ReturnType<typeof requested>) => {
    const abort = new AbortController();
    const call = refusal(open.execute(by, request, { signal: abort.signal }));
    await gate(begun, request.requestId).promise;
    abort.abort();
    assert.equal((await call).code, Code.Canceled);
    while ((await rows(by)).length === 0) await sleep(20);
  };

  test("gets the first answer again, the whole of it, and nothing runs", async () => {
    const by = caller();
    for (const tool of ["counts", "shows", "refuses", "breaks", "hangs"]) {
      const request = requested(tool, { b: 1, a: { d: null, c: ["é"] } });
      const { result } = await open.execute(by, request);
      const argumentsJson = '{ "a": {"c": ["\\u00e9"], "d": null}, "b": 1.0 }';
      for (const service of [open, other, open]) {
        assert.deepEqual((await service.execute(by, { ...request, argumentsJson })).result, result, tool);
      }
      assert.equal(ran.get(request.requestId), 1);
    }
    const replayed = ["replayed", "replayed", "replayed"];
    const first = ["ok", "ok", "tool_error", "failed", "timeout"];
    assert.deepEqual(
      await outcomes(by),
      first.flatMap((outcome) => [outcome, ...replayed]),
    );
    const lines = open.service.logged.filter((line) => line["tenant_id"] === by.tenantId);
    assert.equal(lines.filter((line) => line["event"] === "tool.replayed").length, 10);
    assert.equal(lines.filter((line) => line["event"] === "agent.tool.call").length, 5);
    const counted = `agent_tool_calls_total{tenant_id="${by.tenantId}",tool_name="counts",status="success"} 1`;
    assert.ok((await open.service.metrics.text()).includes(counted));
    const audited = await query(by, "SELECT type, count(*)::integer AS n FROM tool.audit GROUP BY type ORDER BY type");
    assert.deepEqual(audited, [
      { type: "tool.called", n: 5 },
      { type: "tool.repeated", n: 15 },
    ]);
  });

  test("by run and call has the same key as by a request id of that form", async () => {
    const by = caller();
    const request = requested("counts");
    await open.execute(by, { ...request, requestId: "" });
    assert.equal((await open.execute(by, request)).value["times"], 1);
  });

  test("that is another call is refused, also while the first one runs", async () => {
    const by = caller();
    const request = requested("waits", { amount: 1 });
    const running = open.execute(by, request);
    await gate(begun, request.requestId).promise;
    const refused = async (more: Partial<typeof request>) => {
      for (const service of [open, other]) {
        const { code, reason } = await refusal(service.execute(by, { ...request, ...more }));
        assert.deepEqual([code, reason], [Code.InvalidArgument, "IDEMPOTENCY_KEY_REUSED"]);
      }
    };
    for (const round of ["running", "finished"]) {
      await refused({ argumentsJson: '{"amount":2}' });
      await refused({ argumentsJson: '{"amount":[["amount",1]]}' });
      await refused({ tool: "also_counts" });
      await refused({ sessionId: newId("ses") });
      if (round === "running") gate(go, request.requestId).resolve();
      assert.equal((await running).text, "done");
    }
    assert.equal(ran.get(request.requestId), 1);
    assert.deepEqual(await outcomes(by), ["ok"]);
  });

  test("20 times at once through two processes runs once", async () => {
    const by = caller();
    const request = requested("waits");
    const all = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? open : other).execute(by, request));
    await gate(begun, request.requestId).promise;
    await sleep(100);
    gate(go, request.requestId).resolve();
    const results = (await Promise.all(all)).map(({ result }) => result);
    for (const result of results) assert.deepEqual(result, results[0]);
    assert.equal(ran.get(request.requestId), 1);
    assert.deepEqual((await outcomes(by)).toSorted(), ["ok", ...Array.from({ length: 19 }, () => "replayed")]);
  });

  test("joins the one under way, and keeps it alive when its caller leaves", async () => {
    const by = caller();
    const request = requested("waits");
    const abort = new AbortController();
    const first = refusal(open.execute(by, request, { signal: abort.signal }));
    await gate(begun, request.requestId).promise;
    const second = open.execute(by, request);
    await sleep(50);
    abort.abort();
    assert.equal((await first).code, Code.Canceled);
    gate(go, request.requestId).resolve();
    assert.equal((await second).text, "done");
    assert.equal(ran.get(request.requestId), 1);
    assert.deepEqual((await outcomes(by)).toSorted(), ["ok", "replayed"]);
  });

  test("leaves by its own deadline while another process works on it", async () => {
    const by = caller();
    const request = requested("waits");
    const first = open.execute(by, request);
    await gate(begun, request.requestId).promise;
    for (const service of [open, other]) {
      const late = await refusal(service.execute(by, request, { deadline: Date.now() + 150 }));
      assert.equal(late.code, Code.DeadlineExceeded);
    }
    gate(go, request.requestId).resolve();
    assert.equal((await first).text, "done");
  });

  test("whose caller left is unknown for good, whether the tool heard its signal or not", async () => {
    for (const tool of ["waits", "deaf"]) {
      const by = caller();
      const request = requested(tool);
      await left(by, request);
      for (const service of [open, other, open]) {
        const { result, text } = await service.execute(by, request);
        assert.deepEqual([result.isError, result.unknown, text], [true, true, UNKNOWN]);
      }
      assert.equal(ran.get(request.requestId), 1);
      assert.deepEqual(await outcomes(by), ["cancelled", "unknown", "unknown", "unknown"]);
      assert.deepEqual(await states(by), ["UNKNOWN"]);
    }
  });

  test("whose caller left, and whose tool ended by itself all the same, has the tool's answer", async () => {
    const by = caller();
    const request = requested("ends");
    await left(by, request);
    const { result, text } = await open.execute(by, request);
    assert.deepEqual([result.isError, text], [false, "done all the same"]);
    assert.equal(ran.get(request.requestId), 1);
  });

  test("that was not run by the first attempt is as if it had not been asked for", async () => {
    const by = caller();
    const [taken, over] = [requested("limited"), requested("limited")];
    await open.execute(by, taken);
    const { result } = await open.execute(by, over);
    assert.equal(result.isError, true);
    assert.deepEqual(await outcomes(by), ["ok", "rate_limited"]);
    assert.deepEqual(await states(by), ["FINISHED"]);
    assert.equal((await open.execute(by, taken)).text, "1", "a repeated call takes nothing from the limit");
    const request = requested("counts");
    await refusal(open.execute(by, request, { signal: AbortSignal.abort() }));
    assert.equal((await open.execute(by, request)).value["times"], 1);
  });

  test("of which this process knows nothing more is unknown at once", async () => {
    const by = caller();
    const request = requested("counts");
    await open.execute(by, request);
    const lost =
      "UPDATE tool.tool_journal SET state = 'RUNNING', result = NULL, unknown_after = now() + interval '1 day'";
    await database.db.tenant(by.tenantId, (tx) => tx.execute(lost));
    assert.equal((await open.execute(by, request, { deadline: Date.now() + 10_000 })).text, UNKNOWN);
    assert.equal(ran.get(request.requestId), 1);
  });

  test("that others were told is unknown stays so when it ends after all", async () => {
    const by = caller();
    const request = requested("waits");
    const first = open.execute(by, request);
    await gate(begun, request.requestId).promise;
    const past = "UPDATE tool.tool_journal SET unknown_after = clock_timestamp()";
    await database.db.tenant(by.tenantId, (tx) => tx.execute(past));
    assert.equal((await other.execute(by, request)).text, UNKNOWN);
    gate(go, request.requestId).resolve();
    assert.equal((await first).text, UNKNOWN);
    assert.deepEqual(await outcomes(by), ["unknown", "ok"], "the log says what happened");
    assert.deepEqual(await states(by), ["UNKNOWN"]);
  });

  test("of another tenant or user neither replays nor learns of it", async () => {
    const tenant = caller();
    const ada = caller({ tenantId: tenant.tenantId, userId: "ada" });
    const bob = caller({ tenantId: tenant.tenantId, userId: "bob" });
    const request = requested("counts", { secret: 1 });
    assert.equal((await open.execute(ada, request)).value["times"], 1);
    assert.equal((await open.execute(tenant, request)).value["times"], 1, "a machine credential speaks for her");
    assert.equal((await refusal(open.execute(bob, request))).reason, "RESOURCE_NOT_FOUND");
    let times = 1;
    for (const [by, endUserId] of [
      [bob, "bob"],
      [tenant, ""],
      [caller(), "ada"],
      [caller({ userId: "ada" }), "ada"],
    ] as const) {
      const own = { ...request, endUserId, argumentsJson: '{"other":1}' };
      assert.deepEqual((await open.execute(by, own)).value, { args: { other: 1 }, times: ++times });
    }
    assert.equal((await open.execute(ada, request)).value["times"], 1);
  });

  test("is remembered for its time, and no longer", async () => {
    const by = caller();
    const [old, young] = [requested("counts"), requested("counts")];
    for (const request of [old, young]) await open.execute(by, request);
    const age = "UPDATE tool.tool_journal SET changed_at = now() - interval '2 days' WHERE request_key = $1";
    await database.db.tenant(by.tenantId, (tx) => tx.execute(age, [old.requestId]));
    const kept = [{ name: "journal", store: new JournalStore(database.db), retentionMs: 86_400_000 }];
    const sweeper = new Sweeper({ kept, everyMs: 60_000, log: createLog({ level: "silent", service: "tool" }) });
    sweeper.start();
    while ((await states(by)).length > 1) await sleep(10);
    await sweeper.stop();
    assert.equal((await open.execute(by, young)).value["times"], 1);
    assert.equal((await open.execute(by, old)).value["times"], 2);
  });

  test("of another kind, or without a key, runs again and costs what it did: one transaction, two statements", async () => {
    const cost = { transactions: 0, statements: 0 };
    await using counted = await openTools({ database: counting(database.db, cost), tools, relay: false });
    const executed = async (request: object, more: Partial<Call> = {}) => {
      const before = { ...cost };
      const { text } = await counted.execute(by, { tool: "", ...request }, more);
      return [text, cost.transactions - before.transactions, cost.statements - before.statements];
    };
    const by = caller();
    for (const tool of ["reads", "again"]) {
      const request = requested(tool);
      assert.deepEqual(await executed(request), ["1", 1, 2]);
      assert.deepEqual(await executed(request), ["2", 1, 2]);
    }
    const { runId: _, requestId: __, ...keyless } = requested("also_counts");
    assert.deepEqual((await executed(keyless)).slice(1), [1, 2]);
    assert.deepEqual(await states(by), []);
    const journalled = requested("also_counts");
    assert.deepEqual(await executed(journalled), ["1", 2, 4], "the intent; and what came of it with the record");
    assert.deepEqual(await executed(journalled), ["1", 2, 3]);
  });
});

/** The database, with its transactions and their statements counted. */
function counting(database: Database, cost: { transactions: number; statements: number }): Database {
  const counted = (tx: Tx): Tx => {
    const statement = () => {
      cost.statements++;
      return tx;
    };
    return {
      ...tx,
      query: (sql, params) => statement().query(sql, params),
      one: (sql, params) => statement().one(sql, params),
      execute: (sql, params) => statement().execute(sql, params),
      finish: (sql, params) => statement().finish(sql, params),
    };
  };
  return {
    ...database,
    tenant: (tenantId, fn, options) => {
      cost.transactions++;
      return database.tenant(tenantId, (tx) => fn(counted(tx)), options);
    },
  };
}
