import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { defineTool } from "#platform/plugin/define-tool.ts";
import { ToolRegistry } from "./registry.ts";

const named = (name: string) =>
  defineTool<object>({
    name,
    description: "Says it again.",
    input: { type: "object" },
    risk: "read_only",
    concurrencySafe: true,
    idempotent: true,
    timeoutMs: 1_000,
    maxOutputBytes: 1_000,
    run: () => "",
  });

describe("a registered tool", () => {
  test("is refused beside another tool of the same name", () => {
    const twice = () => new ToolRegistry([named("a"), named("b"), named("a")]);
    assert.throws(twice, { name: "TypeError", message: 'tool "a" is defined twice' });
  });

  test("comes with the platform or was added; one that clashes adds none of its kind", () => {
    const [shipped, added, free] = [named("shipped"), named("added"), named("free")];
    const registry = new ToolRegistry([shipped]);
    registry.add([added]);
    assert.deepEqual([registry.isBuiltIn(shipped), registry.isBuiltIn(added)], [true, false]);
    assert.throws(() => registry.add([free, named("shipped")]), { message: 'tool "shipped" is defined twice' });
    assert.deepEqual(
      registry.page(undefined, 9).tools.map(({ name }) => name),
      ["added", "shipped"],
    );
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
