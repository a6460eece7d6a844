import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { readConfigConfig } from "./config.ts";

const read = (env: Record<string, string>) => loadConfig(readConfigConfig, { env, dir: false });

describe("config's configuration", () => {
  test("has defaults for everything", () => {
    assert.deepEqual(read({}), { firstTenantName: "Default", resolutionTtlMs: 300_000 });
  });

  test("takes the first tenant's name and the cache's time from the environment", () => {
    const env = { AGENTMESH_CONFIG__FIRST_TENANT_NAME: "Käthe & Co", AGENTMESH_CONFIG__RESOLUTION_TTL: "10s" };
    assert.deepEqual(read(env), { firstTenantName: "Käthe & Co", resolutionTtlMs: 10_000 });
  });

  test("refuses a name that no tenant could have", () => {
    for (const name of [" ", "a\nb", "x".repeat(256)]) {
      assert.throws(() => read({ AGENTMESH_CONFIG__FIRST_TENANT_NAME: name }), /config\.first_tenant_name/);
    }
  });
});
