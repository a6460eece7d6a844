import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { ContentPart, ModelTool } from "../llm/chat-model.ts";

/** A tool that the loop may run. */
export interface ToolSpec extends ModelTool {
  /** True: calls of one turn may run together. */
  concurrencySafe?: boolean;
  risk?: RiskClass;
}

/** A call whose arguments fit the tool's schema. */
export interface ToolCall {
  /** `call_…` */
  callId: string;
  name: string;
  /** The arguments as JSON text, defaults filled in: what is shown, approved and executed. */
  argumentsJson: string;
}

/** What a tool answered. A tool that fails is an outcome with `isError` and a text that the model can use. */
export interface ToolOutcome {
  content: ContentPart[];
  isError?: boolean;
  /** Structured result as JSON text. */
  structuredJson?: string;
  durationMs?: number;
  /** The tool ends the run with this answer. */
  done?: { message: string };
}

export interface ToolProgress {
  message: string;
  /** 0 to 1; 0: unknown. */
  fraction: number;
}

/**
 * Executes one call. The signal is the run's: when it fires the loop does not wait for the tool. A rejection is an error
 * of the platform, of which the model is told nothing but that the tool failed.
 */
export type ExecuteTool = (
  call: ToolCall,
  signal: AbortSignal,
  onProgress: (progress: ToolProgress) => void,
) => Promise<ToolOutcome>;

/** Name of the built-in tool that ends a run. */
export const doneToolName = "done";

/** The built-in tool of agents that must say when they are done. */
export const doneTool: ToolSpec = {
  name: doneToolName,
  description:
    "Ends the task. Call it once, when everything that was asked for is done or cannot be done. " +
    "The message is your final answer to the user.",
  inputSchema: {
    type: "object",
    properties: { message: { type: "string", description: "The final answer, complete, as the user is to read it." } },
    required: ["message"],
    additionalProperties: false,
  },
};
