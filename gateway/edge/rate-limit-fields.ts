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
 * `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-11 has them: structured field lists of
 * names, with q (quota) and w (window, seconds), and r (remaining) and t (seconds until the quota is whole again). The
 * window is the time in which an empty bucket fills.
 */
export function rateLimitFields(limits: readonly ShownLimit[]): { policy: string; state: string } {
  const policy = limits.map(
    ({ name, burst, rate }) => `"${name}";q=${burst};w=${Math.max(1, Math.ceil(burst / rate))}`,
  );
  const state = limits.map(({ name, remaining, resetMs }) => `"${name}";r=${remaining};t=${Math.ceil(resetMs / 1000)}`);
  return { policy: policy.join(", "), state: state.join(", ") };
}
