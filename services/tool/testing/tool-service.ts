import { fileURLToPath } from "node:url";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ExecuteToolRequestSchema,
  ToolExecutionService,
  type ToolProgress,
  type ToolResult,
  ToolResultSchema,
} from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import {
  callAs,
  principalOf,
  type ServiceUnderTestOptions,
  serviceUnderTest,
} from "#platform/testing/service-under-test.ts";
import { type ToolModuleOptions, toolModule } from "../index.ts";

type AskedCall = Omit<MessageInitShape<typeof ExecuteToolRequestSchema>, "$typeName">;

/** A database with the tool service's tables. */
export function toolDatabase(): Promise<TestDatabase> {
  const dir = fileURLToPath(new URL("../store/migrations/", import.meta.url));
  return testDatabase({ services: [{ schema: "tool", dir }] });
}

/** Somebody who may list tools and run agents. */
export function caller(more: Partial<Principal> = {}): Principal {
  return principalOf(newId("ten"), ["agents:run", "tools:read"], more);
}

/** What an execution sent. */
export interface Executed {
  readonly progress: readonly ToolProgress[];
  readonly results: readonly ToolResult[];
  /** The result, when there was exactly one; else an empty message. */
  readonly result: ToolResult;
  readonly text: string;
  /** The structured result. */
  readonly value: Record<string, unknown>;
}

/** The tool service, started, with further tools beside its own. */
export async function openTools(options: ServiceUnderTestOptions & ToolModuleOptions) {
  const values = { tool: { abandon_after: "100ms" }, ...options.values };
  const service = await serviceUnderTest(toolModule(options), { ...options, values });
  const tools = service.client(ToolService);
  const execution = service.client(ToolExecutionService);
  return {
    service,
    tools,
    execution,
    [Symbol.asyncDispose]: service[Symbol.asyncDispose],
    async execute(by: Principal, asked: AskedCall, more: Partial<Call> = {}): Promise<Executed> {
      const progress: ToolProgress[] = [];
      const results: ToolResult[] = [];
      for await (const { frame } of execution.executeTool({ callId: newId("call"), ...asked }, callAs(by, more))) {
        if (frame.case === "progress") progress.push(frame.value);
        if (frame.case === "result") results.push(frame.value);
      }
      const result = results.length === 1 ? (results[0] as ToolResult) : create(ToolResultSchema);
      const text = result.content.map(({ part }) => (part.case === "text" ? part.value.text : "")).join("");
      return { progress, results, result, text, value: JSON.parse(result.structuredJson || "{}") };
    },
  };
}

export type OpenTools = Awaited<ReturnType<typeof openTools>>;
