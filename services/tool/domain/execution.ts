import { abortable, within } from "#platform/abortable.ts";
import type { CodeTool, ToolContext, ToolOutput } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { hasScope } from "#platform/rpc/principal.ts";
import type { Admission } from "./call-limit.ts";
import { Injected, type InjectionHooks } from "./injected.ts";
import { maskOutput, maskTexts } from "./mask-output.ts";
import { failedResult, resultOf, type ToolResult, withPointer } from "./tool-result.ts";

/** How a call ended. */
export type Outcome =
  | "ok"
  | "invalid_arguments"
  | "permission_denied"
  | "rate_limited"
  | "tool_error"
  | "failed"
  | "timeout"
  | "cancelled"
  /** The answer is that of an earlier attempt. */
  | "replayed"
  /** Nobody knows what became of an earlier attempt. */
  | "unknown";

export interface ExecutedCall {
  readonly outcome: Outcome;
  readonly result: ToolResult;
  /** As far as they could be read. */
  readonly args: unknown;
  readonly durationMs: number;
  /** Whether the tool was started. */
  readonly ran: boolean;
  /** What a tool that was cancelled returned all the same, in time. */
  readonly afterwards?: ToolResult;
  /** Calls that the tenant has left, when they are few. */
  readonly callsLeft?: number;
  /** What a failed tool threw. */
  readonly error?: unknown;
}

/** What a call is told before it counts: the signal to run under, or that it is not to run and what it answers. */
export type Begun =
  | { readonly signal: AbortSignal }
  | {
      readonly earlier: {
        readonly outcome: "replayed" | "unknown";
        readonly result: ToolResult;
        readonly durationMs: number;
      };
    };

/** What happens beside the result. */
export interface ExecutionHooks extends Pick<InjectionHooks, "overrides" | "disposeFailed"> {
  /** Asked once, for a call that is permitted and whose arguments fit. */
  begin(): Promise<Begun>;
  /** Asked once, for a call that is to run. */
  admit(tool: CodeTool): Promise<Admission>;
  /** The tool was still at work this long after its signal had fired, and was left behind. */
  abandoned(): void;
  /** How long a tool whose signal has fired may take to end by itself. */
  readonly abandonAfterMs: number;
  /** How long a provider may take to let go of what it made. */
  readonly disposeWithinMs: number;
}

/** Runs one call of a tool. Rejects only when `begin` or `admit` does, and always ends, whatever the tool does with its signal. */
export async function executeTool(
  tool: CodeTool,
  argumentsJson: string,
  context: ToolContext,
  hooks: ExecutionHooks,
): Promise<ExecutedCall> {
  const startedAt = performance.now();
  const { name } = tool;
  const checked = tool.check(argumentsJson);
  const end = (outcome: Outcome, result: ToolResult, more: Partial<ExecutedCall> = {}): ExecutedCall => {
    const read = "args" in checked ? checked.args : checked.read;
    const args = tool.mask === undefined ? read : maskTexts(read, tool.mask);
    return { outcome, result, args, durationMs: performance.now() - startedAt, ran: false, ...more };
  };
  const failed = (outcome: Outcome, message: string, more: Partial<ExecutedCall> = {}) =>
    end(outcome, failedResult(tool.mask?.(message) ?? message, tool.maxOutputBytes), more);

  const lacking = tool.permissions.find((scope) => !hasScope(context.call.principal, scope));
  if (lacking !== undefined) {
    return failed(
      "permission_denied",
      `The tool "${name}" needs the permission "${lacking}", which this caller lacks.`,
    );
  }
  if ("problem" in checked) return failed("invalid_arguments", checked.problem);
  const begun = await hooks.begin();
  if ("earlier" in begun)
    return end(begun.earlier.outcome, begun.earlier.result, { durationMs: begun.earlier.durationMs });
  const admission = await hooks.admit(tool);
  if (!admission.allowed) return failed("rate_limited", limitText(tool, admission.retryAfterMs));
  let facts: Partial<ExecutedCall> = admission.callsLeft === undefined ? {} : { callsLeft: admission.callsLeft };

  const stop = new AbortController();
  const { signal: caller } = begun;
  const leave = () => stop.abort(caller.reason);
  caller.addEventListener("abort", leave, { once: true });
  if (caller.aborted) leave();
  const timer = setTimeout(
    () => stop.abort(new DOMException("The tool's time is over.", "TimeoutError")),
    tool.timeoutMs,
  );
  const injected = new Injected(tool, hooks);
  let late: ToolOutput | undefined;
  try {
    if (stop.signal.aborted) throw stop.signal.reason;
    facts = { ...facts, ran: true };
    const own = { ...context, call: { ...context.call, signal: caller } };
    const running = start(tool, checked.args, own, stop.signal, injected);
    const output = await settled(running, stop.signal, hooks, (returned) => {
      late = returned;
    });
    return end("ok", shown(tool, context, output), facts);
  } catch (error) {
    if (caller.aborted) {
      return failed("cancelled", `The call of "${name}" was cancelled.`, {
        ...facts,
        ...afterwards(tool, context, late),
      });
    }
    if (stop.signal.aborted) {
      return failed("timeout", `The tool "${name}" did not finish within ${inWords(tool.timeoutMs)}.`, facts);
    }
    if (error instanceof ToolError) return failed("tool_error", error.message, facts);
    return failed("failed", safeText(name, error), { error, ...facts });
  } finally {
    clearTimeout(timer);
    caller.removeEventListener("abort", leave);
    await injected.dispose();
  }
}

/** A tool that throws before its first await must not differ from one that does later. */
async function start(
  tool: CodeTool,
  args: Readonly<Record<string, unknown>>,
  context: ToolContext,
  signal: AbortSignal,
  injected: Injected,
): Promise<ToolOutput> {
  const values = await injected.values(context, signal);
  signal.throwIfAborted();
  return tool.run(args, context, signal, values);
}

/** What a call of no session was not shown is nobody's to read. */
function shown(tool: CodeTool, { sessionId, callId }: ToolContext, output: ToolOutput): ToolResult {
  const limits = { maxBytes: tool.maxOutputBytes, keep: tool.ephemeral > 0 && sessionId !== "" };
  // A wrong output is reported as what it is, not as a failure of the mask.
  if (tool.mask !== undefined) resultOf(output, limits);
  const result = resultOf(tool.mask === undefined ? output : maskOutput(output, tool.mask), limits);
  return sessionId === "" ? result : withPointer(result, callId);
}

/** What a tool that was cancelled returned all the same; a wrong output says nothing. */
function afterwards(tool: CodeTool, context: ToolContext, late: ToolOutput | undefined): Partial<ExecutedCall> {
  if (late === undefined) return {};
  try {
    return { afterwards: shown(tool, context, late) };
  } catch {
    return {};
  }
}

/**
 * What the tool returns; rejects when its signal fires, after it has had a moment to end by itself. What it returns then
 * goes to `late`.
 */
async function settled<T>(
  running: Promise<T>,
  signal: AbortSignal,
  hooks: ExecutionHooks,
  late: (returned: T) => void,
): Promise<T> {
  try {
    return await abortable(running, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    const over = running.then(late, () => {});
    await within(over, hooks.abandonAfterMs, () => new Error("still running")).catch(() => hooks.abandoned());
    throw error;
  }
}

function limitText({ name, callsPerMinute }: CodeTool, retryAfterMs: number): string {
  const seconds = Math.max(1, Math.ceil(retryAfterMs / 1000));
  const often = callsPerMinute === 1 ? "once" : `${callsPerMinute} times`;
  return `The tool "${name}" may be called ${often} a minute, and that is used up. Try again in ${seconds} s.`;
}

function safeText(tool: string, error: unknown): string {
  const passing = error instanceof AppError && error.retryAfterMs !== undefined;
  return passing ? `The tool "${tool}" is not available at the moment. Try again.` : `The tool "${tool}" failed.`;
}

function inWords(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000} s` : `${ms} ms`;
}
