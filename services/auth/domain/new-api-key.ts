import { randomBytes } from "node:crypto";
import { newId } from "#platform/id.ts";
import { type ApiKeyParts, encodeSecret } from "./api-key-format.ts";

/** A key that nobody else has. */
export function newApiKey(): ApiKeyParts {
  return { keyId: newId("key"), secret: encodeSecret(randomBytes(32)) };
}
