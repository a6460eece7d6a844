import { fileURLToPath } from "node:url";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { type ApiKeySchema, ApiKeyService } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { TenantChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { servicePrincipal } from "#platform/rpc/principal.ts";
import { INTERNAL_VERIFY, PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import {
  callAs,
  principalOf,
  type ServiceUnderTestOptions,
  serviceUnderTest,
} from "#platform/testing/service-under-test.ts";
import { formatApiKey } from "../domain/api-key-format.ts";
import { newApiKey } from "../domain/new-api-key.ts";
import { auth } from "../index.ts";

type AskedKey = Omit<MessageInitShape<typeof ApiKeySchema>, "$typeName">;

/** A database with auth's tables. */
export function authDatabase(): Promise<TestDatabase> {
  const dir = fileURLToPath(new URL("../store/migrations/", import.meta.url));
  return testDatabase({ services: [{ schema: "auth", dir }] });
}

/** An administrator's key as an operator gives one. */
export function givenKey(): string {
  return formatApiKey(newApiKey());
}

export const platformAdmin = principalOf(FIRST_TENANT_ID, [...TENANT_SCOPES, PLATFORM_ADMIN]);

/** The gateway's own identity. */
export const gateway = servicePrincipal("gateway", [INTERNAL_VERIFY]);

/** Tells auth of a tenant as config does. Resolves when auth has taken note of it. */
export async function announceTenant(bus: Bus, tenantId: string, status = "active", epoch = 1n): Promise<void> {
  const data = toBinary(TenantChangedSchema, create(TenantChangedSchema, { tenantId, status, epoch }));
  await bus.publish({ subject: `agentmesh.tenant.v1.${tenantId}.changed`, id: newId("evt"), data });
}

/** auth, started, with an administrator's key that was given; `adminKey: undefined` leaves it to the data directory. */
export async function openAuth(
  options: Omit<ServiceUnderTestOptions, "values"> & { adminKey?: string | undefined; values?: object },
) {
  const { values = {}, adminKey = givenKey() } = options;
  const service = await serviceUnderTest(auth, {
    mode: "distributed",
    ...options,
    values: { auth: { admin_key: adminKey, tenant_wait: "1500ms", use_flush: "100ms" }, ...values },
  });
  const keys = service.client(ApiKeyService);
  const tokens = service.client(TokenService);
  return {
    ...service,
    [Symbol.asyncDispose]: service[Symbol.asyncDispose],
    service,
    keys,
    adminKey,
    verify: (credential: string) => tokens.verifyCredential({ credential }, callAs(gateway)),
    /** A tenant that auth knows, and a caller of it with these scopes. */
    async tenant(scopes: readonly string[] = TENANT_SCOPES, more: Partial<Principal> = {}) {
      const tenantId = newId("ten");
      await announceTenant(service.bus, tenantId);
      return principalOf(tenantId, scopes, more);
    },
    make: (caller: Principal, key: AskedKey = {}, requestId = "") => makeKey(keys, caller, key, requestId),
  };
}

export type OpenAuth = Awaited<ReturnType<typeof openAuth>>;

async function makeKey(keys: Client<typeof ApiKeyService>, caller: Principal, key: AskedKey, requestId: string) {
  const apiKey = { name: "a key", scopes: ["agents:run"], ...key };
  const created = await keys.createApiKey({ apiKey, requestId }, callAs(caller));
  return { keyId: created.apiKey?.apiKeyId ?? "", secret: created.secret, apiKey: created.apiKey };
}
