import type { CacheKey, Generation } from "./cache.ts";

/** First in every stored entry: raised when the form below changes. */
const form = "1";

/** What is stored: the form, the tenant, the generation, the value, one per line; only the value may contain line ends. */
export function toEntry(key: CacheKey, generation: Generation, value: string): string {
  return `${form}\n${key.tenantId}\n${generation}\n${value}`;
}

/**
 * The value of an entry that was stored for this key's tenant; undefined when it is of an older generation. "foreign" when
 * it is another tenant's or not readable: keys are injective, so this is a second lock on the door between tenants.
 */
export function fromEntry(entry: string, key: CacheKey, generation: Generation): string | undefined | "foreign" {
  const [storedForm, tenantId, storedGeneration] = entry.split("\n", 3);
  if (storedForm !== form || tenantId !== key.tenantId || storedGeneration === undefined) return "foreign";
  if (storedGeneration !== generation) return undefined;
  return entry.slice(form.length + tenantId.length + storedGeneration.length + 3);
}
