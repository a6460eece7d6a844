import { type ClientHttp2Session, connect } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { KEY } from "#gateway/testing/test-gateway.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

const SESSIONS = 4;
const EVERY_MS = 5;
const PER_TURN = 2;
const LATE_MS = 10_000;

const REQUEST = {
  ":method": "POST",
  ":path": `/${ChatService.typeName}/Chat`,
  authorization: `Bearer ${KEY}`,
  "content-type": "application/json",
};

/** Well-behaved clients with connections of their own, who ask at a steady pace whether or not answers come. */
export class Bystanders implements AsyncDisposable {
  readonly #sessions: readonly ClientHttp2Session[];
  #next = 0;

  constructor(port: number) {
    this.#sessions = Array.from({ length: SESSIONS }, () => connect(`http://127.0.0.1:${port}`));
  }

  /** The latencies of a span of time, in milliseconds. Rejects when an answer is wrong or does not come. */
  async latencies(forMs: number): Promise<number[]> {
    const asked: Promise<number>[] = [];
    const end = performance.now() + forMs;
    while (performance.now() < end) {
      for (let i = 0; i < PER_TURN; i++) asked.push(this.#ask());
      await sleep(EVERY_MS);
    }
    return Promise.all(asked);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.destroy();
  }

  async #ask(): Promise<number> {
    const session = this.#sessions[this.#next++ % SESSIONS] as ClientHttp2Session;
    const began = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    const stream = session.request(REQUEST);
    const timer = setTimeout(() => reject(new Error(`no answer within ${LATE_MS} ms`)), LATE_MS);
    let status: number | undefined;
    stream.on("response", (headers) => {
      status = headers[":status"];
    });
    stream.on("error", reject);
    stream.on("end", () => {
      if (status === 200) resolve(performance.now() - began);
      else reject(new Error(`a well-behaved client was answered ${status}`));
    });
    stream.resume();
    stream.end('{"message":"hello"}');
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }
}
