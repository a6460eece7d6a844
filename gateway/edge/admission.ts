import type { DescMethod } from "@bufbuild/protobuf";
import { Code, createContextKey } from "@connectrpc/connect";
import { Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import type { Arrival } from "#platform/rpc/call.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { authRule } from "#platform/rpc/method-rules.ts";
import { type Principal, requireAnyScope } from "#platform/rpc/principal.ts";
import { requestIdOf } from "#platform/rpc/request-id.ts";
import { credentialOf } from "./credential.ts";
import type { CredentialVerifier } from "./verifier.ts";

/** The client's address, which the listener knows and a Connect handler's context does not. */
export const clientAddressKey = createContextKey("", { description: "client address" });

/** Who calls in methods that need no credential. */
export const ANONYMOUS: Principal = { tenantId: "", subject: "anonymous", scopes: [], credentialId: "", actors: [] };

const MAX_USER_AGENT = 256;

/** What every face does with a request before its body is read. */
export interface Admission {
  identify(header: Headers, clientAddress: string): Pick<Arrival, "requestId" | "ip" | "userAgent">;
  /** Throws UNAUTHENTICATED, or UNAVAILABLE STREAM_DRAINING while the process stops. */
  authenticate(header: Headers, arrival: Pick<Arrival, "requestId" | "ip" | "userAgent">): Promise<Principal>;
  /** Both, and the method's declared scope; undefined for methods that need no credential. */
  admit(method: DescMethod, header: Headers, arrival: Arrival): Promise<Principal | undefined>;
}

export function createAdmission(options: {
  verifier: Pick<CredentialVerifier, "verify">;
  maxCredentialLength: number;
  draining(): boolean;
}): Admission {
  const admission: Admission = {
    identify: (header, clientAddress) => ({
      requestId: requestIdOf(header),
      ip: clientAddress,
      userAgent: (header.get("user-agent") ?? "").slice(0, MAX_USER_AGENT).toWellFormed(),
    }),
    async authenticate(header, arrival) {
      if (options.draining()) throw draining();
      return options.verifier.verify(credentialOf(header, options.maxCredentialLength), arrival);
    },
    async admit(method, header, arrival) {
      const { exposure, anyScope } = authRule(method);
      if (exposure === Exposure.ANONYMOUS) {
        if (options.draining()) throw draining();
        return undefined;
      }
      const principal = await admission.authenticate(header, arrival);
      requireAnyScope(principal, anyScope);
      return principal;
    },
  };
  return admission;
}

/** UNAVAILABLE: what callers of a stopping process are told; another one will serve them. */
export function draining(): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "STREAM_DRAINING",
    message: "The server is shutting down. Connect again.",
    retryAfterMs: 1000,
  });
}
