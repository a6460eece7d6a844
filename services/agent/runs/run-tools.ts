import type { Client } from "@connectrpc/connect";
import type { ToolExecutionService, ToolResult } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { type Tool, UnknownPolicy } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { type Call, onward, withSignal } from "#platform/rpc/call.ts";
import { consume } from "#platform/rpc/consume.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { contentFromProto } from "../domain/run-input.ts";
import type { OutputPart, ToolCall, ToolOutcome, ToolProgress, ToolSpec } from "../engine/tool-spec.ts";
import type { NeighbourAnswers } from "./neighbour-answers.ts";

/** The run on whose behalf tools are called. */
export interface ToolCaller {
  runId: string;
  sessionId: string;
  agentId: string;
  endUserId: string;
}

/** Calls that an earlier run asked for and this one goes on with: they are keyed by that run. */
export interface InheritedCalls {
  runId: string;
  callIds: ReadonlySet<string>;
}

/** The tools of one run, as the engine needs them. */
export interface RunTools {
  readonly specs: readonly ToolSpec[];
  /**
   * Executes one call; its idempotency key is `run_id/call_id` of the run that asked for it, whoever repeats the call, unless
   * people have decided that it is to be made anew under another one.
   */
  execute(
    call: Call,
    toolCall: ToolCall,
    onProgress: (progress: ToolProgress) => void,
    requestKey?: string,
  ): Promise<ToolOutcome>;
  /** A part of an earlier output of the session; undefined: there is none of that call. */
  readOutput(call: Call, callId: string, offset: number): Promise<OutputPart | undefined>;
  /** Texts of the session's open todos; none where they cannot be asked for. */
  openTodos(call: Call): Promise<readonly string[]>;
}

/** Asks for the tools of these names that exist for the caller's tenant. */
export type OpenTools = (
  call: Call,
  caller: ToolCaller,
  names: readonly string[],
  inherited?: InheritedCalls,
) => Promise<RunTools>;

const DESCRIBE_MS = 10_000;
const READ_MS = 10_000;
/** Longest execution of a tool that names none. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** Time over a tool's own limit before the agent stops waiting for the tool service. */
const MARGIN_MS = 5_000;

const NO_TOOLS = { specs: [], limits: new Map<string, number>() };

/** The tools of the tool service. */
export function openToolsOf(tools: Client<typeof ToolExecutionService>, answers: NeighbourAnswers): OpenTools {
  const describe = async (call: Call, names: readonly string[]) => {
    const { tools: described } = await tools.describeTools({ names: [...names] }, onward(call, DESCRIBE_MS));
    const limits = new Map(described.map(({ name, timeoutMs }) => [name, timeoutMs || DEFAULT_TIMEOUT_MS]));
    return { specs: described.map(toolSpec), limits };
  };
  return async (call, caller, names, inherited) => {
    const askedIn = (callId: string) => (inherited?.callIds.has(callId) ? inherited.runId : caller.runId);
    const { specs, limits } =
      names.length === 0
        ? NO_TOOLS
        : await answers.get(call.principal, ["tools", ...names], () => describe(call, names));
    return {
      specs,
      async execute(within, { callId, name, argumentsJson }, onProgress, key = `${askedIn(callId)}/${callId}`) {
        const request = { ...caller, tool: name, argumentsJson, callId, requestId: key };
        const limit = (limits.get(name) ?? DEFAULT_TIMEOUT_MS) + MARGIN_MS;
        const frames = consume(
          (signal) => tools.executeTool(request, onward(withSignal(within, signal), limit)),
          within.signal,
        );
        for await (const { frame } of frames) {
          if (frame.case === "progress") onProgress({ message: frame.value.message, fraction: frame.value.fraction });
          if (frame.case === "result") {
            failpoint("run-tools.after-result");
            return toOutcome(frame.value);
          }
        }
        throw new Error("the tool service gave no result");
      },
      async readOutput(within, callId, offset) {
        const request = { sessionId: caller.sessionId, callId, offset: BigInt(offset) };
        try {
          const { text, totalBytes, nextOffset } = await tools.readToolOutput(request, onward(within, READ_MS));
          return { text, totalBytes: Number(totalBytes), nextOffset: Number(nextOffset) };
        } catch (error) {
          if (reasonOf(error) === "RESOURCE_NOT_FOUND") return undefined;
          throw error;
        }
      },
      async openTodos(within) {
        try {
          const { todos } = await tools.listOpenTodos({ sessionId: caller.sessionId }, onward(within, READ_MS));
          return todos;
        } catch (error) {
          if (within.signal.aborted) throw error;
          // An answer is worth more than being reminded.
          return [];
        }
      },
    };
  };
}

function toOutcome(result: ToolResult): ToolOutcome {
  const { content, structuredJson, isError, durationMs, truncated, callsLeft, escalation, unknown } = result;
  return {
    content: content.map(contentFromProto),
    structuredJson,
    isError,
    durationMs: Number(durationMs),
    ...(truncated && { truncated }),
    ...(unknown && { unknown }),
    ...(callsLeft !== undefined && { callsLeft }),
    ...(escalation !== undefined && {
      escalation: {
        reason: escalation.reason,
        priority: PRIORITIES.find((one) => one === escalation.priority) ?? "normal",
      },
    }),
  };
}

const PRIORITIES = ["low", "normal", "high"] as const;

function toolSpec(tool: Tool): ToolSpec {
  return {
    name: tool.name,
    description: tool.description,
    inputSchema: JSON.parse(tool.inputSchemaJson) as Record<string, unknown>,
    concurrencySafe: tool.concurrencySafe,
    risk: tool.risk,
    ephemeral: tool.ephemeral,
    asksWhenUnknown: tool.onUnknown === UnknownPolicy.ASK,
  };
}
