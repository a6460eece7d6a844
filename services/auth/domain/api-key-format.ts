import { crc32 } from "node:zlib";
import { isId } from "#platform/id.ts";

/** The parts of an API key `am_live_<26 characters of the key id>_<43 base62 characters of secret>_<6 of checksum>`. */
export interface ApiKeyParts {
  /** `key_…`. */
  readonly keyId: string;
  /** 256 random bits in base62. */
  readonly secret: string;
}

const PREFIX = "am_live";
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET_BYTES = 32;
/** 62^43 > 2^256. */
const SECRET_LENGTH = 43;
/** 62^6 > 2^32. */
const CHECKSUM_LENGTH = 6;
const SECRET = new RegExp(`^[0-9A-Za-z]{${SECRET_LENGTH}}$`);

/** Characters of the key id in `secret_prefix`: ten of time and enough of chance to tell keys apart. */
const SHOWN_ID_LENGTH = 16;

/** The key as its owner holds it. */
export function formatApiKey({ keyId, secret }: ApiKeyParts): string {
  const body = `${PREFIX}_${keyId.slice("key_".length)}_${secret}`;
  return `${body}_${checksum(body)}`;
}

/**
 * The parts of a key, or undefined for anything that is none. Read from the right, so that the prefix may hold
 * underscores; the checksum turns away typing errors and junk before the database is asked.
 */
export function parseApiKey(text: string): ApiKeyParts | undefined {
  const [body, given] = splitLast(text);
  const [start, secret] = splitLast(body);
  const [prefix, id] = splitLast(start);
  const keyId = `key_${id}`;
  if (prefix !== PREFIX || !isId("key", keyId) || !SECRET.test(secret) || given !== checksum(body)) return undefined;
  return { keyId, secret };
}

/** The text of a secret of 32 random bytes. */
export function encodeSecret(bytes: Uint8Array): string {
  if (bytes.length !== SECRET_BYTES) throw new RangeError(`a secret is made of ${SECRET_BYTES} bytes`);
  return base62(BigInt(`0x${Buffer.from(bytes).toString("hex")}`), SECRET_LENGTH);
}

/** What may be shown of a key after its creation. */
export function shownPrefix(keyId: string): string {
  return `${PREFIX}_${keyId.slice("key_".length, "key_".length + SHOWN_ID_LENGTH)}`;
}

function checksum(body: string): string {
  return base62(BigInt(crc32(body)), CHECKSUM_LENGTH);
}

function base62(value: bigint, length: number): string {
  let rest = value;
  let text = "";
  while (text.length < length) {
    text = ALPHABET.charAt(Number(rest % 62n)) + text;
    rest /= 62n;
  }
  return text;
}

function splitLast(text: string): [before: string, after: string] {
  const at = text.lastIndexOf("_");
  return at < 0 ? ["", text] : [text.slice(0, at), text.slice(at + 1)];
}
