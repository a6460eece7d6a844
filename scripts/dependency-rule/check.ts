// Applies the tables to a tree of files.
import { existsSync, globSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, join, normalize } from "node:path";
import { type Import, readSource, type Source } from "./source.ts";
import {
  computedImports,
  connecting,
  doors,
  isTestCode,
  pureRooms,
  type Room,
  rooms,
  serviceTests,
  unfinished,
} from "./table.ts";

export type Rule =
  | "room"
  | "test code"
  | "door"
  | "pure"
  | "connection"
  | "cycle"
  | "barrel"
  | "unfinished"
  | "unresolved"
  | "unparsed"
  | "unchecked";

export interface Violation {
  rule: Rule;
  file: string;
  line: number;
  message: string;
}

export interface Result {
  modules: number;
  imports: number;
  violations: Violation[];
}

export interface CheckOptions {
  /** Subpath imports of package.json, such as `{ "#gen/*": "./gen/*" }`; each names a room that must hold checked modules. */
  subpaths: Record<string, string>;
  /** Paths below the root that are not looked at. */
  skip?: readonly string[];
}

/** Checks every TypeScript and JavaScript file below `root`. */
export function check(root: string, { subpaths, skip = [] }: CheckOptions): Result {
  const paths = sourcePaths(root, skip);
  const violations: Violation[] = [];
  const edges = new Map<string, string[]>();
  let imports = 0;
  for (const file of paths) {
    const text = readFileSync(join(root, file), "utf8");
    const source = readSource(file, text);
    const report = (rule: Rule, line: number, message: string) => violations.push({ rule, file, line, message });
    checkFile(file, source, report);
    const targets: string[] = [];
    for (const one of source.imports) {
      imports += 1;
      if (one.specifier === "" && computedImports.includes(file)) continue;
      const target = resolve(file, one.specifier, subpaths);
      if (target === undefined) checkPackage(file, one, report);
      else if (!existsSync(join(root, target)))
        report("unresolved", one.line, `no such file: ${one.specifier || "(computed)"}`);
      else {
        checkRoom(file, target, one, report);
        if (!one.typeOnly) targets.push(target);
      }
    }
    edges.set(file, targets);
  }
  for (const cycle of cycles(edges)) {
    violations.push({ rule: "cycle", file: cycle[0] ?? "", line: 1, message: [...cycle, cycle[0]].join(" → ") });
  }
  for (const folder of new Set(Object.values(subpaths).map((path) => normalize(path).split("/")[0] ?? ""))) {
    if (!paths.some((path) => path.startsWith(`${folder}/`))) {
      violations.push({ rule: "unchecked", file: folder, line: 0, message: "no module of this room was checked" });
    }
  }
  return { modules: paths.length, imports, violations };
}

type Report = (rule: Rule, line: number, message: string) => void;

function sourcePaths(root: string, skip: readonly string[]): string[] {
  const skipped = (path: string) =>
    path === "node_modules" || /(^|\/)(node_modules|\.[^/]+)$/.test(path) || skip.includes(path);
  return globSync("**/*.{ts,mts,cts,tsx,js,mjs,cjs,jsx}", { cwd: root, exclude: skipped }).sort();
}

function checkFile(file: string, source: Source, report: Report): void {
  for (const error of source.errors) report("unparsed", 1, error);
  if (!rooms.some((room) => matchPrefix(file, room.files) !== undefined))
    report("room", 1, "no room of the table holds this file");
  if (source.barrel && !file.startsWith("gen/"))
    report("barrel", 1, "only re-exports; import from where a thing is made");
  if (!isTestCode(file) && !connecting.only.some((prefix) => isIn(file, prefix))) {
    for (const { name, line } of source.connections) {
      report("connection", line, `${name}: the way out is ${connecting.only[0]}`);
    }
  }
  if (file.startsWith("gen/")) return;
  for (const { text, line } of source.comments) {
    const word = unfinished.exec(text)?.[0];
    if (word !== undefined) report("unfinished", line, `a comment says "${word}"`);
  }
}

/** The file that a specifier means, or undefined for a package. */
function resolve(file: string, specifier: string, subpaths: Record<string, string>): string | undefined {
  if (specifier === "") return "(computed)";
  if (specifier.startsWith(".")) return normalize(join(dirname(file), specifier));
  if (!specifier.startsWith("#")) return undefined;
  for (const [pattern, target] of Object.entries(subpaths)) {
    const prefix = pattern.replace(/\*$/, "");
    if (specifier.startsWith(prefix)) return normalize(target.replace("*", specifier.slice(prefix.length)));
  }
  return specifier;
}

function checkRoom(file: string, target: string, { line, typeOnly }: Import, report: Report): void {
  const fromTest = isTestCode(file);
  if (isTestCode(target) && !fromTest && !isIn(file, "scripts")) {
    report("test code", line, `${target} is for tests only`);
    return;
  }
  const inService = fromTest && matchPrefix(file, serviceTests.files) !== undefined;
  const candidates = inService ? [serviceTests] : rooms;
  for (const room of candidates) {
    const star = matchPrefix(file, room.files);
    if (star === undefined) continue;
    const mode = allowance(room, star, target);
    if (mode === "yes" || (mode === "type" && typeOnly)) return;
    const why = mode === "type" ? "may import only types of" : "may not import";
    report("room", line, `${room.files[0]?.replace("*", star)} ${why} ${target}`);
    return;
  }
}

/** What `room` says of `target`: the longest matching entry of `may` decides. */
function allowance(room: Room, star: string, target: string): "yes" | "type" | "no" {
  let longest = -1;
  let mode: "yes" | "type" | "no" = "no";
  for (const entry of room.may) {
    const [, word, path = ""] = /^(type |never )?(.*)$/.exec(entry) ?? [];
    const prefix = path.replace("$", star);
    if (matchPrefix(target, [prefix]) === undefined || prefix.length <= longest) continue;
    longest = prefix.length;
    mode = word === "type " ? "type" : word === "never " ? "no" : "yes";
  }
  return mode;
}

function checkPackage(file: string, { specifier, line, typeOnly }: Import, report: Report): void {
  if (isTestCode(file)) return;
  const name = isBuiltin(specifier) && !specifier.startsWith("node:") ? `node:${specifier}` : specifier;
  for (const door of doors) {
    if (!door.packages.some((one) => isIn(name, one.replace(/\/\*$/, "")))) continue;
    const allowed = [...door.only, ...(typeOnly ? (door.types ?? []) : [])];
    if (matchPrefix(file, allowed) === undefined) report("door", line, `${name} is for ${door.only.join(", ")}`);
  }
  for (const { files, never } of pureRooms) {
    if (!typeOnly && matchPrefix(file, files) !== undefined && never.test(name)) {
      report("pure", line, `${files[0]} does not import ${name}`);
    }
  }
}

const isIn = (path: string, prefix: string) => path === prefix || path.startsWith(`${prefix}/`);

/** What `*` stands for in the first prefix that holds `path` ("" where there is no `*`), or undefined. */
function matchPrefix(path: string, prefixes: readonly string[]): string | undefined {
  for (const prefix of prefixes) {
    const [head = "", tail] = prefix.split("*");
    if (tail === undefined) {
      if (isIn(path, prefix)) return "";
      continue;
    }
    const star = path.startsWith(head) ? (path.slice(head.length).split("/")[0] ?? "") : "";
    if (star !== "" && isIn(path, head + star + tail)) return star;
  }
  return undefined;
}

/** Cycles of imports, each once. Where cycles share files one of them may hide another until it is mended. */
function cycles(edges: Map<string, string[]>): string[][] {
  const found: string[][] = [];
  const done = new Set<string>();
  const visit = (file: string, path: string[]) => {
    const at = path.indexOf(file);
    if (at !== -1) found.push(path.slice(at));
    if (at !== -1 || done.has(file)) return;
    path.push(file);
    for (const target of edges.get(file) ?? []) visit(target, path);
    path.pop();
    done.add(file);
  };
  for (const file of edges.keys()) visit(file, []);
  return found;
}
