import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { defineTool, type ToolDefinition } from "./define-tool.ts";
import { ToolRegistry } from "./registry.ts";

const sound: ToolDefinition<object> = {
  name: "echo",
  description: "Says it again.",
  input: { type: "object", properties: { text: { type: "string" } } },
  risk: "read_only",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 1_000,
  maxOutputBytes: 1_000,
  run: () => "",
};
const named = (name: string) => defineTool({ ...sound, name });

describe("a tool's definition", () => {
  test("is refused when it could not work, saying which tool and why", () => {
    const table: [object, RegExp][] = [
      [{ name: "" }, /tool "": its name must be/],
      [{ name: "a b" }, /tool "a b": its name must be/],
      [{ name: "zeit\u00e4" }, /its name must be/],
      [{ name: "x".repeat(65) }, /its name must be/],
      [{ name: "done" }, /"done": its name is reserved/],
      [{ description: " " }, /its description/],
      [{ description: "x".repeat(5_000) }, /its description/],
      [{ input: {} }, /type "object"/],
      [{ input: { type: "array" } }, /type "object"/],
      [{ input: { type: "object", properties: { a: { type: "text" } } } }, /not a valid schema/],
      [{ input: { type: "object", propertees: {} } }, /not a valid schema/],
      [{ input: { type: "object", required: "a" } }, /not a valid schema/],
      [{ timeoutMs: 0 }, /timeoutMs/],
      [{ timeoutMs: 1.5 }, /timeoutMs/],
      [{ timeoutMs: Number.POSITIVE_INFINITY }, /timeoutMs/],
      [{ maxOutputBytes: -1 }, /maxOutputBytes/],
      [{ maxOutputBytes: 2 ** 30 }, /maxOutputBytes/],
    ];
    for (const [fault, message] of table) {
      assert.throws(() => defineTool({ ...sound, ...fault }), { name: "TypeError", message });
    }
  });

  test("is refused beside another tool of the same name", () => {
    const twice = () => new ToolRegistry([named("a"), named("b"), named("a")]);
    assert.throws(twice, { name: "TypeError", message: 'tool "a" is defined twice' });
  });

  test("is found by its exact name, and listed by name in pages", () => {
    const registry = new ToolRegistry(["b", "a", "C", "d"].map(named));
    assert.equal(registry.find("a")?.name, "a");
    assert.equal(registry.find("A"), undefined);
    const names = (after: string | undefined, size: number) => {
      const { tools, more } = registry.page(after, size);
      return [...tools.map(({ name }) => name), more];
    };
    assert.deepEqual(names(undefined, 3), ["C", "a", "b", true]);
    assert.deepEqual(names("b", 3), ["d", false]);
    assert.deepEqual(names("aa", 1), ["b", true]);
    assert.deepEqual(names("z", 1), [false]);
  });
});
