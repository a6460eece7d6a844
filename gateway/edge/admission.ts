import type { DescMethod } from "@bufbuild/protobuf";
import { Code, createContextKey } from "@connectrpc/connect";
import { Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import type { Arrival } from "#platform/rpc/call.ts";
import { toConnectError } from "#platform/rpc/connect-error.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { authRule } from "#platform/rpc/method-rules.ts";
import { type Principal, requireAnyScope } from "#platform/rpc/principal.ts";
import { requestIdOf } from "#platform/rpc/request-id.ts";
import type { AddressGuard } from "./address-guard.ts";
import type { Answer } from "./answer.ts";
import { credentialOf } from "./credential.ts";
import type { HeapGuard } from "./heap-guard.ts";
import type { OpenStreams } from "./open-streams.ts";
import type { RateLimits } from "./rate-limits.ts";
import type { StreamWatch } from "./stream-watch.ts";
import type { CredentialVerifier } from "./verifier.ts";

/** The client's address, which the listener knows and a Connect handler's context does not. */
export const clientAddressKey = createContextKey("", { description: "client address" });

/** The answer that the door will send, which a Connect handler's context does not know either. */
export const answerKey = createContextKey<Answer | undefined>(undefined, { description: "answer" });

/** Who calls in methods that need no credential. */
export const ANONYMOUS: Principal = { tenantId: "", subject: "anonymous", scopes: [], credentialId: "", actors: [] };

const MAX_USER_AGENT = 256;

/** What every face does with a request before its body is read. */
export interface Admission {
  identify(header: Headers, clientAddress: string): Pick<Arrival, "requestId" | "ip" | "userAgent">;
  /**
   * Throws UNAUTHENTICATED, RESOURCE_EXHAUSTED (RATE_LIMITED for the address, the tenant or its key, CONCURRENCY_LIMIT),
   * or UNAVAILABLE: STREAM_DRAINING while the process stops, DEPENDENCY_DOWN while its heap is nearly full.
   */
  authenticate(
    method: DescMethod,
    header: Headers,
    arrival: Pick<Arrival, "requestId" | "ip" | "userAgent">,
    answer: Answer,
  ): Promise<Principal>;
  /** Both, and the method's declared scope; undefined for methods that need no credential. */
  admit(method: DescMethod, header: Headers, arrival: Arrival, answer: Answer): Promise<Principal | undefined>;
}

export function createAdmission(options: {
  verifier: Pick<CredentialVerifier, "verify" | "remembers">;
  addresses: AddressGuard;
  rates: RateLimits;
  streams: OpenStreams;
  watch: Pick<StreamWatch, "watch">;
  heap: Pick<HeapGuard, "check">;
  maxCredentialLength: number;
  draining(): boolean;
}): Admission {
  const { addresses, verifier } = options;
  const open = (answer: Answer) => {
    if (options.draining()) throw draining();
    try {
      options.heap.check();
    } catch (error) {
      if (error instanceof AppError)
        answer.setHeader("retry-after", String(Math.ceil((error.retryAfterMs ?? 0) / 1000)));
      throw error;
    }
  };
  const verify = async (header: Headers, arrival: Pick<Arrival, "requestId" | "ip" | "userAgent">) => {
    const credential = credentialOf(header, options.maxCredentialLength);
    // Who shares an address with a guesser goes on with the credential that was good a moment ago.
    if (!verifier.remembers(credential)) addresses.check(arrival.ip);
    try {
      return await verifier.verify(credential, arrival);
    } catch (error) {
      if (error instanceof AppError && error.code === Code.Unauthenticated) addresses.failed(arrival.ip);
      throw error;
    }
  };
  const admission: Admission = {
    identify: (header, clientAddress) => ({
      requestId: requestIdOf(header),
      ip: clientAddress,
      userAgent: (header.get("user-agent") ?? "").slice(0, MAX_USER_AGENT).toWellFormed(),
    }),
    async authenticate(method, header, arrival, answer) {
      open(answer);
      const principal = await verify(header, arrival);
      await options.rates.enforce(method, principal, answer);
      if (!isStream(method)) return principal;
      options.streams.lease(principal.tenantId, answer);
      const { anyScope } = authRule(method);
      options.watch.watch({
        principal,
        recheck: async () =>
          requireAnyScope(await verifier.verify(credentialOf(header, options.maxCredentialLength), arrival), anyScope),
        end: (error) => answer.end(toConnectError(error, arrival.requestId)),
        onClose: answer.onClose,
      });
      return principal;
    },
    async admit(method, header, arrival, answer) {
      const { exposure, anyScope } = authRule(method);
      if (exposure === Exposure.ANONYMOUS) {
        open(answer);
        return undefined;
      }
      const principal = await admission.authenticate(method, header, arrival, answer);
      requireAnyScope(principal, anyScope);
      return principal;
    },
  };
  return admission;
}

function isStream({ methodKind }: DescMethod): boolean {
  return methodKind === "server_streaming" || methodKind === "bidi_streaming";
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
