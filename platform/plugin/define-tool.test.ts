import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { defineTool, type ToolDefinition } from "#platform/plugin/define-tool.ts";
import type { Provider } from "./provider.ts";

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
      [{ name: "read_tool_output" }, /its name is reserved/],
      [{ description: undefined }, /its description/],
      [{ input: undefined }, /type "object"/],
      [{ ephemeral: -1 }, /ephemeral must be 0 to 100/],
      [{ ephemeral: 101 }, /ephemeral/],
      [{ callsPerMinute: 0.5 }, /callsPerMinute/],
      [{ permissions: ["file:delete"] }, /there is no scope "file:delete"/],
      [{ onUnknown: "guess" as "ask" }, /onUnknown must be "report" or "ask"/],
      [{ category: "Big Tools" }, /category/],
      [{ version: "1" }, /version/],
      [{ version: `1.0.0-${"x".repeat(99)}` }, /version/],
      [{ run: undefined }, /no run function/],
    ];
    for (const [fault, message] of table) {
      assert.throws(() => defineTool({ ...sound, ...fault }), { name: "TypeError", message });
    }
  });

  test("has defaults for what it does not say, and keeps what it says", () => {
    const { ephemeral, permissions, callsPerMinute, category, version, inject, onUnknown } = defineTool(sound);
    const defaults = [0, [], 0, "general", "1.0.0", {}, "report"];
    assert.deepEqual([ephemeral, permissions, callsPerMinute, category, version, inject, onUnknown], defaults);
    assert.equal(defineTool({ ...sound, onUnknown: "ask" }).onUnknown, "ask");
    const given = {
      ephemeral: 3,
      permissions: ["kb:read"],
      callsPerMinute: 60,
      category: "files",
      version: "2.1.0-rc.1",
    };
    const tool = defineTool({ ...sound, ...given });
    assert.deepEqual(Object.fromEntries(Object.keys(given).map((key) => [key, Object(tool)[key]])), given);
  });

  test("behaviour 25: names providers that are no parameters", () => {
    const clock: Provider<Date> = { name: "clock", provide: () => new Date(0) };
    const tool = defineTool({
      ...sound,
      inject: { at: clock },
      run: (_args, _context, _signal, { at }) => at.toISOString(),
    });
    assert.equal(tool.inputJson, JSON.stringify(sound.input));
    assert.deepEqual(tool.check('{"text":"a","at":"1999-01-01"}'), { args: { text: "a" } });
    const closed = defineTool({
      ...sound,
      input: { ...sound.input, additionalProperties: false },
      inject: { at: clock },
    });
    assert.deepEqual(closed.check('{"at":{"at":1}}'), { args: {} });
    const both = () => defineTool({ ...sound, inject: { text: clock } });
    assert.throws(both, { name: "TypeError", message: 'tool "echo": "text" is injected and a parameter' });
    assert.throws(
      () => defineTool({ ...sound, inject: { at: {} as Provider<Date> } }),
      /inject\.at must be a provider/,
    );
  });
});
