// Reads one TypeScript file with oxc: what it imports, what it connects with, whether it only re-exports.
import { parseSync } from "oxc-parser";
import { connecting } from "./table.ts";

export interface Import {
  /** As written; "" when it is computed at run time. */
  specifier: string;
  line: number;
  /** Nothing of it is left at run time. */
  typeOnly: boolean;
}

export interface Source {
  imports: Import[];
  /** Uses of a global or function that opens a connection. */
  connections: { name: string; line: number }[];
  comments: { text: string; line: number }[];
  /** The file has exports and each one hands on another file's. */
  barrel: boolean;
  /** Why the file could not be parsed. */
  errors: string[];
}

interface Node {
  type: string;
  start: number;
  [key: string]: unknown;
}

type Visit = (node: Node, parent: Node | undefined, key: string) => void;

export function readSource(path: string, text: string): Source {
  const { program, comments, errors } = parseSync(path, text);
  const lineOf = lineIndex(text);
  const imports: Import[] = [];
  const bound = new Set<string>();
  const http = new Map<string, "module" | "function">();
  const used: { name: string; line: number }[] = [];

  walk(program as unknown as Node, (node, parent, key) => {
    if (isImport(node)) {
      const specifier = (node["source"] as { value?: unknown }).value;
      imports.push({
        specifier: typeof specifier === "string" ? specifier : "",
        line: lineOf(node.start),
        typeOnly: isTypeOnly(node),
      });
      const module = String(specifier).replace(/^node:/, "");
      if (node.type === "ImportDeclaration" && connecting.modules.includes(module)) bindHttp(node, http);
    }
    for (const name of bindings(node)) bound.add(name);
    const name = connects(node, parent, key, http);
    if (name !== undefined) used.push({ name, line: lineOf(node.start) });
  });

  return {
    imports,
    connections: used.filter(({ name }) => http.has(name) || !bound.has(name)),
    comments: comments.map((comment) => ({ text: comment.value, line: lineOf(comment.start) })),
    barrel: isBarrel(program.body as unknown as Node[]),
    errors: errors.map((error) => error.message),
  };
}

function walk(node: Node, visit: Visit, parent?: Node, key = ""): void {
  visit(node, parent, key);
  for (const [name, value] of Object.entries(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (typeof child?.type === "string") walk(child as Node, visit, node, name);
    }
  }
}

function isImport(node: Node): boolean {
  return (
    /^(Import(Declaration|Expression)|Export(Named|All)Declaration|TSImportType)$/.test(node.type) && !!node["source"]
  );
}

/** `import type`, `export type … from`, `import("…").T`, and imports whose every name is marked `type`. */
function isTypeOnly(node: Node): boolean {
  if (node.type === "TSImportType" || node["importKind"] === "type" || node["exportKind"] === "type") return true;
  const specifiers = (node["specifiers"] ?? []) as Node[];
  return specifiers.length > 0 && specifiers.every((one) => (one["importKind"] ?? one["exportKind"]) === "type");
}

/** Remembers the local names of node:http(s): the module itself, or one of its connecting functions. */
function bindHttp(node: Node, names: Map<string, "module" | "function">): void {
  for (const specifier of node["specifiers"] as Node[]) {
    const local = nameOf(specifier["local"]) ?? "";
    const imported = nameOf(specifier["imported"]) ?? "default";
    if (imported === "default") names.set(local, "module");
    else if (connecting.functions.includes(imported)) names.set(local, "function");
  }
}

const nameOf = (node: unknown) => {
  const { type, name } = (node ?? {}) as { type?: string; name?: string };
  return type === "Identifier" ? name : undefined;
};

/** Where a node declares names, by field. */
const declaring: Record<string, readonly string[]> = {
  VariableDeclarator: ["id"],
  FunctionDeclaration: ["id", "params"],
  FunctionExpression: ["params"],
  ArrowFunctionExpression: ["params"],
  ClassDeclaration: ["id"],
  ImportSpecifier: ["local"],
  ImportDefaultSpecifier: ["local"],
  ArrayPattern: ["elements"],
  AssignmentPattern: ["left"],
  RestElement: ["argument"],
  FormalParameter: ["pattern"],
};

/** The names that a node declares: an own `fetch` is not the global one. Scopes are not told apart: one covers the file. */
function bindings(node: Node): string[] {
  const declared =
    node.type === "ObjectPattern"
      ? (node["properties"] as Node[]).map((property) => property["value"])
      : (declaring[node.type] ?? []).flatMap((field) => node[field]);
  return declared.flatMap((one) => nameOf(one) ?? []);
}

/** The connecting thing that this node reaches for, if it does. */
function connects(node: Node, parent: Node | undefined, key: string, http: Map<string, string>): string | undefined {
  if (node.type === "MemberExpression") {
    const object = nameOf(node["object"]) ?? "";
    const property = nameOf(node["property"]) ?? "";
    const wanted = http.get(object) === "module" ? connecting.functions : connecting.globals;
    const watched = http.get(object) === "module" || object === "globalThis";
    return watched && wanted.includes(property) ? `${object}.${property}` : undefined;
  }
  const name = nameOf(node);
  if (name === undefined || !isReference(parent, key)) return undefined;
  return connecting.globals.includes(name) || http.get(name) === "function" ? name : undefined;
}

const typeExpressions = /^TS(As|Satisfies|NonNull|Instantiation)Expression$/;

/** Whether an identifier at this place is a use of a value: no property name, no import or export name, no type. */
function isReference(parent: Node | undefined, key: string): boolean {
  if (!parent || typeExpressions.test(parent.type)) return true;
  if (parent.type.startsWith("TS") || parent.type.endsWith("Specifier")) return false;
  return !((key === "key" || key === "property") && parent["computed"] === false);
}

function isBarrel(body: Node[]): boolean {
  const kept = body.filter((node) => node.type !== "ImportDeclaration");
  return kept.length > 0 && kept.every((node) => /^Export(All|Named)/.test(node.type) && !node["declaration"]);
}

function lineIndex(text: string): (offset: number) => number {
  const starts = [0];
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return (offset) => starts.findLastIndex((start) => start <= offset) + 1;
}
