import assert from "node:assert/strict";
import { Agent, type IncomingMessage, request } from "node:http";
import { describe, test } from "node:test";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { KEY, openTestGateway } from "../testing/test-gateway.ts";

/** One POST on the agent's only connection; the answer's status and text, and the connection's own port. */
function post(url: string, agent: Agent, type: string, body: Buffer) {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string; port: number }>();
  const headers = { authorization: `Bearer ${KEY}`, "content-type": type, "content-length": body.length };
  const sent = request(url, { method: "POST", agent, headers }, async (answer: IncomingMessage) => {
    const port = answer.socket.localPort ?? 0;
    const text = (await answer.toArray()).join("");
    resolve({ status: answer.statusCode ?? 0, text, port });
  });
  sent.on("error", reject);
  sent.end(body);
  return promise;
}

describe("an RPC request that is refused while it is still being sent, over HTTP/1.1", { timeout: 20_000 }, () => {
  test("is read to its end, and its connection serves the next request", async () => {
    await using edge = await openTestGateway({
      services: [ChatService],
      limits: { maxBodyBytes: 10_000, lingerMs: 5_000 },
      routes: (router) => router.service(ChatService, { chat: () => ({ response: "hello" }) }),
    });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const message = Buffer.alloc(2_000_000, "x");
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    const path = `${edge.url}/${ChatService.typeName}`;
    const refused = await post(`${path}/ChatStream`, agent, "application/connect+json", Buffer.concat([head, message]));
    assert.match(refused.text, /"code":"resource_exhausted"/);
    const served = await post(`${path}/Chat`, agent, "application/json", Buffer.from('{"message":"x"}'));
    assert.equal(served.status, 200);
    assert.equal(served.port, refused.port);
    agent.destroy();
  });

  test("is cut off when the rest does not come in time", async () => {
    await using edge = await openTestGateway({
      services: [ChatService],
      limits: { maxBodyBytes: 10, lingerMs: 100 },
      routes: (router) => router.service(ChatService, {}),
    });
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const sent = request(`${edge.url}/${ChatService.typeName}/ChatStream`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/connect+json", "content-length": 1_000 },
    });
    sent.on("error", () => {});
    sent.on("response", (answer) => void answer.resume());
    sent.on("socket", (socket) => void socket.once("close", () => resolve()));
    sent.write(Buffer.from([0, 0, 0, 3, 0xe8, 0x78]));
    await closed;
  });
});
