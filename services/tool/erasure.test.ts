import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { SessionErasedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { defineTool } from "#platform/plugin/define-tool.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { findText } from "#platform/testing/find-text.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { ERASURE_ROWS, ErasureStore } from "./store/erasure-store.ts";
import { IdempotencyKeys } from "./store/idempotency-keys.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

const never = new AbortController().signal;
const HOUR_MS = 3_600_000;

const remembers = defineTool<{ text: string }>({
  name: "remembers",
  description: "Says much, once.",
  input: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
  risk: "write",
  concurrencySafe: true,
  idempotent: false,
  timeoutMs: 30_000,
  maxOutputBytes: 100,
  run: ({ text }) => text.repeat(100),
});

describe("an erased session", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  let me: Principal;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db, tools: [remembers] });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });
  beforeEach(() => {
    me = caller();
  });

  const rows = (sql: string, params: readonly unknown[] = []) =>
    database.db.tenant(me.tenantId, (tx) => tx.query(sql, params));
  const publish = (event: { tenantId: string; sessionId: string }, tenantId = event.tenantId) =>
    open.service.bus.publish({
      subject: `agentmesh.session.v1.${tenantId}.erased`,
      id: newId("evt"),
      data: toBinary(SessionErasedSchema, create(SessionErasedSchema, event)),
    });
  /** Something in every table that names a session. */
  async function used(canary: string): Promise<string> {
    const sessionId = newId("ses");
    const ids = () => ({ sessionId, runId: newId("run"), endUserId: "ada" });
    const call = (tool: string, args: object) =>
      open.execute(me, { ...ids(), tool, argumentsJson: JSON.stringify(args) });
    await call("remembers", { text: canary });
    await call("todo", { action: "add", text: canary });
    await call("create_order", { items: [{ product_id: "tent-two", quantity: 1 }] });
    await call("transfer_funds", { from: "checking", to: "sister", amount: 1, note: canary });
    return sessionId;
  }
  const tablesWith = async (text: string) =>
    (await findText(rows, text, "tool")).map((name) => name.slice("tool.".length));

  test("leaves neither what was said nor its name, but in the log of what happened; others stay", async () => {
    const canary = "canary-in-a-mine";
    const sessionId = await used(canary);
    const other = await used("another-bird");
    const before_ = await tablesWith("another-bird");
    const told = ["demo_transfers", "idempotency_keys", "session_todos", "tool_calls", "tool_journal", "tool_outputs"];
    for (const table of told) assert.ok((await tablesWith(canary)).includes(table), table);
    await publish({ tenantId: me.tenantId, sessionId });
    assert.deepEqual(await tablesWith(canary), []);
    assert.deepEqual(await tablesWith(sessionId), ["audit", "erased_sessions", "tool_calls"]);
    assert.equal((await rows("SELECT FROM tool.demo_orders")).length, 2, "what was ordered is ordered");
    assert.deepEqual(await tablesWith("another-bird"), before_);
    assert.equal((await rows("SELECT FROM tool.session_todos WHERE session_id = $1", [other])).length, 1);
    // Told again, it finds nothing to do.
    await publish({ tenantId: me.tenantId, sessionId });
    assert.equal((await rows("SELECT FROM tool.tool_calls WHERE session_id = $1", [sessionId])).length, 4);
  });

  test("takes along what a call that was under way writes later, and is forgotten then", async () => {
    const sessionId = newId("ses");
    const store = new ErasureStore(database.db);
    await store.erase({ tenantId: me.tenantId, sessionId }, never);
    await open.execute(me, {
      sessionId,
      runId: newId("run"),
      tool: "todo",
      argumentsJson: JSON.stringify({ action: "add", text: "late-bird" }),
    });
    assert.ok((await tablesWith("late-bird")).length > 0);
    await store.deleteOlderThan(HOUR_MS, never);
    assert.ok((await tablesWith("late-bird")).length > 0, "not before its time");
    await store.deleteOlderThan(0, never);
    assert.deepEqual(await tablesWith("late-bird"), []);
    assert.deepEqual(await rows("SELECT FROM tool.erased_sessions"), []);
  });

  test("is erased whole when it has more rows than one statement takes", async () => {
    const sessionId = newId("ses");
    const fill = `INSERT INTO tool.session_todos (tenant_id, session_id, item_id, text)
      SELECT agentmesh.current_tenant(), $1, n, 'x' FROM generate_series(1, $2::int) n`;
    await rows(fill, [sessionId, 2 * ERASURE_ROWS + 1]);
    await new ErasureStore(database.db).erase({ tenantId: me.tenantId, sessionId }, never);
    assert.deepEqual(await rows("SELECT FROM tool.session_todos"), []);
  });

  test("is not believed of another tenant than the subject's", async () => {
    const sessionId = await used("still-there");
    const stranger = newId("ten");
    // The embedded bus waits for its handlers: what failed is delivered again, later.
    await Promise.race([
      publish({ tenantId: me.tenantId, sessionId }, stranger),
      new Promise((r) => setTimeout(r, 300)),
    ]);
    assert.ok((await tablesWith("still-there")).includes("session_todos"));
  });

  test("answers to repeated requests go when they are past their time, the oldest first, in bounded statements", async () => {
    const keys = new IdempotencyKeys(database.db);
    const by = { principal: me, signal: never, requestId: "req", ip: "", userAgent: "" };
    const asked = { schema: "tool", call: by, method: "test", request: Buffer.from("x") };
    await database.db.tenant(me.tenantId, async (tx) => {
      for (const requestId of ["old", "young"]) {
        await idempotent(tx, { ...asked, requestId }, async () => Buffer.from("answer"));
      }
      await tx.execute(
        "UPDATE tool.idempotency_keys SET created_at = created_at - interval '25 hours' WHERE request_id = 'old'",
      );
    });
    assert.equal(await keys.deleteOlderThan(24 * HOUR_MS, never), 1);
    assert.deepEqual(await rows("SELECT request_id FROM tool.idempotency_keys WHERE method = 'test'"), [
      { request_id: "young" },
    ]);
  });
});
