import { createHmac, timingSafeEqual } from "node:crypto";
import type { RootSecret } from "#platform/secrets/root-secret.ts";
import type { ApiKeyParts } from "./api-key-format.ts";

/** What is stored in place of a key's secret. */
export interface KeyDigest {
  /** Which root secret the pepper comes from, in hex. */
  readonly pepperId: string;
  /** 32 bytes. */
  readonly digest: Uint8Array;
}

/** Makes and checks digests of keys: HMAC-SHA-256 under a pepper that the database does not have. */
export interface KeyDigester {
  digest(key: ApiKeyParts): KeyDigest;
  /**
   * Whether the key is the one that `stored` was made of. Takes the same time whatever the answer, and when nothing is
   * stored, so that timing tells neither how much of a secret is right nor which key ids exist.
   */
  matches(key: ApiKeyParts, stored: KeyDigest | undefined): boolean;
  /** Whether the digest was made under the current pepper. */
  isCurrent(stored: KeyDigest): boolean;
}

/** A fast hash is right here: the secrets have 256 random bits, so there is nothing to guess. */
export function createKeyDigester(root: RootSecret): KeyDigester {
  const current = root.derive("api key pepper");
  const currentId = current.id.toString("hex");
  const peppers = new Map(root.deriveAll("api key pepper").map(({ id, key }) => [id.toString("hex"), key]));
  const nothing = { pepperId: currentId, digest: new Uint8Array(32) };
  return {
    digest: (key) => ({ pepperId: currentId, digest: hmac(current.key, key) }),
    matches(key, stored) {
      const { pepperId, digest } = stored ?? nothing;
      const pepper = peppers.get(pepperId);
      const equal = timingSafeEqual(hmac(pepper ?? current.key, key), digest);
      return equal && stored !== undefined && pepper !== undefined;
    },
    isCurrent: ({ pepperId }) => pepperId === currentId,
  };
}

/** The key id is hashed along, so that a digest is worth nothing in another key's row. */
function hmac(pepper: Buffer, { keyId, secret }: ApiKeyParts): Buffer {
  return createHmac("sha256", pepper).update(`${keyId}.${secret}`).digest();
}
