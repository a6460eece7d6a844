import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { loadPlugins } from "./load-plugins.ts";
import { plugin as greeter, heard } from "./testing/greeter-plugin.ts";

const base = import.meta.dirname;
const GREETER = "./testing/greeter-plugin.ts";

let modules = 0;
/** A module of its own with this source. */
const source = (text: string) => `data:text/javascript,${encodeURIComponent(`/* ${modules++} */ ${text}`)}`;
const named = (name: string, more = "") => source(`export default { name: "${name}", version: "1.0.0", ${more} }`);

describe("loading plugins", () => {
  test("finds them by path, absolute path and URL; by plain objects too, which are checked", async () => {
    const path = join(base, GREETER);
    for (const specifier of [GREETER, path, pathToFileURL(path).href]) {
      const { plugins, unload } = await loadPlugins([specifier], { base });
      assert.deepEqual(plugins, [greeter]);
      await unload();
    }
    const loaded = await loadPlugins([named("b"), named("a", "promptAdditions: 'x'")]);
    assert.deepEqual(
      loaded.plugins.map(({ name, promptAdditions }) => [name, promptAdditions]),
      [
        ["b", []],
        ["a", ["x"]],
      ],
    );
    assert.deepEqual(
      loaded.named(["a", "nobody", "b", "a"]).map(({ name }) => name),
      ["a", "b"],
    );
    await loaded.unload();
    const none = await loadPlugins([]);
    assert.deepEqual(none.plugins, []);
  });

  test("runs onLoad once per process, and onUnload when its last user has gone", async () => {
    heard.length = 0;
    const [one, two] = await Promise.all([loadPlugins([GREETER], { base }), loadPlugins([GREETER], { base })]);
    assert.deepEqual(heard, ["load"]);
    await one.unload();
    await one.unload();
    assert.deepEqual(heard, ["load"]);
    await two.unload();
    assert.deepEqual(heard, ["load", "unload"]);
    const again = await loadPlugins([GREETER], { base });
    await again.unload();
    assert.deepEqual(heard, ["load", "unload", "load", "unload"]);
  });

  test("says which module is at fault and why, and lets go of what was loaded before it", async () => {
    const table: [string, RegExp][] = [
      ["./no-such-module.ts", /^plugin \.\/no-such-module\.ts: it cannot be imported: .*no-such-module/],
      ["@nobody/no-such-package", /it cannot be imported: .*no-such-package/],
      [source("throw new Error('at import')"), /it cannot be imported: at import$/],
      [source("export const x = 1"), /it exports no "plugin" and no default$/],
      [source("export default null"), /it exports no "plugin" and no default$/],
      [source("export const plugin = {}"), /^plugin without a name: its name must be/],
      [named("x", "extra: 1"), /^plugin "x": there is no "extra"/],
      [named("greeter"), /there are two plugins named "greeter"$/],
      [named("x", "onLoad() { throw new Error('no key') }"), /^plugin x: onLoad failed: no key$/],
      [named("x", "onLoad: () => new Promise(() => {})"), /^plugin x: onLoad failed: it did not end within 50 ms$/],
    ];
    for (const [specifier, message] of table) {
      heard.length = 0;
      await assert.rejects(loadPlugins([GREETER, specifier], { base, hookTimeoutMs: 50 }), { message });
      assert.deepEqual(heard, ["load", "unload"]);
    }
    await assert.rejects(loadPlugins([GREETER], { base, signal: AbortSignal.abort() }), { name: "AbortError" });
  });

  test("one that fails to unload is reported, and the others are let go of all the same", async () => {
    heard.length = 0;
    const failed: [string, string][] = [];
    const onUnloadFailed = (plugin: string, error: unknown) => void failed.push([plugin, String(error)]);
    const bad = named("bad", "onUnload() { throw new Error('stuck') }");
    const loaded = await loadPlugins([GREETER, bad], { base, onUnloadFailed });
    await loaded.unload();
    assert.deepEqual(failed, [["bad", "Error: plugin bad: onUnload failed: stuck"]]);
    assert.deepEqual(heard, ["load", "unload"]);
  });
});
