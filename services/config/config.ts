import type { ConfigSource } from "#platform/config/source.ts";

export interface ConfigConfig {
  readonly firstTenantName: string;
  readonly resolutionTtlMs: number;
}

/** Reads the section `config`. */
export function readConfigConfig(source: ConfigSource): ConfigConfig {
  const config = source.section("config");
  return {
    firstTenantName: config.string("first_tenant_name", {
      default: "Default",
      pattern: /\S[^\p{Cc}]{0,254}/u,
      expected: "name of at most 255 characters",
      doc: "Name that the installation's own tenant gets at the first start.",
    }),
    resolutionTtlMs: config.duration("resolution_ttl", {
      default: "5m",
      min: "1s",
      max: "1h",
      doc: "How long a resolved agent is cached at most. Changes are seen at once all the same.",
    }),
  };
}
