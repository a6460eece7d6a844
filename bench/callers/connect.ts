import type { Caller } from "./caller.ts";
import { Envelopes } from "./envelopes.ts";
import { createAgent, postStream } from "./http-stream.ts";
import { CHAT_STREAM_PATH, chatEnvelope } from "./request.ts";

/** Asks by the Connect protocol over HTTP/1.1; without a key for the bare relay. */
export function connectCaller(name: string, url: string, key?: string): Caller {
  const agent = createAgent();
  const headers = {
    "content-type": "application/connect+proto",
    "connect-protocol-version": "1",
    ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
  };
  return {
    name,
    async turn(message, options = {}) {
      const envelopes = new Envelopes();
      const reader = {
        feed: (chunk: Buffer) => envelopes.feed(chunk),
        problem: () => (envelopes.end === "{}" ? envelopes.problem() : `a stream ended with ${envelopes.end}`),
      };
      const body = chatEnvelope(message, options);
      const firstMs = await postStream(agent, `${url}${CHAT_STREAM_PATH}`, headers, body, reader, options);
      return { firstMs, messages: envelopes.messages };
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}
