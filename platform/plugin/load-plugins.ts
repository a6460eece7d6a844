import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { within } from "../abortable.ts";
import { definePlugin, isPlugin, type Plugin } from "./define-plugin.ts";

export interface LoadPluginsOptions {
  /** Folder that relative paths begin at; default the working directory. */
  readonly base?: string;
  readonly signal?: AbortSignal;
  /** How long one plugin's onLoad or onUnload may take; default 30 s. */
  readonly hookTimeoutMs?: number;
  /** Told of an onUnload that failed. */
  onUnloadFailed?(plugin: string, error: unknown): void;
}

/** The plugins of a process, in the order in which they were named. */
export interface LoadedPlugins {
  readonly plugins: readonly Plugin[];
  /** The plugins of these names, each once, in the order of the names; unknown ones are left out. */
  named(names: readonly string[]): Plugin[];
  /** Lets go of them, the last one first. Never throws. May be called twice. */
  unload(): Promise<void>;
}

/** How many loaders of this process use a plugin, and its onLoad. */
const users = new WeakMap<Plugin, { count: number; loaded: Promise<void> }>();

/**
 * Imports modules by path (`./x.ts`, `/opt/x.js`), `file:` URL or package name, each of which exports a plugin as
 * `plugin`, or as its default. Several services of one process may load the same plugin; its onLoad runs once. Rejects
 * with an Error that names the module and what is wrong; what was loaded by then is let go of.
 */
export async function loadPlugins(
  specifiers: readonly string[],
  options: LoadPluginsOptions = {},
): Promise<LoadedPlugins> {
  const { signal, hookTimeoutMs = 30_000, onUnloadFailed = () => {} } = options;
  const plugins: Plugin[] = [];
  const unload = async () => {
    for (const plugin of plugins.splice(0).reverse()) {
      await release(plugin, hookTimeoutMs).catch((error: unknown) => onUnloadFailed(plugin.name, error));
    }
  };
  try {
    for (const specifier of specifiers) {
      signal?.throwIfAborted();
      const plugin = await importPlugin(specifier, options.base ?? process.cwd());
      if (plugins.some(({ name }) => name === plugin.name)) {
        throw new Error(`plugin ${specifier}: there are two plugins named ${JSON.stringify(plugin.name)}`);
      }
      await acquire(plugin, hookTimeoutMs);
      plugins.push(plugin);
    }
  } catch (error) {
    await unload();
    throw error;
  }
  const loaded = [...plugins];
  const byName = new Map(loaded.map((plugin) => [plugin.name, plugin]));
  return { plugins: loaded, named: (names) => [...new Set(names)].flatMap((name) => byName.get(name) ?? []), unload };
}

async function importPlugin(specifier: string, base: string): Promise<Plugin> {
  let module: { plugin?: unknown; default?: unknown };
  try {
    module = (await import(address(specifier, base))) as typeof module;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`plugin ${specifier}: it cannot be imported: ${why}`, { cause });
  }
  const found = module.plugin ?? module.default;
  if (isPlugin(found)) return found;
  if (typeof found !== "object" || found === null) {
    throw new Error(`plugin ${specifier}: it exports no "plugin" and no default`);
  }
  // A package with its own copy of this module has checked its plugin against that copy's rules, not these.
  const known = checked.get(found) ?? definePlugin(withoutEmpty(found));
  checked.set(found, known);
  return known;
}

const checked = new WeakMap<object, Plugin>();

function withoutEmpty(found: object): Parameters<typeof definePlugin>[0] {
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) as never;
}

function address(specifier: string, base: string): string {
  const isPath = /^\.{0,2}\//.test(specifier);
  return isPath ? pathToFileURL(resolve(base, specifier)).href : specifier;
}

async function acquire(plugin: Plugin, timeoutMs: number): Promise<void> {
  const use = users.get(plugin) ?? { count: 0, loaded: hook(plugin, "onLoad", timeoutMs) };
  users.set(plugin, use);
  use.count++;
  try {
    await use.loaded;
  } catch (error) {
    // It was never in use: the next one tries again.
    users.delete(plugin);
    throw error;
  }
}

async function release(plugin: Plugin, timeoutMs: number): Promise<void> {
  const use = users.get(plugin);
  if (use === undefined || --use.count > 0) return;
  users.delete(plugin);
  await hook(plugin, "onUnload", timeoutMs);
}

async function hook(plugin: Plugin, name: "onLoad" | "onUnload", timeoutMs: number): Promise<void> {
  const over = new AbortController();
  const late = () => new Error(`it did not end within ${timeoutMs} ms`);
  try {
    await within((async () => plugin[name]?.(over.signal))(), timeoutMs, late);
  } catch (cause) {
    over.abort(cause);
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`plugin ${plugin.name}: ${name} failed: ${why}`, { cause });
  }
}
