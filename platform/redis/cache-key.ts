import type { CacheKey, CacheNamespace } from "./cache.ts";

/** Stands for a tenant in keys that are looked up before a tenant is known, such as a credential's. */
export const platformTenant = "platform";

const tenant = /^(platform|ten_[0-9a-z]{1,60})$/;
const name = /^[a-z][a-z0-9_.-]{0,63}$/;
const maxParts = 16;

/**
 * Makes a key. `parts` are the arguments of the cached question, each of them, in a fixed order; `version` (default 1) is
 * raised when the form of the value changes, so that two releases can run side by side. The text is length-prefixed
 * (netstrings, D. J. Bernstein, 1997, counted in UTF-16 units): different arguments give different keys, whatever they
 * contain. Throws `TypeError` for a malformed tenant or namespace.
 */
export function cacheKey(of: CacheNamespace & { parts: readonly string[]; version?: number }): CacheKey {
  const { tenantId, namespace, parts, version = 1 } = of;
  assertNamespace(of);
  if (parts.length > maxParts) throw new TypeError(`a cache key has at most ${maxParts} parts`);
  if (!Number.isInteger(version) || version < 1) throw new TypeError("a cache key's version is a whole number from 1");
  const id = [tenantId, namespace, String(version), ...parts].map((part) => `${part.length}:${part},`).join("");
  return { tenantId, namespace, id } as CacheKey;
}

/** Checks a tenant and a namespace. Throws `TypeError`. */
export function assertNamespace({ tenantId, namespace }: CacheNamespace): void {
  if (!tenant.test(tenantId)) throw new TypeError("a cache key needs a tenant's id");
  if (!name.test(namespace)) throw new TypeError(`not a cache namespace: ${JSON.stringify(namespace)}`);
}
