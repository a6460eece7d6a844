/**
 * Bytes of a JSON value that are the same whenever its content is, for idempotency hashes: keys are sorted, because clients
 * write maps in any order, also in two tries of one call.
 */
export function canonical(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value, sortedKeys));
}

function sortedKeys(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
