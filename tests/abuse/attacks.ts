import { KEY } from "#gateway/testing/test-gateway.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { envelope } from "#tests/conformance/wire/envelope.ts";
import { FLAG, frame, headerBlock, settings, TYPE, uint32 } from "./frames.ts";

/** What an offender sends on one connection after the preface, piece by piece, until it is cut. */
export interface Attack {
  readonly settings?: Buffer;
  piece(round: number): Buffer;
  /** Time between pieces; without one as fast as the socket takes them. */
  readonly pauseMs?: number;
}

const CANCEL = 8;
const PER_PIECE = 50;
/** SETTINGS_MAX_FRAME_SIZE when nobody says otherwise (RFC 9113 §6.5.2). */
const MAX_FRAME = 16_384;

const CALL = { ":method": "POST", ":scheme": "http", ":authority": "x", authorization: `Bearer ${KEY}` };
const UNARY = headerBlock({
  ...CALL,
  ":path": `/${ChatService.typeName}/Chat`,
  "content-type": "application/json",
});
const STREAM = headerBlock({
  ...CALL,
  ":path": `/${ChatService.typeName}/ChatStream`,
  "content-type": "application/connect+json",
});
const QUESTION = envelope(Buffer.from('{"message":"much"}'));

const opens = (stream: number, block: Buffer, flags: number = FLAG.endHeaders) =>
  frame(TYPE.headers, flags, stream, block);

/** The ids of one piece's streams: odd, and higher from piece to piece. */
function streams(round: number, count = PER_PIECE): number[] {
  return Array.from({ length: count }, (_, i) => 2 * (count * round + i) + 1);
}

const many = (one: Buffer, count: number) => Buffer.concat(Array<Buffer>(count).fill(one));

/** A request with 96 KiB of headers, in as many frames as that takes. */
function oversized(id: number): Buffer[] {
  const fill = Array.from({ length: 8 }, (_, i) => [`filler-${i}`, "x".repeat(12 * 1024)]);
  const block = Buffer.concat([UNARY, headerBlock(Object.fromEntries(fill))]);
  const parts = Array.from({ length: Math.ceil(block.length / MAX_FRAME) }, (_, i) =>
    block.subarray(i * MAX_FRAME, (i + 1) * MAX_FRAME),
  );
  return parts.map((part, i) =>
    frame(i === 0 ? TYPE.headers : TYPE.continuation, i === parts.length - 1 ? FLAG.endHeaders : 0, id, part),
  );
}

/** By name, with the weakness that each is known for. */
export const ATTACKS: Readonly<Record<string, Attack>> = {
  /** CVE-2023-44487: work is begun and thrown away. */
  rapid_reset: {
    piece: (round) =>
      Buffer.concat(streams(round).flatMap((id) => [opens(id, UNARY), frame(TYPE.reset, 0, id, uint32(CANCEL))])),
  },
  /** CVE-2025-8671: the server itself is made to reset. An increment of 0 is a stream error (RFC 9113 §6.9). */
  made_you_reset: {
    piece: (round) =>
      Buffer.concat(streams(round).flatMap((id) => [opens(id, UNARY), frame(TYPE.window, 0, id, uint32(0))])),
  },
  /** CVE-2019-9512. */
  ping_flood: { piece: () => many(frame(TYPE.ping, 0, 0, Buffer.alloc(8)), 200) },
  /** CVE-2019-9515. */
  settings_flood: { piece: () => many(settings(), 200) },
  /** CVE-2024-27316, CVE-2024-27983: a header block that never ends. */
  continuation_flood: {
    piece: (round) =>
      round === 0
        ? opens(1, UNARY, 0)
        : many(frame(TYPE.continuation, 0, 1, headerBlock({ filler: "x".repeat(200) })), PER_PIECE),
  },
  /** Requests whose headers are larger than the port takes. */
  header_flood: {
    piece: (round) => Buffer.concat(streams(round, 2).flatMap(oversized)),
  },
  /** CVE-2019-9517: answers are asked for and never taken. */
  slow_reader: {
    settings: settings(0),
    pauseMs: 100,
    piece: (round) =>
      round > 0
        ? Buffer.alloc(0)
        : Buffer.concat(
            streams(0).flatMap((id) => [
              opens(id, STREAM, FLAG.endHeaders),
              frame(TYPE.data, FLAG.endStream, id, QUESTION),
            ]),
          ),
  },
  /** Slowloris: bodies that come byte by byte. */
  slow_body: {
    pauseMs: 100,
    piece: (round) =>
      Buffer.concat(
        streams(0).flatMap((id) => [
          ...(round === 0 ? [opens(id, UNARY)] : []),
          frame(TYPE.data, 0, id, Buffer.from(" ")),
        ]),
      ),
  },
};
