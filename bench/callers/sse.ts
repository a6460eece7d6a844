import type { Caller } from "./caller.ts";
import { createAgent, postStream, textReader } from "./http-stream.ts";

/** Asks on the REST face: server-sent events over HTTP/1.1. */
export function sseCaller(url: string, key: string): Caller {
  const agent = createAgent();
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  return {
    name: "sse",
    async turn(message, options = {}) {
      const body = JSON.stringify({ message, cancel_on_disconnect: options.cancelOnDisconnect ?? false });
      const reader = textReader("event: text", "event: final");
      return { firstMs: await postStream(agent, `${url}/api/v1/chat/stream`, headers, body, reader, options) };
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}
