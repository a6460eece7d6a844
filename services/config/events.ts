import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";

export type ChangeKind = "created" | "updated" | "deleted";

/** Business events of config: counters and log lines. None of them throws. */
export interface ConfigEvents {
  tenantChanged(kind: ChangeKind, tenantId: string): void;
  agentChanged(kind: ChangeKind, tenantId: string, agentId: string): void;
  profileChanged(kind: ChangeKind, tenantId: string): void;
  credentialChanged(kind: ChangeKind, tenantId: string): void;
  /** A stored credential does not open: its root secret is gone, or its row was altered. */
  credentialUnreadable(tenantId: string, provider: string): void;
  resolved(how: "loaded" | "shared"): void;
}

export function createConfigEvents(log: Log, metrics: Metrics): ConfigEvents {
  const changes = metrics.counter(
    "config_changes_total",
    "Changes of tenants, agents, user profiles and model credentials",
    ["resource", "kind"],
  );
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
    profileChanged(kind, tenantId) {
      changes.inc({ resource: "user_profile", kind });
      log.debug({ event: "config.user_profile", outcome: kind, tenant_id: tenantId }, `user profile ${kind}`);
    },
    credentialChanged(kind, tenantId) {
      changes.inc({ resource: "model_credential", kind });
      log.info({ event: "config.model_credential", outcome: kind, tenant_id: tenantId }, `model credential ${kind}`);
    },
    credentialUnreadable(tenantId, provider) {
      log.error(
        { event: "config.model_credential", outcome: "unreadable", alert: true, tenant_id: tenantId, provider },
        "a model credential cannot be opened",
      );
    },
    resolved(how) {
      resolutions.inc({ how });
    },
  };
}
