import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";

/** RFC 6750 §3: what a 401 tells the caller. */
export const CHALLENGE = 'Bearer realm="agentmesh"';

const BEARER = /^Bearer +([\x21-\x7e]+) *$/i;
const KEY = /^[\x21-\x7e]+$/;

/** The credential of a request, from `Authorization: Bearer …` or `X-API-Key`. Throws UNAUTHENTICATED and quotes nothing. */
export function credentialOf(header: Headers, maxLength: number): string {
  const authorization = header.get("authorization");
  const apiKey = header.get("x-api-key");
  if (authorization === null && apiKey === null) {
    throw refused(
      "CREDENTIAL_MISSING",
      'A credential is needed: send "Authorization: Bearer <api key>" or "X-API-Key: <api key>".',
    );
  }
  const bearer = authorization === null ? undefined : BEARER.exec(authorization)?.[1];
  if (authorization !== null && bearer === undefined) {
    throw refused("CREDENTIAL_INVALID", 'The Authorization header must have the form "Bearer <api key>".');
  }
  if (apiKey !== null && !KEY.test(apiKey)) {
    throw refused("CREDENTIAL_INVALID", "The X-API-Key header must hold one API key and nothing else.");
  }
  if (bearer !== undefined && apiKey !== null && bearer !== apiKey) {
    throw refused("CREDENTIAL_INVALID", "Authorization and X-API-Key hold different credentials; send one.");
  }
  const credential = bearer ?? apiKey ?? "";
  if (credential.length > maxLength) throw refused("CREDENTIAL_INVALID", "The credential is not valid.");
  return credential;
}

export function refused(reason: "CREDENTIAL_MISSING" | "CREDENTIAL_INVALID", message: string): AppError {
  return new AppError({ code: Code.Unauthenticated, reason, message });
}
