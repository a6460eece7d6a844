import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, type JetStreamManager } from "nats";
import { reasonOf } from "../rpc/errors.ts";
import { createFaultProxy } from "../testing/fault-proxy.ts";
import { skipWithout } from "../testing/missing-server.ts";
import { type OwnNats, privateNats } from "../testing/private-nats.ts";
import type { Bus, ConsumeOptions } from "./bus.ts";
import { NatsBus, type NatsBusConfig } from "./nats-bus.ts";

const data = new Uint8Array();
const event = (id: string) => ({ subject: "agentmesh.run.v1.ten_a", id, data });
const down = (error: unknown) => reasonOf(error) === "DEPENDENCY_DOWN";

describe("NatsBus when the server misbehaves", { skip: skipWithout("nats-server"), concurrency: 2 }, () => {
  test("the server is killed and started again: publish fails at once, then recovers; consumers and listeners go on", async () => {
    await using it = await Lab.open();
    const handled = await it.consume();
    let heard = 0;
    await it.bus.listen("agentmesh.>", () => void heard++);
    await it.bus.publish(event("evt_1"));
    await until(() => handled.length === 1 && heard === 1);
    await it.server.kill();
    await until(() => it.logged.includes("NATS connection lost"));
    const start = performance.now();
    await assert.rejects(it.bus.publish(event("evt_2")), down);
    await assert.rejects(it.bus.ping(), down);
    it.bus.notify("agentmesh.run.v1.ten_a", data);
    assert.ok(performance.now() - start < 500, "an absent server is not waited for");
    await it.server.start();
    await it.publishUntilTaken("evt_2");
    await until(() => handled.length === 2 && heard === 2);
    it.bus.notify("agentmesh.run.v1.ten_a", data);
    await until(() => heard === 3);
    assert.deepEqual(handled, ["evt_1", "evt_2"]);
  });

  test("a publication that is under way when the server dies fails then, not at its timeout", async () => {
    await using it = await Lab.open({ publishTimeoutMs: 60_000 });
    await it.bus.publish(event("evt_1"));
    await it.server.freeze();
    const pending = it.bus.publish(event("evt_2"));
    pending.catch(() => {});
    await sleep(100);
    await it.server.kill();
    const start = performance.now();
    await assert.rejects(pending, down);
    assert.ok(performance.now() - start < 10_000);
  });

  test("a server that hangs costs a publication its timeout, no more, and the message counts once it answers", async () => {
    await using it = await Lab.open({ publishTimeoutMs: 300 });
    const handled = await it.consume();
    await it.bus.publish(event("evt_1"));
    await it.server.freeze();
    const start = performance.now();
    await assert.rejects(it.bus.publish(event("evt_2")), down);
    assert.ok(performance.now() - start < 3_000);
    it.server.thaw();
    await it.publishUntilTaken("evt_2");
    await until(() => handled.length === 2);
    await sleep(100);
    assert.deepEqual(handled, ["evt_1", "evt_2"], "the repeated publication is deduplicated");
  });

  test("while the server hangs, publications wait in bounded number", async () => {
    await using it = await Lab.open({ publishTimeoutMs: 20_000, maxInFlight: 1, maxPending: 1 });
    await it.bus.publish(event("evt_1"));
    await it.server.freeze();
    const taken = Promise.allSettled([it.bus.publish(event("evt_2")), it.bus.publish(event("evt_3"))]);
    await sleep(50);
    await assert.rejects(it.bus.publish(event("evt_4")), (error) => reasonOf(error) === "CONCURRENCY_LIMIT");
    it.server.thaw();
    assert.deepEqual(
      (await taken).map(({ status }) => status),
      ["fulfilled", "fulfilled"],
    );
    await it.bus.publish(event("evt_4"));
  });

  test("the server comes back without its store: stream and consumers are made again", async () => {
    await using it = await Lab.open();
    const handled = await it.consume();
    await it.bus.publish(event("evt_1"));
    await it.server.kill();
    await rm(`${it.server.folder}/jetstream`, { recursive: true });
    await it.server.start();
    await it.publishUntilTaken("evt_2");
    await until(() => handled.includes("evt_2"));
  });

  test("stream and consumer are deleted under a running bus: it makes them again", async () => {
    await using it = await Lab.open();
    const handled = await it.consume();
    await it.bus.publish(event("evt_1"));
    await until(() => handled.length === 1);
    await it.manage((manager) => manager.streams.delete(it.server.stream));
    await it.bus.publish(event("evt_2"));
    await until(() => handled.length === 2);
    await it.manage(async (manager) => {
      for await (const { name } of manager.consumers.list(it.server.stream)) {
        await manager.consumers.delete(it.server.stream, name);
      }
    });
    await it.bus.publish(event("evt_3"));
    await until(() => handled.includes("evt_3"));
  });

  test("a consumer is deleted while nothing is asked of it: the silence that follows gives it away", async () => {
    await using it = await Lab.open();
    const gate = Promise.withResolvers<void>();
    const handled = await it.consume({ parallelism: 1 });
    const busy = await it
      .another({})
      .consume({ ...each, durable: "busy", parallelism: 1, onMessage: () => gate.promise });
    await it.bus.publish(event("evt_1"));
    await until(() => handled.length === 1);
    await it.manage(async (manager) => {
      for await (const { name } of manager.consumers.list(it.server.stream)) {
        if (name.startsWith("busy")) await manager.consumers.delete(it.server.stream, name);
      }
    });
    gate.resolve();
    const isBack = async (manager: JetStreamManager) =>
      (await manager.streams.info(it.server.stream)).state.consumer_count === 2;
    await until(() => it.manage(isBack));
    await busy.unsubscribe();
  });

  test("a connection dies and nobody says so: it is found out and made anew", async () => {
    await using it = await Lab.open();
    await using proxy = await createFaultProxy(it.server);
    const bus = it.another({ url: `nats://127.0.0.1:${proxy.port}`, pingIntervalMs: 200, publishTimeoutMs: 300 });
    let heard = 0;
    await bus.listen("agentmesh.>", () => void heard++);
    await bus.publish(event("evt_1"));
    await until(() => heard === 1);
    proxy.halfOpen();
    await publishUntilTaken(bus, "evt_2");
    await until(() => heard === 2);
  });

  test("a stream that its operator has made is used as it is", async () => {
    await using it = await Lab.open();
    await it.manage((manager) =>
      manager.streams.add({ name: it.server.stream, subjects: [`${it.server.prefix}agentmesh.>`], max_msgs: 77 }),
    );
    const handled = await it.consume();
    await it.bus.publish(event("evt_1"));
    await until(() => handled.length === 1);
    const { config } = await it.manage((manager) => manager.streams.info(it.server.stream));
    assert.equal(config.max_msgs, 77);
  });

  test("the stream that it makes has every limit set", async () => {
    await using it = await Lab.open({ maxAgeMs: 60_000, maxBytes: 5_000_000, dedupWindowMs: 5_000 });
    await it.bus.publish(event("evt_1"));
    const { config } = await it.manage((manager) => manager.streams.info(it.server.stream));
    assert.deepEqual(
      [config.storage, config.retention, config.discard, config.max_age, config.max_bytes, config.duplicate_window],
      ["file", "limits", "old", 60e9, 5_000_000, 5e9],
    );
  });

  test("the server is away at the start: the bus waits for it without holding anyone up", async () => {
    await using server = await privateNats({ own: true });
    await server.kill();
    await using it = new Lab(server);
    const start = performance.now();
    const handled = await it.consume();
    await assert.rejects(it.bus.publish(event("evt_1")), down);
    assert.ok(performance.now() - start < 8_000);
    await server.start();
    await it.publishUntilTaken("evt_1");
    await until(() => handled.length === 1);
  });

  test("a consumer that vanishes in the middle of a message: another one gets it after the ack wait", async () => {
    await using it = await Lab.open();
    await using proxy = await createFaultProxy(it.server);
    const vanishing = it.another({ url: `nats://127.0.0.1:${proxy.port}`, drainMs: 50 });
    let started = 0;
    await vanishing.consume({
      ...each,
      ackWaitMs: 500,
      onMessage: async (_message, signal) => {
        started += 1;
        await new Promise((_, reject) => signal.addEventListener("abort", reject));
      },
    });
    await it.bus.publish(event("evt_1"));
    await until(() => started === 1);
    proxy.blackHole();
    const handled = await it.consume({ ackWaitMs: 500 });
    await until(() => handled.length === 1);
    assert.deepEqual(handled, ["evt_1"]);
  });

  test("connections are cut again and again: nothing that publish resolved for is lost", async () => {
    await using it = await Lab.open();
    await using proxy = await createFaultProxy(it.server);
    const cut = it.another({ url: `nats://127.0.0.1:${proxy.port}`, publishTimeoutMs: 2_000 });
    const handled = new Set<string>();
    await cut.consume({ ...each, ackWaitMs: 500, onMessage: async ({ id }) => void handled.add(id) });
    const cutting = setInterval(() => (Math.random() < 0.5 ? proxy.cut() : proxy.reset()), 300);
    const ids = Array.from({ length: 200 }, (_, i) => `evt_${i}`);
    for (const id of ids) {
      await publishUntilTaken(cut, id);
      await sleep(5);
    }
    clearInterval(cutting);
    await until(() => handled.size === ids.length);
  });

  test("what is published while no consumer is there waits for one, in another process too", async () => {
    await using it = await Lab.open();
    await (await it.bus.consume({ ...each, onMessage: async () => {} })).unsubscribe();
    await it.bus.publish(event("evt_1"));
    await it.bus.publish({ ...event("evt_2"), subject: "agentmesh.usage.v1.ten_a" });
    const handled: string[] = [];
    await it.another({}).consume({ ...each, onMessage: async ({ id }) => void handled.push(id) });
    await until(() => handled.length === 2);
  });

  test("a user's password or a token opens the server; a wrong one is no way in, and neither is ever shown", async () => {
    for (const [args, right, wrong] of [
      [["--auth", "canary-token"], "canary-token@", "canary-wrong@"],
      [["--user", "someone", "--pass", "canary-pass"], "someone:canary-pass@", "someone:canary-wrong@"],
    ] as const) {
      await using server = await privateNats({ own: true, args });
      await using it = new Lab(server);
      const withAuth = (auth: string) => it.another({ url: server.url.replace("//", `//${auth}`) });
      await withAuth(right).publish(event("evt_1"));
      const refused = await withAuth(wrong)
        .publish(event("evt_2"))
        .catch((error: unknown) => error);
      assert.ok(down(refused));
      const shown = JSON.stringify([it.entries, String((refused as Error).cause), (refused as Error).message]);
      assert.ok(it.logged.includes("NATS cannot be reached"));
      assert.doesNotMatch(shown, /canary/);
    }
  });

  test("a malformed URL is refused without showing it", () => {
    const log = { info: () => {}, warn: () => {}, error: () => {} };
    for (const url of ["http://canary@127.0.0.1", "canary", "nats://canary:4222:1"]) {
      assert.throws(
        () => new NatsBus({ url, log }),
        (error: Error) =>
          error instanceof TypeError && !JSON.stringify([error.message, Object.entries(error)]).includes("canary"),
      );
    }
  });

  for (const [name, ending] of [
    ["with the server there", ""],
    ["with the server away", "await server.kill();"],
  ] as const) {
    test(`close leaves no socket and no timer, ${name}`, async () => {
      const here = new URL(".", import.meta.url).href;
      const program = `
        import { NatsBus } from "${here}nats-bus.ts";
        import { privateNats } from "${here}../testing/private-nats.ts";
        const server = await privateNats({ own: true });
        const log = { info() {}, warn() {}, error() {} };
        const bus = new NatsBus({ ...server, url: server.url, maxBytes: 1e7, log });
        const handled = Promise.withResolvers();
        await bus.listen("agentmesh.>", () => {});
        await bus.consume({ durable: "d", subjects: ["agentmesh.>"], onMessage: async () => handled.resolve() });
        await bus.publish({ subject: "agentmesh.run.v1.ten_a", id: "evt_1", data: new Uint8Array() });
        await handled.promise;
        ${ending}
        await bus.close();
        await server.stop();
        process.stdout.write("closed ");
        process.once("exit", () => process.stdout.write("idle"));
      `;
      const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
        stdio: ["ignore", "pipe", "inherit"],
        timeout: 20_000,
      });
      let said = "";
      child.stdout.on("data", (chunk: Buffer) => {
        said += chunk;
        if (said === "closed ") setTimeout(() => child.kill("SIGKILL"), 2_000).unref();
      });
      const [code] = await once(child, "close");
      assert.deepEqual([said, code], ["closed idle", 0]);
    });
  }
});

const each = { durable: "d", subjects: ["agentmesh.>"] };

/** A server of its own and buses on it. */
class Lab implements AsyncDisposable {
  readonly server: OwnNats;
  readonly bus: NatsBus;
  readonly entries: unknown[] = [];
  readonly #buses: Bus[] = [];

  constructor(server: OwnNats, config: Partial<NatsBusConfig> = {}) {
    this.server = server;
    this.bus = this.another(config);
  }

  static async open(config: Partial<NatsBusConfig> = {}): Promise<Lab> {
    return new Lab(await privateNats({ own: true }), config);
  }

  get logged(): string[] {
    return this.entries.map((entry) => (entry as [object, string])[1]);
  }

  another(config: Partial<NatsBusConfig>): NatsBus {
    const keep = (...entry: unknown[]) => void this.entries.push(entry);
    const { url, stream, prefix } = this.server;
    const log = { info: keep, warn: keep, error: keep };
    const bus = new NatsBus({ url, stream, prefix, maxBytes: 16 * 1024 ** 2, drainMs: 500, log, ...config });
    this.#buses.push(bus);
    return bus;
  }

  /** The ids that a consumer handles. */
  async consume(options: Partial<ConsumeOptions> = {}): Promise<string[]> {
    const handled: string[] = [];
    await this.bus.consume({ ...each, onMessage: async ({ id }) => void handled.push(id), ...options });
    return handled;
  }

  publishUntilTaken(id: string): Promise<void> {
    return publishUntilTaken(this.bus, id);
  }

  async manage<T>(act: (manager: JetStreamManager) => Promise<T>): Promise<T> {
    const connection = await connect({ servers: this.server.url });
    try {
      return await act(await connection.jetstreamManager());
    } finally {
      await connection.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#buses.map((bus) => bus.close()));
    await this.server.stop();
  }
}

/** What a relay does: it repeats the same publication until it is taken. */
async function publishUntilTaken(bus: Bus, id: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const error = await bus.publish(event(id)).then(
      () => undefined,
      (failure: unknown) => failure,
    );
    if (error === undefined) return;
    if (!down(error) || performance.now() > deadline) throw error;
    await sleep(20);
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail("waited 20 s in vain");
    await sleep(5);
  }
}
