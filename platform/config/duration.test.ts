import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatDuration, parseDuration } from "./duration.ts";

describe("durations", () => {
  test("are numbers with a unit", () => {
    const known = { "500ms": 500, "10s": 10_000, "1.5m": 90_000, "2h": 7_200_000, "7d": 604_800_000, "0s": 0 };
    for (const [text, ms] of Object.entries(known)) assert.equal(parseDuration(text), ms, text);
    for (const text of ["", "10", "s", "-1s", "1 s", "1w", "1h30m", "1e3s", "Infinitys", "10S"]) {
      assert.equal(parseDuration(text), undefined, text);
    }
  });

  test("are written so that they read back", () => {
    assert.deepEqual([formatDuration(90_000), formatDuration(3_600_000), formatDuration(0)], ["90s", "1h", "0ms"]);
    fc.assert(fc.property(fc.nat(1e9), (ms) => assert.equal(parseDuration(formatDuration(ms)), ms)));
  });
});
