import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Exchange } from "../exchange.ts";
import type { Face } from "../faces/face.ts";

const compress = promisify(gzip);

/**
 * A file that stays the same for as long as the process lives: with an ETag, so that who has it asks whether it is
 * current and gets 304 (RFC 9110 §13.1.2), and compressed for who takes gzip.
 *
 * @param bytes asked for once, at the first request
 */
export function staticFile(
  bytes: () => Uint8Array,
  contentType: string,
  more: Readonly<Record<string, string>> = {},
): Face {
  let file: Promise<{ plain: Uint8Array; packed: Uint8Array; hash: string }> | undefined;
  const prepare = async () => {
    const plain = bytes();
    const hash = createHash("sha256").update(plain).digest("base64url").slice(0, 22);
    return { plain, packed: await compress(plain), hash };
  };
  return async (exchange) => {
    file ??= prepare();
    const { plain, packed, hash } = await file;
    const takesGzip = acceptsGzip(exchange.header.get("accept-encoding") ?? "");
    // Two encodings are two representations, and a strong etag names one.
    const etag = takesGzip ? `"${hash}-gzip"` : `"${hash}"`;
    const headers = { etag, "cache-control": "no-cache", vary: varyOf(exchange), ...more };
    if (names(exchange.header.get("if-none-match") ?? "", etag))
      return { status: 304, body: new Uint8Array(), headers };
    const body = takesGzip ? packed : plain;
    return {
      status: 200,
      body,
      headers: {
        ...headers,
        "content-type": contentType,
        "content-length": String(body.length),
        ...(takesGzip ? { "content-encoding": "gzip" } : {}),
      },
    };
  };
}

/** RFC 9110 §12.5.3. */
function acceptsGzip(accepted: string): boolean {
  return accepted.split(",").some((one) => /^\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*$).*)?$/i.test(one));
}

function names(condition: string, etag: string): boolean {
  return condition.split(",").some((one) => one.trim() === "*" || one.trim().replace(/^W\//, "") === etag);
}

/** CORS may have said something already. */
function varyOf({ response }: Exchange): string {
  const before = response.getHeader("vary");
  return before === undefined ? "Accept-Encoding" : `${before}, Accept-Encoding`;
}
