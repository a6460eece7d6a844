import { inspect } from "node:util";

const SHOWN = new Set(["time", "level", "msg", "service", "err"]);

/**
 * One line of the JSON log as text for people: `12:30:01.004 INFO  agent: run started run_id=run_…`, and below it the
 * stack of an error. Control characters are escaped so that logged input cannot forge lines or move the cursor.
 * What is no JSON object is returned as it came.
 */
export function prettyLine(line: string): string {
  const fields = parse(line);
  if (fields === undefined) return line;
  const time = String(fields["time"] ?? "").slice(11, 23);
  const level = String(fields["level"] ?? "").toUpperCase();
  const rest = Object.entries(fields)
    .filter(([name]) => !SHOWN.has(name))
    .map(
      ([name, value]) => ` ${name}=${typeof value === "string" && /^[\w.:/@-]+$/.test(value) ? value : show(value)}`,
    );
  return `${time} ${level.padEnd(5)} ${printable(`${fields["service"]}: ${fields["msg"]}${rest.join("")}`)}${stackOf(fields["err"])}\n`;
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function show(value: unknown): string {
  return inspect(value, { depth: 6, breakLength: Number.POSITIVE_INFINITY, compact: true });
}

function stackOf(error: unknown): string {
  if (typeof error !== "object" || error === null) return error === undefined ? "" : printable(` err=${show(error)}`);
  const { stack, message, cause } = error as { stack?: unknown; message?: unknown; cause?: unknown };
  const lines = String(stack ?? message ?? show(error)).split("\n");
  const text = lines.map((line) => `\n    ${printable(line)}`).join("");
  return cause === undefined ? text : `${text}\n  caused by${stackOf(cause)}`;
}

// Controls, and the marks that turn the direction of text around.
const UNPRINTABLE = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (char) => {
    const json = JSON.stringify(char).slice(1, -1);
    return json === char ? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}` : json;
  });
}
