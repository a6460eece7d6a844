import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { newId } from "#platform/id.ts";
import { defineTool, type ToolContext, type ToolDefinition } from "#platform/plugin/define-tool.ts";
import type { Inject, Provider } from "#platform/plugin/provider.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

interface Client {
  tenant: string;
}

/** What providers did, newest last. */
const seen: string[] = [];

const client: Provider<Client> = {
  name: "client",
  async provide({ call }) {
    seen.push("client made");
    await sleep(1);
    return { tenant: call.principal.tenantId };
  },
  async dispose() {
    await sleep(1);
    seen.push("client gone");
  },
};
const clock: Provider<Date> = {
  name: "clock",
  provide: () => {
    seen.push("clock made");
    return new Date(0);
  },
  dispose: () => void seen.push("clock gone"),
};
const broken: Provider<string> = { name: "broken", provide: () => Promise.reject(new Error("db01:5432 refused")) };
const closed: Provider<string> = {
  name: "closed",
  provide() {
    throw new ToolError("The shop is closed.");
  },
};
const sticky: Provider<string> = {
  name: "sticky",
  provide: () => "held",
  dispose() {
    throw new Error("will not let go");
  },
};
const replaced: Provider<string> = { name: "replaced", provide: () => "the real one" };
const endless: Provider<string> = { name: "endless", provide: () => new Promise(() => {}) };

const base = {
  description: "A tool for tests.",
  input: { type: "object", properties: { do: { type: "string" } } },
  risk: "read_only",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 30_000,
  maxOutputBytes: 1_000,
} satisfies Partial<ToolDefinition<never>>;

function injecting<I>(name: string, inject: Inject<I>, more: Partial<ToolDefinition<{ do?: string }, I>> = {}) {
  return defineTool<{ do?: string }, I>({
    ...base,
    name,
    inject,
    run(args, _context: ToolContext, _signal, injected) {
      if (args.do === "fail") throw new Error("it broke");
      return { structured: { args, injected } };
    },
    ...more,
  });
}

const tools = [
  injecting("both", { client, again: client, clock }),
  injecting("broken", { clock, broken }),
  injecting("closed", { closed }),
  injecting("sticky", { sticky }),
  injecting("replaced", { replaced }),
  injecting("endless", { clock, endless }, { timeoutMs: 60 }),
  defineTool<{ do?: string }>({
    ...base,
    name: "masked",
    mask: (text) => text.replaceAll("secret", "***"),
    async run({ do: what }, { progress }) {
      progress("my secret");
      await sleep(20);
      if (what === "explain secret") throw new ToolError("no secret");
      return { structured: { told: what }, text: `told ${what}` };
    },
  }),
  defineTool<object>({ ...base, name: "guarded", permissions: ["kb:read", "members:write"], run: () => "in" }),
  defineTool<object>({ ...base, name: "rare", callsPerMinute: 5, run: () => "ok" }),
  defineTool<object>({ ...base, name: "once", callsPerMinute: 1, permissions: ["kb:read"], run: () => "ok" }),
];

describe("the options of a tool", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    const stand: Provider<string> = { name: "stand-in", provide: async () => "a stand-in" };
    open = await openTools({ database: database.db, tools, overrides: new Map([[replaced, stand]]) });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  const run = (by: Principal, tool: string, args: object = {}) =>
    open.execute(by, { tool, argumentsJson: JSON.stringify(args) });
  const outcomes = async (by: Principal) => {
    const sql = `SELECT outcome, (SELECT string_agg(type, ' ') FROM tool.audit) AS audited FROM tool.tool_calls ORDER BY created_at`;
    return database.db.tenant(by.tenantId, (tx) => tx.query<{ outcome: string; audited: string }>(sql));
  };

  test("behaviours 25 to 27: what providers make is handed to the tool, once per call, and let go of after it", async () => {
    const by = caller();
    seen.length = 0;
    const { value } = await run(by, "both", { do: "well", client: "mine", again: { tenant: "ten_x" }, clock: null });
    const made = { tenant: by.tenantId };
    assert.deepEqual(value, {
      args: { do: "well" },
      injected: { client: made, again: made, clock: "1970-01-01T00:00:00.000Z" },
    });
    assert.deepEqual(seen, ["client made", "clock made", "clock gone", "client gone"]);
    const [tool] = (await open.execution.describeTools({ names: ["both"] }, callAs(by))).tools;
    assert.deepEqual(JSON.parse(tool?.inputSchemaJson ?? ""), base.input);
    seen.length = 0;
    await Promise.all([run(by, "both"), run(by, "both")]);
    assert.equal(seen.filter((one) => one === "client made").length, 2, "no two calls share what is made for one");
  });

  test("behaviour 27: providers let go also when the tool fails, when another provider does, and when time is over", async () => {
    for (const [tool, args, text] of [
      ["both", { do: "fail" }, 'The tool "both" failed.'],
      ["broken", {}, 'The tool "broken" failed.'],
      ["endless", {}, 'The tool "endless" did not finish within 60 ms.'],
    ] as const) {
      seen.length = 0;
      const by = caller();
      const executed = await run(by, tool, args);
      assert.deepEqual([executed.result.isError, executed.text], [true, text]);
      assert.ok(seen.includes("clock gone"), tool);
    }
    assert.equal((await run(caller(), "closed")).text, "The shop is closed.");
    const by = caller();
    assert.deepEqual((await run(by, "sticky")).value["injected"], { sticky: "held" });
    const line = open.service.logged.find(
      (one) => one["event"] === "tool.dispose_failed" && one["tenant_id"] === by.tenantId,
    );
    assert.deepEqual([line?.["tool"], line?.["provider"]], ["sticky", "sticky"]);
  });

  test("behaviour 26: an override stands in for a provider", async () => {
    assert.deepEqual((await run(caller(), "replaced")).value["injected"], { replaced: "a stand-in" });
  });

  test("a permission that the caller lacks is named, recorded and audited; the tool does not run", async () => {
    const by = principalOf(newId("ten"), ["agents:run", "kb:write"]);
    const { result, text } = await run(by, "guarded");
    const said = 'The tool "guarded" needs the permission "members:write", which this caller lacks.';
    assert.deepEqual([result.isError, text], [true, said]);
    assert.deepEqual(await outcomes(by), [{ outcome: "permission_denied", audited: "tool.denied" }]);
    const may = principalOf(newId("ten"), ["agents:run", "kb:read", "members:write"]);
    assert.equal((await run(may, "guarded")).text, "in");
    const [tool] = (await open.execution.describeTools({ names: ["guarded"] }, callAs(by))).tools;
    assert.deepEqual(tool?.permissions, ["kb:read", "members:write"]);
  });

  test("calls per minute are counted per tenant; the last ones are announced, and then the model is told when to try again", async () => {
    const by = caller();
    const left: (number | undefined)[] = [];
    for (let i = 0; i < 5; i++) left.push((await run(by, "rare")).result.callsLeft);
    assert.deepEqual(left, [undefined, undefined, undefined, 1, 0]);
    const { result, text } = await run(by, "rare");
    assert.equal(result.isError, true);
    assert.match(text, /^The tool "rare" may be called 5 times a minute, and that is used up\. Try again in \d+ s\.$/);
    assert.equal((await outcomes(by)).at(-1)?.outcome, "rate_limited");
    assert.equal((await run(caller(), "rare")).result.isError, false, "another tenant has its own");
    assert.equal((await run(by, "calculator", { expression: "1" })).result.callsLeft, undefined);
  });

  test("a call that is not permitted or does not fit takes nothing from the limit", async () => {
    const tenantId = newId("ten");
    const may = principalOf(tenantId, ["agents:run", "kb:read"]);
    assert.equal((await run(principalOf(tenantId, ["agents:run"]), "once")).result.isError, true);
    assert.match((await run(may, "once", { do: 5 })).text, /parameter "do" must be string/);
    assert.equal((await run(may, "once")).text, "ok");
    assert.match((await run(may, "once")).text, /may be called once a minute/);
  });

  test("a mask hides what must not leave: in results, errors, progress, record and audit, not from the tool", async () => {
    const by = caller();
    const { text, value, progress } = await run(by, "masked", { do: "a secret" });
    assert.deepEqual([text, value], ["told a ***", { told: "a ***" }]);
    assert.deepEqual(
      progress.map(({ message }) => message),
      ["my ***"],
    );
    assert.equal((await run(by, "masked", { do: "explain secret" })).text, "no ***");
    await run(by, "masked", { do: ["secret"], secret: 1 });
    const kept = await database.db.tenant(by.tenantId, (tx) =>
      tx.query("SELECT c.arguments, a.details FROM tool.tool_calls c, tool.audit a"),
    );
    assert.equal(kept.length, 9);
    assert.doesNotMatch(JSON.stringify(kept), /secret/);
    const logged = open.service.logged.filter((line) => line["tenant_id"] === by.tenantId);
    assert.match(JSON.stringify(logged), /\*\*\*/);
    assert.doesNotMatch(JSON.stringify(logged), /secret/);
  });

  test("escalate_to_human says why and how urgent it is", async () => {
    const { result, text } = await run(caller(), "escalate_to_human", { reason: " wants\u0000 a\nrefund " });
    assert.deepEqual([result.escalation?.reason, result.escalation?.priority], ["wants a refund", "normal"]);
    assert.equal(text, "A person was asked to take over (priority normal).");
    const urgent = await run(caller(), "escalate_to_human", { reason: "x", priority: "high" });
    assert.equal(urgent.result.escalation?.priority, "high");
    for (const args of [
      {},
      { reason: "" },
      { reason: " \u0007" },
      { reason: "x", priority: "now" },
      { reason: "x".repeat(1_001) },
    ]) {
      const refused = await run(caller(), "escalate_to_human", args);
      assert.deepEqual([refused.result.isError, refused.result.escalation], [true, undefined], JSON.stringify(args));
    }
    assert.equal((await run(caller(), "calculator", { expression: "1" })).result.escalation, undefined);
  });

  test("a credential that is bound to a user speaks for nobody else", async () => {
    const by = caller({ userId: "ada" });
    const asked = { tool: "rare", argumentsJson: "{}" };
    const refused = await refusal(open.execute(by, { ...asked, endUserId: "bob" }));
    assert.deepEqual([refused.code, refused.facts], [Code.NotFound, { resource_type: "user" }]);
    assert.deepEqual(await outcomes(by), []);
    for (const endUserId of ["", "ada"]) assert.equal((await open.execute(by, { ...asked, endUserId })).text, "ok");
    assert.equal((await open.execute(caller(), { ...asked, endUserId: "anyone" })).text, "ok");
  });
});
