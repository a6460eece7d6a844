import type { Problems } from "./problems.ts";

/** One `name=value` of a query, decoded. */
export interface QueryParameter {
  readonly name: string;
  readonly value: string;
}

/**
 * Cuts and decodes a query as HTML forms write it (a plus is a space), without the leniency of URLSearchParams: broken
 * escapes and bytes that are not UTF-8 are problems.
 */
export function parseQuery(query: string, maxParameters: number, problems: Problems): QueryParameter[] {
  const pairs = query.split("&").filter((pair) => pair !== "");
  if (pairs.length > maxParameters) {
    problems.add("FIELD_INVALID", "query", `has more than ${maxParameters} parameters`);
    return [];
  }
  const parameters: QueryParameter[] = [];
  for (const pair of pairs) {
    const equals = pair.indexOf("=");
    const name = decode(equals < 0 ? pair : pair.slice(0, equals));
    const value = decode(equals < 0 ? "" : pair.slice(equals + 1));
    if (name === undefined || value === undefined) {
      problems.add("FIELD_INVALID", name ?? "query", "has escapes that are broken or are not UTF-8");
    } else {
      parameters.push({ name, value });
    }
  }
  return parameters;
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
