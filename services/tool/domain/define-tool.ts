import type { Call } from "#platform/rpc/call.ts";
import { type CheckArguments, compileArguments } from "./arguments.ts";

/** How dangerous a call is: `read_only` reads or computes, `write` can be undone, `destructive` cannot. */
export type Risk = "read_only" | "write" | "destructive";

/** One piece of what a tool shows the model. */
export type ToolContent = { type: "text"; text: string } | { type: "image"; mediaType: string; data: Uint8Array };

/** What a tool answers: text, or a structured value (shown as JSON unless `text` says it better), or content parts. */
export type ToolOutput =
  | string
  | { readonly structured: unknown; readonly text?: string }
  | { readonly content: readonly ToolContent[]; readonly structured?: unknown };

/** What a tool is told of its call. Never part of its schema, and nothing that the model says can change it. */
export interface ToolContext {
  /** On whose behalf. */
  readonly call: Call;
  readonly callId: string;
  readonly runId: string;
  readonly sessionId: string;
  readonly agentId: string;
  readonly endUserId: string;
  /** The same whenever this call is repeated (`run_id/call_id`); empty for a call that belongs to no run. */
  readonly requestKey: string;
  /** Shows a sign of progress; `fraction` is between 0 and 1, 0 when unknown. Cheap: only the newest one is kept. */
  progress(message: string, fraction?: number): void;
}

export interface ToolDefinition<Args> {
  /** Letters, digits, `_` and `-`, 64 at most. */
  readonly name: string;
  /** What it does, as models read it. */
  readonly description: string;
  /** JSON Schema (2020-12) of the arguments; an object. */
  readonly input: Readonly<Record<string, unknown>>;
  readonly risk: Risk;
  /** True: calls of one turn may run together. */
  readonly concurrencySafe: boolean;
  /** True: a call may be repeated with the same request key. */
  readonly idempotent: boolean;
  /** Longest execution. */
  readonly timeoutMs: number;
  /** Most bytes of text that the model is shown, in UTF-8. */
  readonly maxOutputBytes: number;
  /**
   * Does the work. Arguments fit the schema, which `Args` has to agree with. A {@link ToolError} is told to the model;
   * anything else that is thrown is logged, and the model learns only that the tool failed. The signal fires when the
   * caller leaves or the time is over; a tool that ignores it is left behind.
   */
  run(args: Args, context: ToolContext, signal: AbortSignal): Promise<ToolOutput> | ToolOutput;
}

/** A tool that was found to be well-formed, ready to be registered. */
export interface CodeTool extends ToolDefinition<Readonly<Record<string, unknown>>> {
  readonly inputJson: string;
  readonly check: CheckArguments;
}

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
/** The engine's own tool, which ends a run. */
const RESERVED = new Set(["done"]);
const MAX_DESCRIPTION = 4_096;
const MAX_TIMEOUT_MS = 10 * 60_000;
const MAX_OUTPUT_BYTES = 1024 * 1024;

/** Checks a tool's definition. Throws TypeError for one that could not work, so that a process with it does not start. */
export function defineTool<Args>(definition: ToolDefinition<Args>): CodeTool {
  const { name, description, input, timeoutMs, maxOutputBytes } = definition;
  const refuse = (problem: string): never => {
    throw new TypeError(`tool ${JSON.stringify(name)}: ${problem}`);
  };
  if (typeof name !== "string" || !NAME.test(name)) refuse("its name must be 1 to 64 letters, digits, _ or -");
  if (RESERVED.has(name)) refuse("its name is reserved");
  if (description.trim() === "" || description.length > MAX_DESCRIPTION) {
    refuse(`its description must have 1 to ${MAX_DESCRIPTION} characters`);
  }
  if (input["type"] !== "object") refuse('its input must be a schema of type "object"');
  if (!wholeNumberTo(MAX_TIMEOUT_MS, timeoutMs)) refuse(`timeoutMs must be 1 to ${MAX_TIMEOUT_MS}`);
  if (!wholeNumberTo(MAX_OUTPUT_BYTES, maxOutputBytes)) refuse(`maxOutputBytes must be 1 to ${MAX_OUTPUT_BYTES}`);
  try {
    const check = compileArguments(name, input);
    // The schema was checked above; that Args agrees with it is the definition's promise.
    const run = definition.run.bind(definition) as unknown as CodeTool["run"];
    return { ...definition, run, check, inputJson: JSON.stringify(input) };
  } catch (error) {
    return refuse(`its input is not a valid schema: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function wholeNumberTo(most: number, value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1 && value <= most;
}
