// node server-process.ts: a gateway on a real port, before a chat that answers at once. Prints its port.

import { openTestGateway } from "#gateway/testing/test-gateway.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

/** Short, so that slow offenders are cut within a measurement; the mechanism is that of the defaults. */
const SLOW_MS = 1_000;

const edge = await openTestGateway({
  services: [ChatService],
  limits: { stallMs: SLOW_MS, bodyTimeoutMs: SLOW_MS },
  routes: (router) =>
    router.service(ChatService, {
      chat: () => ({ response: "hello" }),
      async *chatStream(_request, { signal }) {
        const content = "x".repeat(100_000);
        for (let seq = 1n; !signal.aborted; seq++) {
          yield { event: { seq, payload: { case: "text", value: { content } } } };
        }
      },
    }),
});
process.once("SIGTERM", async () => {
  await edge[Symbol.asyncDispose]();
  process.exit(0);
});
process.stdout.write(`listening ${edge.port}\n`);
