/** One limit, as the answer of a limited method shows it. */
export interface ShownLimit {
  readonly name: string;
  /** Units of a full bucket. */
  readonly burst: number;
  /** Units per second. */
  readonly rate: number;
  readonly remaining: number;
  readonly resetMs: number;
}

/**
 * `RateLimit-Policy` and `RateLimit` as §3 and §4 of draft-ietf-httpapi-ratelimit-headers-11 (May 2026) have them: lists
 * (RFC 9651) of strings, the names of policies, with q (quota, in its default unit "requests") and w (window, whole
 * seconds above 0), and r (what is left) and t (effective window, whole seconds, in which no more than r may be used). Our
 * w is the time in which an empty bucket fills, our t the time until it is full again.
 */
export function rateLimitFields(limits: readonly ShownLimit[]): { policy: string; state: string } {
  const policy = limits.map(
    ({ name, burst, rate }) => `"${name}";q=${burst};w=${Math.max(1, Math.ceil(burst / rate))}`,
  );
  const state = limits.map(({ name, remaining, resetMs }) => `"${name}";r=${remaining};t=${Math.ceil(resetMs / 1000)}`);
  return { policy: policy.join(", "), state: state.join(", ") };
}
