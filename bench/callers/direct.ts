import type { Caller } from "./caller.ts";
import { createAgent, postStream, textReader } from "./http-stream.ts";

const HEADERS = { "x-api-key": "bench", "anthropic-version": "2023-06-01", "content-type": "application/json" };

/** Asks the model server itself. */
export function directCaller(url: string): Caller {
  const agent = createAgent();
  return {
    name: "direct",
    async turn(message, options = {}) {
      const body = JSON.stringify({
        model: "claude-sonnet-5-5",
        max_tokens: 4096,
        stream: true,
        messages: [{ role: "user", content: message }],
      });
      const reader = textReader("content_block_delta", "message_stop");
      return { firstMs: await postStream(agent, `${url}/v1/messages`, HEADERS, body, reader, options) };
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}
