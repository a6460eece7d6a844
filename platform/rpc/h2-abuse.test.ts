import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { type ClientHttp2Session, connect as connectHttp2, constants } from "node:http2";
import { connect, type Socket } from "node:net";
import { describe, test } from "node:test";
import { type NodeListener, openPort, type PortLimits } from "./port.ts";
import { until } from "./test-mesh.contract.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TYPE = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, window: 8, continuation: 9 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;
/** `:method GET`, `:scheme http`, `:path /` from the static table, and `:authority x` (RFC 7541). */
const REQUEST = Buffer.from([0x82, 0x86, 0x84, 0x41, 0x01, 0x78]);

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const uint32 = (value: number) => {
  const four = Buffer.alloc(4);
  four.writeUInt32BE(value);
  return four;
};

const get = (stream: number) => frame(TYPE.headers, END_STREAM | END_HEADERS, stream, REQUEST);

/** A listener that answers `/` at once and anything else never. */
const listener: NodeListener = (request, response) => {
  if (request.url === "/big") return void (response as ServerResponse).write(Buffer.alloc(64 * 1024));
  response.end("ok");
};

/** Sends pieces until the server has enough; true when it closed the connection. Bounded in time. */
async function attack(port: number, settings: Buffer, piece: (round: number) => Buffer): Promise<{ cut: boolean }> {
  const socket: Socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.resume();
  await once(socket, "connect");
  socket.write(Buffer.concat([Buffer.from(PREFACE), settings]));
  const deadline = performance.now() + 8_000;
  for (let round = 0; !socket.destroyed && performance.now() < deadline; round++) {
    if (!socket.write(piece(round))) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const cut = socket.destroyed;
  socket.destroy();
  return { cut };
}

const PLAIN = frame(TYPE.settings, 0, 0);

const ATTACKS: Record<string, { settings?: Buffer; piece(round: number): Buffer }> = {
  "rapid reset (CVE-2023-44487)": {
    piece: (round) =>
      Buffer.concat(
        Array.from({ length: 50 }, (_, i) => {
          const stream = 2 * (50 * round + i) + 1;
          return Buffer.concat([get(stream), frame(TYPE.reset, 0, stream, uint32(8))]);
        }),
      ),
  },
  "streams that the server has to reset (CVE-2025-8671)": {
    piece: (round) =>
      Buffer.concat(
        Array.from({ length: 50 }, (_, i) => {
          const stream = 2 * (50 * round + i) + 1;
          // RFC 9113 §6.9: an increment of 0 is a stream error.
          return Buffer.concat([get(stream), frame(TYPE.window, 0, stream, uint32(0))]);
        }),
      ),
  },
  "a flood of pings": { piece: () => Buffer.concat(Array<Buffer>(200).fill(frame(TYPE.ping, 0, 0, Buffer.alloc(8)))) },
  "a flood of settings": { piece: () => Buffer.concat(Array<Buffer>(200).fill(PLAIN)) },
  "headers that never end": {
    piece: (round) =>
      round === 0
        ? frame(TYPE.headers, END_STREAM, 1, REQUEST)
        : Buffer.concat(
            Array<Buffer>(50).fill(frame(TYPE.continuation, 0, 1, Buffer.from([0x00, 0x01, 0x61, 0x01, 0x62]))),
          ),
  },
};

const open = (limits: Partial<PortLimits> = {}) => openPort({ host: "127.0.0.1", port: 0, listener, limits });

async function ask(session: ClientHttp2Session, path = "/"): Promise<string> {
  const stream = session.request({ ":path": path });
  let body = "";
  stream.setEncoding("utf8").on("data", (chunk) => {
    body += chunk;
  });
  await once(stream, "end");
  return body;
}

describe("a client that abuses HTTP/2", { concurrency: false }, () => {
  for (const [name, { settings = PLAIN, piece }] of Object.entries(ATTACKS)) {
    test(`${name}: it is cut, and another client's requests go on`, { timeout: 30_000 }, async () => {
      const port = await open();
      const session = connectHttp2(`http://127.0.0.1:${port.port}`);
      let attacking = true;
      const attacked = attack(port.port, settings, piece).finally(() => {
        attacking = false;
      });
      let slowest = 0;
      do {
        const start = performance.now();
        assert.equal(await ask(session), "ok");
        slowest = Math.max(slowest, performance.now() - start);
      } while (attacking);
      assert.equal((await attacked).cut, true);
      assert.ok(slowest < 2_000, `${slowest} ms`);
      assert.equal(await ask(session), "ok");
      session.close();
      await port.close(100);
    });
  }

  test("the requests of these attacks are ones that the server answers", async () => {
    const port = await open();
    const socket = connect(port.port, "127.0.0.1");
    let received = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
    });
    socket.write(Buffer.concat([Buffer.from(PREFACE), PLAIN, get(1), get(3)]));
    await until(() => received.toString("latin1").split("ok").length === 3, "two answers");
    socket.destroy();
    await port.close(100);
  });

  test("a window of 0 holds up its own streams only", async () => {
    const port = await open();
    const greedy = connectHttp2(`http://127.0.0.1:${port.port}`, { settings: { initialWindowSize: 0 } });
    greedy.on("error", () => {});
    await once(greedy, "remoteSettings");
    const streams = Array.from({ length: 50 }, () => greedy.request({ ":path": "/big" }).on("error", () => {}));
    await Promise.all(streams.map((stream) => once(stream, "response")));
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    for (let i = 0; i < 20; i++) assert.equal(await ask(session), "ok");
    session.close();
    greedy.destroy();
    await port.close(100);
  });
});

describe("an HTTP/2 session", () => {
  test("ends with its connection, though the client has only ended its half", async () => {
    let closed = 0;
    const port = await openPort({
      host: "127.0.0.1",
      port: 0,
      listener: (_, response) => {
        response.once("close", () => (closed += 1));
        (response as ServerResponse).write("open");
      },
    });
    for (let i = 0; i < 5; i++) {
      const session = connectHttp2(`http://127.0.0.1:${port.port}`);
      session.on("error", () => {});
      const stream = session.request({ ":path": "/" });
      stream.on("error", () => {});
      await once(stream, "response");
      session.destroy();
    }
    await until(() => closed === 5, "the server to notice");
    await port.close(100);
  });

  test("that is old takes no new streams, lets those that are open end, and is cut after the grace", async () => {
    const port = await openPort({
      host: "127.0.0.1",
      port: 0,
      listener: (_, response) => void (response as ServerResponse).write("open"),
      limits: { maxSessionAgeMs: 200, sessionGraceMs: 300 },
    });
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    session.on("error", () => {});
    const stream = session.request({ ":path": "/" });
    stream.on("error", () => {});
    const goaway = once(session, "goaway");
    const closed = once(stream, "close");
    await once(stream, "data");
    assert.equal((await goaway)[0], constants.NGHTTP2_NO_ERROR);
    assert.equal(stream.closed, false);
    await closed;
    await port.close(100);
  });

  test("whose client does not answer pings is closed", async () => {
    const port = await open({ pingIntervalMs: 50, pingTimeoutMs: 100 });
    const good = connectHttp2(`http://127.0.0.1:${port.port}`);
    await once(good, "remoteSettings");
    const socket = connect(port.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    socket.write(Buffer.concat([Buffer.from(PREFACE), PLAIN]));
    await once(socket, "close");
    assert.equal(await ask(good), "ok");
    good.close();
    await port.close(100);
  });
});

describe("connections of one address", () => {
  test("are limited, and count no more when they are closed", async () => {
    const port = await open({ maxConnectionsPerAddress: 2 });
    for (let round = 0; round < 3; round++) {
      const sockets = [connect(port.port, "127.0.0.1"), connect(port.port, "127.0.0.1")];
      await Promise.all(sockets.map((socket) => once(socket, "connect")));
      const third = connect(port.port, "127.0.0.1");
      third.on("error", () => {});
      third.resume();
      await once(third, "close");
      assert.ok(sockets.every((socket) => !socket.destroyed));
      const closed = sockets.map((socket) => once(socket, "close"));
      for (const socket of sockets) socket.destroy();
      await Promise.all(closed);
      await until(() => port.connections === 0, "the server to notice");
    }
    await port.close(100);
  });
});
