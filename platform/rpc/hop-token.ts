import { Code } from "@connectrpc/connect";
import { decodeProtectedHeader, jwtVerify, SignJWT } from "jose";
import { AppError } from "./errors.ts";
import type { Principal } from "./principal.ts";
import type { ServiceKeys } from "./service-keys.ts";

const TYPE = "agentmesh-hop+jwt";
const LIFETIME_S = 60;
/** A cached token is used again while at least this much of its life is left, so that it never expires in flight. */
const RENEW_BEFORE_S = 20;
const CLOCK_SKEW_S = 5;
const MAX_TOKEN_BYTES = 8192;
const MAX_VERIFIED = 10_000;

interface Claims {
  ten: string;
  scp: readonly string[];
  usr?: string;
  crd: string;
  act: readonly string[];
}

/** Signs the principal of a call for one callee. */
export interface HopSigner {
  /** A token for `audience`, valid for 20 to 60 seconds; cached per principal and audience. */
  sign(principal: Principal, audience: string): Promise<string>;
}

/** Checks hop tokens that are meant for one service. */
export interface HopVerifier {
  /** The principal inside. Throws UNAUTHENTICATED with CREDENTIAL_INVALID, TOKEN_EXPIRED or TOKEN_AUDIENCE. */
  verify(token: string): Promise<Principal>;
}

/**
 * Hop tokens are JWTs (RFC 7519, EdDSA by RFC 8037): issuer = the calling service, audience = the called one, at most
 * 60 s, typ fixed so that no other kind of token passes (RFC 8725 §3.11).
 */
export function createHopSigner(issuer: string, keys: ServiceKeys): HopSigner {
  const { kid, key } = keys.signing(issuer);
  // Principals are made once per verified credential or stored run, so identity is a good and leak-free cache key.
  const cache = new WeakMap<Principal, Map<string, { token: Promise<string>; renewAt: number }>>();
  return {
    sign(principal, audience) {
      const now = Date.now() / 1000;
      let byAudience = cache.get(principal);
      if (byAudience === undefined) {
        byAudience = new Map();
        cache.set(principal, byAudience);
      }
      const cached = byAudience.get(audience);
      if (cached !== undefined && cached.renewAt > now) return cached.token;
      const claims: Claims = {
        ten: principal.tenantId,
        scp: principal.scopes,
        crd: principal.credentialId,
        act: [...principal.actors, issuer],
        ...(principal.userId === undefined ? {} : { usr: principal.userId }),
      };
      const issuedAt = Math.floor(now);
      const token = new SignJWT({ ...claims })
        .setProtectedHeader({ alg: "EdDSA", typ: TYPE, kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(principal.subject)
        .setIssuedAt(issuedAt)
        .setExpirationTime(issuedAt + LIFETIME_S)
        .sign(key);
      byAudience.set(audience, { token, renewAt: issuedAt + LIFETIME_S - RENEW_BEFORE_S });
      return token;
    },
  };
}

/** @param audiences names of the services that this process serves */
export function createHopVerifier(audiences: readonly string[], keys: ServiceKeys): HopVerifier {
  const verified = new Map<string, { principal: Principal; expiresAt: number }>();
  // Calls that come together with a new token share one check: it costs more than all else that a door does.
  const checking = new Map<string, ReturnType<typeof verifyFresh>>();
  const check = async (token: string) => {
    try {
      const fresh = await verifyFresh(token, audiences, keys);
      if (verified.size >= MAX_VERIFIED) verified.clear();
      verified.set(token, fresh);
      return fresh;
    } finally {
      checking.delete(token);
    }
  };
  return {
    async verify(token) {
      const known = verified.get(token);
      if (known !== undefined && known.expiresAt > Date.now() / 1000) return known.principal;
      let fresh = checking.get(token);
      if (fresh === undefined) {
        fresh = check(token);
        checking.set(token, fresh);
      }
      return (await fresh).principal;
    },
  };
}

async function verifyFresh(token: string, audiences: readonly string[], keys: ServiceKeys) {
  if (token.length > MAX_TOKEN_BYTES) throw invalid("CREDENTIAL_INVALID");
  try {
    // The payload counts only after the signature was checked with the key that the header names.
    const signer = keys.checking(decodeProtectedHeader(token).kid ?? "");
    if (signer === undefined) throw invalid("CREDENTIAL_INVALID");
    const { payload } = await jwtVerify<Claims>(token, signer.key, {
      algorithms: ["EdDSA"],
      typ: TYPE,
      // A service may speak in its own name only.
      issuer: signer.service,
      audience: [...audiences],
      clockTolerance: CLOCK_SKEW_S,
      maxTokenAge: LIFETIME_S,
      requiredClaims: ["exp", "iat", "sub"],
    });
    if (typeof payload.sub !== "string" || !Array.isArray(payload.scp)) throw invalid("CREDENTIAL_INVALID");
    const principal: Principal = {
      tenantId: payload.ten,
      subject: payload.sub,
      scopes: payload.scp,
      userId: payload.usr,
      credentialId: payload.crd,
      actors: payload.act,
    };
    return { principal, expiresAt: Math.min(payload.exp ?? 0, (payload.iat ?? 0) + LIFETIME_S) };
  } catch (error) {
    if (error instanceof AppError) throw error;
    const code = (error as { code?: string }).code;
    if (code === "ERR_JWT_EXPIRED") throw invalid("TOKEN_EXPIRED", error);
    if (code === "ERR_JWT_CLAIM_VALIDATION_FAILED" && (error as { claim?: string }).claim === "aud") {
      throw invalid("TOKEN_AUDIENCE", error);
    }
    throw invalid("CREDENTIAL_INVALID", error);
  }
}

function invalid(reason: "CREDENTIAL_INVALID" | "TOKEN_EXPIRED" | "TOKEN_AUDIENCE", cause?: unknown): AppError {
  const messages = {
    CREDENTIAL_INVALID: "The credential is not valid.",
    TOKEN_EXPIRED: "The token has expired.",
    TOKEN_AUDIENCE: "The token was issued for another service.",
  };
  return new AppError({ code: Code.Unauthenticated, reason, message: messages[reason], cause });
}
