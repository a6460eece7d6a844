import { create } from "@bufbuild/protobuf";
import { TenantSchema } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Call } from "#platform/rpc/call.ts";
import { servicePrincipal } from "#platform/rpc/principal.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { ACTIVE, ENTERPRISE } from "./domain/tenant-rules.ts";
import type { ConfigEvents } from "./events.ts";
import type { ConfigStore } from "./store/config-store.ts";

/**
 * Makes sure that the installation's own tenant and its default agent exist; what is there stays as it is. It gets the
 * enterprise tier, for it is the operator's. Of replicas that start together one adds it and the others find it.
 */
export async function bootstrapFirstTenant(
  store: ConfigStore,
  events: ConfigEvents,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const tenant = create(TenantSchema, { name, tier: ENTERPRISE, status: ACTIVE });
  await store.write(bootCall(signal), FIRST_TENANT_ID, async (unit) => {
    if (await unit.addTenant(tenant)) {
      await unit.audit("tenant.created", FIRST_TENANT_ID, { name });
      events.tenantChanged("created", FIRST_TENANT_ID);
    }
    await unit.tenant("lock");
    if ((await unit.defaultAgent()) === undefined) await unit.addDefaultAgent();
  });
}

/** On whose behalf the bootstrap writes audit rows. */
function bootCall(signal: AbortSignal): Call {
  const principal = { ...servicePrincipal("config", []), tenantId: FIRST_TENANT_ID };
  return { principal, signal, requestId: newId("req"), ip: "", userAgent: "" };
}
