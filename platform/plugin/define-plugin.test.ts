import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { definePlugin, isPlugin, type PluginDefinition } from "./define-plugin.ts";
import { plugin as greeter } from "./testing/greeter-plugin.ts";

describe("a plugin's definition", () => {
  test("has defaults for what it does not say", () => {
    const { name, version, description, tools, promptAdditions, ...hooks } = definePlugin({
      name: "p",
      version: "0.1.0",
    });
    assert.deepEqual([name, version, description, tools, promptAdditions, hooks], ["p", "0.1.0", "", [], [], {}]);
  });

  test("keeps tools, prompt additions without blank ones, and hooks with their own `this`", async () => {
    assert.deepEqual(greeter.promptAdditions, ["You can greet people."]);
    assert.deepEqual(
      greeter.tools.map(({ name }) => name),
      ["greet"],
    );
    const definition = {
      name: "p",
      version: "1.0.0",
      promptAdditions: " one text ",
      mark: undefined,
      afterResponse(this: { name: string }, text: string) {
        return `${this.name}: ${text}`;
      },
    };
    const { mark: _, ...known } = definition;
    const made = definePlugin(known as PluginDefinition);
    assert.deepEqual(made.promptAdditions, ["one text"]);
    const context = { tenantId: "ten_1", agentId: "", sessionId: "", runId: "", endUserId: "" };
    assert.equal(await made.afterResponse?.("hi", context, AbortSignal.abort()), "p: hi");
    assert.deepEqual([isPlugin(made), isPlugin(known), isPlugin(null)], [true, false, false]);
  });

  test("is refused when it could not work, saying which plugin and why", () => {
    const [tool] = greeter.tools;
    const table: [unknown, RegExp][] = [
      [undefined, /^plugin without a name: its name must be/],
      [{ name: "" }, /^plugin "": its name/],
      [{ name: "a b" }, /its name must be 1 to 64/],
      [{ version: "1" }, /^plugin "p": its version must be one such as 1\.0\.0$/],
      [{ version: undefined }, /its version/],
      [{ description: 5 }, /its description/],
      [{ tool: [] }, /there is no "tool"; there are name, version, description, tools, promptAdditions, onLoad/],
      [{ tools: tool }, /tools must be a list/],
      [{ tools: [{ name: "x", run: () => "" }] }, /tools\[0\] was not made by defineTool/],
      [{ tools: [tool, tool] }, /two tools named "greet"/],
      [{ tools: Array(129).fill(tool) }, /at most 128/],
      [{ promptAdditions: [5] }, /promptAdditions must be text/],
      [{ promptAdditions: "x".repeat(32_769) }, /longer than 32768/],
      [{ onLoad: "x" }, /onLoad must be a function/],
      [{ beforeInput: {} }, /beforeInput must be a function/],
    ];
    for (const [fault, message] of table) {
      const definition = fault === undefined ? fault : { name: "p", version: "1.0.0", ...Object(fault) };
      assert.throws(() => definePlugin(definition as PluginDefinition), { name: "TypeError", message });
    }
  });
});
