import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ToolContext } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import { currentTime } from "./current-time.ts";

function timeAt(instant: string, timezone: string) {
  const output = currentTime(() => new Date(instant)).run({ timezone }, {} as ToolContext, AbortSignal.abort(), {});
  return (output as { structured: unknown }).structured;
}

describe("current_time", () => {
  test("tells time, zone and weekday in any zone, with its offset of that day", () => {
    const at = "2026-11-03T14:05:09.999Z";
    const table: [string, string, string, string, string][] = [
      [at, "UTC", "2026-11-03T14:05:09Z", "UTC", "Tuesday"],
      [at, "Etc/UTC", "2026-11-03T14:05:09Z", "UTC", "Tuesday"],
      [at, "", "2026-11-03T14:05:09Z", "UTC", "Tuesday"],
      [at, " Asia/Tokyo ", "2026-11-03T23:05:09+09:00", "Asia/Tokyo", "Tuesday"],
      [at, "asia/tokyo", "2026-11-03T23:05:09+09:00", "Asia/Tokyo", "Tuesday"],
      [at, "Asia/Kolkata", "2026-11-03T19:35:09+05:30", "Asia/Kolkata", "Tuesday"],
      [at, "Pacific/Auckland", "2026-11-04T03:05:09+13:00", "Pacific/Auckland", "Wednesday"],
      [at, "America/St_Johns", "2026-11-03T10:35:09-03:30", "America/St_Johns", "Tuesday"],
      [at, "Europe/London", "2026-11-03T14:05:09+00:00", "Europe/London", "Tuesday"],
      ["2026-07-01T12:00:00Z", "Europe/London", "2026-07-01T13:00:00+01:00", "Europe/London", "Wednesday"],
      ["2026-10-25T00:59:59Z", "Europe/Berlin", "2026-10-25T02:59:59+02:00", "Europe/Berlin", "Sunday"],
      ["2026-10-25T01:00:00Z", "Europe/Berlin", "2026-10-25T02:00:00+01:00", "Europe/Berlin", "Sunday"],
      ["2024-02-29T00:00:00Z", "UTC", "2024-02-29T00:00:00Z", "UTC", "Thursday"],
      ["2025-12-31T23:30:00Z", "Asia/Shanghai", "2026-01-01T07:30:00+08:00", "Asia/Shanghai", "Thursday"],
    ];
    for (const [instant, asked, time, timezone, weekday] of table) {
      assert.deepEqual(timeAt(instant, asked), { time, timezone, weekday }, asked);
      assert.equal(Date.parse(time), Math.floor(Date.parse(instant) / 1000) * 1000);
    }
  });

  test("says what it expects instead of an unknown zone", () => {
    for (const timezone of ["Mars/Olympus", "Tokyo", "UTC+99", "../etc", "\0"]) {
      const unknown = () => timeAt("2026-11-03T14:05:09Z", timezone);
      assert.throws(unknown, (error) => {
        assert.ok(error instanceof ToolError);
        assert.match(error.message, /^Parameter "timezone": ".+" is not a time zone\. Use an IANA name such as/);
        return true;
      });
    }
  });

  test("has a clock of its own", () => {
    const output = currentTime().run({ timezone: "UTC" }, {} as ToolContext, AbortSignal.abort(), {});
    const { time } = (output as { structured: { time: string } }).structured;
    assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000);
  });
});
