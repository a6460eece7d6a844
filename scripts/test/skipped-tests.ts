/** A test that the runner did not run, and why. */
export interface SkippedTest {
  name: string;
  reason: string;
}

/** The skipped tests in the output of node's TAP reporter (Test Anything Protocol 13: `ok 1 - name # SKIP reason`). */
export function skippedTests(tap: string): SkippedTest[] {
  return tap.split("\n").flatMap((line) => {
    const [, name, reason] = /^ *(?:not )?ok \d+ - (.*?) # SKIP ?(.*)$/.exec(line) ?? [];
    return name === undefined ? [] : [{ name, reason: reason || "no reason given" }];
  });
}
