import type { RestClient } from "#tests/e2e/rest-client.ts";

/** Makes a tenant of a tier and a key for it; returns the key. */
export async function newTenant(admin: RestClient, name: string, tier: "FREE" | "STARTER"): Promise<string> {
  const made = await admin.call("POST", "/api/v1/tenants", { name, tier: `TENANT_TIER_${tier}` });
  const key = await admin.call("POST", `/api/v1/tenants/${made.body.tenant_id}/api-keys`, { name: "machine" });
  if (key.status !== 200) throw new Error(JSON.stringify(key.body));
  return String(key.body.secret);
}
