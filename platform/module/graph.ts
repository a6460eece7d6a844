import type { Module } from "./module.ts";

/** One row of the module table: a module and the modules that it calls. */
export interface ModuleRow {
  // biome-ignore lint/suspicious/noExplicitAny: a table holds modules of every configuration type
  readonly module: Module<any>;
  /** Calls become start-order edges in one process, and required addresses between processes. */
  readonly calls: readonly string[];
}

/** The module table: everything that can run, by name. */
export type ModuleTable = Readonly<Record<string, ModuleRow>>;

/** The names that a target means: "all", a name, or several separated by commas. Throws for an unknown name. */
export function targetModules(table: ModuleTable, target: string): string[] {
  if (target === "all") return Object.keys(table);
  const names = [...new Set(target.split(",").map((name) => name.trim()))];
  const unknown = names.filter((name) => !Object.hasOwn(table, name));
  if (unknown.length > 0) {
    throw new Error(`unknown module ${unknown.join(", ")}; there are all, ${Object.keys(table).join(", ")}`);
  }
  return names;
}

/** The given modules, each after those that it calls (stop in reverse). Throws when the calls form a cycle. */
export function startOrder(table: ModuleTable, names: readonly string[]): string[] {
  const order: string[] = [];
  const visiting: string[] = [];
  const visit = (name: string) => {
    if (order.includes(name)) return;
    if (visiting.includes(name)) {
      throw new Error(`modules call each other in a circle: ${[...visiting, name].join(" → ")}`);
    }
    visiting.push(name);
    for (const callee of table[name]?.calls ?? []) if (names.includes(callee) && callee !== name) visit(callee);
    visiting.pop();
    order.push(name);
  };
  for (const name of names) visit(name);
  return order;
}

/** Modules that run elsewhere and are called by the given ones: their addresses must be known. */
export function remoteCalls(table: ModuleTable, names: readonly string[]): string[] {
  const called = new Set(names.flatMap((name) => table[name]?.calls ?? []));
  return [...called].filter((name) => !names.includes(name));
}
