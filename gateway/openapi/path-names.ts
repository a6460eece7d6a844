import type { Route } from "../rest/route.ts";

/** Where a route stands in the document. */
export interface DocumentPath {
  /** With a parameter for every segment that is no literal: `/api/v1/runs/{run_id}:cancel`. */
  readonly path: string;
  /** The parameters' names, by segment. */
  readonly names: ReadonlyMap<number, string>;
}

/**
 * Names the paths. OpenAPI takes two paths that differ in the names of their parameters alone for the same one, so that
 * `{session_id}` of a GET names the `{session.session_id}` of a PATCH, too.
 */
export function createPathNames(): (route: Route) => DocumentPath {
  const known = new Map<string, DocumentPath>();
  return (route) => {
    const shape = pathOf(route, () => "");
    const before = known.get(shape);
    if (before !== undefined) return before;
    const names = namesOf(route);
    const made = { path: pathOf(route, (segment) => names.get(segment) ?? ""), names };
    known.set(shape, made);
    return made;
  };
}

function namesOf({ template, variables }: Route): Map<number, string> {
  const names = new Map<number, string>();
  for (const [index, { kind }] of template.segments.entries()) {
    if (kind === "literal") continue;
    const owner = variables.find(
      ({ variable: { from, to = Number.POSITIVE_INFINITY } }) => from <= index && index < to,
    );
    const name = owner?.variable.field.at(-1) ?? "segment";
    const taken = [...names.values()].includes(name);
    names.set(index, taken ? `${name}_${index}` : name);
  }
  return names;
}

function pathOf({ template }: Route, nameOf: (segment: number) => string): string {
  const parts = template.segments.map((segment, index) =>
    segment.kind === "literal" ? encodeURIComponent(segment.value) : `{${nameOf(index)}}`,
  );
  return `/${parts.join("/")}${template.verb === "" ? "" : `:${template.verb}`}`;
}
