import assert from "node:assert/strict";
import type { IncomingMessage, RequestListener } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import { createLog } from "./log.ts";
import { isTracing, withSpan } from "./trace.ts";
import { startTracing } from "./tracing.ts";

async function collector(listener: RequestListener) {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  return (await request.setEncoding("utf8").toArray()).join("");
}

describe("startTracing", () => {
  test("is off without an endpoint", async () => {
    const tracing = startTracing({ service: "s" });
    assert.equal(tracing.enabled, false);
    assert.equal(isTracing(), false);
    assert.equal(await tracing.flush(), true);
    assert.equal(await tracing.shutdown(), true);
  });

  test("sends spans as OTLP over HTTP to the collector, with the service's name, when it stops", async () => {
    const received: { url: string | undefined; body: string }[] = [];
    await using server = await collector(async (request, response) => {
      received.push({ url: request.url, body: await bodyOf(request) });
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
    const tracing = startTracing({ service: "agent", version: "1.2.3", endpoint: `${server.endpoint}/base/` });
    assert.equal(isTracing(), true);
    withSpan("agent.query", { to: "a@b.com" }, () => {});
    assert.equal(await tracing.shutdown(), true);
    assert.equal(isTracing(), false);
    assert.equal(received[0]?.url, "/base/v1/traces");
    const [resource] = JSON.parse(received[0]?.body ?? "").resourceSpans;
    const attributes = resource.resource.attributes.map(({ key, value }: { key: string; value: object }) => [
      key,
      value,
    ]);
    assert.deepEqual(Object.fromEntries(attributes)["service.name"], { stringValue: "agent" });
    assert.deepEqual(Object.fromEntries(attributes)["service.version"], { stringValue: "1.2.3" });
    const [span] = resource.scopeSpans[0].spans;
    assert.equal(span.name, "agent.query");
    assert.deepEqual(span.attributes, [{ key: "to", value: { stringValue: "[EMAIL]" } }]);
  });

  test("gives up on a collector that does not answer, within the bound", async () => {
    await using server = await collector(() => {});
    const tracing = startTracing({ service: "s", endpoint: server.endpoint });
    withSpan("a", {}, () => {});
    assert.equal(await tracing.flush(50), false);
    withSpan("b", {}, () => {});
    assert.equal(await tracing.shutdown(50), false);
    assert.equal(isTracing(), false);
  });

  test("says once that the collector refuses, and spans go on being made", async () => {
    await using server = await collector((_, response) => response.writeHead(400).end());
    const lines: string[] = [];
    const log = createLog({ level: "info", service: "s", destination: { write: (line) => lines.push(line) } });
    const tracing = startTracing({ service: "s", endpoint: `${server.endpoint}/v1/traces`, log });
    for (let i = 0; i < 2; i++) {
      withSpan("a", {}, () => {});
      assert.equal(await tracing.flush(), false);
    }
    await tracing.shutdown();
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? "", /"event":"trace.export.failed"/);
  });
});
