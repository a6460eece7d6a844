import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { definePlugin, type TextHook } from "./define-plugin.ts";
import { runHooks } from "./run-hooks.ts";

const context = { tenantId: "ten_1", agentId: "agt_1", sessionId: "ses_1", runId: "run_1", endUserId: "ada" };

const hooked = (name: string, hook: TextHook) =>
  definePlugin({ name, version: "1.0.0", beforeInput: hook, afterResponse: hook });

async function handed(hooks: TextHook[], which: "beforeInput" | "afterResponse" = "beforeInput") {
  const failures: string[] = [];
  const plugins = [definePlugin({ name: "idle", version: "1.0.0" }), ...hooks.map((hook, i) => hooked(`p${i}`, hook))];
  const text = await runHooks(plugins, which, "hi", {
    context,
    signal: new AbortController().signal,
    timeoutMs: 50,
    maxLength: 100,
    onFailure: (plugin, error) => void failures.push(`${plugin}: ${error}`),
  });
  return { text, failures };
}

describe("a plugin's hooks on a text", () => {
  test("see it one after another, answers in reverse, with the run that it belongs to", async () => {
    const hooks: TextHook[] = [
      (text) => `${text} one`,
      async (text, { endUserId }) => `${text} two ${endUserId}`,
      () => undefined,
    ];
    assert.deepEqual(await handed(hooks), { text: "hi one two ada", failures: [] });
    assert.equal((await handed(hooks, "afterResponse")).text, "hi two ada one");
    assert.equal((await handed([() => ""])).text, "");
    assert.equal((await handed([() => "\ud800"])).text, "\ufffd");
  });

  test("that fail, hang or answer with something else leave it as it was, and are reported", async () => {
    let stopped: AbortSignal | undefined;
    const { text, failures } = await handed([
      (before) => `${before}!`,
      () => {
        throw new Error("bad");
      },
      (_text, _context, signal) => {
        stopped = signal;
        return new Promise(() => {});
      },
      () => 5 as never,
      () => "x".repeat(101),
    ]);
    assert.equal(text, "hi!");
    assert.deepEqual(failures, [
      "p1: Error: bad",
      "p2: Error: beforeInput did not end within 50 ms",
      "p3: TypeError: beforeInput returned number, not a text",
      "p4: TypeError: beforeInput returned more than 100 characters",
    ]);
    assert.equal(stopped?.aborted, true);
  });

  test("end when the run does", async () => {
    const abort = new AbortController();
    const hanging = hooked("hanging", () => new Promise(() => {}));
    const running = runHooks([hanging], "beforeInput", "hi", { context, signal: abort.signal, onFailure: assert.fail });
    abort.abort(new Error("cancelled"));
    await assert.rejects(running, { message: "cancelled" });
  });
});
