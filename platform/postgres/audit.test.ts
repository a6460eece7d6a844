import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Call } from "#platform/rpc/call.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { type AuditEvent, audit } from "./audit.ts";

const tenant = newId("ten");
const call: Call = {
  principal: {
    tenantId: tenant,
    subject: "key_1",
    scopes: [],
    userId: "usr_1",
    credentialId: "key_1",
    actors: ["service:gateway", "service:agent"],
  },
  signal: new AbortController().signal,
  requestId: "req-1",
  ip: "203.0.113.7",
  userAgent: "curl/8",
};

describe("audit", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  before(async () => {
    t = await testDatabase({ services: [{ schema: "notes", dir: `${import.meta.dirname}/fixtures/notes` }] });
  });
  after(() => t.drop());

  async function row(event: AuditEvent, by = call, tenantId = tenant): Promise<Record<string, unknown> | undefined> {
    await t.db.tenant(tenantId, (tx) => audit(tx, "notes", by, event));
    return t.db.tenant(tenantId, (tx) => tx.one("SELECT * FROM notes.audit ORDER BY id DESC LIMIT 1"));
  }

  test("a row tells who did what, when, from where, with which result", async () => {
    const event = {
      type: "note.deleted",
      resource: "note_1",
      sessionId: "ses_1",
      details: { force: true },
      resultLength: 12,
      durationMs: 3.7,
    };
    const { id, time, ...rest } = (await row(event)) ?? {};
    assert.match(String(id), /^aud_/);
    assert.ok(Math.abs(Date.now() - (time as Date).getTime()) < 60_000);
    assert.deepEqual(rest, {
      tenant_id: tenant,
      type: "note.deleted",
      resource: "note_1",
      subject: "key_1",
      subject_tenant_id: tenant,
      user_id: "usr_1",
      credential_id: "key_1",
      actors: ["service:gateway", "service:agent"],
      ip: "203.0.113.7",
      user_agent: "curl/8",
      request_id: "req-1",
      session_id: "ses_1",
      details: { force: true },
      result_length: 12,
      duration_ms: 4,
    });
  });

  test("details are masked, and hold nothing that the column would refuse", async () => {
    const details = { password: "hush", note: "write to ann@example.com", odd: "a\u0000b\\u0000 \ud800", "\u0000": 1 };
    const stored = JSON.stringify((await row({ type: "x", details }))?.["details"]);
    assert.ok(!stored.includes("hush") && !stored.includes("ann@example.com"), stored);
    assert.ok(stored.includes("a\ufffdb\\\\u0000 \ufffd"), stored);
  });

  test("rows belong to the transaction's tenant and name the caller's, when an administrator crosses tenants", async () => {
    const other = newId("ten");
    const stored = await row({ type: "api_key.created" }, call, other);
    assert.deepEqual([stored?.["tenant_id"], stored?.["subject_tenant_id"]], [other, tenant]);
  });

  test("rows are only ever added", async () => {
    for (const sql of ["UPDATE notes.audit SET type = 'y'", "DELETE FROM notes.audit"]) {
      await assert.rejects(
        t.db.tenant(tenant, (tx) => tx.execute(sql)),
        { code: "42501" },
      );
      await assert.rejects(
        t.db.worker((tx) => tx.execute(sql)),
        { code: "42501" },
      );
    }
  });

  test("a row is gone with the change that rolled back", async () => {
    const failing = t.db.tenant(tenant, async (tx) => {
      await audit(tx, "notes", call, { type: "rolled.back" });
      throw new Error("on purpose");
    });
    await assert.rejects(failing);
    assert.deepEqual(
      await t.db.tenant(tenant, (tx) => tx.query("SELECT FROM notes.audit WHERE type = 'rolled.back'")),
      [],
    );
  });
});
