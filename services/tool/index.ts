import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import type { Module, Running } from "#platform/module/module.ts";
import { calculator } from "./builtin/calculator.ts";
import { currentTime } from "./builtin/current-time.ts";
import { todo } from "./builtin/todo.ts";
import { readToolConfig, type ToolConfig } from "./config.ts";
import type { CodeTool } from "./domain/define-tool.ts";
import { ToolRegistry } from "./domain/registry.ts";
import { Tools } from "./domain/tools.ts";
import { createToolEvents } from "./events.ts";
import { toolExecutionHandler, toolHandler } from "./handler.ts";
import { TodoStore } from "./store/todo-store.ts";
import { ToolCallStore } from "./store/tool-call-store.ts";

/** Tools that agents call. */
export const tool: Module<ToolConfig> = toolModule();

/** The module with further code tools beside those that it ships with. */
export function toolModule(further: readonly CodeTool[] = []): Module<ToolConfig> {
  return {
    name: "tool",
    services: [ToolService, ToolExecutionService],
    schema: { name: "tool", migrations: new URL("./store/migrations/", import.meta.url) },
    config: readToolConfig,
    create({ abandonAfterMs, todoMaxItems }, { log, metrics, database, pageTokens }): Running {
      const builtIn = [currentTime(), calculator, todo(new TodoStore(database), todoMaxItems)];
      const registry = new ToolRegistry([...builtIn, ...further]);
      const store = new ToolCallStore(database);
      const tools = new Tools({ registry, store, pageTokens, events: createToolEvents(log, metrics), abandonAfterMs });
      return {
        routes(router) {
          router.service(ToolService, toolHandler(tools));
          router.service(ToolExecutionService, toolExecutionHandler(tools));
        },
        drain: (signal) => tools.drain(signal),
      };
    },
  };
}
