import type { ConfigProblem } from "./config-error.ts";
import { ConfigError } from "./config-error.ts";
import { customaryName, isOurs, META_NAMES, overrideName } from "./env-names.ts";
import type { Layers, Leaf } from "./layers.ts";
import { isMap, overridesBelow, yamlValue } from "./layers.ts";
import { nearest } from "./nearest.ts";

/** One key of the configuration, as the reference lists it. */
export interface ConfigKey {
  /** Dotted, as in `agent.lease_ttl`. */
  readonly key: string;
  /** For people: `duration`, `whole number from 1 to 65535`, `one of json, pretty`, … */
  readonly type: string;
  /** As one would write it; absent when there is none. */
  readonly default?: string | undefined;
  /** Whether the process does not start without it. */
  readonly required: boolean;
  readonly secret: boolean;
  /** The variables that set it, the customary one first. */
  readonly env: readonly string[];
  readonly doc: string;
}

/** What a key is set to, and where. */
export interface Found {
  readonly raw: unknown;
  readonly origin: string;
}

/** One pass over the layers: what was asked for and what was wrong. All sections of a source share it. */
export class Reading {
  /** Every key asked for. */
  readonly keys = new Map<string, ConfigKey>();
  readonly #layers: Layers;
  readonly #problems: ConfigProblem[];
  readonly #trees = new Set<string>();
  /** While true, keys are noted and nothing is looked up or refused. */
  declaring = false;

  constructor(layers: Layers) {
    this.#layers = layers;
    this.#problems = [...layers.problems];
  }

  note(key: ConfigKey, tree: boolean): void {
    if (!this.keys.has(key.key)) this.keys.set(key.key, key);
    if (tree) this.#trees.add(key.key);
  }

  refuse(problem: ConfigProblem): void {
    const known = this.#problems.some(({ key, problem: text }) => key === problem.key && text === problem.problem);
    if (!this.declaring && !known) this.#problems.push(problem);
  }

  /** What the highest layer that has the key says. Its own override goes before a customary variable. */
  find(key: string, names: readonly string[]): Found | undefined {
    if (this.declaring) return undefined;
    for (const name of names.toReversed()) {
      const raw = this.#layers.env.get(name);
      if (raw !== undefined) return { raw, origin: name };
    }
    const leaf = this.#layers.files.findLast((layer) => layer.has(key))?.get(key);
    return leaf && { raw: leaf.value, origin: leaf.origin };
  }

  /** As {@link find} for a key that holds a whole map: the maps of all layers laid over one another. */
  findTree(key: string, names: readonly string[]): Found | undefined {
    const own = this.find(key, names);
    if (own !== undefined && names.includes(own.origin)) return { raw: yamlValue(String(own.raw)), origin: own.origin };
    if (this.declaring) return undefined;
    const below = (leaf: Leaf) => leaf.path.join(".").startsWith(`${key}.`);
    const leaves = this.#layers.files.flatMap((layer) => [...layer.values()].filter(below));
    leaves.push(...overridesBelow(this.#layers.env, key));
    const last = leaves.at(-1);
    if (last === undefined) return own;
    const tree: Record<string, unknown> = Object.create(null);
    for (const { path, value } of leaves) put(tree, path.slice(key.split(".").length), value);
    return { raw: JSON.parse(JSON.stringify(tree)), origin: last.origin };
  }

  /** Throws everything that was wrong, unknown keys and variables included, as one ConfigError. */
  finish(cause?: unknown): void {
    const problems = [...this.#problems, ...this.#unknownKeys(), ...this.#unknownVariables()];
    if (problems.length > 0) throw new ConfigError(problems, cause === undefined ? {} : { cause });
  }

  #unknownKeys(): ConfigProblem[] {
    const problems: ConfigProblem[] = [];
    const sections = new Set([...this.keys.keys()].flatMap(ancestors));
    for (const leaf of this.#layers.files.flatMap((layer) => [...layer.values()])) {
      const key = leaf.path.join(".");
      if (this.keys.has(key) || ancestors(key).some((above) => this.#trees.has(above))) continue;
      const section = sections.has(key);
      if (section && isMap(leaf.value)) continue;
      const meant = nearest(key, this.keys.keys());
      const problem = section ? "expected a section of keys" : `unknown key${meant ? `, did you mean ${meant}?` : ""}`;
      problems.push({ key, problem, origin: leaf.origin });
    }
    return problems;
  }

  #unknownVariables(): ConfigProblem[] {
    const known = new Set<string>([...META_NAMES, ...[...this.keys.values()].flatMap(({ env }) => env)]);
    const trees = [...this.#trees].map((key) => `${overrideName(key)}__`);
    const problems: ConfigProblem[] = [];
    for (const [name, value] of this.#layers.env) {
      if (known.has(name) || !isOurs(name, value) || trees.some((prefix) => name.startsWith(prefix))) continue;
      problems.push({
        key: name,
        problem: `unknown variable, did you mean ${nearest(name, known)}?`,
        origin: "environment",
      });
    }
    return problems;
  }
}

/** The variables that set a key, the customary one first and its override last. */
export function variablesOf(key: string, customary: string | undefined): string[] {
  const own = customary ?? customaryName(key);
  return own === undefined ? [overrideName(key)] : [own, overrideName(key)];
}

function ancestors(key: string): string[] {
  const names = key.split(".");
  return names.slice(1).map((_, index) => names.slice(0, index + 1).join("."));
}

// The maps have no prototype, so that a key named __proto__ is a key.
function put(tree: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [name, ...rest] = path;
  if (name === undefined) return;
  if (rest.length === 0) {
    tree[name] = value;
    return;
  }
  const inner = tree[name];
  const map = typeof inner === "object" && inner !== null && !Array.isArray(inner) ? inner : Object.create(null);
  tree[name] = map;
  put(map as Record<string, unknown>, rest, value);
}
