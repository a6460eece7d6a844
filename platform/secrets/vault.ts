import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";
import type { DerivedKey, RootSecret } from "./root-secret.ts";

/** What a secret belongs to, such as a tenant and a name; the same list must be given to open it. Not secret, not stored. */
export type SecretOwner = readonly [string, ...string[]];

/** Keeps secrets at rest: encrypted, and bound to what they belong to, so that a row moved elsewhere does not open there. */
export interface Vault {
  seal(secret: string, owner: SecretOwner): Uint8Array;
  /** The secret. Throws {@link VaultError} for anything but bytes that were sealed for this owner under a known root secret. */
  open(sealed: Uint8Array, owner: SecretOwner): string;
  /** False: it was sealed under a previous root secret, and should be sealed again before that one is taken away. */
  isCurrent(sealed: Uint8Array): boolean;
  /**
   * A keyed digest (HMAC-SHA256, 32 bytes) of a request that holds a secret, to compare it with a repetition: a plain
   * digest would tell whoever reads it when a guess is right. It changes with the root secret.
   */
  digest(bytes: Uint8Array): Uint8Array;
}

/** A secret that cannot be opened. It says nothing of the secret or its bytes. */
export class VaultError extends Error {
  override readonly name = "VaultError";
}

const VERSION = 1;
const ID_BYTES = 4;
const SALT_BYTES = 16;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + ID_BYTES + SALT_BYTES;
/** Every secret has a key of its own (HMAC of a random salt), so the nonce may be the same in all of them. */
const NONCE = Buffer.alloc(12);

/**
 * A vault under the root secret: AES-256-GCM (NIST SP 800-38D), keys by HKDF for `purpose`, which no other vault may have.
 * Layout: version (1), key id (4), salt (16), ciphertext, tag (16). What a previous root secret sealed is still opened.
 */
export function createVault(root: RootSecret, purpose: string): Vault {
  const name = `vault ${purpose}`;
  const current = root.derive(name);
  const keys = new Map(root.deriveAll(name).map((key) => [key.id.toString("hex"), key]));
  const digestKey = root.derive(`${name} digest`).key;
  return {
    seal(secret, owner) {
      const head = Buffer.concat([Buffer.of(VERSION), current.id, randomBytes(SALT_BYTES)]);
      const cipher = createCipheriv("aes-256-gcm", ownKey(current, head), NONCE).setAAD(boundTo(head, owner));
      return Buffer.concat([head, cipher.update(secret, "utf8"), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed, owner) {
      if (sealed.length < HEAD_BYTES + TAG_BYTES || sealed[0] !== VERSION) throw new VaultError("not a sealed secret");
      const head = Buffer.from(sealed.subarray(0, HEAD_BYTES));
      const key = keys.get(keyId(sealed));
      if (key === undefined) throw new VaultError("sealed under a root secret that is not configured");
      const decipher = createDecipheriv("aes-256-gcm", ownKey(key, head), NONCE, { authTagLength: TAG_BYTES });
      decipher.setAAD(boundTo(head, owner)).setAuthTag(sealed.subarray(-TAG_BYTES));
      try {
        return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES, -TAG_BYTES)), decipher.final()]).toString();
      } catch {
        throw new VaultError("altered, or sealed for another owner");
      }
    },
    isCurrent: (sealed) => keyId(sealed) === current.id.toString("hex"),
    digest: (bytes) => createHmac("sha256", digestKey).update(bytes).digest(),
  };
}

function keyId(sealed: Uint8Array): string {
  return Buffer.from(sealed.subarray(1, 1 + ID_BYTES)).toString("hex");
}

function ownKey({ key }: DerivedKey, head: Buffer): Buffer {
  return createHmac("sha256", key).update(head).digest();
}

/** JSON of the list: parts cannot trade characters. */
function boundTo(head: Buffer, owner: SecretOwner): Buffer {
  return Buffer.concat([head, Buffer.from(JSON.stringify(owner))]);
}
