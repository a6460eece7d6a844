import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { Agent, get } from "node:http";
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from "node:http2";
import { connect, type Socket } from "node:net";
import { describe, test } from "node:test";
import { type NodeListener, openPort, PORT_LIMITS, type PortOptions } from "./port.ts";
import { until } from "./test-mesh.contract.ts";

const echo: NodeListener = (request, response) => {
  response.setHeader("content-type", "text/plain");
  response.end(`${request.httpVersion} ${request.method} ${request.url}`);
};

const open = (limits: PortOptions["limits"] = {}, listener = echo) =>
  openPort({ host: "127.0.0.1", port: 0, listener, limits });

function dial(port: number): { socket: Socket; received: () => string; closed: Promise<unknown> } {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  socket.on("error", () => {});
  return { socket, received: () => text, closed: new Promise((resolve) => socket.once("close", resolve)) };
}

async function h2get(session: ClientHttp2Session, headers: Record<string, string> = {}): Promise<string> {
  const stream = session.request({ ":path": "/two", ...headers });
  let body = "";
  stream.setEncoding("utf8").on("data", (chunk) => {
    body += chunk;
  });
  await once(stream, "end");
  return body;
}

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

describe("one port for two protocols", () => {
  test("serves HTTP/1.1 and HTTP/2 with prior knowledge, side by side", async () => {
    const port = await open();
    const url = `http://127.0.0.1:${port.port}`;
    assert.equal(port.host, "127.0.0.1");
    const session = connectHttp2(url);
    const [one, two] = await Promise.all([fetch(`${url}/one`).then((r) => r.text()), h2get(session)]);
    assert.deepEqual([one, two], ["1.1 GET /one", "2.0 GET /two"]);
    session.close();
    await port.close(1000);
  });

  test("a body behind the first packet, pipelined requests and keep-alive work over HTTP/1.1", async () => {
    const bodies: string[] = [];
    const port = await open({}, (request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => response.end(`[${bodies.push(body)}]`));
    });
    const { socket, received } = dial(port.port);
    const large = "x".repeat(200_000);
    socket.write(`POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: ${large.length}\r\n\r\n${large}`);
    socket.write("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    await until(() => received().includes("[2]"), "both answers");
    assert.deepEqual(bodies, [large, "abc"]);
    socket.destroy();
    await port.close(1000);
  });

  test("a preface or a request line that comes byte by byte is understood", async () => {
    const port = await open();
    const h2 = dial(port.port);
    for (const byte of PREFACE) {
      h2.socket.write(byte, "latin1");
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    h2.socket.write(EMPTY_SETTINGS);
    await until(() => h2.received().length >= 9, "the server's settings");
    assert.equal(h2.received().charCodeAt(3), 4, "the first frame is SETTINGS");
    h2.socket.destroy();
    const slowly = async (method: string) => {
      const dialled = dial(port.port);
      for (const byte of `${method} /slowly HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`) {
        dialled.socket.write(byte);
        await new Promise((resolve) => setImmediate(resolve));
      }
      return dialled;
    };
    for (const method of ["POST", "PUT", "GET"]) {
      const { socket, received } = await slowly(method);
      await until(() => received().includes(`1.1 ${method} /slowly`), `an answer to ${method}`);
      socket.destroy();
    }
    // No method of HTTP begins like the preface, so this is an HTTP/2 client that speaks nonsense.
    await (await slowly("PRIVATE")).closed;
    await port.close(1000);
  });

  test("a connection that sends nothing, or a piece of a preface, is closed after the sniff timeout", async () => {
    const port = await open({ sniffTimeoutMs: 100 });
    const silent = dial(port.port);
    const half = dial(port.port);
    half.socket.write("PR");
    await Promise.all([silent.closed, half.closed]);
    assert.equal(silent.received() + half.received(), "");
    await port.close(1000);
  });

  test("headers that do not end are answered with 408 and closed", async () => {
    const port = await open({ headersTimeoutMs: 200 });
    const slow = dial(port.port);
    slow.socket.write("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    const drip = setInterval(() => slow.socket.write("a"), 20);
    await slow.closed;
    clearInterval(drip);
    assert.match(slow.received(), /^HTTP\/1\.1 408 /);
    await port.close(1000);
  });

  test("a request whose body does not end is cut off", async () => {
    const port = await open({ headersTimeoutMs: 100, requestTimeoutMs: 300 }, (request, response) => {
      request.resume().on("end", () => response.end("done"));
    });
    const slow = dial(port.port);
    slow.socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    await slow.closed;
    assert.doesNotMatch(slow.received(), /done/);
    await port.close(1000);
  });

  test("garbage is refused and closed, and the port serves on", async () => {
    const port = await open();
    const garbage = [
      "\u0000\u0000\u0000",
      "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001",
      "HELO example.org\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      `PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n${"\u0000".repeat(50)}`,
      `${PREFACE}GET / HTTP/1.1\r\nHost: x\r\n\r\n`,
    ];
    for (const text of garbage) {
      const { socket, received, closed } = dial(port.port);
      socket.write(Buffer.from(text, "latin1"));
      await closed;
      assert.doesNotMatch(received(), / 200 /, JSON.stringify(text));
    }
    assert.equal(await (await fetch(`http://127.0.0.1:${port.port}/still`)).text(), "1.1 GET /still");
    await port.close(1000);
  });

  test("a Host of which no URL can be made is 400 and never reaches the listener", async () => {
    let reached = 0;
    const port = await open({}, (_, response) => {
      reached += 1;
      response.end();
    });
    for (const head of ["HTTP/1.1\r\nHost: [", "HTTP/1.1\r\nHost: a b", "HTTP/1.1\r\nHost: x:99999", "HTTP/1.0"]) {
      const { socket, received } = dial(port.port);
      socket.write(`GET / ${head}\r\n\r\n`);
      await until(() => received() !== "", "an answer");
      assert.match(received(), /^HTTP\/1\.1 400 /, head);
      socket.destroy();
    }
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    const stream = session.request({ ":authority": "x:99999" });
    const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
    assert.equal(headers[":status"], 400);
    session.destroy();
    assert.equal(reached, 0);
    await port.close(1000);
  });

  test("headers above 64 KiB are 431 over HTTP/1.1 and end the stream over HTTP/2", async () => {
    let reached = 0;
    const port = await open({}, (_, response) => {
      reached += 1;
      response.end();
    });
    const large = "x".repeat(PORT_LIMITS.maxHeaderBytes + 1);
    const response = await fetch(`http://127.0.0.1:${port.port}/`, { headers: { large } });
    assert.equal(response.status, 431);
    const session = connectHttp2(`http://127.0.0.1:${port.port}`, { maxSendHeaderBlockLength: 1_000_000 });
    session.on("error", () => {});
    // The limit holds once the client has taken the server's settings; before, Node's own 64 KiB do.
    await once(session, "remoteSettings");
    const stream = session.request({ large });
    const outcome = await new Promise<string>((resolve) => {
      stream.on("response", (headers) => resolve(String(headers[":status"])));
      stream.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
      stream.on("close", () => resolve("closed"));
    });
    assert.notEqual(outcome, "200");
    assert.equal(reached, 0);
    session.destroy();
    await port.close(1000);
  });

  test("a peer may hold at most a hundred streams open at once", async () => {
    const held: (() => void)[] = [];
    const port = await open({ maxConcurrentStreams: 3 }, (_, response) => {
      held.push(() => response.end("done"));
    });
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    await once(session, "remoteSettings");
    assert.equal(session.remoteSettings.maxConcurrentStreams, 3);
    assert.equal(PORT_LIMITS.maxConcurrentStreams, 100);
    const answers = Array.from({ length: 5 }, () => h2get(session));
    await until(() => held.length === 3, "three requests");
    for (const release of held.splice(0)) release();
    await until(() => held.length === 2, "the other two");
    for (const release of held) release();
    await Promise.all(answers);
    session.close();
    await port.close(1000);
  });

  test("connections above the limit are dropped", async () => {
    const port = await open({ maxConnections: 2 });
    const kept = [dial(port.port), dial(port.port)];
    await Promise.all(kept.map(({ socket }) => once(socket, "connect")));
    const third = dial(port.port);
    await third.closed;
    assert.ok(kept.every(({ socket }) => !socket.destroyed));
    for (const { socket } of kept) socket.destroy();
    await port.close(1000);
  });

  test("a port in use is an error with its code", async () => {
    const port = await open();
    await assert.rejects(openPort({ host: "127.0.0.1", port: port.port, listener: echo }), { code: "EADDRINUSE" });
    await port.close(0);
  });
});

describe("closing a port", () => {
  /** Answers `/open` with one piece and leaves the rest open. */
  const holding: NodeListener = (request, response) => {
    if (request.url !== "/open") return echo(request, response);
    (response as ServerResponse).write("first");
  };

  async function openStream(session: ClientHttp2Session): Promise<ClientHttp2Stream> {
    const stream = session.request({ ":path": "/open" });
    stream.on("error", () => {});
    await once(stream, "data");
    return stream;
  }

  test("does not wait for idle keep-alive connections and idle sessions, which get GOAWAY", async () => {
    const port = await open({}, holding);
    const agent = new Agent({ keepAlive: true });
    const response = await new Promise<NodeJS.ReadableStream>((resolve) =>
      get({ port: port.port, path: "/one", agent }, resolve),
    );
    await once(response.resume(), "end");
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    await h2get(session);
    const goaway = once(session, "goaway");
    // Far above what the test runner allows for the whole file: a wait for the grace would fail.
    await port.close(600_000);
    const [code] = await goaway;
    assert.equal(code, constants.NGHTTP2_NO_ERROR);
    agent.destroy();
    await assert.rejects(fetch(`http://127.0.0.1:${port.port}/`));
  });

  test("lets a request in flight end, and accepts no new one", async () => {
    const release = Promise.withResolvers<void>();
    let started = 0;
    const port = await open({}, (_, response) => {
      started += 1;
      void release.promise.then(() => response.end("in time"));
    });
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    const answers = [h2get(session), fetch(`http://127.0.0.1:${port.port}/`).then((r) => r.text())];
    await until(() => started === 2, "both requests");
    const goaway = once(session, "goaway");
    const closing = port.close(600_000);
    await goaway;
    await assert.rejects(fetch(`http://127.0.0.1:${port.port}/`));
    release.resolve();
    assert.deepEqual(await Promise.all(answers), ["in time", "in time"]);
    await closing;
    assert.equal(started, 2);
  });

  test("cuts what is still open after the grace: streams, answers, silent connections", async () => {
    const port = await open({}, holding);
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    session.on("error", () => {});
    const stream = await openStream(session);
    const h1 = dial(port.port);
    h1.socket.write("GET /open HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => h1.received().includes("first"), "the first piece");
    const silent = dial(port.port);
    await once(silent.socket, "connect");
    const streamClosed = once(stream, "close");
    await port.close(50);
    await Promise.all([streamClosed, h1.closed, silent.closed]);
  });

  test("an HTTP/2 session that is idle for long is closed with GOAWAY", async () => {
    const port = await open({ sessionIdleMs: 100 });
    const session = connectHttp2(`http://127.0.0.1:${port.port}`);
    await h2get(session);
    await once(session, "goaway");
    await port.close(1000);
  });
});
