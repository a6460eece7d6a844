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

/** The tools of one run, as the engine needs them. */
export interface RunTools {
  readonly specs: ToolSpec[];
  /** Executes one call; its idempotency key is `run_id/call_id`, the same whenever this call is repeated. */
  execute(call: Call, toolCall: ToolCall, onProgress: (progress: ToolProgress) => void): Promise<ToolOutcome>;
}

/** Asks for the tools of these names that exist for the caller's tenant. */
export type OpenTools = (call: Call, caller: ToolCaller, names: readonly string[]) => Promise<RunTools>;

const DESCRIBE_MS = 10_000;
/** Longest execution of a tool that names none. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** Time over a tool's own limit before the agent stops waiting for the tool service. */
const MARGIN_MS = 5_000;

/** The tools of the tool service. */
export function openToolsOf(tools: Client<typeof ToolExecutionService>): OpenTools {
  return async (call, caller, names) => {
    const asked = { names: [...names] };
    const described = names.length === 0 ? [] : (await tools.describeTools(asked, onward(call, DESCRIBE_MS))).tools;
    const limits = new Map(described.map(({ name, timeoutMs }) => [name, timeoutMs || DEFAULT_TIMEOUT_MS]));
    return {
      specs: described.map(toolSpec),
      async execute(within, { callId, name, argumentsJson }, onProgress) {
        const request = { ...caller, tool: name, argumentsJson, callId, requestId: `${caller.runId}/${callId}` };
        const limit = (limits.get(name) ?? DEFAULT_TIMEOUT_MS) + MARGIN_MS;
        const frames = consume(
          (signal) => tools.executeTool(request, onward(withSignal(within, signal), limit)),
          within.signal,
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
