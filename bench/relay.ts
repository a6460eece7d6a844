// The yardstick: Anthropic's SDK to a server-streaming RPC and nothing else. No credential, no session, no log.
//   node bench/relay.ts <base URL of the model>     prints {"url": "http://…"}
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Anthropic } from "@anthropic-ai/sdk";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";

const MAX_TOKENS = 4096;

const client = new Anthropic({ apiKey: "bench", baseURL: process.argv[2] ?? "", maxRetries: 0, logLevel: "off" });

const server = createServer(
  connectNodeAdapter({
    routes: (router) =>
      void router.service(ChatService, {
        async *chatStream({ message }, { signal }) {
          const stream = await client.messages.create(
            {
              model: "claude-sonnet-5-5",
              max_tokens: MAX_TOKENS,
              messages: [{ role: "user", content: message }],
              stream: true,
            },
            { signal },
          );
          let seq = 0n;
          let response = "";
          for await (const event of stream) {
            if (event.type !== "content_block_delta" || event.delta.type !== "text_delta") continue;
            const content = event.delta.text;
            response += content;
            yield { event: { seq: ++seq, payload: { case: "text", value: { content } } } };
          }
          const value = { content: response, response, state: RunState.COMPLETED };
          yield { event: { seq: ++seq, payload: { case: "final", value } } };
        },
      }),
  }),
);
server.listen(0, "127.0.0.1");
await once(server, "listening");
process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })}\n`);
