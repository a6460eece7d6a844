import { Agent, request } from "undici";
import { TurnFailed, type TurnOptions } from "./caller.ts";

/** What a face writes: whether a chunk brings the first text, and whether the whole ended well. */
export interface StreamReader {
  /** True when text has been seen. */
  feed(chunk: Buffer): boolean;
  /** What is wrong with the end; undefined when it is as it should be. */
  problem(): string | undefined;
}

/** Connections that are kept, as many as there are turns at once. */
export function createAgent(): Agent & AsyncDisposable {
  const agent = new Agent({ connections: 1_024, keepAliveTimeout: 60_000, bodyTimeout: 0, headersTimeout: 0 });
  return Object.assign(agent, { [Symbol.asyncDispose]: () => agent.destroy() });
}

/** Posts and reads a streamed answer over HTTP/1.1; returns the time to its first text, in milliseconds. */
export async function postStream(
  agent: Agent,
  url: string,
  headers: Record<string, string>,
  body: string | Uint8Array,
  reader: StreamReader,
  { onChunk, signal }: TurnOptions,
): Promise<number> {
  const began = performance.now();
  let firstMs = Number.NaN;
  const answer = await request(url, { dispatcher: agent, method: "POST", headers, body, signal: signal ?? null });
  if (answer.statusCode !== 200) throw new TurnFailed(`${url}: ${answer.statusCode} ${await answer.body.text()}`);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  answer.body.on("data", (chunk: Buffer) => {
    onChunk?.(chunk);
    if (reader.feed(chunk) && Number.isNaN(firstMs)) firstMs = performance.now() - began;
  });
  answer.body.once("end", resolve);
  answer.body.once("error", reject);
  await promise;
  const problem = reader.problem();
  if (problem !== undefined) throw new TurnFailed(`${url}: ${problem}`);
  return firstMs;
}

/** Looks for words in a stream of text, across chunks. */
export function textReader(first: string, last: string): StreamReader {
  let seen = false;
  let tail = "";
  return {
    feed(chunk) {
      seen ||= chunk.includes(first);
      tail =
        chunk.length >= TAIL
          ? chunk.subarray(-TAIL).toString("latin1")
          : (tail + chunk.toString("latin1")).slice(-TAIL);
      return seen;
    },
    problem: () =>
      seen && tail.includes(last) ? undefined : `a stream ended with ${JSON.stringify(tail.slice(-300))}`,
  };
}

/** The last event of a turn stands within so many bytes of the end: it repeats the whole answer. */
const TAIL = 32 * 1024;
