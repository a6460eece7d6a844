import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { newId } from "#platform/id.ts";
import { defineTool, type ToolDefinition } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { MAX_KEPT_BYTES } from "./domain/tool-result.ts";
import { OutputStore } from "./store/output-store.ts";
import { Sweeper } from "./sweeper.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

const MAX_OUTPUT = 100;
const BYTES: Record<string, number> = { a: 1, é: 2, 漢: 3, "😀": 4 };

const says = (name: string, more: Partial<ToolDefinition<{ text: string; times: number }>> = {}) =>
  defineTool<{ text: string; times: number }>({
    name,
    description: "Says a text again and again.",
    input: {
      type: "object",
      properties: { text: { type: "string" }, times: { type: "integer", default: 1 } },
      required: ["text"],
    },
    risk: "read_only",
    concurrencySafe: true,
    idempotent: true,
    timeoutMs: 30_000,
    maxOutputBytes: MAX_OUTPUT,
    run: ({ text, times }) => text.repeat(times),
    ...more,
  });

describe("the whole output of a call", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    const complains = ({ text, times }: { text: string; times: number }) => {
      throw new ToolError(text.repeat(times));
    };
    const tools = [
      says("says"),
      says("forgets", { ephemeral: 2 }),
      says("complains", { ephemeral: 1, run: complains }),
    ];
    open = await openTools({ database: database.db, tools });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  async function said(by: Principal, args: object, more: { tool?: string; sessionId?: string; callId?: string } = {}) {
    const ids = { tool: "says", sessionId: newId("ses"), callId: newId("call"), ...more };
    const executed = await open.execute(by, { ...ids, argumentsJson: JSON.stringify(args) });
    return { ...executed, ...ids };
  }

  const read = (by: Principal, key: { sessionId: string; callId: string }, offset = 0, maxBytes = 0) => {
    const { sessionId, callId } = key;
    return open.execution.readToolOutput({ sessionId, callId, offset: BigInt(offset), maxBytes }, callAs(by));
  };

  const missing = {
    code: Code.NotFound,
    message: "No such tool output.",
    reason: "RESOURCE_NOT_FOUND",
    facts: { resource_type: "tool_output" },
  };

  test("behaviours 30 and 33: is read page by page, whatever the pages' size and wherever they begin", async () => {
    const by = caller();
    const text = "a漢é😀".repeat(50);
    const call = await said(by, { text });
    assert.equal(call.result.truncated, true);
    assert.match(
      call.text,
      new RegExp(`^(a漢é😀){10}\\[Shown: the first 100 of 500 bytes\\. Read on .*${call.callId}.*offset 100`),
    );
    for (const maxBytes of [1, 4, 5, 7, 64, 499, 500, 0, 262_144]) {
      const pages: string[] = [];
      let offset = 0;
      do {
        const page = await read(by, call, offset, maxBytes);
        assert.equal(page.totalBytes, 500n);
        assert.ok(Buffer.byteLength(page.text) <= Math.max(4, maxBytes || 16_384));
        pages.push(page.text);
        offset = Number(page.nextOffset);
      } while (offset !== 0);
      assert.equal(pages.join(""), text, `pages of ${maxBytes}`);
    }
    for (let offset = 0; offset < 12; offset++) {
      const page = await read(by, call, offset, 8);
      assert.ok(page.text.isWellFormed() && !page.text.includes("\ufffd"), `${offset}: ${page.text}`);
      assert.ok(text.includes(page.text) && BYTES[[...page.text][0] ?? ""] !== undefined);
    }
    assert.equal(
      (await read(by, call, 8, 4)).text,
      "😀",
      "from the middle of a character it begins with that character",
    );
    for (const offset of [500, 501, 9_000, Number.MAX_SAFE_INTEGER]) {
      const { text: none, nextOffset, totalBytes } = await read(by, call, offset, 8);
      assert.deepEqual([none, nextOffset, totalBytes], ["", 0n, 500n], String(offset));
    }
  });

  test("is kept up to 4 MiB, and the model is told how much", async () => {
    const by = caller();
    const call = await said(by, { text: "0123456789", times: 5 * 1024 * 1024 });
    assert.match(call.text, /Shown: the first 100 of 52428800 bytes\. The first 4194304 bytes were kept\./);
    const last = await read(by, call, MAX_KEPT_BYTES - 4, 100);
    assert.deepEqual([last.text, last.totalBytes, last.nextOffset], ["0123", 4_194_304n, 0n]);
  });

  test("of an ephemeral tool is kept also when all of it was shown; of others it is not", async () => {
    const by = caller();
    const short = await said(by, { text: "brief" }, { tool: "forgets" });
    assert.deepEqual([short.text, short.result.truncated], ["brief", false]);
    assert.equal((await read(by, short)).text, "brief");
    assert.deepEqual(await refusal(read(by, await said(by, { text: "brief" }))), missing);
    const failed = await said(by, { text: "no" }, { tool: "complains" });
    assert.deepEqual(await refusal(read(by, failed)), missing, "an error is never evicted, so it is never read again");
    const { tools } = await open.execution.describeTools({ names: ["forgets", "says"] }, callAs(by));
    assert.deepEqual(
      tools.map(({ ephemeral, builtIn }) => [ephemeral, builtIn]),
      [
        [2, true],
        [0, true],
      ],
    );
  });

  test("of a repeated call replaces the earlier one", async () => {
    const by = caller();
    const call = await said(by, { text: "first" }, { tool: "forgets" });
    await said(by, { text: "second" }, call);
    assert.equal((await read(by, call)).text, "second");
  });

  test("of a call of no session is not kept, and nothing points to it", async () => {
    const { text, result } = await said(caller(), { text: "x", times: 200 }, { sessionId: "" });
    assert.deepEqual([text, result.truncated], ["x".repeat(MAX_OUTPUT), true]);
  });

  test("is out of reach for other sessions, calls, users and tenants, who all get the same answer", async () => {
    const tenant = caller();
    const bound = (userId: string) => caller({ tenantId: tenant.tenantId, userId });
    const ada = bound("ada");
    const call = await said(ada, { text: "secret" }, { tool: "forgets" });
    assert.equal((await read(ada, call)).text, "secret");
    assert.equal((await read(tenant, call)).text, "secret");
    for (const [by, key] of [
      [ada, { ...call, sessionId: newId("ses") }],
      [ada, { ...call, callId: newId("call") }],
      [ada, { ...call, callId: `${call.callId}\0` }],
      [bound("bob"), call],
      [caller(), call],
      [caller({ userId: "ada" }), call],
    ] as const) {
      assert.deepEqual(await refusal(read(by, key)), missing);
    }
    // Another user's call under the same ids neither reads nor replaces it.
    await said(bound("bob"), { text: "other" }, call);
    assert.equal((await read(ada, call)).text, "secret");
    const reader = principalOf(tenant.tenantId, ["tools:read"]);
    assert.equal((await refusal(read(reader, call))).reason, "SCOPE_MISSING");
    assert.equal((await refusal(read(ada, call, -1))).reason, "FIELD_INVALID");
    assert.equal((await refusal(read(ada, call, 0, 262_145))).reason, "FIELD_INVALID");
  });

  test("is removed when its time is over", async () => {
    const by = caller();
    const [old, young] = [
      await said(by, { text: "old" }, { tool: "forgets" }),
      await said(by, { text: "young" }, { tool: "forgets" }),
    ];
    await database.db.tenant(by.tenantId, (tx) =>
      tx.execute("UPDATE tool.tool_outputs SET created_at = now() - interval '2 days' WHERE call_id = $1", [
        old.callId,
      ]),
    );
    const log = createLog({ level: "silent", service: "tool" });
    const sweeper = new Sweeper({
      kept: [{ name: "outputs", store: new OutputStore(database.db), retentionMs: 86_400_000 }],
      everyMs: 60_000,
      log,
    });
    sweeper.start();
    const gone = async () => (await refusal(read(by, old)).catch(() => undefined))?.code === Code.NotFound;
    while (!(await gone()));
    await sweeper.stop();
    assert.equal((await read(by, young)).text, "young");
  });
});
