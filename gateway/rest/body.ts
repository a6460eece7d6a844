import type { NodeRequest } from "../exchange.ts";
import type { GatewayLimits } from "../limits.ts";
import { bodyMalformed, bodyTooSlow, payloadTooLarge, unsupportedMediaType } from "./errors.ts";
import { MalformedJson, parseJsonBytes } from "./json/parse.ts";
import type { Json } from "./json/value.ts";

type BodyLimits = Pick<GatewayLimits, "maxBodyBytes" | "maxJsonDepth" | "maxNumberLength" | "bodyTimeoutMs">;

/**
 * Reads the JSON body of a request; undefined when it is empty. Throws PAYLOAD_TOO_LARGE before reading when the length
 * is announced, 415, BODY_MALFORMED. `expected` is false where a body has no meaning: then only an empty one passes.
 */
export async function readJsonBody(
  request: NodeRequest,
  header: Headers,
  limits: BodyLimits,
  expected: boolean,
): Promise<Json | undefined> {
  const announced = announcedLength(header);
  if (announced > limits.maxBodyBytes) throw payloadTooLarge(limits.maxBodyBytes);
  if (expected && announced !== 0) assertJson(header);
  const bytes = await readBytes(request, expected ? limits.maxBodyBytes : 0, limits);
  if (bytes.length === 0) return undefined;
  if (!expected) throw bodyMalformed("this method takes no body");
  try {
    return parseJsonBytes(bytes, { maxDepth: limits.maxJsonDepth, maxNumberLength: limits.maxNumberLength });
  } catch (error) {
    throw error instanceof MalformedJson ? bodyMalformed(error.message) : error;
  }
}

/** What Content-Length says; 1 when a body of unknown length may come. */
function announcedLength(header: Headers): number {
  const length = header.get("content-length");
  if (length !== null) return Number(length);
  return header.has("transfer-encoding") || header.has("content-type") ? 1 : 0;
}

const JSON_TYPE = /^\s*application\/json\s*(?:;\s*charset\s*=\s*"?utf-8"?\s*)?;?\s*$/i;

/** RFC 8259 §11 defines no charset; `charset=utf-8` is common and harmless. */
function assertJson(header: Headers): void {
  const type = header.get("content-type");
  if (type !== null && !JSON_TYPE.test(type)) throw unsupportedMediaType("The body has another type.");
  const encoding = header.get("content-encoding");
  if (encoding !== null && encoding.toLowerCase() !== "identity") {
    throw unsupportedMediaType("The body is compressed, which this server does not take.");
  }
}

function readBytes(request: NodeRequest, maxBytes: number, limits: BodyLimits): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  let length = 0;
  const onData = (chunk: Buffer) => {
    length += chunk.length;
    chunks.push(chunk);
    if (length > maxBytes)
      reject(maxBytes === 0 ? bodyMalformed("this method takes no body") : payloadTooLarge(maxBytes));
  };
  const onEnd = () => resolve(Buffer.concat(chunks, length));
  const onGone = () => reject(bodyMalformed("it ended before it was complete"));
  const timer = setTimeout(() => reject(bodyTooSlow()), limits.bodyTimeoutMs);
  request.on("data", onData);
  request.once("end", onEnd);
  request.once("aborted", onGone);
  request.once("close", onGone);
  request.once("error", onGone);
  if (request.destroyed) onGone();
  return promise.finally(() => {
    clearTimeout(timer);
    request.off("data", onData);
    request.off("end", onEnd);
    request.off("aborted", onGone);
    request.off("close", onGone);
    request.off("error", onGone);
    request.on("error", () => {});
    request.pause();
  });
}
