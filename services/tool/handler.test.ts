import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import { UnknownPolicy } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { newId } from "#platform/id.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

const missing = {
  code: Code.NotFound,
  message: "No such tool.",
  reason: "RESOURCE_NOT_FOUND",
  facts: { resource_type: "tool" },
};

describe("ToolService", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  test("lists the tools by name with what an agent needs to know of them", async () => {
    const { tools, nextPageToken } = await open.tools.listTools({}, callAs(caller()));
    assert.deepEqual(
      tools.map(({ name }) => name),
      [
        "analyze_spending",
        "calculator",
        "check_balance",
        "check_inventory",
        "create_order",
        "current_time",
        "escalate_to_human",
        "get_product_details",
        "get_transaction_history",
        "search_products",
        "todo",
        "track_order",
        "transfer_funds",
      ],
    );
    assert.equal(nextPageToken, "");
    const risky = tools.filter(({ risk }) => risk !== RiskClass.READ_ONLY);
    assert.deepEqual(
      risky.map(({ name, risk, concurrencySafe, idempotent }) => [name, risk, concurrencySafe, idempotent]),
      [
        ["create_order", RiskClass.DESTRUCTIVE, false, true],
        ["escalate_to_human", RiskClass.WRITE, true, true],
        ["todo", RiskClass.WRITE, false, true],
        ["transfer_funds", RiskClass.DESTRUCTIVE, false, true],
      ],
    );
    assert.ok(tools.every(({ builtIn, idempotent, version }) => builtIn && idempotent && version === "1.0.0"));
    assert.deepEqual(
      [...new Set(tools.map(({ category }) => category))],
      ["finance", "compute", "commerce", "support", "planning"],
    );
    assert.ok(tools.every(({ onUnknown }) => onUnknown === UnknownPolicy.REPORT));
    for (const tool of tools) {
      assert.equal(tool.toolId, tool.name);
      assert.ok(tool.description.length > 20 && tool.timeoutMs > 0 && tool.maxOutputBytes > 0);
      assert.equal(JSON.parse(tool.inputSchemaJson).type, "object");
    }
  });

  test("lists in pages whose tokens open for the same tenant only", async () => {
    const by = caller();
    const first = await open.tools.listTools({ pageSize: 12 }, callAs(by));
    assert.deepEqual([first.tools.length, first.tools.at(-1)?.name], [12, "track_order"]);
    const next = { pageSize: 2, pageToken: first.nextPageToken };
    const second = await open.tools.listTools(next, callAs(by));
    assert.deepEqual(
      second.tools.map(({ name }) => name),
      ["transfer_funds"],
    );
    assert.equal(second.nextPageToken, "");
    const elsewhere = await refusal(open.tools.listTools(next, callAs(caller())));
    const junk = await refusal(open.tools.listTools({ pageToken: "x" }, callAs(by)));
    assert.deepEqual([elsewhere.reason, junk.reason], ["PAGE_TOKEN_INVALID", "PAGE_TOKEN_INVALID"]);
    assert.equal((await refusal(open.tools.listTools({ pageSize: -1 }, callAs(by)))).reason, "FIELD_INVALID");
  });

  test("reads a tool by its id or name, and knows no other", async () => {
    const by = caller();
    const { tool } = await open.tools.getTool({ toolId: "calculator" }, callAs(by));
    assert.equal(tool?.name, "calculator");
    for (const toolId of ["Calculator", "__proto__", newId("tol")]) {
      assert.deepEqual(await refusal(open.tools.getTool({ toolId }, callAs(by))), missing);
    }
    assert.equal((await refusal(open.tools.getTool({}, callAs(by)))).reason, "FIELD_INVALID");
  });

  test("describes tools in the order asked for, each once, and leaves out what does not exist", async () => {
    const names = ["todo", "nope", "calculator", "todo", ""];
    const { tools } = await open.execution.describeTools({ names }, callAs(caller()));
    assert.deepEqual(
      tools.map(({ name }) => name),
      ["todo", "calculator"],
    );
  });

  test("needs the scopes of its methods", async () => {
    const reader = principalOf(newId("ten"), ["tools:read"]);
    const runner = principalOf(newId("ten"), ["agents:run"]);
    assert.deepEqual((await refusal(open.tools.listTools({}, callAs(runner)))).facts, { scopes: "tools:read" });
    const executed = open.execute(reader, { tool: "current_time" });
    assert.deepEqual((await refusal(executed)).facts, { scopes: "agents:run tools:invoke" });
    await open.execution.describeTools({ names: [] }, callAs(reader));
    const invoker = principalOf(newId("ten"), ["tools:invoke"]);
    assert.equal((await open.execute(invoker, { tool: "current_time" })).result.isError, false);
  });

  test("executes a call and answers with exactly one result", async () => {
    const run = { tool: "calculator", argumentsJson: '{"expression":"17 * 23"}' };
    const { results, result, text, value } = await open.execute(caller(), run);
    assert.equal(results.length, 1);
    assert.deepEqual(value, { result: "391", exact: true });
    assert.deepEqual(JSON.parse(text), value);
    assert.deepEqual([result.isError, result.truncated], [false, false]);
    const clock = await open.execute(caller(), { tool: "current_time" });
    assert.ok(Math.abs(Date.parse(String(clock.value["time"])) - Date.now()) < 60_000);
  });

  test("refuses an unknown tool, a missing call id and arguments above 1 MiB as the RPC, not as a result", async () => {
    const by = caller();
    assert.deepEqual(await refusal(open.execute(by, { tool: "nope", argumentsJson: "{" })), missing);
    const noId = await refusal(open.execute(by, { tool: "calculator", callId: "" }));
    assert.equal(noId.reason, "FIELD_INVALID");
    const argumentsJson = JSON.stringify({ expression: "1".repeat(1024 * 1024) });
    assert.equal((await refusal(open.execute(by, { tool: "calculator", argumentsJson }))).reason, "FIELD_INVALID");
  });

  test("tells the model which argument is wrong and what it must be, and nothing else", async () => {
    const table: [string, string, RegExp][] = [
      ["calculator", "", /parameter "expression" is missing, expected string\.$/],
      ["calculator", '{"expression":5}', /parameter "expression" must be string, got number\.$/],
      ["calculator", '{"expression":null}', /parameter "expression" must be string, got null\.$/],
      ["calculator", '{"expression":"1","tenant_id":"x"}', /parameter "tenant_id" is unknown\.$/],
      ["calculator", '{"expression":"1","__proto__":{}}', /parameter "__proto__" is unknown\.$/],
      ["calculator", `{"expression":"${"1".repeat(1001)}"}`, /"expression" must NOT have more than 1000 characters\.$/],
      ["calculator", "{", /they are not valid JSON\.$/],
      ["calculator", "[1]", /they must be a JSON object, got array\.$/],
      ["calculator", "7", /they must be a JSON object, got number\.$/],
      ["calculator", `{"expression":${"[".repeat(64)}${"]".repeat(64)}}`, /nested more than 64 levels deep\.$/],
      ["calculator", "[".repeat(1_000_000), /nested more than 64 levels deep\.$/],
      ["todo", "{}", /parameter "action" is missing, expected one of "add", "list", "complete", "remove", "clear"\.$/],
      ["todo", '{"action":"eat"}', /parameter "action" must be one of "add", "list", .*\.$/],
      ["todo", '{"action":"complete","id":"1"}', /parameter "id" must be integer, got string\.$/],
      ["todo", '{"action":"complete","id":0}', /parameter "id" must be >= 1\.$/],
    ];
    for (const [tool, argumentsJson, expected] of table) {
      const { result, text } = await open.execute(caller(), { tool, argumentsJson, sessionId: newId("ses") });
      assert.equal(result.isError, true, argumentsJson.slice(0, 80));
      assert.match(text, expected);
      assert.match(text, new RegExp(`^Invalid arguments for the tool "${tool}": `));
    }
    const many = JSON.stringify(
      Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`x${i}${"y".repeat(90)}`, 1])),
    );
    const { text } = await open.execute(caller(), { tool: "calculator", argumentsJson: many });
    assert.ok(text.length < 1_000 && text.endsWith("; and more."), text);
  });

  test("a default stands in for a parameter that is left out or null", async () => {
    for (const argumentsJson of ["", "{}", '{"timezone":null}', '{"timezone":""}', '{"timezone":"UTC"}']) {
      const { value } = await open.execute(caller(), { tool: "current_time", argumentsJson });
      assert.equal(value["timezone"], "UTC", argumentsJson);
    }
  });
});
