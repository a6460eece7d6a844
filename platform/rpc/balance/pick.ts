/**
 * Power of two choices (Mitzenmacher 2001): the cheaper of two candidates taken at random. Undefined when there is none.
 * `random` answers a number in [0, 1).
 */
export function pickOfTwo<T>(
  candidates: readonly T[],
  cost: (candidate: T) => number,
  random: () => number = Math.random,
): T | undefined {
  const first = Math.floor(random() * candidates.length);
  const one = candidates[first];
  if (one === undefined || candidates.length === 1) return one;
  const second = Math.floor(random() * (candidates.length - 1));
  const other = candidates[second < first ? second : second + 1] as T;
  return cost(other) < cost(one) ? other : one;
}
