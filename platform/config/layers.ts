import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { LineCounter, parse, parseDocument } from "yaml";
import type { ConfigProblem } from "./config-error.ts";
import { isOurs, overrideName } from "./env-names.ts";

/** One value of a layer: anything but a non-empty map. */
export interface Leaf {
  /** The way to it, a name per level. */
  readonly path: readonly string[];
  readonly value: unknown;
  /** For people: the file with its line, or the environment variable. */
  readonly origin: string;
}

/** The files of a configuration, by dotted key, lowest layer first; and the environment. */
export interface Layers {
  readonly files: readonly ReadonlyMap<string, Leaf>[];
  readonly env: ReadonlyMap<string, string>;
  /** Files that cannot be read or parsed. */
  readonly problems: readonly ConfigProblem[];
  /** Directories whose change may change the layers. */
  readonly directories: readonly string[];
}

export interface LayerOptions {
  /** Default `process.env`. Empty values count as unset, which is how Compose passes absent ones. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Folder of default.yaml and the environments' files; `false` reads none. Default: `config/` of this project. */
  readonly dir?: string | false;
  /** Values above the files and below the environment, nested as in YAML: for tests and embedding. */
  readonly values?: object;
}

const PROJECT = fileURLToPath(new URL("../../", import.meta.url));

/** Environment whose file is read when `AGENTMESH_ENV` names none. */
export const DEFAULT_ENVIRONMENT = "development";

/**
 * Reads the layers: `default.yaml` < `<AGENTMESH_ENV>.yaml` < the file that `AGENTMESH_CONFIG` names < environment.
 * Throws nothing: what is wrong is in `problems`.
 */
export function readLayers(options: LayerOptions = {}): Layers {
  const env = new Map<string, string>();
  for (const [name, value] of Object.entries(options.env ?? process.env)) if (value) env.set(name, value);
  const problems: ConfigProblem[] = [];
  const files: Map<string, Leaf>[] = [];
  const directories: string[] = [];
  const add = (path: string, required: string | undefined) => {
    directories.push(dirname(path));
    if (existsSync(path) || required !== undefined) files.push(readFile(path, required, problems));
  };
  const dir = options.dir ?? join(PROJECT, "config");
  if (dir !== false) {
    add(join(dir, "default.yaml"), undefined);
    const named = env.get("AGENTMESH_ENV");
    if (named !== undefined && !/^[a-z][a-z0-9-]*$/.test(named)) {
      problems.push({ key: "AGENTMESH_ENV", problem: "expected a name of small letters, digits and -" });
    } else {
      add(join(dir, `${named ?? DEFAULT_ENVIRONMENT}.yaml`), named && "AGENTMESH_ENV");
    }
  }
  const own = env.get("AGENTMESH_CONFIG");
  if (own !== undefined) add(own, "AGENTMESH_CONFIG");
  if (options.values !== undefined) files.push(leavesOf(options.values, () => "given in code"));
  return { files, env, problems, directories: [...new Set(directories)] };
}

/** The variables under the override of `key`, as leaves below it: `AGENTMESH_A__B__C` for the key `a.b` gives `c`. */
export function overridesBelow(env: Layers["env"], key: string): Leaf[] {
  const prefix = `${overrideName(key)}__`;
  const leaves: Leaf[] = [];
  for (const [name, text] of env) {
    if (!name.startsWith(prefix) || !isOurs(name, text)) continue;
    const below = name.slice(prefix.length).toLowerCase().split("__");
    leaves.push({ path: [...key.split("."), ...below], value: yamlValue(text), origin: name });
  }
  return leaves;
}

/** A variable's text as YAML, for values that are not plain text; text that is no YAML stays text. */
export function yamlValue(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return text;
  }
}

function readFile(path: string, required: string | undefined, problems: ConfigProblem[]): Map<string, Leaf> {
  const shown = path.startsWith(PROJECT) ? relative(PROJECT, path) : path;
  try {
    const lines = new LineCounter();
    const document = parseDocument(readFileSync(path, "utf8"), { lineCounter: lines, prettyErrors: false });
    const [error] = document.errors;
    if (error !== undefined) {
      const { line } = lines.linePos(error.pos[0]);
      problems.push({ key: shown, problem: `expected YAML: ${error.code}`, origin: `${shown}:${line}` });
      return new Map();
    }
    const root: unknown = document.toJS() ?? {};
    if (isMap(root)) {
      return leavesOf(root, (at) => {
        const node = document.getIn(at, true) as { range?: [number, number, number] | null } | undefined;
        return node?.range ? `${shown}:${lines.linePos(node.range[0]).line}` : shown;
      });
    }
    problems.push({ key: shown, problem: "expected a map of keys", origin: `${shown}:1` });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "not YAML";
    problems.push({ key: required ?? shown, problem: `expected a readable YAML file (${code})`, origin: shown });
  }
  return new Map();
}

/** A key without a value (`agent:`) says nothing, so that an emptied section does not erase the layers below. */
function leavesOf(root: object, originOf: (path: readonly string[]) => string): Map<string, Leaf> {
  const leaves = new Map<string, Leaf>();
  const visit = (value: unknown, path: readonly string[]) => {
    if (isMap(value) && (path.length === 0 || Object.keys(value).length > 0)) {
      for (const [name, inner] of Object.entries(value)) visit(inner, [...path, name]);
    } else if (value !== null && value !== undefined) {
      leaves.set(path.join("."), { path, value, origin: originOf(path) });
    }
  };
  visit(root, []);
  return leaves;
}

/** Whether a value is a map as YAML gives it. */
export function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
