import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { heard } from "#platform/plugin/testing/greeter-plugin.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs } from "#platform/testing/service-under-test.ts";
import { caller, openTools, toolDatabase } from "./testing/tool-service.ts";

const greeter = fileURLToPath(import.meta.resolve("#platform/plugin/testing/greeter-plugin.ts"));
const clashing = `data:text/javascript,${encodeURIComponent(`
  import { definePlugin } from ${JSON.stringify(import.meta.resolve("#platform/plugin/define-plugin.ts"))};
  import { defineTool } from ${JSON.stringify(import.meta.resolve("#platform/plugin/define-tool.ts"))};
  export const plugin = definePlugin({ name: "clash", version: "1.0.0", tools: [defineTool({
    name: "calculator", description: "Another one.", input: { type: "object" }, risk: "read_only",
    concurrencySafe: true, idempotent: true, timeoutMs: 1, maxOutputBytes: 1, run: () => "" })] });`)}`;

describe("a plugin of the tool service", { skip: skipWithoutPostgres() }, () => {
  test("brings tools that are listed and called as the service's own are, and is let go of with the service", async () => {
    await using database = await toolDatabase();
    heard.length = 0;
    {
      await using open = await openTools({ database: database.db, values: { plugins: { modules: [greeter] } } });
      const by = caller();
      const { tools } = await open.execution.describeTools({ names: ["greet", "calculator"] }, callAs(by));
      assert.deepEqual(
        tools.map(({ name, builtIn }) => [name, builtIn]),
        [
          ["greet", false],
          ["calculator", true],
        ],
      );
      assert.equal((await open.execute(by, { tool: "greet", argumentsJson: '{"name":"Ada"}' })).text, "Hello, Ada!");
      assert.match((await open.execute(by, { tool: "greet" })).text, /parameter "name" is missing, expected string/);
      assert.deepEqual(heard, ["load"]);
    }
    assert.deepEqual(heard, ["load", "unload"]);
  });

  test("that cannot be loaded, or whose tool has a name that is taken, keeps the service from starting", async () => {
    await using database = await toolDatabase();
    const started = (module: string) =>
      openTools({ database: database.db, values: { plugins: { modules: [module] } } });
    await assert.rejects(started("./no-such-plugin.ts"), /plugin \.\/no-such-plugin\.ts: it cannot be imported/);
    await assert.rejects(started(clashing), /tool "calculator" is defined twice/);
  });
});
