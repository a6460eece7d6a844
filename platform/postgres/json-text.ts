/**
 * JSON text that a jsonb column takes whatever was in the value: U+0000 and halves of surrogate pairs, which PostgreSQL
 * refuses, become U+FFFD. For text that is kept as a trace; where text must come back as it was, let the error through.
 */
export function jsonText(value: unknown): string {
  return (JSON.stringify(value) ?? "null").replace(unstorable, "$1\\ufffd");
}

/** JSON.stringify writes exactly these as escapes. The group is an even number of backslashes before one. */
const unstorable = /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g;
