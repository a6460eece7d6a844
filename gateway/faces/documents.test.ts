import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { OVERLAY_PATHS } from "../openapi/overlay.ts";
import { PUBLIC_SERVICES } from "../public-services.ts";
import { rawHttp } from "../testing/raw-http.ts";
import { KEY, openTestGateway, type TestGateway } from "../testing/test-gateway.ts";

const run = promisify(execFile);
const PAGES = ["/openapi.json", "/docs", "/api.binpb"];
let edge: TestGateway;

before(async () => {
  edge = await openTestGateway({
    services: PUBLIC_SERVICES,
    routes: (router) =>
      router.service(SessionService, {
        getSession: ({ sessionId }) => ({ session: { sessionId, title: "Found", etag: "v1" } }),
      }),
  });
});
after(() => edge[Symbol.asyncDispose]());

/** Without a credential. */
function ask(path: string, headers: Record<string, string> = {}, method = "GET"): Promise<Response> {
  return fetch(edge.url + path, { method, headers });
}

describe("the documents of the API", () => {
  test("are there without a credential, each of its type", async () => {
    const types = ["application/json", "text/html; charset=utf-8", "application/x-protobuf"];
    for (const [index, path] of PAGES.entries()) {
      const response = await ask(path);
      assert.equal(response.status, 200, path);
      assert.equal(response.headers.get("content-type"), types[index]);
      assert.equal(response.headers.get("x-content-type-options"), "nosniff");
      assert.equal(response.headers.get("cache-control"), "no-cache");
      assert.ok((await response.arrayBuffer()).byteLength > 10_000, path);
    }
  });

  test("are not sent again to who has them", async () => {
    for (const path of PAGES) {
      const first = await ask(path);
      await first.arrayBuffer();
      const etag = first.headers.get("etag") ?? "";
      assert.match(etag, /^"[\w-]{22}-gzip"$/);
      for (const condition of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
        const again = await ask(path, { "if-none-match": condition });
        assert.deepEqual([again.status, await again.text(), again.headers.get("etag")], [304, "", etag], condition);
      }
      assert.equal((await ask(path, { "if-none-match": '"other"' })).status, 200);
    }
  });

  test("are compressed for who takes gzip, and are the same", async () => {
    const get = (accepted: string) =>
      rawHttp(edge.port, `GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${accepted}\r\n`);
    const [packedHead = "", packed = ""] = (await get("accept-encoding: br, gzip;q=0.5\r\n")).split("\r\n\r\n");
    assert.match(packedHead, /content-encoding: gzip/i);
    assert.match(packedHead, /vary: Accept-Encoding/i);
    const [plainHead = "", plain = ""] = (await get("")).split("\r\n\r\n");
    assert.doesNotMatch(plainHead, /content-encoding/i);
    assert.deepEqual(gunzipSync(Buffer.from(packed, "latin1")), Buffer.from(plain, "latin1"));
    assert.notEqual(/etag: (.*)/i.exec(packedHead)?.[1], /etag: (.*)/i.exec(plainHead)?.[1]);
    assert.doesNotMatch(await get("accept-encoding: gzip;q=0\r\n"), /content-encoding/i);
  });

  test("answer HEAD without a body, refuse other methods, and speak HTTP/2", async () => {
    const head = await ask("/docs", {}, "HEAD");
    assert.deepEqual([head.status, await head.text()], [200, ""]);
    assert.ok(Number(head.headers.get("content-length")) > 1_000);
    const post = await ask("/docs", {}, "POST");
    assert.deepEqual([post.status, post.headers.get("allow")], [405, "GET, HEAD"]);
    const session = connect(edge.url);
    try {
      const stream = session.request({ ":path": "/api.binpb" });
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk as Buffer);
      assert.ok(fromBinary(FileDescriptorSetSchema, Buffer.concat(chunks)).file.length > 10);
    } finally {
      session.destroy();
    }
  });
});

describe("/openapi.json", () => {
  test("has a path for every page that the gateway has", async () => {
    const { paths } = (await (await ask("/openapi.json")).json()) as { paths: Record<string, unknown> };
    for (const path of Object.keys(OVERLAY_PATHS)) {
      assert.ok(paths[path], path);
      assert.notEqual((await ask(path)).status, 404, path);
    }
  });
});

describe("a real answer", () => {
  test("has no header of the API's that the document does not show", async () => {
    interface Shown {
      paths: Record<string, Record<string, { responses: Record<string, { headers: Record<string, unknown> }> }>>;
    }
    const { paths } = (await (await ask("/openapi.json")).json()) as Shown;
    const shown = paths["/api/v1/sessions/{session_id}"]?.["get"]?.responses["200"]?.headers ?? {};
    const names = new Set(Object.keys(shown).map((name) => name.toLowerCase()));
    const { status, headers } = await edge.json("GET", "/api/v1/sessions/ses_1");
    assert.equal(status, 200);
    const ours = [...headers.keys()].filter((name) =>
      /^(?:x-(?!content-type-options)|etag|location|ratelimit)/.test(name),
    );
    assert.ok(ours.includes("x-request-id") && ours.includes("etag"));
    for (const name of ours) assert.ok(names.has(name), name);
  });
});

describe("/docs", () => {
  test("shows every operation and schema, and needs nothing but itself", async () => {
    const response = await ask("/docs");
    const page = await response.text();
    const document = (await (await ask("/openapi.json")).json()) as {
      paths: Record<string, Record<string, { operationId: string }>>;
      components: { schemas: Record<string, unknown> };
    };
    for (const item of Object.values(document.paths)) {
      for (const { operationId } of Object.values(item))
        assert.ok(page.includes(`<section id="${operationId}">`), operationId);
    }
    for (const name of Object.keys(document.components.schemas)) assert.ok(page.includes(`id="schema-${name}"`), name);
    const ids = new Set([...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id));
    for (const [, target] of page.matchAll(/href="#([^"]+)"/g)) assert.ok(ids.has(target), `#${target}`);
    assert.doesNotMatch(page, /<script|<link|<img|https?:\/\/| style=| on\w+=/);
    const [, style = ""] = /<style>(.*?)<\/style>/s.exec(page) ?? [];
    const hash = createHash("sha256").update(style).digest("base64");
    assert.equal(
      response.headers.get("content-security-policy"),
      `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
  });
});

describe("/api.binpb", () => {
  test("has every file after its imports, so that one pass is enough", async () => {
    const set = fromBinary(FileDescriptorSetSchema, new Uint8Array(await (await ask("/api.binpb")).arrayBuffer()));
    const seen = new Set<string>();
    for (const { name, dependency } of set.file) {
      for (const one of dependency) assert.ok(seen.has(one), `${name} before ${one}`);
      seen.add(name);
    }
    const registry = createFileRegistry(set);
    for (const { typeName } of PUBLIC_SERVICES) assert.ok(registry.getService(typeName), typeName);
    assert.equal(registry.getService("agentmesh.agent.v1.RunTailService"), undefined);
  });

  test("lets buf curl call without reflection", async () => {
    const directory = await mkdtemp(join(tmpdir(), "agentmesh-"));
    try {
      const file = join(directory, "api.binpb");
      await writeFile(file, new Uint8Array(await (await ask("/api.binpb")).arrayBuffer()));
      const { stdout } = await run("buf", [
        "curl",
        "--http2-prior-knowledge",
        "--protocol=grpc",
        `--schema=${file}`,
        `--header=authorization: Bearer ${KEY}`,
        '--data={"sessionId":"ses_1"}',
        `${edge.url}/agentmesh.agent.v1.SessionService/GetSession`,
      ]);
      assert.deepEqual(JSON.parse(stdout), { session: { sessionId: "ses_1", title: "Found", etag: "v1" } });
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
