import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { after, describe, test } from "node:test";
import { createOperatorFetch, type OperatorFetchOptions } from "./operator-fetch.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

async function serving(handler: Handler, options?: OperatorFetchOptions) {
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer(handler);
  server.on("connection", (socket) => {
    connections++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const door = createOperatorFetch(options);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    fetch: door.fetch,
    sockets,
    connections: () => connections,
    async [Symbol.asyncDispose]() {
      await door.close();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function until(condition: () => boolean) {
  for (let i = 0; i < 400 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(condition(), "the condition never became true");
}

const causeCode = (error: unknown) => ((error as Error).cause as { code?: string } | undefined)?.code;

describe("operator fetch", () => {
  test("sends method, headers and body, and gives back status, headers and text", async () => {
    await using peer = await serving((request, response) => {
      let body = "";
      request
        .on("data", (chunk) => (body += chunk))
        .on("end", () => {
          response.writeHead(201, { "x-twice": ["a", "b"], "content-type": "text/plain" });
          response.end(`${request.method} ${request.headers["x-token"]} ${body}`);
        });
    });
    const response = await peer.fetch(peer.url, { method: "post", headers: { "x-token": "t" }, body: "häßlich" });
    assert.equal(response.status, 201);
    assert.equal(response.ok, true);
    assert.equal(response.headers.get("x-twice"), "a, b");
    assert.equal(await response.text(), "POST t häßlich");
    assert.equal(response.bodyUsed, true);
  });

  test("reads JSON, bytes and an empty 204", async () => {
    await using peer = await serving((request, response) => {
      if (request.url === "/empty") response.writeHead(204).end();
      else response.end('{"a":[1]}');
    });
    assert.deepEqual(await (await peer.fetch(peer.url)).json(), { a: [1] });
    assert.equal((await (await peer.fetch(new URL(peer.url))).bytes()).length, 9);
    assert.equal(await (await peer.fetch(`${peer.url}empty`)).text(), "");
  });

  test("a body arrives chunk by chunk while the response is still open", async () => {
    const responses: ServerResponse[] = [];
    await using peer = await serving((_request, response) => {
      responses.push(response);
      response.write("one");
    });
    const response = await peer.fetch(peer.url);
    const body = response.body as unknown as AsyncIterableIterator<Uint8Array>;
    assert.equal(Buffer.from((await body.next()).value as Uint8Array).toString(), "one");
    responses[0]!.end("two");
    assert.equal(Buffer.from((await body.next()).value as Uint8Array).toString(), "two");
    assert.equal((await body.next()).done, true);
    assert.equal((await body.next()).done, true);
  });

  test("a body becomes a real web stream when a reader is asked for", async () => {
    await using peer = await serving((_request, response) => response.end("streamed"));
    const reader = (await peer.fetch(peer.url)).body!.getReader();
    const { value } = await reader.read();
    assert.equal(Buffer.from(value!).toString(), "streamed");
  });

  test("a status that is not 2xx is a real Response with a capped body", async () => {
    await using peer = await serving(
      (_request, response) => {
        response.writeHead(429, { "retry-after": "7" });
        response.end("x".repeat(5_000));
      },
      { maxErrorBodyBytes: 1_000 },
    );
    const response = await peer.fetch(peer.url);
    assert.ok(response instanceof Response);
    assert.equal(response.status, 429);
    assert.equal(response.headers.get("retry-after"), "7");
    assert.equal((await response.text()).length, 1_000);
  });

  test("the status of a failed request survives a body that breaks off", async () => {
    await using peer = await serving((_request, response) => {
      response.writeHead(500, { "content-length": "100" });
      response.write("half", () => response.destroy());
    });
    const response = await peer.fetch(peer.url);
    assert.equal(response.status, 500);
    assert.equal(await response.text(), "half");
  });

  test("redirects are handed back, not followed", async () => {
    await using peer = await serving((_request, response) =>
      response.writeHead(302, { location: "http://127.0.0.1:1/" }).end(),
    );
    const response = await peer.fetch(peer.url, { headers: { authorization: "Bearer s" } });
    assert.equal(response.status, 302);
    assert.equal(peer.connections(), 1);
  });

  test("an abort before, during headers and during the body rejects with the signal's reason and frees the socket", async () => {
    await using peer = await serving((request, response) => {
      if (request.url === "/body") response.write("first");
    });
    const reason = new Error("enough");
    await assert.rejects(peer.fetch(peer.url, { signal: AbortSignal.abort(reason) }), reason);

    const headers = new AbortController();
    const waiting = peer.fetch(peer.url, { signal: headers.signal });
    await until(() => peer.sockets.size === 1);
    headers.abort(reason);
    await assert.rejects(waiting, reason);
    await until(() => peer.sockets.size === 0);

    const body = new AbortController();
    const response = await peer.fetch(`${peer.url}body`, { signal: body.signal });
    const chunks = response.body as unknown as AsyncIterableIterator<Uint8Array>;
    await chunks.next();
    const next = chunks.next();
    body.abort(reason);
    await assert.rejects(next, reason);
    await until(() => peer.sockets.size === 0);
  });

  test("silence before the headers and inside the body ends in a timeout error", async () => {
    await using peer = await serving(
      (request, response) => {
        if (request.url === "/body") response.write("first");
      },
      { headersTimeoutMs: 1_000, bodyIdleTimeoutMs: 1_000 },
    );
    await assert.rejects(peer.fetch(peer.url), (error) => causeCode(error) === "UND_ERR_HEADERS_TIMEOUT");
    const response = await peer.fetch(`${peer.url}body`);
    await assert.rejects(response.text(), { code: "UND_ERR_BODY_TIMEOUT" });
  });

  test("a refused and a broken connection are errors with their cause", async () => {
    const door = createOperatorFetch();
    after(() => door.close());
    await assert.rejects(door.fetch("http://127.0.0.1:1/"), (error) => causeCode(error) === "ECONNREFUSED");
    await using peer = await serving((_request, response) => {
      response.write("half", () => response.destroy());
    });
    await assert.rejects(async () => (await peer.fetch(peer.url)).text(), { code: "UND_ERR_SOCKET" });
  });

  test("a body that is given up near its end leaves the connection to the next request", async () => {
    await using peer = await serving((_request, response) => {
      response.write("first");
      setTimeout(() => response.end("last"), 20);
    });
    for (let i = 0; i < 3; i++) {
      const response = await peer.fetch(peer.url);
      for await (const _chunk of response.body as unknown as AsyncIterable<Uint8Array>) break;
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    assert.equal(peer.connections(), 1);
  });

  test("a body that is given up long before its end costs the connection", async () => {
    await using peer = await serving((_request, response) => {
      const more = () => response.write("x".repeat(32_768)) && setImmediate(more);
      response.on("drain", more);
      more();
    });
    const response = await peer.fetch(peer.url);
    await response.body!.cancel();
    await until(() => peer.sockets.size === 0);
  });

  test("headers of the moment are added and do not replace the caller's", async () => {
    await using peer = await serving(
      (request, response) => response.end(`${request.headers["traceparent"]} ${request.headers["x-a"]}`),
      { headers: () => ({ traceparent: "00-1-2-01", "x-a": "theirs" }) },
    );
    assert.equal(await (await peer.fetch(peer.url, { headers: { "x-a": "mine" } })).text(), "00-1-2-01 mine");
  });

  test("what the door does not do is refused by a TypeError", async () => {
    const door = createOperatorFetch();
    after(() => door.close());
    await assert.rejects(door.fetch("file:///etc/passwd"), TypeError);
    await assert.rejects(door.fetch(new Request("http://127.0.0.1:1/")), TypeError);
    await assert.rejects(door.fetch("http://127.0.0.1:1/", { method: "POST", body: new FormData() }), TypeError);
  });

  test("closing the door ends what is under way", async () => {
    await using peer = await serving(() => {});
    const door = createOperatorFetch();
    const waiting = door.fetch(peer.url);
    await until(() => peer.sockets.size === 1);
    await door.close();
    await assert.rejects(waiting, TypeError);
    await until(() => peer.sockets.size === 0);
  });
});
