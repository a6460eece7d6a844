import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { ContentPart, ModelTool } from "../llm/chat-model.ts";
import type { EscalationPriority } from "./events.ts";

/** A tool that the loop may run. */
export interface ToolSpec extends ModelTool {
  /** True: calls of one turn may run together. */
  concurrencySafe?: boolean;
  risk?: RiskClass;
  /** How many of its newest results the model keeps seeing in full, once it has seen them. Absent or 0: all. */
  ephemeral?: number;
  /** What arguments are checked against, where that is less than the model is told. */
  checkedSchema?: Record<string, unknown>;
  /** True: the run's caller executes it. */
  client?: boolean;
  /** True: people are asked when the outcome of a call is not known. */
  asksWhenUnknown?: boolean;
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
  /** True: the content was cut at the tool's output limit, and the whole text can be read by the call's id. */
  truncated?: boolean;
  /** Calls of this tool that are left in the current minute, where there is a limit. */
  callsLeft?: number;
  /** True: nobody knows whether the call took effect; the content says so. */
  unknown?: boolean;
  /** The tool hands the conversation to people. */
  escalation?: { reason: string; priority: EscalationPriority };
}

/** There is no outcome yet: somebody has to decide, or to execute the call elsewhere. The run is to be taken up again then. */
export interface SuspendedCall {
  suspended: true;
}

export interface ToolProgress {
  message: string;
  /** 0 to 1; 0: unknown. */
  fraction: number;
}

/**
 * Executes one call. The signal is the run's: when it fires the loop does not wait for the tool. A rejection is an error
 * of the platform, of which the model is told nothing but that the tool failed. A suspended call, and those behind it,
 * wait for another attempt.
 */
export type ExecuteTool = (
  call: ToolCall,
  signal: AbortSignal,
  onProgress: (progress: ToolProgress) => void,
) => Promise<ToolOutcome | SuspendedCall>;

/** A part of an earlier call's output, cut at whole characters. */
export interface OutputPart {
  text: string;
  /** UTF-8 bytes of the whole text as far as it was kept. */
  totalBytes: number;
  /** Where the next part begins, in UTF-8 bytes; 0: there is none. */
  nextOffset: number;
}

/** Reads on in the output of an earlier call of the session; undefined: there is none of that id. */
export type ReadToolOutput = (callId: string, offset: number, signal: AbortSignal) => Promise<OutputPart | undefined>;

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

/** Name of the built-in tool that reads outputs again. */
export const readToolOutputName = "read_tool_output";

/** The built-in tool of runs in which the model may be shown less than a tool said. */
export const readToolOutputTool: ToolSpec = {
  name: readToolOutputName,
  description:
    "Reads the output of an earlier tool call that was cut or left out of this conversation, from a byte offset on. " +
    "The answer says where to read on.",
  inputSchema: {
    type: "object",
    properties: {
      call_id: { type: "string", description: "Id of the call, as the note in its place names it." },
      offset: { type: "integer", minimum: 0, default: 0, description: "First byte to read." },
    },
    required: ["call_id"],
    additionalProperties: false,
  },
  concurrencySafe: true,
};
