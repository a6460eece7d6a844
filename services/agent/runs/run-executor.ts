import { Code } from "@connectrpc/connect";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunOutcome } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { AppError } from "#platform/rpc/errors.ts";
import type { Reason } from "#platform/rpc/reasons.ts";
import type { LoopResult } from "../engine/events.ts";
import { runLoop } from "../engine/loop.ts";
import { LeaseLost } from "../errors.ts";
import type { AgentEvents } from "../events.ts";
import { ModelError } from "../llm/model-error.ts";
import type { Models } from "../llm/models.ts";
import { failure, finishRun, type RunEnd } from "./run-end.ts";
import type { RunLog } from "./run-log.ts";
import { RunScribe } from "./run-scribe.ts";
import type { StartedRun } from "./run-start.ts";
import type { RunTools } from "./run-tools.ts";
import { UsageTotal } from "./usage-total.ts";

/** Why a run's work is ended from outside. */
export class CancelRequest extends Error {
  override readonly name = "CancelRequest";
  /** For the run_cancelled event: "caller", "disconnect", "session_deleted" or "shutdown". */
  readonly why: string;

  constructor(why: string) {
    super(`cancelled: ${why}`);
    this.why = why;
  }
}

export interface RunExecutor {
  /** Works on a run until it has ended; never rejects. The call's signal ends the work with a CancelRequest or LeaseLost. */
  execute(call: Call, started: StartedRun, log: RunLog): Promise<void>;
}

export interface ExecutorDeps {
  models: Models;
  tools: RunTools;
  events: AgentEvents;
  runTimeoutMs: number;
}

/** Plays the engine on a run: what it yields becomes the run's events, messages and end. */
export function createExecutor(deps: ExecutorDeps): RunExecutor {
  return {
    async execute(call, started, log) {
      const usage = new UsageTotal();
      const scribe = new RunScribe(log, usage);
      const observed = deps.events.runBegan(call, started);
      const timeout = AbortSignal.timeout(deps.runTimeoutMs);
      const signal = AbortSignal.any([call.signal, timeout]);
      let end: RunEnd;
      try {
        end = await observed.run(() => work(deps, withSignal(call, signal), started, log, scribe));
      } catch (error) {
        end = endOf(error, call.signal, timeout);
        if (end.kind === "failed") observed.failed(error);
      }
      if (call.signal.reason instanceof LeaseLost) return observed.ended(undefined, usage.summary(), scribe.steps);
      try {
        await finishRun(log, end, usage.summary());
        observed.ended(end, usage.summary(), scribe.steps);
      } catch {
        // Another process owns the run, or the database is away for longer than the lease holds: the reaper ends it.
        log.feed.close();
        observed.ended(undefined, usage.summary(), scribe.steps);
      }
    },
  };
}

async function work(
  deps: ExecutorDeps,
  call: Call,
  started: StartedRun,
  log: RunLog,
  scribe: RunScribe,
): Promise<RunEnd> {
  const { agent } = started.resolved;
  if (agent === undefined) throw new Error("a run without a resolved agent");
  const { run, session } = started;
  const caller = {
    runId: run.run_id,
    sessionId: session.session_id,
    agentId: agent.agentId,
    endUserId: session.end_user_id,
  };
  const loop = runLoop({
    model: deps.models.get(agent.llmProvider),
    modelName: agent.llmModel,
    system: agent.systemPrompt,
    history: started.history,
    tools: await deps.tools.describe(call, agent.tools),
    async executeTool(toolCall, signal, onProgress) {
      // The intent is in the log before anything happens.
      await log.flush();
      return deps.tools.execute(withSignal(call, signal), caller, toolCall, onProgress);
    },
    limits: { maxIterations: agent.maxIterations ?? 20, maxTokens: agent.maxTokens ?? 4096 },
    requireDoneTool: agent.requireDoneTool,
    newItemId: newId,
    signal: call.signal,
    ...(agent.temperature === undefined ? {} : { temperature: agent.temperature }),
    ...(session.end_user_id === "" ? {} : { metadata: { userId: session.end_user_id } }),
  });
  for (;;) {
    const { done, value } = await loop.next();
    if (done === true) return completed(value);
    scribe.write(value);
    // A log that is broken has lost its lease or its database: no further token is worth its price.
    log.check();
  }
}

function completed({ outcome, text }: LoopResult): RunEnd {
  return { kind: "completed", outcome: RunOutcome[outcome], response: text };
}

function endOf(error: unknown, cancel: AbortSignal, timeout: AbortSignal): RunEnd {
  if (cancel.aborted)
    return { kind: "cancelled", cause: cancel.reason instanceof CancelRequest ? cancel.reason.why : "caller" };
  if (timeout.aborted) {
    return failure(Code.DeadlineExceeded, "RUN_TIMEOUT", "The run reached its time limit.", RetryAdvice.TERMINAL);
  }
  if (error instanceof ModelError) return modelFailure(error);
  if (error instanceof AppError)
    return failure(error.code, error.reason, error.message, adviceFor(error.code), { ...error.facts });
  return failure(Code.Internal, "INTERNAL", "The run failed for a reason inside the server.", RetryAdvice.EXHAUSTED);
}

function modelFailure(error: ModelError): RunEnd {
  const facts: Record<string, string> = { kind: error.kind };
  const [code, reason]: [Code, Reason] =
    error.kind === "overloaded" || error.kind === "rate_limited"
      ? [Code.Unavailable, "MODEL_OVERLOADED"]
      : [Code.Unavailable, "MODEL_FAILED"];
  const advice = error.retryable ? RetryAdvice.EXHAUSTED : RetryAdvice.TERMINAL;
  return failure(code, reason, `The model could not answer: ${error.message}`, advice, facts);
}

function adviceFor(code: Code): RetryAdvice {
  return code === Code.Unavailable ||
    code === Code.Aborted ||
    code === Code.DeadlineExceeded ||
    code === Code.ResourceExhausted
    ? RetryAdvice.EXHAUSTED
    : RetryAdvice.TERMINAL;
}
