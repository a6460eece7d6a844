import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createLog } from "../telemetry/log.ts";
import { type ModuleTable, remoteCalls, startOrder, targetModules } from "./graph.ts";
import { Lifecycle, type Part } from "./lifecycle.ts";

const log = createLog({ level: "silent", service: "test" });

function table(calls: Record<string, string[]>): ModuleTable {
  return Object.fromEntries(
    Object.entries(calls).map(([name, callees]) => [name, { module: { name } as never, calls: callees }]),
  );
}

describe("the module graph", () => {
  const mesh = table({ gateway: ["auth", "agent"], agent: ["tool", "agent"], tool: [], auth: [] });

  test("starts every module after those that it calls, its own replicas aside", () => {
    const order = startOrder(mesh, targetModules(mesh, "all"));
    assert.equal(order.length, 4);
    for (const [caller, { calls }] of Object.entries(mesh)) {
      for (const callee of calls) if (callee !== caller) assert.ok(order.indexOf(callee) < order.indexOf(caller));
    }
  });

  test("names the circle when modules call each other", () => {
    const circle = table({ a: ["b"], b: ["c"], c: ["a"] });
    assert.throws(() => startOrder(circle, ["a", "b", "c"]), /a → b → c → a/);
  });

  test("takes a list of names and refuses unknown ones by name", () => {
    assert.deepEqual(targetModules(mesh, "agent, tool"), ["agent", "tool"]);
    assert.throws(() => targetModules(mesh, "agent,nope"), /unknown module nope; there are all, gateway/);
  });

  test("asks for the addresses of called modules that run elsewhere, and only those", () => {
    assert.deepEqual(remoteCalls(mesh, ["gateway", "auth"]), ["agent"]);
    assert.deepEqual(remoteCalls(mesh, targetModules(mesh, "all")), []);
  });
});

describe("the lifecycle", () => {
  function parts(steps: string[], failing?: string): Part[] {
    return ["first", "second", "third"].map((name) => ({
      name,
      running: {
        routes: () => {},
        start: async () => {
          steps.push(`start ${name}`);
          if (name === failing) throw new Error(`${name} is broken`);
        },
        drain: async () => void steps.push(`drain ${name}`),
        stop: async () => void steps.push(`stop ${name}`),
      },
    }));
  }

  test("starts in order, and drains everything before it stops anything, in reverse", async () => {
    const steps: string[] = [];
    const lifecycle = new Lifecycle(parts(steps), log);
    await lifecycle.start();
    assert.equal(lifecycle.ready(), true);
    await lifecycle.stop({ delayMs: 0, graceMs: 100 });
    assert.deepEqual(steps, [
      ...["start first", "start second", "start third"],
      ...["drain third", "drain second", "drain first"],
      ...["stop third", "stop second", "stop first"],
    ]);
    assert.equal(lifecycle.state, "stopped");
  });

  test("one module that fails to start stops those that have started, and its error is thrown", async () => {
    const steps: string[] = [];
    const lifecycle = new Lifecycle(parts(steps, "second"), log);
    await assert.rejects(lifecycle.start(), /second is broken/);
    assert.deepEqual(
      steps.filter((step) => step.startsWith("stop")),
      ["stop second", "stop first"],
    );
    assert.ok(!steps.includes("start third"));
    assert.equal(lifecycle.ready(), false);
  });

  test("is not ready from the first moment of a stop, before anything drains", async () => {
    const seen: [string, boolean][] = [];
    const steps: string[] = [];
    const lifecycle = new Lifecycle(parts(steps), log);
    await lifecycle.start();
    lifecycle.onChange(() => seen.push([lifecycle.state, lifecycle.ready()]));
    const stopping = lifecycle.stop({ delayMs: 30, graceMs: 100 });
    assert.deepEqual(seen, [["draining", false]]);
    assert.ok(!steps.some((step) => step.startsWith("drain")));
    await stopping;
  });

  test("a module breaks off at the end of its grace and may write that down before it is stopped", async () => {
    const steps: string[] = [];
    const running: Part["running"] = {
      routes: () => {},
      async drain(grace) {
        await new Promise((resolve) => grace.addEventListener("abort", resolve, { once: true }));
        await new Promise((resolve) => setTimeout(resolve, 30));
        steps.push("written down");
      },
      stop: async () => void steps.push("stopped"),
    };
    const lifecycle = new Lifecycle([{ name: "busy", running }], log);
    await lifecycle.start();
    await lifecycle.stop({ delayMs: 0, graceMs: 10, settleMs: 5_000 });
    assert.deepEqual(steps, ["written down", "stopped"]);
  });

  test("a module that never finishes draining does not hold the stop", async () => {
    const stuck: Part = { name: "stuck", running: { routes: () => {}, drain: () => new Promise(() => {}) } };
    const lifecycle = new Lifecycle([stuck], log);
    await lifecycle.start();
    await lifecycle.stop({ delayMs: 0, graceMs: 20, settleMs: 20 });
    assert.equal(lifecycle.state, "stopped");
  });

  test("a module that cannot work makes the process not ready", async () => {
    let able = true;
    const lifecycle = new Lifecycle([{ name: "moody", running: { routes: () => {}, ready: () => able } }], log);
    await lifecycle.start();
    able = false;
    assert.equal(lifecycle.ready(), false);
    await lifecycle.stop({ delayMs: 0, graceMs: 0 });
  });
});
