import { fromBinary } from "@bufbuild/protobuf";
import { ChatStreamResponseSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

const HEAD_BYTES = 5;

/**
 * Splits length-prefixed messages (Connect streaming and gRPC alike) without copying, and keeps the newest. Only that one
 * is decoded, at the end.
 */
export class Envelopes {
  #rest: Buffer = Buffer.alloc(0);
  #newest: Buffer | undefined;
  messages = 0;
  /** The end-of-stream envelope of the Connect protocol, as text. */
  end: string | undefined;
  readonly #onMessage: ((content: Buffer) => void) | undefined;

  /** @param onMessage given each message, as it arrives */
  constructor(onMessage?: (content: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  feed(chunk: Buffer): boolean {
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (data.length >= HEAD_BYTES) {
      const size = HEAD_BYTES + data.readUInt32BE(1);
      if (data.length < size) break;
      const content = data.subarray(HEAD_BYTES, size);
      if (((data[0] ?? 0) & 2) !== 0) {
        this.end = content.toString();
      } else {
        this.#newest = content;
        this.messages++;
        this.#onMessage?.(content);
      }
      data = data.subarray(size);
    }
    this.#rest = data;
    return this.messages > 0;
  }

  /** What is wrong with the last message; undefined when it is the end of a turn that went well. */
  problem(): string | undefined {
    if (this.#newest === undefined) return "a stream without messages";
    const { event } = fromBinary(ChatStreamResponseSchema, this.#newest);
    if (event?.payload.case === "final") return undefined;
    return `a stream ended with ${event?.payload.case}: ${JSON.stringify(event?.payload.value)}`;
  }
}
