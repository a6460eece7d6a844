const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const DURATION = /^(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)$/;

/** Milliseconds of a duration such as `500ms`, `10s`, `1.5m`, `2h` or `7d`; undefined when it is none. `0s` is one. */
export function parseDuration(text: string): number | undefined {
  const [, amount, unit] = DURATION.exec(text) ?? [];
  const factor = UNITS[unit ?? ""];
  return amount === undefined || factor === undefined ? undefined : Math.round(Number(amount) * factor);
}

/** The shortest text for a number of milliseconds, which {@link parseDuration} reads back. */
export function formatDuration(ms: number): string {
  const [unit, factor] = Object.entries(UNITS).findLast(([, each]) => ms !== 0 && ms % each === 0) ?? ["ms", 1];
  return `${ms / factor}${unit}`;
}
