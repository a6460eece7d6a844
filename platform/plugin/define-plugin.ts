import { type CodeTool, VERSION } from "./define-tool.ts";

/** Where a hook is called: the run whose text it sees. */
export interface PluginContext {
  readonly tenantId: string;
  readonly agentId: string;
  readonly sessionId: string;
  readonly runId: string;
  /** Empty for a run of no user. */
  readonly endUserId: string;
}

/**
 * A hook on a text: returns what stands in its place, or undefined to leave it. It must end when the signal fires; one
 * that fails or takes too long leaves the text as it was.
 */
export type TextHook = (
  text: string,
  context: PluginContext,
  signal: AbortSignal,
) => Promise<string | undefined> | string | undefined;

/** What an author writes. */
export interface PluginDefinition {
  /** Letters, digits, `_` and `-`, 64 at most; agents name it to enable the plugin. */
  readonly name: string;
  /** Semantic version. */
  readonly version: string;
  readonly description?: string;
  /** Made by defineTool. */
  readonly tools?: readonly CodeTool[];
  /** Text that follows the system prompt of agents that have the plugin. */
  readonly promptAdditions?: string | readonly string[];
  /** Once per process, before anything of the plugin is used. What it throws stops the process at its start. */
  onLoad?(signal: AbortSignal): Promise<void> | void;
  /** Once per process, after everything that used the plugin. */
  onUnload?(signal: AbortSignal): Promise<void> | void;
  /** What the user wrote, before the model sees it. */
  readonly beforeInput?: TextHook;
  /** What the agent answers at the end of a run, before it is complete. What was streamed of it is void when it is changed. */
  readonly afterResponse?: TextHook;
}

/** A plugin that was found to be well-formed. */
export interface Plugin {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly tools: readonly CodeTool[];
  readonly promptAdditions: readonly string[];
  readonly onLoad?: (signal: AbortSignal) => Promise<void> | void;
  readonly onUnload?: (signal: AbortSignal) => Promise<void> | void;
  readonly beforeInput?: TextHook;
  readonly afterResponse?: TextHook;
}

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const KNOWN = ["name", "version", "description", "tools", "promptAdditions"] as const;
const HOOKS = ["onLoad", "onUnload", "beforeInput", "afterResponse"] as const;
const MAX_TOOLS = 128;
const MAX_DESCRIPTION = 4_096;
const MAX_ADDITIONS = 32_768;

const made = new WeakSet<object>();

/** Checks a plugin's definition. Throws TypeError that says which plugin and what is wrong with it. */
export function definePlugin(definition: PluginDefinition): Plugin {
  const given = Object(definition) as Partial<Record<keyof PluginDefinition, unknown>>;
  const { name, version, description = "", tools = [], promptAdditions = [] } = given;
  const refuse = (problem: string): never => {
    throw new TypeError(`plugin ${JSON.stringify(name) ?? "without a name"}: ${problem}`);
  };
  if (typeof name !== "string" || !NAME.test(name)) return refuse("its name must be 1 to 64 letters, digits, _ or -");
  if (typeof version !== "string" || !VERSION.test(version)) return refuse("its version must be one such as 1.0.0");
  if (typeof description !== "string" || description.length > MAX_DESCRIPTION) {
    return refuse(`its description must be text of at most ${MAX_DESCRIPTION} characters`);
  }
  const known: readonly string[] = [...KNOWN, ...HOOKS];
  const unknown = Object.keys(given).find((key) => !known.includes(key));
  if (unknown !== undefined) refuse(`there is no ${JSON.stringify(unknown)}; there are ${known.join(", ")}`);
  const additions = [promptAdditions].flat();
  if (!additions.every((text) => typeof text === "string"))
    return refuse("promptAdditions must be text or a list of texts");
  if (additions.join("").length > MAX_ADDITIONS) refuse(`promptAdditions are longer than ${MAX_ADDITIONS} characters`);
  const hooks = HOOKS.flatMap((hook) => {
    const run = given[hook];
    if (run === undefined) return [];
    if (typeof run !== "function") return refuse(`${hook} must be a function`);
    return [[hook, run.bind(definition)] as const];
  });
  const plugin: Plugin = {
    ...Object.fromEntries(hooks),
    name,
    version,
    description,
    tools: toolsOf(tools, refuse),
    promptAdditions: additions.map((text) => text.trim()).filter((text) => text !== ""),
  };
  made.add(plugin);
  return plugin;
}

/** True for what {@link definePlugin} made. */
export function isPlugin(value: unknown): value is Plugin {
  return typeof value === "object" && value !== null && made.has(value);
}

function toolsOf(tools: unknown, refuse: (problem: string) => never): CodeTool[] {
  if (!Array.isArray(tools) || tools.length > MAX_TOOLS) return refuse(`tools must be a list of at most ${MAX_TOOLS}`);
  const names = new Set<string>();
  for (const [i, tool] of tools.entries()) {
    const { name, check } = Object(tool) as Partial<CodeTool>;
    if (typeof check !== "function" || name === undefined) return refuse(`tools[${i}] was not made by defineTool`);
    if (names.has(name)) refuse(`it has two tools named ${JSON.stringify(name)}`);
    names.add(name);
  }
  return [...tools];
}
