import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Plugin, PluginContext } from "#platform/plugin/define-plugin.ts";
import type { LoadedPlugins } from "#platform/plugin/load-plugins.ts";
import { runHooks } from "#platform/plugin/run-hooks.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { adapterOf } from "../adapters/adapters.ts";
import type { BusinessAdapter } from "../adapters/business-adapter.ts";

/** What an agent's adapter and plugins make of texts and prompts. */
export class RunHooks {
  readonly adapter: BusinessAdapter | undefined;
  readonly #plugins: readonly Plugin[];
  readonly #timeoutMs: number;
  readonly #log: Log;
  #given: string | undefined;

  constructor(agent: Agent, { plugins, timeoutMs, log }: HookSource) {
    this.adapter = adapterOf(agent.adapter);
    this.#plugins = plugins()?.named(agent.plugins) ?? [];
    this.#timeoutMs = timeoutMs;
    this.#log = log;
  }

  /** The agent's system prompt with what adapter and plugins add. */
  system(prompt: string): string {
    const additions = this.#plugins.flatMap(({ promptAdditions }) => promptAdditions);
    return [prompt, this.adapter?.prompt ?? "", ...additions].filter((part) => part !== "").join("\n\n");
  }

  /** What the user wrote as the model shall see it; `failed`: plugins that could not do their part. */
  async beforeInput(text: string, context: PluginContext, signal: AbortSignal): Promise<Hooked> {
    const adapted = this.adapter?.beforeInput?.(text) ?? text;
    return this.#run("beforeInput", adapted, context, signal);
  }

  /** Whether any plugin has a say in answers. */
  get changeAnswers(): boolean {
    return this.#plugins.some(({ afterResponse }) => afterResponse !== undefined);
  }

  /** The answer as it was when it was last given to {@link afterResponse}; undefined: it never was. */
  get given(): string | undefined {
    return this.#given;
  }

  /** A run's answer as the plugins want it. */
  async afterResponse(text: string, context: PluginContext, signal: AbortSignal): Promise<Hooked> {
    this.#given = text;
    return this.#run("afterResponse", text, context, signal);
  }

  /** A text without what the adapter hides. */
  hide(text: string): string {
    return this.adapter?.hides?.mask(text) ?? text;
  }

  async #run(
    hook: "beforeInput" | "afterResponse",
    text: string,
    context: PluginContext,
    signal: AbortSignal,
  ): Promise<Hooked> {
    const failed: string[] = [];
    const onFailure = (plugin: string, error: unknown) => {
      failed.push(plugin);
      const { tenantId: tenant_id, runId: run_id } = context;
      this.#log.warn({ event: "plugin.hook_failed", resource: plugin, tenant_id, run_id, err: error }, hook);
    };
    const timeoutMs = this.#timeoutMs;
    return { text: await runHooks(this.#plugins, hook, text, { context, signal, timeoutMs, onFailure }), failed };
  }
}

export interface HookSource {
  /** The process's plugins, once they are loaded. */
  plugins(): LoadedPlugins | undefined;
  /** How long one hook may take. */
  timeoutMs: number;
  log: Log;
}

/** A text behind its hooks. */
export interface Hooked {
  text: string;
  /** Names of plugins whose hook failed or took too long; they left the text as it was. */
  failed: string[];
}

/** What is told of a plugin that could not do its part. */
export function pluginFailed(plugin: string): { reason: string; message: string; facts: Record<string, string> } {
  const message = "A plugin could not do its part; the text is without it.";
  return { reason: "PLUGIN_FAILED", message, facts: { plugin } };
}
