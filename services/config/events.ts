import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";

export type ChangeKind = "created" | "updated" | "deleted";

/** Business events of config: counters and log lines. None of them throws. */
export interface ConfigEvents {
  tenantChanged(kind: ChangeKind, tenantId: string): void;
  agentChanged(kind: ChangeKind, tenantId: string, agentId: string): void;
  resolved(how: "loaded" | "shared"): void;
}

export function createConfigEvents(log: Log, metrics: Metrics): ConfigEvents {
  const changes = metrics.counter("config_changes_total", "Changes of tenants and agents", ["resource", "kind"]);
  const resolutions = metrics.counter("config_resolutions_total", "Agents resolved, loaded or found in a cache", [
    "how",
  ]);
  return {
    tenantChanged(kind, tenantId) {
      changes.inc({ resource: "tenant", kind });
      log.info({ event: "config.tenant", outcome: kind, tenant_id: tenantId }, `tenant ${kind}`);
    },
    agentChanged(kind, tenantId, agentId) {
      changes.inc({ resource: "agent", kind });
      log.info({ event: "config.agent", outcome: kind, tenant_id: tenantId, agent_id: agentId }, `agent ${kind}`);
    },
    resolved(how) {
      resolutions.inc({ how });
    },
  };
}
