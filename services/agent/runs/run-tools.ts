import type { Client } from "@connectrpc/connect";
import type { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import type { Tool } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { type Call, onward, withSignal } from "#platform/rpc/call.ts";
import { consume } from "#platform/rpc/consume.ts";
import { contentFromProto } from "../domain/run-input.ts";
import type { ToolCall, ToolOutcome, ToolProgress, ToolSpec } from "../engine/tool-spec.ts";

/** The run on whose behalf tools are called. */
export interface ToolCaller {
  runId: string;
  sessionId: string;
  agentId: string;
  endUserId: string;
}

/** The tools of the tool service, as the engine needs them. */
export interface RunTools {
  /** The tools of these names that exist for the tenant. */
  describe(call: Call, names: readonly string[]): Promise<ToolSpec[]>;
  /** Executes one call; its idempotency key is `run_id/call_id`, the same whenever this call is repeated. */
  execute(
    call: Call,
    caller: ToolCaller,
    toolCall: ToolCall,
    onProgress: (progress: ToolProgress) => void,
  ): Promise<ToolOutcome>;
}

/** Time over a tool's own limit before the agent stops waiting for the tool service. */
const MARGIN_MS = 5_000;

export function createRunTools(tools: Client<typeof ToolExecutionService>): RunTools {
  const limits = new Map<string, number>();
  return {
    async describe(call, names) {
      if (names.length === 0) return [];
      const described = await tools.describeTools({ names: [...names] }, onward(call, 10_000));
      for (const tool of described.tools) limits.set(tool.name, tool.timeoutMs);
      return described.tools.map(toolSpec);
    },

    async execute(call, caller, toolCall, onProgress) {
      const { callId, name, argumentsJson } = toolCall;
      const requestId = `${caller.runId}/${callId}`;
      const request = { ...caller, tool: name, argumentsJson, callId, requestId };
      const limit = (limits.get(name) ?? 60_000) + MARGIN_MS;
      const frames = consume(
        (signal) => tools.executeTool(request, onward(withSignal(call, signal, call.deadline), limit)),
        call.signal,
      );
      for await (const { frame } of frames) {
        if (frame.case === "progress") onProgress({ message: frame.value.message, fraction: frame.value.fraction });
        if (frame.case === "result") {
          const { content, structuredJson, isError, durationMs } = frame.value;
          return { content: content.map(contentFromProto), structuredJson, isError, durationMs: Number(durationMs) };
        }
      }
      throw new Error("the tool service gave no result");
    },
  };
}

function toolSpec(tool: Tool): ToolSpec {
  return {
    name: tool.name,
    description: tool.description,
    inputSchema: JSON.parse(tool.inputSchemaJson) as Record<string, unknown>,
    concurrencySafe: tool.concurrencySafe,
    risk: tool.risk,
  };
}
