import assert from "node:assert/strict";
import { SEED } from "./seed.ts";

/** Prints `name value bar pass/fail seed` and fails the test when the bar was missed. */
export function report(
  name: string,
  value: number | string,
  bar: string,
  passes: boolean,
  details: readonly string[] = [],
): void {
  const verdict = passes ? "pass" : "fail";
  // biome-ignore lint/suspicious/noConsole: these lines are what the tests are run for
  console.log(`${name}  ${value}  ${bar}  ${verdict}  seed=${SEED}`);
  if (passes) return;
  const shown = details.slice(0, 20).join("\n");
  // At once: the runner tells why a test failed only at its own end, which may be an interruption.
  // biome-ignore lint/suspicious/noConsole: as above
  if (shown !== "") console.log(shown);
  assert.fail(`${name}: ${value}, and the bar is ${bar}; FAULTS_SEED=${SEED} repeats the schedule\n${shown}`);
}

/** Name, value, bar, whether it passes, and what to show when it does not; see {@link report}. */
export type Line = Parameters<typeof report>;

/** Prints all lines, and fails the test then when a bar was missed. */
export function reportAll(lines: readonly Line[]): void {
  const failures: Error[] = [];
  for (const line of lines) {
    try {
      report(...line);
    } catch (error) {
      failures.push(error as Error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, failures.map(({ message }) => message).join("\n"));
}

/** The value below which this share of the numbers lies. */
export function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
