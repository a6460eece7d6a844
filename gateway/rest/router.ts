import { type RequestPath, splitPath } from "./path.ts";
import type { Route } from "./route.ts";
import type { Template } from "./template.ts";

/** What a path leads to. */
export type Match =
  | { readonly kind: "route"; readonly route: Route; readonly segments: readonly string[] }
  /** The path exists, for other HTTP methods. */
  | { readonly kind: "method"; readonly allow: readonly string[] }
  | { readonly kind: "none" };

export interface Router {
  /** @param path the request's path, not decoded, without its query */
  match(httpMethod: string, path: string): Match;
}

/** A tree of segments. At its leaves: verb, then HTTP method, then route. */
interface Node {
  readonly literals: Map<string, Node>;
  one: Node | undefined;
  rest: Node | undefined;
  readonly leaves: Map<string, Map<string, Route>>;
}

type Leaf = ReadonlyMap<string, Route>;

/**
 * Finds routes by path. At every segment a literal beats `*` beats `**`, wherever the HTTP method fits; a path whose
 * last segment has a colon belongs to the templates with that verb alone, so that an id can never be taken for one.
 * Throws when two routes would match exactly the same paths.
 */
export function createRouter(routes: readonly Route[]): Router {
  const root = emptyNode();
  for (const route of routes) insert(root, route);
  return {
    match(httpMethod, path) {
      const split = splitPath(path);
      if (split === undefined || split.segments.includes("")) return { kind: "none" };
      const allow = new Set<string>();
      const route = find(root, split, 0, httpMethod, allow);
      if (route !== undefined) return { kind: "route", route, segments: split.segments };
      return allow.size > 0 ? { kind: "method", allow: [...allow].sort() } : { kind: "none" };
    },
  };
}

function find(node: Node, path: RequestPath, at: number, httpMethod: string, allow: Set<string>): Route | undefined {
  const segment = path.segments[at];
  if (segment === undefined) return take(node.leaves, path.verb, httpMethod, allow);
  const literal = node.literals.get(decoded(segment));
  const found = literal && find(literal, path, at + 1, httpMethod, allow);
  if (found !== undefined) return found;
  const one = node.one && find(node.one, path, at + 1, httpMethod, allow);
  return one ?? (node.rest && take(node.rest.leaves, path.verb, httpMethod, allow));
}

function take(
  leaves: ReadonlyMap<string, Leaf>,
  verb: string | undefined,
  httpMethod: string,
  allow: Set<string>,
): Route | undefined {
  const leaf = verb === "" ? undefined : leaves.get(decoded(verb ?? ""));
  if (leaf === undefined) return undefined;
  for (const method of leaf.keys()) allow.add(method);
  return leaf.get(httpMethod);
}

function insert(root: Node, route: Route): void {
  let node = root;
  for (const segment of route.template.segments) {
    switch (segment.kind) {
      case "literal": {
        const next = node.literals.get(segment.value) ?? emptyNode();
        node.literals.set(segment.value, next);
        node = next;
        break;
      }
      case "one":
        node = node.one ??= emptyNode();
        break;
      case "rest":
        node = node.rest ??= emptyNode();
        break;
    }
  }
  const { verb } = route.template;
  const leaf = node.leaves.get(verb) ?? new Map<string, Route>();
  const other = leaf.get(route.httpMethod);
  if (other !== undefined) {
    throw new Error(
      `${nameOf(route)} and ${nameOf(other)} both answer ${route.httpMethod} ${shape(route.template)}: ` +
        "no request could tell them apart",
    );
  }
  node.leaves.set(verb, leaf.set(route.httpMethod, route));
}

function emptyNode(): Node {
  return { literals: new Map(), one: undefined, rest: undefined, leaves: new Map() };
}

function nameOf({ method }: Route): string {
  return `${method.parent.typeName}.${method.name}`;
}

function shape({ segments, verb }: Template): string {
  const parts = segments.map((segment) =>
    segment.kind === "literal" ? segment.value : segment.kind === "one" ? "*" : "**",
  );
  return `/${parts.join("/")}${verb === "" ? "" : `:${verb}`}`;
}

/** Broken escapes stay as they are: they equal no literal, and as a variable they are refused later. */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
