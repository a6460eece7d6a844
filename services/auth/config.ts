import type { ConfigSource } from "#platform/config/source.ts";
import type { Secret } from "#platform/telemetry/secret.ts";
import { suggestion } from "./bootstrap-admin-key.ts";
import { parseApiKey } from "./domain/api-key-format.ts";

export interface AuthConfig {
  readonly adminKey: Secret<string> | undefined;
  readonly tenantWaitMs: number;
  readonly useFlushMs: number;
}

/** Reads the section `auth`. */
export function readAuthConfig(source: ConfigSource): AuthConfig {
  const adminKey = source.secret("auth.admin_key", {
    optional: true,
    expected: "API key of the form am_live_…",
    doc: "The administrator's API key of the first tenant; generated and kept in the data directory when embedded.",
  });
  if (adminKey !== undefined && parseApiKey(adminKey.reveal()) === undefined) {
    source.problem(
      "auth.admin_key",
      `expected an API key of the form am_live_…; the value is not shown. ${suggestion()}`,
    );
  }
  const auth = source.section("auth");
  return {
    adminKey,
    tenantWaitMs: auth.duration("tenant_wait", {
      default: "2s",
      min: "0s",
      max: "10s",
      doc: "How long the creation of a tenant's key waits to hear of a tenant that was just created.",
    }),
    useFlushMs: auth.duration("use_flush", {
      default: "30s",
      min: "100ms",
      max: "10m",
      doc: "How often last-use times of API keys are written.",
    }),
  };
}
