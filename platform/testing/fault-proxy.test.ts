import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { createFaultProxy, type FaultProxy } from "./fault-proxy.ts";

describe("fault proxy", () => {
  let echo: Server;
  let targets: Socket[] = [];
  before(async () => {
    echo = createServer((socket) => {
      targets.push(socket);
      socket.on("error", () => {}).on("data", (chunk) => socket.write(chunk));
    }).listen(0, "127.0.0.1");
    await once(echo, "listening");
  });
  after(() => {
    for (const socket of targets) socket.destroy();
    echo.close();
  });

  async function through(): Promise<AsyncDisposable & { proxy: FaultProxy; client: Client }> {
    targets = [];
    const proxy = await createFaultProxy({ port: (echo.address() as { port: number }).port });
    const client = await Client.open(proxy.port);
    const dispose = async () => {
      client.socket.destroy();
      await proxy.close();
    };
    return { proxy, client, [Symbol.asyncDispose]: dispose };
  }

  test("passes bytes both ways and the end of a stream", async () => {
    await using it = await through();
    const sent = Buffer.alloc(3_000_000, "0123456789");
    it.client.socket.end(sent);
    await it.client.received(sent.length);
    assert.deepEqual(Buffer.concat(it.client.chunks), sent);
    targets[0]!.end();
    assert.equal(await it.client.closed, "end");
  });

  test("latency delays each chunk without serialising them", async () => {
    await using it = await through();
    it.proxy.latency(150);
    const start = performance.now();
    for (let i = 0; i < 10; i++) {
      it.client.socket.write("x");
      await sleep(5);
    }
    await it.client.received(10);
    const took = performance.now() - start;
    assert.ok(took >= 300, `there and back takes two delays, took ${took}`);
    assert.ok(took < 1_500, `ten chunks do not wait for one another, took ${took}`);
  });

  test("rate slows a stream down", async () => {
    await using it = await through();
    it.proxy.rate(20_000);
    const start = performance.now();
    it.client.socket.write(Buffer.alloc(10_000));
    await it.client.received(10_000);
    assert.ok(performance.now() - start >= 400);
  });

  test("a black hole passes nothing, closes nothing, and lets go of what it held", async () => {
    await using it = await through();
    it.proxy.blackHole();
    it.client.socket.write("held");
    const late = await Client.open(it.proxy.port);
    late.socket.write("late");
    await sleep(100);
    assert.equal(it.client.bytes + late.bytes, 0);
    assert.equal(it.client.socket.destroyed, false);
    it.proxy.heal();
    await it.client.received(4);
    await late.received(4);
    assert.equal(Buffer.concat(it.client.chunks).toString(), "held");
    late.socket.destroy();
  });

  test("a connection that is reset inside a black hole ends its pump", async () => {
    await using it = await through();
    it.proxy.blackHole();
    it.client.socket.write("x");
    await sleep(20);
    it.client.socket.resetAndDestroy();
    await until(() => it.proxy.connections === 0);
  });

  test("cut ends connections in order, reset does not; new ones work", async () => {
    await using it = await through();
    it.proxy.cut();
    assert.equal(await it.client.closed, "end");
    const second = await Client.open(it.proxy.port);
    second.socket.write("x");
    await second.received(1);
    it.proxy.reset();
    assert.equal(await second.closed, "ECONNRESET");
    const third = await Client.open(it.proxy.port);
    third.socket.write("y");
    await third.received(1);
    third.socket.destroy();
  });

  test("cutAfter passes exactly that many bytes of the answer", async () => {
    await using it = await through();
    it.client.socket.write("a");
    await it.client.received(1);
    it.proxy.cutAfter(7);
    it.client.socket.write("0123456789");
    assert.equal(await it.client.closed, "end");
    assert.equal(Buffer.concat(it.client.chunks).toString(), "a0123456");
  });

  test("half-open: the target is gone, the client does not notice", async () => {
    await using it = await through();
    it.client.socket.write("x");
    await it.client.received(1);
    it.proxy.halfOpen();
    await once(targets[0]!, "close");
    it.client.socket.write("vanishes");
    await sleep(100);
    assert.equal(it.client.bytes, 1);
    assert.equal(it.client.socket.destroyed, false);
  });

  test("refuse resets new connections and leaves open ones", async () => {
    await using it = await through();
    it.client.socket.write("x");
    await it.client.received(1);
    it.proxy.refuse();
    const outcome = Client.open(it.proxy.port).then(
      (refused) => refused.closed,
      (error: NodeJS.ErrnoException) => error.code,
    );
    assert.equal(await outcome, "ECONNRESET");
    it.client.socket.write("y");
    await it.client.received(2);
  });

  test("close resets everything and frees the port", async () => {
    const { proxy, client } = await through();
    await proxy.close();
    await client.closed;
    await assert.rejects(Client.open(proxy.port), { code: "ECONNREFUSED" });
  });
});

class Client {
  readonly socket: Socket;
  readonly chunks: Buffer[] = [];
  /** "end" after an orderly end, else the error's code. */
  readonly closed: Promise<string>;

  constructor(socket: Socket) {
    this.socket = socket.on("data", (chunk: Buffer) => this.chunks.push(chunk));
    this.closed = new Promise((resolve) => {
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
      socket.once("close", () => resolve("end"));
    });
  }

  static async open(port: number): Promise<Client> {
    const socket = connect({ host: "127.0.0.1", port });
    await once(socket, "connect");
    return new Client(socket);
  }

  get bytes(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  async received(bytes: number): Promise<void> {
    await until(() => this.bytes >= bytes);
  }
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail("waited 10 s in vain");
    await sleep(5);
  }
}
