/** The path of a request, cut at its slashes; nothing is decoded, because an encoded slash is no slash. */
export interface RequestPath {
  /** Without the verb. */
  readonly segments: readonly string[];
  /** What follows the last colon of the last segment; undefined without a colon. */
  readonly verb: string | undefined;
}

/** Cuts a path; undefined when it does not begin with a slash. */
export function splitPath(path: string): RequestPath | undefined {
  if (!path.startsWith("/")) return undefined;
  const segments = path.slice(1).split("/");
  const last = segments.pop() ?? "";
  const colon = last.lastIndexOf(":");
  if (colon < 0) return { segments: [...segments, last], verb: undefined };
  return { segments: [...segments, last.slice(0, colon)], verb: last.slice(colon + 1) };
}

/** Decodes one segment entirely; undefined when the escapes are broken or are not UTF-8. */
export function decodeSegment(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

/** Decodes several segments; an encoded slash stays as it is, since it would read like a separator (google.api.http). */
export function decodeSegments(segments: readonly string[]): string | undefined {
  const decoded = segments.map((segment) => {
    const pieces = segment.split(/(%2[Ff])/).map((piece) => (/^%2[Ff]$/.test(piece) ? piece : decodeSegment(piece)));
    return pieces.includes(undefined) ? undefined : pieces.join("");
  });
  return decoded.includes(undefined) ? undefined : decoded.join("/");
}
