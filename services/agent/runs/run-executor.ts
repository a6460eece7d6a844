import { createHash } from "node:crypto";
import { RunOutcome } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { runLoop } from "../engine/loop.ts";
import { LeaseLost } from "../errors.ts";
import type { AgentEvents, ObservedRun } from "../events.ts";
import type { Models } from "../llm/models.ts";
import { type EndContext, finishRun, internalFailure, type RunEnd } from "./run-end.ts";
import { endOf, RunTimeout } from "./run-failure.ts";
import type { RunLog } from "./run-log.ts";
import { RunScribe } from "./run-scribe.ts";
import type { StartedRun } from "./run-start.ts";
import type { OpenTools } from "./run-tools.ts";
import { UsageTotal } from "./usage-total.ts";

export interface RunExecutor {
  /** Works on a run until it has ended; never rejects. The call's signal ends the work with a CancelRequest or LeaseLost. */
  execute(call: Call, started: StartedRun, log: RunLog): Promise<void>;
}

export interface ExecutorDeps {
  models: Models;
  openTools: OpenTools;
  events: AgentEvents;
  runTimeoutMs: number;
}

/** Plays the engine on a run: what it yields becomes the run's events, messages and end. */
export function createExecutor(deps: ExecutorDeps): RunExecutor {
  return {
    async execute(call, started, log) {
      const startedAt = performance.now();
      const usage = new UsageTotal();
      const scribe = new RunScribe(log, usage);
      const observed = deps.events.runBegan(call, started);
      using reins = new Reins(call.signal, deps.runTimeoutMs);
      let end: RunEnd;
      try {
        end = await observed.run(() => work(deps, withSignal(call, reins.signal), started, log, scribe));
      } catch (error) {
        end = endOf(error, reins.signal);
        if (end.kind === "failed") observed.failed(error);
      }
      // Tools that did not listen to their signal yet, and the model, have nothing more to do here.
      reins.drop();
      const durationMs = performance.now() - startedAt;
      const context = { usage: usage.summary(), call, durationMs };
      const lost = call.signal.reason instanceof LeaseLost;
      const written = lost ? undefined : await writeEnd(log, end, context, observed);
      log.feed.close();
      observed.ended(written, context.usage, scribe.steps);
    },
  };
}

/**
 * Writes the end. A log that broke on what was to be written before (content that the database refuses, a commit that was
 * tried for too long) is opened once more for the terminal event alone. Undefined when that cannot be written either:
 * another process owns the run, or the database is away; then the reaper ends it.
 */
async function writeEnd(
  log: RunLog,
  end: RunEnd,
  context: EndContext,
  observed: ObservedRun,
): Promise<RunEnd | undefined> {
  try {
    await finishRun(log, end, context);
    return end;
  } catch (error) {
    if (error instanceof LeaseLost) return undefined;
    observed.failed(error);
  }
  try {
    const step = await log.reopen();
    if (step > 0) log.append({ body: { payload: { case: "itemDiscarded", value: { step, cause: "not_stored" } } } });
    const last = end.kind === "completed" ? internalFailure() : end;
    await finishRun(log, last, context);
    return last;
  } catch {
    return undefined;
  }
}

/** What ends a run's work: its caller's signal, its time limit, and its end. */
class Reins implements Disposable {
  readonly #controller = new AbortController();
  readonly #source: AbortSignal;
  readonly #timer: NodeJS.Timeout;

  constructor(source: AbortSignal, timeoutMs: number) {
    this.#source = source;
    this.#timer = setTimeout(() => this.#controller.abort(new RunTimeout()), timeoutMs);
    source.addEventListener("abort", this.#forward, { once: true });
    if (source.aborted) this.#forward();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  drop(): void {
    clearTimeout(this.#timer);
    this.#source.removeEventListener("abort", this.#forward);
    this.#controller.abort();
  }

  [Symbol.dispose](): void {
    this.drop();
  }

  readonly #forward = () => this.#controller.abort(this.#source.reason);
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
  const { agentId } = agent;
  const endUserId = session.end_user_id;
  const caller = { runId: run.run_id, sessionId: session.session_id, agentId, endUserId };
  if (started.historyOmitted > 0) scribe.historyTrimmed(started.historyOmitted);
  const tools = await deps.openTools(call, caller, agent.tools);
  const loop = runLoop({
    model: deps.models.get(agent.llmProvider),
    modelName: agent.llmModel,
    system: agent.systemPrompt,
    history: started.history,
    tools: tools.specs,
    async executeTool(toolCall, signal, onProgress) {
      // The intent is in the log before anything happens.
      await log.flush();
      return tools.execute(withSignal(call, signal), toolCall, onProgress);
    },
    limits: { maxIterations: agent.maxIterations ?? 20, maxTokens: agent.maxTokens ?? 4096 },
    requireDoneTool: agent.requireDoneTool,
    newItemId: newId,
    signal: call.signal,
    ...(agent.temperature === undefined ? {} : { temperature: agent.temperature }),
    ...(endUserId === "" ? {} : { metadata: { userId: pseudonym(call.principal.tenantId, endUserId) } }),
  });
  try {
    for (;;) {
      const { done, value } = await loop.next();
      if (done === true) return { kind: "completed", outcome: RunOutcome[value.outcome], response: value.text };
      scribe.write(value);
      // A log that is broken has lost its lease or its database: no further token is worth its price.
      log.check();
    }
  } finally {
    // A loop that is left in the middle holds the model's stream.
    await loop.return(undefined as never);
  }
}

/** A provider is told users apart, and not who they are: what callers name them by may be an address. */
function pseudonym(tenantId: string, endUserId: string): string {
  return createHash("sha256").update(`${tenantId} ${endUserId}`).digest("hex").slice(0, 32);
}
