import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { RootSecret } from "./root-secret.ts";

/** What a list stands at, or what chooses it: anything that JSON holds. */
export type Cursor = null | boolean | number | string | object;

export interface PageOf {
  tenant: string;
  /** Everything of the request that chooses and orders what is listed, the method too; not the page's size. */
  filter: Cursor;
}

/** Page tokens: a list's cursor, encrypted and bound to a tenant, a filter and 24 hours. A token grants nothing. */
export interface PageTokens {
  seal(page: PageOf & { cursor: Cursor }): string;
  /** The cursor; INVALID_ARGUMENT PAGE_TOKEN_INVALID for anything but an unexpired token of this tenant and filter. */
  open(token: string, page: PageOf): Cursor;
}

const version = 1;
const saltLength = 16;
const tagLength = 16;
const idLength = 4;
const headLength = 1 + idLength + saltLength;
const lifetimeMs = 24 * 3_600_000;
const maxLength = 8_192;
/** Each token has a key of its own (HMAC of a random salt), so the nonce may be the same in all of them. */
const nonce = Buffer.alloc(12);

/** Page tokens under a root secret. AES-256-GCM; base64url of: version, key id (4), salt (16), ciphertext, tag (16). */
export function createPageTokens(root: RootSecret, now: () => number = Date.now): PageTokens {
  const current = root.derive("page token");
  const keys = new Map(root.deriveAll("page token").map(({ id, key }) => [id.toString("hex"), key]));
  return {
    seal({ cursor, ...page }) {
      const head = Buffer.concat([Buffer.of(version), current.id, randomBytes(saltLength)]);
      const cipher = createCipheriv("aes-256-gcm", tokenKey(current.key, head), nonce).setAAD(boundTo(head, page));
      const text = JSON.stringify([now() + lifetimeMs, cursor]);
      return Buffer.concat([head, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]).toString(
        "base64url",
      );
    },
    open(token, page) {
      const bytes =
        token.length <= maxLength && /^[\w-]+$/.test(token) ? Buffer.from(token, "base64url") : Buffer.alloc(0);
      const key = keys.get(bytes.subarray(1, 1 + idLength).toString("hex"));
      if (bytes[0] !== version || bytes.length < headLength + tagLength || key === undefined) throw invalid();
      const head = bytes.subarray(0, headLength);
      const decipher = createDecipheriv("aes-256-gcm", tokenKey(key, head), nonce, { authTagLength: tagLength });
      decipher.setAAD(boundTo(head, page)).setAuthTag(bytes.subarray(-tagLength));
      let text: Buffer;
      try {
        text = Buffer.concat([decipher.update(bytes.subarray(headLength, -tagLength)), decipher.final()]);
      } catch {
        throw invalid();
      }
      const [expires, cursor] = JSON.parse(text.toString("utf8")) as [number, Cursor];
      if (now() > expires) throw invalid();
      return cursor;
    },
  };
}

function tokenKey(key: Buffer, head: Buffer): Buffer {
  return createHmac("sha256", key).update(head).digest();
}

function boundTo(head: Buffer, { tenant, filter }: PageOf): Buffer {
  const page = createHash("sha256")
    .update(canonical([tenant, filter]))
    .digest();
  return Buffer.concat([head, page]);
}

/** JSON with sorted keys, so that equal filters have equal text. Absent and undefined fields are the same. */
function canonical(value: Cursor): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  fields.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, field]) => `${JSON.stringify(name)}:${canonical(field)}`).join()}}`;
}

function invalid(): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "PAGE_TOKEN_INVALID",
    message: "page_token is not a token of this list with these filters, or has expired. Start again without it.",
    violations: [{ field: "page_token", description: "is not valid for this request" }],
  });
}
