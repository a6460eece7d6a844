import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import type { RootSecret } from "../secrets/root-secret.ts";

/** The Ed25519 keys with which services sign and check each other's hop tokens. */
export interface ServiceKeys {
  /** The key with which one of this process's own services signs, and its id. */
  signing(service: string): { readonly kid: string; readonly key: KeyObject };
  /** The public key of an id and the service whose key it is, or undefined for an unknown id. */
  checking(kid: string): { readonly service: string; readonly key: KeyObject } | undefined;
}

// RFC 8410 §7: PKCS#8 header of an Ed25519 private key; the 32-byte seed follows.
const PKCS8_ED25519 = Buffer.from("302e020100300506032b657004220420", "hex");

/**
 * Derives one key per service from the root secret, so that replicas agree without talking. After a rotation of the
 * secret the previous keys still check.
 *
 * @param services names that may sign
 */
export function deriveServiceKeys(root: RootSecret, services: readonly string[]): ServiceKeys {
  const signing = new Map<string, { kid: string; key: KeyObject }>();
  const checking = new Map<string, { service: string; key: KeyObject }>();
  for (const service of services) {
    for (const { id, key: seed } of root.deriveAll(`hop token of ${service}`, 32)) {
      const key = createPrivateKey({ key: Buffer.concat([PKCS8_ED25519, seed]), format: "der", type: "pkcs8" });
      const kid = `${service}.${id.toString("hex")}`;
      checking.set(kid, { service, key: createPublicKey(key) });
      if (!signing.has(service)) signing.set(service, { kid, key });
    }
  }
  return {
    signing(service) {
      const own = signing.get(service);
      if (own === undefined) throw new Error(`no hop key for service "${service}"`);
      return own;
    },
    checking: (kid) => checking.get(kid),
  };
}
