import type { ServiceImpl } from "@connectrpc/connect";
import { ApiKeyService } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import type { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { onceOf } from "#platform/postgres/answer-once.ts";
import { callOf } from "#platform/rpc/call.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { resolveTenant } from "#platform/tenancy/resolve-tenant.ts";
import type { ApiKeys } from "./domain/api-keys.ts";
import type { CredentialVerifier } from "./domain/verify-credential.ts";

export function apiKeyHandler(keys: ApiKeys, log: Log): ServiceImpl<typeof ApiKeyService> {
  const { method } = ApiKeyService;
  return {
    createApiKey: (request, context) =>
      keys.createOwn(callOf(context), request.apiKey, onceOf(method.createApiKey, request)),
    createTenantApiKey(request, context) {
      const call = callOf(context);
      const { tenantId } = resolveTenant(call, request.tenantId, log);
      return keys.createForTenant(call, tenantId, request.apiKey, onceOf(method.createTenantApiKey, request));
    },
    getApiKey: async (request, context) => ({ apiKey: await keys.get(callOf(context), request.apiKeyId) }),
    listApiKeys: (request, context) => keys.list(callOf(context), request),
    async revokeApiKey(request, context) {
      await keys.revoke(callOf(context), request.apiKeyId, onceOf(method.revokeApiKey, request));
      return {};
    },
  };
}

export function tokenHandler(verifier: CredentialVerifier): ServiceImpl<typeof TokenService> {
  return {
    verifyCredential: (request, context) => verifier.verify(request.credential, context.signal),
  };
}
