import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { VerifyCredentialResponseSchema } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { credentialInvalid, tenantSuspended } from "../errors.ts";
import type { AuthEvents, VerificationOutcome } from "../events.ts";
import type { CredentialStore, KeyStanding } from "../store/credential-store.ts";
import { parseApiKey } from "./api-key-format.ts";
import type { KeyDigester } from "./key-digest.ts";
import type { UseLog } from "./use-log.ts";

export interface VerifierDeps {
  readonly store: CredentialStore;
  readonly digester: KeyDigester;
  readonly uses: UseLog;
  readonly events: AuthEvents;
}

/** Who a credential speaks for. Nothing about a key is read as its tenant before its secret has been proved. */
export class CredentialVerifier {
  readonly #deps: VerifierDeps;

  constructor(deps: VerifierDeps) {
    this.#deps = deps;
  }

  /**
   * UNAUTHENTICATED CREDENTIAL_INVALID, always the same, for a credential that does not work; PERMISSION_DENIED
   * TENANT_SUSPENDED for one that would.
   */
  async verify(
    credential: string,
    signal: AbortSignal,
  ): Promise<MessageInitShape<typeof VerifyCredentialResponseSchema>> {
    const { store, digester, uses, events } = this.#deps;
    const key = parseApiKey(credential);
    if (key === undefined) return refuse(events, "malformed");
    const found = await store.lookUp(key.keyId, signal);
    if (!digester.matches(key, found)) return refuse(events, found === undefined ? "unknown" : "wrong_secret", found);
    if (found === undefined) return refuse(events, "unknown");
    const standing = await store.standing(found, signal);
    const outcome = judge(standing, new Date());
    if (standing === undefined || outcome !== "accepted") return refuse(events, outcome, found);
    if (!digester.isCurrent(found)) await store.renewDigest(found, digester.digest(key), signal);
    uses.record(found);
    events.verified("accepted", found);
    return {
      tenantId: found.tenantId,
      subject: found.keyId,
      scopes: [...standing.scopes],
      userId: standing.userId,
      credentialId: found.keyId,
      ...(standing.expiresAt === undefined ? {} : { expireTime: timestampFromDate(standing.expiresAt) }),
    };
  }
}

/** The key's own state comes before its tenant's: a revoked key of a suspended tenant learns nothing. */
function judge(standing: KeyStanding | undefined, now: Date): VerificationOutcome {
  if (standing === undefined) return "unknown";
  if (standing.revoked) return "revoked";
  if (standing.expiresAt !== undefined && standing.expiresAt <= now) return "expired";
  if (standing.tenantStatus === "suspended") return "tenant_suspended";
  return standing.tenantStatus === "active" ? "accepted" : "tenant_gone";
}

function refuse(events: AuthEvents, outcome: VerificationOutcome, key?: { tenantId: string; keyId: string }): never {
  events.verified(outcome, key);
  throw outcome === "tenant_suspended" ? tenantSuspended() : credentialInvalid();
}
