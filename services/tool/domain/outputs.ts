import type { Call } from "#platform/rpc/call.ts";
import { raise } from "#platform/rpc/errors.ts";
import { outputNotFound } from "../errors.ts";
import type { OutputKey, OutputStore } from "../store/output-store.ts";

/** A part of a kept output, beginning and ending with a whole character. */
export interface OutputPart {
  readonly text: string;
  /** UTF-8 bytes of all that is kept. */
  readonly totalBytes: number;
  /** Where the next part begins; 0 at the end. */
  readonly nextOffset: number;
}

const DEFAULT_BYTES = 16_384;
/** Bytes of the longest character; a part holds one at least, or reading would never advance. */
const CHARACTER = 4;

/**
 * Reads from the character that holds byte `offset`; behind the end there is no text. `maxBytes` 0 means 16 384, and
 * less than 4 means 4. NOT_FOUND for a call of another session, user or tenant, and for one whose output was not kept.
 */
export async function readOutput(
  store: OutputStore,
  call: Call,
  asked: OutputKey & { readonly offset: number; readonly maxBytes: number },
): Promise<OutputPart> {
  const most = Math.max(CHARACTER, asked.maxBytes || DEFAULT_BYTES);
  const from = Math.max(0, Math.min(asked.offset, 2 ** 31 - 1 - most - CHARACTER) - (CHARACTER - 1));
  const slice = (await store.read(call, asked, from, most + CHARACTER + CHARACTER)) ?? raise(outputNotFound());
  const { bytes, total } = slice;
  const start = boundary(bytes, Math.min(asked.offset - from, bytes.length));
  const end = start + most >= bytes.length ? bytes.length : boundary(bytes, start + most);
  const atEnd = from + end >= total;
  const text = Buffer.from(bytes.subarray(start, end)).toString();
  return { text, totalBytes: total, nextOffset: atEnd ? 0 : from + end };
}

/** The nearest position at or before `at` where a character begins. */
function boundary(bytes: Uint8Array, at: number): number {
  let position = at;
  while (position > 0 && ((bytes[position] ?? 0) & 0xc0) === 0x80) position--;
  return position;
}
