/** One part of a path between two slashes, as a template wants it. */
export type Segment =
  | { readonly kind: "literal"; readonly value: string }
  /** `*`: one segment that is not empty. */
  | { readonly kind: "one" }
  /** `**`: this segment and all that follow; the last of its template. */
  | { readonly kind: "rest" };

/** A field that takes its value from a part of the path. */
export interface TemplateVariable {
  /** Names of the fields on the way, in proto names. */
  readonly field: readonly string[];
  /** Index of the first segment. */
  readonly from: number;
  /** Index after the last segment; undefined means up to the end of the path. */
  readonly to: number | undefined;
  /** True when more than one segment can match: then an encoded slash stays encoded (google.api.http). */
  readonly multi: boolean;
}

export interface Template {
  readonly segments: readonly Segment[];
  readonly variables: readonly TemplateVariable[];
  /** What follows the last colon; empty for none. */
  readonly verb: string;
}

const IDENT = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** RFC 3986 pchar without what has a meaning here: `:`, `*`; and `{}`, which are no pchar. */
const LITERAL = /^(?:[A-Za-z0-9._~!$&'()+,;=@-]|%[0-9A-Fa-f]{2})+$/;

/**
 * Reads a path template of google.api.http:
 * Template = "/" Segments [":" LITERAL]; Segments = Segment {"/" Segment};
 * Segment = "*" | "**" | LITERAL | "{" FieldPath ["=" Segments] "}".
 * Throws an error that says what is wrong; templates are written by this project, so that it fails the boot.
 */
export function parseTemplate(text: string): Template {
  const fail = (problem: string): never => {
    throw new Error(`path template ${JSON.stringify(text)}: ${problem}`);
  };
  if (!text.startsWith("/")) fail("begins without a slash");
  const { path, verb } = splitVerb(text.slice(1));
  if (verb !== undefined && !LITERAL.test(verb)) fail("the verb after the colon is not a literal");
  const segments: Segment[] = [];
  const variables: TemplateVariable[] = [];
  for (const part of splitSegments(path, fail)) {
    if (!part.startsWith("{")) {
      segments.push(segmentOf(part, fail));
      continue;
    }
    const equals = part.indexOf("=");
    const name = part.slice(1, equals < 0 ? -1 : equals);
    const pattern = equals < 0 ? "*" : part.slice(equals + 1, -1);
    const field = name.split(".");
    if (!field.every((ident) => IDENT.test(ident))) fail(`${JSON.stringify(name)} is no field path`);
    const inner = pattern.split("/").map((one) => segmentOf(one, fail));
    const endless = inner.some(({ kind }) => kind === "rest");
    const from = segments.length;
    segments.push(...inner);
    variables.push({
      field,
      from,
      to: endless ? undefined : segments.length,
      multi: endless || inner.length > 1,
    });
  }
  const rest = segments.findIndex(({ kind }) => kind === "rest");
  if (rest >= 0 && rest !== segments.length - 1) fail("** is only allowed at the end");
  const names = variables.map(({ field }) => field.join("."));
  if (new Set(names).size !== names.length) fail("a field occurs twice");
  return { segments, variables, verb: verb === undefined ? "" : decodeURIComponent(verb) };
}

/** The verb begins at the first colon after the last variable: a literal holds none. */
function splitVerb(text: string): { path: string; verb: string | undefined } {
  const colon = text.indexOf(":", text.lastIndexOf("}") + 1);
  return colon < 0 ? { path: text, verb: undefined } : { path: text.slice(0, colon), verb: text.slice(colon + 1) };
}

function splitSegments(path: string, fail: (problem: string) => never): string[] {
  const parts: string[] = [];
  let begin = 0;
  let open = false;
  for (let at = 0; at <= path.length; at += 1) {
    const character = path[at];
    if (character === "{") {
      if (open || at !== begin) fail("a variable begins inside of a segment or of another variable");
      open = true;
    } else if (character === "}") {
      if (!open || (at + 1 < path.length && path[at + 1] !== "/")) fail("a variable ends inside of a segment");
      open = false;
    } else if ((character === "/" || character === undefined) && !open) {
      parts.push(path.slice(begin, at));
      begin = at + 1;
    }
  }
  if (open) fail("a variable has no end");
  return parts;
}

function segmentOf(part: string, fail: (problem: string) => never): Segment {
  if (part === "*") return { kind: "one" };
  if (part === "**") return { kind: "rest" };
  if (part === "") return fail("a segment is empty");
  if (!LITERAL.test(part)) return fail(`${JSON.stringify(part)} is no segment`);
  try {
    return { kind: "literal", value: decodeURIComponent(part) };
  } catch {
    return fail(`${JSON.stringify(part)} is not UTF-8`);
  }
}
