/** Every scope that a tenant's credential can hold. */
export const TENANT_SCOPES = [
  "agents:read",
  "agents:write",
  "agents:run",
  "sessions:read",
  "sessions:write",
  "sessions:read_all",
  "runs:read",
  "runs:write",
  "approvals:read",
  "approvals:resolve",
  "tools:read",
  "tools:write",
  "tools:invoke",
  "kb:read",
  "kb:write",
  "prompts:read",
  "prompts:write",
  "usage:read",
  "webhooks:read",
  "webhooks:write",
  "keys:read",
  "keys:write",
  "audit:read",
  "oauth:write",
  "members:read",
  "members:write",
  "tenant:read",
  "tenant:write",
  "connections:read",
  "connections:write",
] as const;

/** The scope of those who run the installation; it crosses tenants, and every use of it is audited. */
export const PLATFORM_ADMIN = "platform:admin";

/** The scope that only a service's own identity holds, for calls that precede any principal. */
export const INTERNAL_VERIFY = "internal:verify";

const KNOWN: ReadonlySet<string> = new Set<string>([...TENANT_SCOPES, PLATFORM_ADMIN]);

/** True for a scope that a credential may be given. */
export function isScope(scope: string): boolean {
  return KNOWN.has(scope);
}

/** True when `held` grants `wanted`: the scope itself, or `x:write` for `x:read`. Nothing else implies anything. */
export function grants(held: readonly string[], wanted: string): boolean {
  if (held.includes(wanted)) return true;
  return wanted.endsWith(":read") && held.includes(`${wanted.slice(0, -":read".length)}:write`);
}

/** True when `held` grants at least one of `any`. */
export function grantsAny(held: readonly string[], any: readonly string[]): boolean {
  return any.some((wanted) => grants(held, wanted));
}
