import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { readToolConfig } from "./config.ts";

const read = (values: object) => loadConfig(readToolConfig, { env: {}, dir: false, values });

describe("the tool service's configuration", () => {
  test("has defaults, and takes what it is given", () => {
    assert.deepEqual(read({}), { abandonAfterMs: 500, todoMaxItems: 100 });
    const given = { tool: { abandon_after: "0s", todo_max_items: 3 } };
    assert.deepEqual(read(given), { abandonAfterMs: 0, todoMaxItems: 3 });
  });

  test("refuses values that make no sense, naming them", () => {
    assert.throws(() => read({ tool: { abandon_after: "1h" } }), /tool\.abandon_after/);
    assert.throws(() => read({ tool: { todo_max_items: 0 } }), /tool\.todo_max_items/);
  });
});
