import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";
import type { Envelope } from "#platform/postgres/answer-once.ts";
import type { RootSecret } from "#platform/secrets/root-secret.ts";

const ID_BYTES = 4;
const SALT_BYTES = 16;
const TAG_BYTES = 16;
const HEAD_BYTES = ID_BYTES + SALT_BYTES;
/** Every envelope has a key of its own (HMAC of a random salt), so the nonce may be the same in all of them. */
const NONCE = Buffer.alloc(12);

/**
 * Keeps the answers to key creations, which hold a secret, for as long as a request id is remembered: AES-256-GCM under
 * the root secret, bound to who asked what. Layout: key id (4), salt (16), ciphertext, tag (16).
 */
export function createResponseEnvelope(root: RootSecret): Envelope {
  const current = root.derive("auth response");
  const keys = new Map(root.deriveAll("auth response").map(({ id, key }) => [id.toString("hex"), key]));
  return {
    seal(plain, context) {
      const head = Buffer.concat([current.id, randomBytes(SALT_BYTES)]);
      const cipher = createCipheriv("aes-256-gcm", ownKey(current.key, head), NONCE).setAAD(aad(head, context));
      return Buffer.concat([head, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, context) {
      const head = Buffer.from(sealed.subarray(0, HEAD_BYTES));
      const key = keys.get(head.toString("hex", 0, ID_BYTES));
      if (key === undefined) throw new Error("a stored response was sealed under a root secret that is not configured");
      const decipher = createDecipheriv("aes-256-gcm", ownKey(key, head), NONCE, { authTagLength: TAG_BYTES });
      decipher.setAAD(aad(head, context)).setAuthTag(sealed.subarray(-TAG_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES, -TAG_BYTES)), decipher.final()]);
    },
  };
}

function ownKey(key: Buffer, head: Buffer): Buffer {
  return createHmac("sha256", key).update(head).digest();
}

function aad(head: Buffer, context: string): Buffer {
  return Buffer.concat([head, Buffer.from(context)]);
}
