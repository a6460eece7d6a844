import { createHash } from "node:crypto";
import { fromBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { TokenService, type VerifyCredentialResponse } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { ApiKeyRevokedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import type { Bus, BusMessage, Subscription } from "#platform/bus/bus.ts";
import { type Arrival, onward } from "#platform/rpc/call.ts";
import { AppError, dependencyDown, factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Links } from "#platform/rpc/links.ts";
import { type Principal, servicePrincipal } from "#platform/rpc/principal.ts";
import type { Reason } from "#platform/rpc/reasons.ts";
import { INTERNAL_VERIFY } from "#platform/rpc/scopes.ts";
import type { GatewayLimits } from "../limits.ts";
import { refused } from "./credential.ts";

const KEY_REVOKED = "agentmesh.auth.v1.*.key_revoked";
const TENANT_CHANGED = "agentmesh.tenant.v1.*.changed";

type VerifierLimits = Pick<GatewayLimits, "credentialTtlMs" | "refusalTtlMs" | "maxCredentials" | "verifyTimeoutMs">;

interface Verified {
  readonly principal: Principal;
  readonly until: number;
}

interface Refusal {
  readonly error: AppError;
  readonly until: number;
}

/**
 * Asks auth who a credential speaks for, and remembers the answer for a few seconds under the credential's SHA-256: the
 * credential itself is kept nowhere. A revoked key and every key of a changed tenant are forgotten when the bus says so;
 * without the bus the time to live is the bound.
 */
export class CredentialVerifier implements AsyncDisposable {
  readonly #tokens: Client<typeof TokenService>;
  readonly #limits: VerifierLimits;
  readonly #self = servicePrincipal("gateway", [INTERNAL_VERIFY]);
  readonly #verified = new Map<string, Verified>();
  readonly #refused = new Map<string, Refusal>();
  readonly #inFlight = new Map<string, Promise<Principal>>();
  readonly #subscriptions: Subscription[] = [];
  readonly #onRevoked: (which: (principal: Principal) => boolean) => void;
  /** Rises with every revocation: what was asked before must not be remembered after. */
  #revocations = 0;

  /** @param onRevoked told whose credentials may be good no longer, after they were forgotten */
  constructor(
    links: Pick<Links, "to">,
    limits: VerifierLimits,
    onRevoked: (which: (principal: Principal) => boolean) => void = () => {},
  ) {
    this.#tokens = links.to(TokenService);
    this.#limits = limits;
    this.#onRevoked = onRevoked;
  }

  /** Begins to listen for revocations. */
  async listen(bus: Pick<Bus, "listen">): Promise<void> {
    this.#subscriptions.push(
      await bus.listen(KEY_REVOKED, (message) => this.#forgetKey(message)),
      await bus.listen(TENANT_CHANGED, ({ subject }) => this.#forget(({ tenantId }) => tenantId === tenantOf(subject))),
    );
  }

  /** True when the credential needs no question: asking for it again tells a guesser nothing. */
  remembers(credential: string): boolean {
    return (this.#verified.get(keyOf(credential))?.until ?? 0) > performance.now();
  }

  /**
   * The principal of a credential. Throws UNAUTHENTICATED for one that is not valid, PERMISSION_DENIED TENANT_SUSPENDED,
   * UNAVAILABLE when auth cannot be asked. Callers with the same credential share one question.
   */
  async verify(credential: string, arrival: Pick<Arrival, "requestId" | "ip" | "userAgent">): Promise<Principal> {
    const key = keyOf(credential);
    const now = performance.now();
    const known = this.#verified.get(key);
    if (known !== undefined && known.until > now) return known.principal;
    const refusal = this.#refused.get(key);
    if (refusal !== undefined && refusal.until > now) throw refusal.error;
    let asking = this.#inFlight.get(key);
    if (asking === undefined) {
      asking = this.#ask(key, credential, arrival);
      this.#inFlight.set(key, asking);
    }
    try {
      return await asking;
    } finally {
      if (this.#inFlight.get(key) === asking) this.#inFlight.delete(key);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#subscriptions.map((subscription) => subscription.unsubscribe()));
  }

  async #ask(key: string, credential: string, arrival: Pick<Arrival, "requestId" | "ip" | "userAgent">) {
    const before = this.#revocations;
    // Not the first asker's signal: others may be waiting for the same answer.
    const signal = AbortSignal.timeout(this.#limits.verifyTimeoutMs);
    try {
      const { requestId, ip, userAgent } = arrival;
      const call = { principal: this.#self, signal, requestId, ip, userAgent };
      const answer = await this.#tokens.verifyCredential({ credential }, onward(call, this.#limits.verifyTimeoutMs));
      const principal = principalOf(answer);
      if (before === this.#revocations) this.#keep(key, principal, answer);
      return principal;
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === undefined) throw unasked(error);
      const until = performance.now() + this.#limits.refusalTtlMs;
      if (before === this.#revocations) remember(this.#refused, key, this.#limits, { error: refusal, until });
      throw refusal;
    }
  }

  #keep(key: string, principal: Principal, { expireTime }: VerifyCredentialResponse): void {
    const ttl = this.#limits.credentialTtlMs;
    const left = expireTime === undefined ? ttl : Math.min(ttl, timestampMs(expireTime) - Date.now());
    this.#refused.delete(key);
    if (left > 0) remember(this.#verified, key, this.#limits, { principal, until: performance.now() + left });
  }

  #forgetKey({ subject, data }: BusMessage): void {
    let keyId: string | undefined;
    try {
      keyId = fromBinary(ApiKeyRevokedSchema, data).apiKeyId;
    } catch {
      // Unreadable: then every key of the tenant is asked for again.
    }
    const tenant = tenantOf(subject);
    this.#forget(
      ({ tenantId, credentialId }) => tenantId === tenant && (keyId === undefined || credentialId === keyId),
    );
  }

  #forget(which: (principal: Principal) => boolean): void {
    this.#revocations += 1;
    // A tenant may have been restored: its refusals are as old as its principals. And whoever comes now must not join a
    // question that was asked before.
    this.#refused.clear();
    this.#inFlight.clear();
    for (const [key, { principal }] of this.#verified) if (which(principal)) this.#verified.delete(key);
    this.#onRevoked(which);
  }
}

function keyOf(credential: string): string {
  return createHash("sha256").update(credential).digest("base64");
}

/** A principal is one object for as long as it is remembered: hop tokens are cached by it. */
function principalOf(answer: VerifyCredentialResponse): Principal {
  return {
    tenantId: answer.tenantId,
    subject: answer.subject,
    scopes: answer.scopes,
    userId: answer.userId === "" ? undefined : answer.userId,
    credentialId: answer.credentialId,
    actors: [],
  };
}

/** What auth says against the credential itself; undefined when it could not be asked. Without the asker's request id. */
function refusalOf(error: unknown): AppError | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  switch (error.code) {
    case Code.Unauthenticated:
    case Code.PermissionDenied:
      return new AppError({
        code: error.code,
        reason: (reasonOf(error) ?? "CREDENTIAL_INVALID") as Reason,
        message: error.rawMessage,
        facts: { ...factsOf(error) },
      });
    case Code.InvalidArgument:
    case Code.NotFound:
      return refused("CREDENTIAL_INVALID", "The credential is not valid.");
    default:
      return undefined;
  }
}

/** The caller's own deadline has nothing to do with a verification that takes too long. */
function unasked(error: unknown): unknown {
  const late = error instanceof ConnectError && (error.code === Code.DeadlineExceeded || error.code === Code.Canceled);
  return late ? dependencyDown("auth", error) : error;
}

/** Bounded by dropping what was remembered first. */
function remember<T>(map: Map<string, T>, key: string, { maxCredentials }: VerifierLimits, value: T): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= maxCredentials) return;
  const [oldest] = map.keys();
  if (oldest !== undefined) map.delete(oldest);
}

/** `agentmesh.<kind>.v1.<tenant_id>.<…>`. */
function tenantOf(subject: string): string | undefined {
  return subject.split(".")[3];
}
