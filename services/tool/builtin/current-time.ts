import { type CodeTool, defineTool } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";

const DEFAULT_ZONE = "UTC";

/** Tells the time. `now` is the clock. */
export function currentTime(now: () => Date = () => new Date()): CodeTool {
  return defineTool<{ timezone: string }>({
    name: "current_time",
    description:
      "The current date and time, as ISO 8601 with its offset from UTC, and the day of the week. " +
      "Call it whenever the answer depends on today's date or the time of day.",
    input: {
      type: "object",
      properties: {
        timezone: {
          type: "string",
          description: "IANA name of a time zone, such as Europe/Paris or Asia/Tokyo. Default: UTC.",
          default: DEFAULT_ZONE,
          maxLength: 64,
        },
      },
      additionalProperties: false,
    },
    risk: "read_only",
    concurrencySafe: true,
    idempotent: true,
    timeoutMs: 5_000,
    maxOutputBytes: 4_096,
    category: "compute",
    run: ({ timezone }) => ({ structured: timeIn(timezone.trim() || DEFAULT_ZONE, now()) }),
  });
}

function timeIn(asked: string, at: Date) {
  const format = formatOf(asked);
  const parts = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, value]));
  const { year = "", month, day, hour, minute, second, weekday, timeZoneName = "" } = parts;
  const offset = timeZoneName.replace("GMT", "") || "+00:00";
  const known = format.resolvedOptions().timeZone;
  // Some names are resolved to an older one of the same zone; the caller's own is the better answer.
  const timezone = known === DEFAULT_ZONE || known.toLowerCase() === asked.toLowerCase() ? known : asked;
  const time = `${year.padStart(4, "0")}-${month}-${day}T${hour}:${minute}:${second}`;
  return { time: `${time}${timezone === DEFAULT_ZONE ? "Z" : offset}`, timezone, weekday };
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "iso8601",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
      weekday: "long",
      timeZoneName: "longOffset",
    });
  } catch {
    throw new ToolError(
      `Parameter "timezone": ${JSON.stringify(timeZone)} is not a time zone. Use an IANA name such as Europe/Paris or Asia/Tokyo.`,
    );
  }
}
