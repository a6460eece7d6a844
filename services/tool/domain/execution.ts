import { abortable, within } from "#platform/abortable.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { ToolError } from "../errors.ts";
import type { CodeTool, ToolContext } from "./define-tool.ts";
import { failedResult, resultOf, type ToolResult } from "./tool-result.ts";

/** How a call ended. */
export type Outcome = "ok" | "invalid_arguments" | "tool_error" | "failed" | "timeout" | "cancelled";

export interface ExecutedCall {
  readonly outcome: Outcome;
  readonly result: ToolResult;
  /** As far as they could be read. */
  readonly args: unknown;
  readonly durationMs: number;
  /** What a failed tool threw. */
  readonly error?: unknown;
}

/** What happens beside the result. */
export interface ExecutionHooks {
  /** The tool was still at work this long after its signal had fired, and was left behind. */
  abandoned(): void;
  /** How long a tool whose signal has fired may take to end by itself. */
  readonly abandonAfterMs: number;
}

/** Runs one call of a tool. Never rejects, and always ends, whatever the tool does with its signal. */
export async function executeTool(
  tool: CodeTool,
  argumentsJson: string,
  context: ToolContext,
  hooks: ExecutionHooks,
): Promise<ExecutedCall> {
  const startedAt = performance.now();
  const checked = tool.check(argumentsJson);
  const end = (outcome: Outcome, result: ToolResult, more: { error?: unknown } = {}): ExecutedCall => {
    const args = "args" in checked ? checked.args : checked.read;
    return { outcome, result, args, durationMs: performance.now() - startedAt, ...more };
  };
  const failed = (outcome: Outcome, message: string, error?: unknown) =>
    end(outcome, failedResult(message, tool.maxOutputBytes), error === undefined ? {} : { error });
  if ("problem" in checked) return failed("invalid_arguments", checked.problem);

  const stop = new AbortController();
  const { signal: left } = context.call;
  const leave = () => stop.abort(left.reason);
  left.addEventListener("abort", leave, { once: true });
  if (left.aborted) leave();
  const timer = setTimeout(
    () => stop.abort(new DOMException("The tool's time is over.", "TimeoutError")),
    tool.timeoutMs,
  );
  try {
    if (stop.signal.aborted) throw stop.signal.reason;
    const running = start(() => tool.run(checked.args, context, stop.signal));
    const output = await settled(running, stop.signal, hooks);
    return end("ok", resultOf(output, tool.maxOutputBytes));
  } catch (error) {
    if (left.aborted) return failed("cancelled", `The call of "${tool.name}" was cancelled.`);
    if (stop.signal.aborted) {
      return failed("timeout", `The tool "${tool.name}" did not finish within ${inWords(tool.timeoutMs)}.`);
    }
    if (error instanceof ToolError) return failed("tool_error", error.message);
    return failed("failed", safeText(tool.name, error), error);
  } finally {
    clearTimeout(timer);
    left.removeEventListener("abort", leave);
  }
}

/** A tool that throws before its first await must not differ from one that does later. */
async function start<T>(run: () => Promise<T> | T): Promise<T> {
  return run();
}

/** What the tool returns; rejects when its signal fires, after it has had a moment to end by itself. */
async function settled<T>(running: Promise<T>, signal: AbortSignal, hooks: ExecutionHooks): Promise<T> {
  try {
    return await abortable(running, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
    const over = running.then(
      () => {},
      () => {},
    );
    await within(over, hooks.abandonAfterMs, () => new Error("still running")).catch(() => hooks.abandoned());
    throw error;
  }
}

function safeText(tool: string, error: unknown): string {
  const passing = error instanceof AppError && error.retryAfterMs !== undefined;
  return passing ? `The tool "${tool}" is not available at the moment. Try again.` : `The tool "${tool}" failed.`;
}

function inWords(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000} s` : `${ms} ms`;
}
