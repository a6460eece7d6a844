import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import type { Subscription } from "#platform/bus/bus.ts";
import type { Module, Running } from "#platform/module/module.ts";
import type { CodeTool } from "#platform/plugin/define-tool.ts";
import { type LoadedPlugins, loadPlugins } from "#platform/plugin/load-plugins.ts";
import type { ProviderOverrides } from "#platform/plugin/provider.ts";
import { IDEMPOTENCY_KEPT_HOURS } from "#platform/postgres/idempotency.ts";
import { calculator } from "./builtin/calculator.ts";
import { commerceTools } from "./builtin/commerce/tools.ts";
import { currentTime } from "./builtin/current-time.ts";
import { escalateToHuman } from "./builtin/escalate-to-human.ts";
import { financeTools } from "./builtin/finance/tools.ts";
import { todo } from "./builtin/todo.ts";
import { readToolConfig, type ToolConfig } from "./config.ts";
import { Journal } from "./domain/journal.ts";
import { ToolRegistry } from "./domain/registry.ts";
import { Tools } from "./domain/tools.ts";
import { createToolEvents } from "./events.ts";
import { followErasures } from "./follow-erasures.ts";
import { toolExecutionHandler, toolHandler } from "./handler.ts";
import { ErasureStore } from "./store/erasure-store.ts";
import { IdempotencyKeys } from "./store/idempotency-keys.ts";
import { JournalStore } from "./store/journal-store.ts";
import { OrderStore } from "./store/order-store.ts";
import { OutputStore } from "./store/output-store.ts";
import { TodoStore } from "./store/todo-store.ts";
import { ToolCallStore } from "./store/tool-call-store.ts";
import { TransferStore } from "./store/transfer-store.ts";
import { Sweeper } from "./sweeper.ts";

const SWEEP_EVERY_MS = 60 * 60_000;
/** Longer than any call, with what a tool that is left behind may take: then nothing of an erased session is under way. */
const LATE_CALLS_MS = 60 * 60_000;

/** What a test gives to the module beside its own. */
export interface ToolModuleOptions {
  readonly tools?: readonly CodeTool[] | undefined;
  /** Providers that stand in for those that tools declare. */
  readonly overrides?: ProviderOverrides | undefined;
}

/** Tools that agents call. */
export const tool: Module<ToolConfig> = toolModule();

/** The module with further code tools beside those that it ships with. */
export function toolModule({ tools: further = [], overrides = new Map() }: ToolModuleOptions = {}): Module<ToolConfig> {
  return {
    name: "tool",
    services: [ToolService, ToolExecutionService],
    schema: { name: "tool", migrations: new URL("./store/migrations/", import.meta.url) },
    config: readToolConfig,
    create(config, { log, metrics, database, bus, pageTokens, limiter, instanceId }): Running {
      const { abandonAfterMs, todoMaxItems, outputRetentionMs, journalRetentionMs, pluginModules } = config;
      const todos = new TodoStore(database);
      const outputs = new OutputStore(database);
      const entries = new JournalStore(database);
      const erasures = new ErasureStore(database);
      const registry = new ToolRegistry([
        currentTime(),
        calculator,
        todo(todos, todoMaxItems),
        escalateToHuman,
        ...commerceTools(new OrderStore(database)),
        ...financeTools(new TransferStore(database)),
        ...further,
      ]);
      const store = new ToolCallStore(database);
      const events = createToolEvents(log, metrics);
      const tools = new Tools({
        registry,
        store,
        journal: new Journal({ store: entries, instanceId, abandonAfterMs }),
        outputs,
        todos,
        pageTokens,
        events,
        limiter,
        overrides,
        abandonAfterMs,
      });
      const kept = [
        { name: "outputs", store: outputs, retentionMs: outputRetentionMs },
        { name: "journal", store: entries, retentionMs: journalRetentionMs },
        { name: "request_keys", store: new IdempotencyKeys(database), retentionMs: IDEMPOTENCY_KEPT_HOURS * 3_600_000 },
        { name: "late_calls", store: erasures, retentionMs: LATE_CALLS_MS },
      ];
      const sweeper = new Sweeper({ kept, everyMs: SWEEP_EVERY_MS, log });
      let plugins: LoadedPlugins | undefined;
      let following: Subscription | undefined;
      return {
        routes(router) {
          router.service(ToolService, toolHandler(tools));
          router.service(ToolExecutionService, toolExecutionHandler(tools));
        },
        async start(signal) {
          const onUnloadFailed = (plugin: string, error: unknown) =>
            log.warn({ event: "plugin.unload_failed", resource: plugin, err: error }, "a plugin could not let go");
          plugins = await loadPlugins(pluginModules, { signal, onUnloadFailed });
          for (const plugin of plugins.plugins) registry.add(plugin.tools);
          following = await followErasures(bus, erasures);
          sweeper.start();
        },
        drain: (signal) => tools.drain(signal),
        async stop() {
          await following?.unsubscribe();
          await sweeper.stop();
          await plugins?.unload();
        },
      };
    },
  };
}
