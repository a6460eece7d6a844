import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { readToolConfig } from "./config.ts";

const read = (values: object) => loadConfig(readToolConfig, { env: {}, dir: false, values });

describe("the tool service's configuration", () => {
  test("has defaults, and takes what it is given", () => {
    const days = 86_400_000;
    const retention = { outputRetentionMs: 30 * days, journalRetentionMs: 7 * days };
    const standard = { abandonAfterMs: 500, todoMaxItems: 100, ...retention, pluginModules: [] };
    assert.deepEqual(read({}), standard);
    const tool = { abandon_after: "0s", todo_max_items: 3, output_retention: "1h", journal_retention: "2h" };
    const kept = { outputRetentionMs: 3_600_000, journalRetentionMs: 7_200_000 };
    const given = { abandonAfterMs: 0, todoMaxItems: 3, ...kept, pluginModules: ["./a.ts", "b"] };
    assert.deepEqual(read({ tool, plugins: { modules: ["./a.ts", "b"] } }), given);
  });

  test("refuses values that make no sense, naming them", () => {
    assert.throws(() => read({ tool: { abandon_after: "1h" } }), /tool\.abandon_after/);
    assert.throws(() => read({ tool: { todo_max_items: 0 } }), /tool\.todo_max_items/);
    assert.throws(() => read({ tool: { output_retention: "1s" } }), /tool\.output_retention/);
    assert.throws(() => read({ tool: { journal_retention: "30m" } }), /tool\.journal_retention/);
    assert.throws(() => read({ plugins: { modules: 5 } }), /plugins\.modules/);
  });
});
