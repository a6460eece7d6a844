import type { Log } from "./log.ts";

/** The agent's log events under the design document's names and fields ("structured logs"). */
export interface AgentLog {
  /** `agent.query.start`: input_length. */
  queryStart(query: { inputLength: number }): void;
  /** `agent.query.complete`: response_length, iterations, duration_ms. */
  queryComplete(query: { responseLength: number; iterations: number; durationMs: number }): void;
  /** `agent.tool.call`: tool, args (masked), duration_ms, success. */
  toolCall(call: { tool: string; callId?: string; args: unknown; durationMs: number; success: boolean }): void;
  /** `agent.error`: error_type, error_message, context (masked), and the stack in `err`. */
  error(error: unknown, context?: Readonly<Record<string, unknown>>): void;
}

/** Over a log that already carries tenant_id, session_id and run_id. Like every log, never throws. */
export function agentLog(log: Log): AgentLog {
  return {
    queryStart: ({ inputLength }) => {
      const event = "agent.query.start";
      log.info({ event, input_length: inputLength }, event);
    },
    queryComplete: ({ responseLength, iterations, durationMs }) => {
      const event = "agent.query.complete";
      log.info({ event, response_length: responseLength, iterations, duration_ms: durationMs }, event);
    },
    toolCall: ({ tool, callId, args, durationMs, success }) => {
      const event = "agent.tool.call";
      log.info({ event, tool, call_id: callId, args, duration_ms: durationMs, success }, event);
    },
    error: (error, context) => {
      const event = "agent.error";
      const { name, message } = error instanceof Error ? error : { name: typeof error, message: error };
      log.error({ event, error_type: name, error_message: message, context, err: error }, event);
    },
  };
}
