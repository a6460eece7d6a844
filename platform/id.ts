import { randomFillSync } from "node:crypto";
import { v7 } from "uuid";

/** Crockford's base32 alphabet in lower case: its ASCII order is its numeric order, so encoded ids sort as their bytes do. */
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";

/** A prefix names the kind of thing that an id stands for (`run`, `ses`, `ten`, …); prefixes are contract. */
const prefixPattern = /^[a-z]{2,8}$/;

/**
 * A new id `<prefix>_<26 characters>`: a UUIDv7 (RFC 9562 §5.7) in lower-case Crockford base32.
 * Ids made by one process sort in the order in which they were made, those of several by millisecond.
 */
export function newId(prefix: string): string {
  assertPrefix(prefix);
  return `${prefix}_${encode(nextBytes())}`;
}

/** Random bytes are drawn for so many ids at once: a draw for one costs ten times the rest of it. */
const POOLED_IDS = 256;
const pool = new Uint8Array(16 * POOLED_IDS);
let used = pool.length;
let msecs = Number.NEGATIVE_INFINITY;
let seq = 0;

/** What `v7` does without options, whose own draw they replace: of one millisecond the ids count up. */
function nextBytes(): Uint8Array {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  const random = pool.subarray(used, used + 16);
  used += 16;
  const now = Date.now();
  if (now > msecs) {
    msecs = now;
    seq = new DataView(random.buffer, random.byteOffset).getUint32(6) & 0x7fff_ffff;
  } else {
    seq = (seq + 1) | 0;
    if (seq === 0) msecs++;
  }
  return v7({ random, msecs, seq }, new Uint8Array(16));
}

/** The whole-string pattern of ids with this prefix. 26 characters hold 130 bits, so the first one is at most 7. */
export function idPattern(prefix: string): RegExp {
  assertPrefix(prefix);
  return new RegExp(`^${prefix}_[0-7][0-9a-hjkmnp-tv-z]{25}$`);
}

/** Whether `s` has the form of an id with this prefix; says nothing about whether such a thing exists. */
export function isId(prefix: string, s: unknown): s is string {
  if (typeof s !== "string") return false;
  const pattern = patterns.get(prefix) ?? idPattern(prefix);
  patterns.set(prefix, pattern);
  return pattern.test(s);
}

/** The encoding of 16 bytes that {@link newId} uses; exported so that its properties can be checked. */
export function encode(bytes: Uint8Array): string {
  if (bytes.length !== 16) throw new RangeError("an id is made of 16 bytes");
  let text = "";
  let pending = 0;
  let bits = 2; // 26 characters are 130 bits: two zero bits come before the 128
  for (const byte of bytes) {
    pending = (pending << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += alphabet[pending >>> bits];
      pending &= (1 << bits) - 1;
    }
  }
  return text;
}

const patterns = new Map<string, RegExp>();

function assertPrefix(prefix: string): void {
  if (!prefixPattern.test(prefix)) throw new RangeError(`not an id prefix: ${JSON.stringify(prefix)}`);
}
