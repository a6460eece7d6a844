import { fromBinary } from "@bufbuild/protobuf";
import { TenantChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import type { Bus, Subscription } from "#platform/bus/bus.ts";
import { isId } from "#platform/id.ts";
import { TENANT_STATUSES, type TenantStateStore } from "./store/tenant-state-store.ts";

/**
 * Keeps auth's states of tenants as config's events tell them. One process handles each event; what cannot be written is
 * delivered again, and what cannot be read ends as poison in the log.
 */
export function followTenants(bus: Bus, tenants: TenantStateStore): Promise<Subscription> {
  return bus.consume({
    durable: "auth-tenants",
    subjects: ["agentmesh.tenant.v1.*.changed"],
    async onMessage({ subject, data }, signal) {
      const { tenantId, status, epoch } = fromBinary(TenantChangedSchema, data);
      const known = TENANT_STATUSES.find((one) => one === status);
      if (!isId("ten", tenantId) || !subject.includes(`.${tenantId}.`) || known === undefined) {
        throw new Error("an event on a tenant names no tenant, another one than its subject, or no known status");
      }
      await tenants.record({ tenantId, status: known, epoch }, signal);
    },
  });
}
