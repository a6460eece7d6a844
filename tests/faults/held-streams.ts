import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import { create, toBinary } from "@bufbuild/protobuf";
import { envelope } from "#bench/callers/request.ts";
import { RunService, StreamRunEventsRequestSchema } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

/** Streams of one connection, as many as a port allows. */
const PER_SESSION = 100;
/** Streams that are being opened at a time. */
const WIDTH = 50;

/** Watchers over gRPC who read what comes and keep nothing of it. */
export class HeldStreams implements AsyncDisposable {
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #sessions: ClientHttp2Session[] = [];
  readonly #streams: ClientHttp2Stream[] = [];
  /** Streams that have ended by themselves. */
  lost = 0;
  #leaving = false;
  #broken: unknown;

  constructor(url: string, key?: string) {
    this.#url = url;
    this.#headers = {
      ":method": "POST",
      ":path": `/${RunService.typeName}/StreamRunEvents`,
      "content-type": "application/grpc+proto",
      te: "trailers",
      ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    };
  }

  /** Opens so many streams, run by run in turn; resolves when each has been shown something. */
  async open(count: number, runIds: readonly string[]): Promise<void> {
    let next = 0;
    const lane = async () => {
      for (let i = next++; i < count; i = next++) await this.#openOne(i, runIds[i % runIds.length] ?? "");
    };
    await Promise.all(Array.from({ length: WIDTH }, lane));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving = true;
    for (const stream of this.#streams) stream.close(constants.NGHTTP2_CANCEL);
    for (const session of this.#sessions) session.destroy();
  }

  #session(index: number): ClientHttp2Session {
    const open = this.#sessions[index];
    if (open !== undefined) return open;
    const made = connect(this.#url);
    made.setMaxListeners(0);
    made.on("error", (error) => {
      this.#broken ??= error;
    });
    this.#sessions[index] = made;
    return made;
  }

  async #openOne(number: number, runId: string): Promise<void> {
    const stream = this.#session(Math.floor(number / PER_SESSION)).request(this.#headers);
    this.#streams.push(stream);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    stream.on("data", () => resolve());
    stream.on("error", () => {});
    stream.once("close", () => {
      if (!this.#leaving) this.lost += 1;
      reject(
        new Error(`stream ${number} ended before it had said anything: ${stream.rstCode}`, { cause: this.#broken }),
      );
    });
    stream.end(envelope(toBinary(StreamRunEventsRequestSchema, create(StreamRunEventsRequestSchema, { runId }))));
    await promise;
  }
}
