import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { describe, test } from "node:test";
import { AddressRefused, vettedAddress } from "./resolve-host.ts";
import { createTenantFetch, type TenantFetchOptions } from "./tenant-fetch.ts";

/** A server on loopback that is known by a name, which the operator vouches for. */
async function serving(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  options: TenantFetchOptions = {},
) {
  const server = createServer(handler);
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => void sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const origin = `http://models.example:${port}`;
  const asked: string[] = [];
  const door = createTenantFetch({
    trustedOrigins: [origin],
    resolve: async (host) => {
      asked.push(host);
      return ["127.0.0.1"];
    },
    ...options,
  });
  return {
    origin,
    port,
    asked,
    fetch: door.fetch,
    connections: () => sockets.size,
    async [Symbol.asyncDispose]() {
      await door.close();
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The code of the error or of one of its causes. */
async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
  let error: unknown = await promise.then(
    () => assert.fail("it was let through"),
    (e: unknown) => e,
  );
  for (; error instanceof Error; error = error.cause) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== undefined) return code;
  }
  return undefined;
}

describe("tenant fetch", () => {
  test("every way to write a private address is refused before anything is dialled", async () => {
    let dialled = 0;
    const trap = createTcpServer(() => dialled++);
    trap.listen(0, "127.0.0.1");
    await once(trap, "listening");
    const { port } = trap.address() as AddressInfo;
    const door = createTenantFetch({ resolve: async () => assert.fail("an address was looked up as a name") });
    const hosts = [
      ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "0177.0.0.1", "0", "0.0.0.0"],
      ["①②⑦.0.0.1", "127。0。0。1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"],
      ["[2002:7f00:1::]", "[fe80::1]", "[fd00:ec2::254]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "127.0.0.1."],
    ].flat();
    for (const host of hosts) {
      assert.equal(await codeOf(door.fetch(`https://${host}:${port}/`)), "ADDRESS_REFUSED", host);
    }
    await door.close();
    trap.close();
    await once(trap, "close");
    assert.equal(dialled, 0);
  });

  test("other schemes, credentials and low ports are refused", async () => {
    const door = createTenantFetch({ resolve: async () => ["1.1.1.1"] });
    const refused = ["http://example.com/", "https://u:p@example.com/", "https://u@example.com/"];
    for (const port of [22, 25, 80, 1023]) refused.push(`https://example.com:${port}/`);
    for (const url of refused) assert.equal(await codeOf(door.fetch(url)), "ADDRESS_REFUSED", url);
    await assert.rejects(door.fetch("file:///etc/passwd"), TypeError);
    await assert.rejects(door.fetch("nonsense"), TypeError);
    await door.close();
  });

  test("a name with any address that is not public is refused, and so is one with none or too many", async () => {
    const answers: Record<string, string[]> = {
      "private.example": ["10.0.0.1"],
      "both.example": ["1.1.1.1", "127.0.0.1"],
      "mapped.example": ["2606:4700::1", "::ffff:169.254.169.254"],
      "none.example": [],
      "many.example": Array.from({ length: 17 }, () => "1.1.1.1"),
      "strange.example": ["not an address"],
    };
    const door = createTenantFetch({ resolve: async (host) => answers[host] ?? [] });
    for (const host of Object.keys(answers)) {
      assert.equal(await codeOf(door.fetch(`https://${host}/`)), "ADDRESS_REFUSED", host);
    }
    await door.close();
    assert.equal(await vettedAddress("good.example", async () => ["1.1.1.1", "8.8.8.8"]), "1.1.1.1");
    await assert.rejects(
      vettedAddress("localhost", async () => ["127.0.0.1"]),
      AddressRefused,
    );
  });

  test("a resolver that fails is an error that is not a refusal", async () => {
    const failed = Object.assign(new Error("no such name"), { code: "ENOTFOUND" });
    const door = createTenantFetch({ resolve: () => Promise.reject(failed) });
    assert.equal(await codeOf(door.fetch("https://missing.example/")), "ENOTFOUND");
    await door.close();
  });

  test("the address that was looked at is the one that is dialled, once per connection", async () => {
    await using peer = await serving((request, response) => response.end(request.headers.host));
    assert.equal(await (await peer.fetch(`${peer.origin}/`)).text(), `models.example:${peer.port}`);
    assert.equal(await (await peer.fetch(`${peer.origin}/again`)).text(), `models.example:${peer.port}`);
    assert.equal(peer.asked.length, peer.connections());
    assert.deepEqual([...new Set(peer.asked)], ["models.example"]);
  });

  test("an operator vouches for an origin, not for its host's other ports or for another scheme", async () => {
    await using peer = await serving((_request, response) => response.end("ok"));
    assert.equal(await codeOf(peer.fetch(`http://models.example:${peer.port + 1}/`)), "ADDRESS_REFUSED");
    assert.equal(await codeOf(peer.fetch(`https://models.example:${peer.port}/`)), "ADDRESS_REFUSED");
    assert.equal(await codeOf(peer.fetch(`http://127.0.0.1:${peer.port}/`)), "ADDRESS_REFUSED");
  });

  test("the name goes into the TLS handshake although an address is dialled", async () => {
    const hello = Promise.withResolvers<Buffer>();
    const tcp = createTcpServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", (data) => {
        hello.resolve(data);
        socket.destroy();
      });
    });
    tcp.listen(0, "127.0.0.1");
    await once(tcp, "listening");
    const { port } = tcp.address() as AddressInfo;
    const door = createTenantFetch({
      trustedOrigins: [`https://models.example:${port}`],
      resolve: async () => ["127.0.0.1"],
    });
    await assert.rejects(door.fetch(`https://models.example:${port}/`), TypeError);
    assert.ok((await hello.promise).includes("models.example"));
    await door.close();
    tcp.close();
    await once(tcp, "close");
  });

  test("redirects are handed back, not followed", async () => {
    let requests = 0;
    await using peer = await serving((_request, response) => {
      requests++;
      response.writeHead(307, { location: "http://169.254.169.254/latest/" }).end();
    });
    const response = await peer.fetch(`${peer.origin}/`, { method: "POST", body: "x", headers: { "x-api-key": "k" } });
    assert.equal(response.status, 307);
    assert.equal(requests, 1);
  });

  test("a body that is too large breaks off, one of an error is cut", async () => {
    await using peer = await serving(
      (request, response) => {
        response.statusCode = request.url === "/error" ? 500 : 200;
        response.end("x".repeat(100_000));
      },
      { maxBodyBytes: 50_000, maxErrorBodyBytes: 1_000 },
    );
    assert.equal(await codeOf((await peer.fetch(`${peer.origin}/`)).text()), "BODY_TOO_LARGE");
    assert.equal((await (await peer.fetch(`${peer.origin}/error`)).text()).length, 1_000);
  });

  test("a server that trickles on and on is ended by the total time, a silent one by the others", async () => {
    await using peer = await serving(
      (request, response) => {
        if (request.url === "/silent") return;
        response.write("x");
        const timer = setInterval(() => response.write("x"), 20);
        response.on("close", () => clearInterval(timer));
      },
      { totalTimeoutMs: 400, headersTimeoutMs: 100 },
    );
    const response = await peer.fetch(`${peer.origin}/`);
    await assert.rejects(response.text(), { name: "TimeoutError" });
    await assert.rejects(peer.fetch(`${peer.origin}/silent`));
  });

  test("the caller's abort reaches a request at any time", async () => {
    await using peer = await serving((_request, response) => void response.write("x"));
    const reason = new Error("enough");
    await assert.rejects(peer.fetch(`${peer.origin}/`, { signal: AbortSignal.abort(reason) }), reason);
    const abort = new AbortController();
    const response = await peer.fetch(`${peer.origin}/`, { signal: abort.signal });
    const text = response.text();
    abort.abort(reason);
    await assert.rejects(text, reason);
  });

  test("proxies of the environment are not used", async () => {
    const before = process.env["http_proxy"];
    process.env["http_proxy"] = "http://127.0.0.1:1";
    try {
      await using peer = await serving((_request, response) => response.end("direct"));
      assert.equal(await (await peer.fetch(`${peer.origin}/`)).text(), "direct");
    } finally {
      if (before === undefined) delete process.env["http_proxy"];
      else process.env["http_proxy"] = before;
    }
  });
});
