import { createHash } from "node:crypto";
import { RunOutcome } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { newId } from "#platform/id.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { Gates, type Pause } from "../approvals/gates.ts";
import { approvalRules } from "../domain/approval-rules.ts";
import { clientToolSpec } from "../domain/client-tools.ts";
import type { EngineEvent, WaitingCall } from "../engine/events.ts";
import { runLoop } from "../engine/loop.ts";
import type { LoopInput } from "../engine/loop-input.ts";
import { type AgentEvents, DEGRADATION_STEPS, type DegradationStep } from "../events.ts";
import type { RunInputs } from "../steering/run-inputs.ts";
import type { LastResort } from "./last-resort.ts";
import { Reminders } from "./reminders.ts";
import type { ResumableRun } from "./run-begin.ts";
import type { RunEnd } from "./run-end.ts";
import { LogBroken } from "./run-failure.ts";
import { type HookSource, pluginFailed, RunHooks } from "./run-hooks.ts";
import type { RunLog } from "./run-log.ts";
import type { RunModels } from "./run-models.ts";
import type { RunScribe } from "./run-scribe.ts";
import type { InheritedCalls, OpenTools, RunTools } from "./run-tools.ts";

export interface WorkDeps {
  models: RunModels;
  openTools: OpenTools;
  hooks: HookSource;
  lastResort: LastResort;
  events: Pick<AgentEvents, "degraded">;
}

/** A run that is worked on, and where it is written down. */
export interface Work {
  call: Call;
  started: ResumableRun;
  log: RunLog;
  scribe: RunScribe;
  inputs: RunInputs;
  /** Aborts the call's signal. */
  giveUp(reason: Error): void;
}

/** A run that does not end yet: its calls wait. */
export interface RunPause extends Pause {
  kind: "suspended";
}

/** Plays the engine on a run and says how the run ends, or what it waits for. Throws what the engine throws. */
export async function work(
  deps: WorkDeps,
  { call, started, log, scribe, inputs, giveUp }: Work,
): Promise<RunEnd | RunPause> {
  const { agent } = started.resolved;
  if (agent === undefined) throw new Error("a run without a resolved agent");
  const { chosen } = started;
  for (const { reason, message, facts } of started.notices) scribe.notice(reason, message, facts);
  if (started.historyOmitted > 0) scribe.historyTrimmed(started.historyOmitted);
  if (chosen instanceof Error) throw chosen;
  const caller = { ...log.ids, endUserId: started.session.end_user_id };
  const [tools, models] = await Promise.all([
    withClientTools(deps.openTools(call, caller, agent.tools, inheritedCalls(started)), started.clientTools),
    deps.models.ladder(call, started.resolved, chosen),
  ]);
  const gates = new Gates({
    runId: log.ids.runId,
    rules: approvalRules(agent),
    tools: tools.specs,
    approvals: started.resume?.approvals ?? [],
  });
  const hooks = new RunHooks(agent, deps.hooks);
  const question = { ...started.question, tenantId: call.principal.tenantId, resolved: started.resolved };
  const context = { ...caller, tenantId: call.principal.tenantId };
  const input: LoopInput = {
    models: models.rungs,
    ...(models.compaction !== undefined && { compaction: models.compaction }),
    lastResort: () => deps.lastResort.answer(question),
    system: hooks.system(agent.systemPrompt),
    ...ofAgent(agent),
    ...ofTools(tools, gates, agent, { call, log }),
    history: started.history,
    arrivals: arrivalsOf(inputs, scribe, call.signal),
    ...(started.resume !== undefined && { resume: started.resume.work }),
    newItemId: newId,
    signal: call.signal,
    ...(hooks.changeAnswers && {
      async finalAnswer(text) {
        const { text: changed, failed } = await hooks.afterResponse(text, context, call.signal);
        for (const plugin of failed) {
          const { reason, message, facts } = pluginFailed(plugin);
          scribe.notice(reason, message, facts);
        }
        return changed;
      },
    }),
    ...(caller.endUserId !== "" && { metadata: { userId: pseudonym(call.principal.tenantId, caller.endUserId) } }),
  };
  const played = await play(input, { scribe, log, giveUp }, deps.events);
  if (played.outcome === "SUSPENDED") return { kind: "suspended", ...pauseOf(gates, played.waiting) };
  // As the model gave it: an earlier answer goes through the plugins once more, for the run that it is given in.
  const remembered = hooks.given ?? played.text;
  if (played.outcome === "ANSWERED" && !played.descended && !inputs.any)
    await deps.lastResort.remember(question, remembered);
  return { kind: "completed", outcome: RunOutcome[played.outcome], response: hooks.hide(played.text) };
}

/** What was sent to the run, for the engine; what is to be told of it is told in front. */
function arrivalsOf(inputs: RunInputs, scribe: RunScribe, signal: AbortSignal): NonNullable<LoopInput["arrivals"]> {
  return () =>
    inputs.due(signal)?.then((rows) =>
      rows.map(({ message_id: id, message: sent, notices }) => {
        for (const { reason, message, facts } of notices) scribe.notice(reason, message, facts);
        return { ...sent, id };
      }),
    );
}

function inheritedCalls({ resume }: ResumableRun): InheritedCalls | undefined {
  const last = resume?.work.openStep?.messages.at(-1);
  if (resume?.askedIn === undefined || last?.role !== "assistant") return undefined;
  const callIds = last.content.flatMap((part) => (part.type === "tool_call" ? [part.callId] : []));
  return { runId: resume.askedIn, callIds: new Set(callIds) };
}

async function play(
  input: LoopInput,
  { scribe, log, giveUp }: Pick<Work, "scribe" | "log" | "giveUp">,
  events: WorkDeps["events"],
) {
  const loop = runLoop(input);
  let descended = false;
  try {
    for (;;) {
      const { done, value } = await loop.next();
      if (done === true) {
        const { outcome, text, waiting = [] } = value;
        return { outcome, text, waiting, descended };
      }
      const step = degradationOf(value);
      if (step !== undefined) {
        descended = true;
        events.degraded(step);
      }
      scribe.write(value);
      // A log that is broken has lost its lease or its database: no further token is worth its price. What the call has
      // cost so far the engine tells once it is aborted.
      if (log.broken !== undefined && !input.signal.aborted) giveUp(new LogBroken("", { cause: log.broken }));
    }
  } finally {
    // A loop that is left in the middle holds the model's stream.
    await loop.return(undefined as never);
  }
}

/** With those that the run's caller executes, of which none has the name of another. */
async function withClientTools(opened: Promise<RunTools>, tools: ResumableRun["clientTools"]): Promise<RunTools> {
  const ofAgent = await opened;
  return tools.length === 0 ? ofAgent : { ...ofAgent, specs: [...ofAgent.specs, ...tools.map(clientToolSpec)] };
}

function pauseOf(gates: Gates, waiting: readonly WaitingCall[]): Pause {
  const pause = gates.pause(waiting, Date.now());
  if (pause.awaiting.length === 0) throw new Error("a run waits for nothing");
  return pause;
}

function degradationOf(event: EngineEvent): DegradationStep | undefined {
  return event.type === "notice" ? DEGRADATION_STEPS.find((step) => step === event.reason) : undefined;
}

function ofAgent(agent: Agent) {
  const { maxIterations = 20, maxTokens = 4096, requireDoneTool, temperature } = agent;
  return { limits: { maxIterations, maxTokens }, requireDoneTool, ...(temperature !== undefined && { temperature }) };
}

/** What the engine may do with tools, and what the model is reminded of on the way. */
function ofTools(tools: RunTools, gates: Gates, agent: Agent, { call, log }: Pick<Work, "call" | "log">) {
  const openTodos = agent.tools.includes("todo") ? () => tools.openTodos(call) : undefined;
  const reminders = new Reminders(openTodos);
  return {
    tools: tools.specs,
    async executeTool(toolCall, signal, onProgress) {
      const verdict = gates.verdict(toolCall);
      if (verdict.kind === "wait") return { suspended: true };
      if (verdict.kind === "decided") return verdict.outcome;
      const { argumentsJson, requestKey, note } = verdict;
      // The intent is in the log before anything happens.
      failpoint("run-work.before-intent");
      await log.flush();
      failpoint("run-work.before-tool");
      const approved = { ...toolCall, argumentsJson };
      const outcome = await tools.execute(withSignal(call, signal), approved, onProgress, requestKey);
      failpoint("run-work.after-tool");
      if (gates.asksAbout(toolCall, outcome)) return { suspended: true };
      reminders.called(approved, outcome);
      return note === undefined
        ? outcome
        : { ...outcome, content: [...outcome.content, { type: "text" as const, text: note }] };
    },
    readToolOutput: (callId, offset, signal) => tools.readOutput(withSignal(call, signal), callId, offset),
    injections: () => reminders.due(),
    ...(openTodos !== undefined && { openTodos, unfinishedWork: () => reminders.unfinishedWork() }),
  } satisfies Partial<LoopInput>;
}

/** A provider is told users apart, and not who they are: what callers name them by may be an address. */
function pseudonym(tenantId: string, endUserId: string): string {
  return createHash("sha256").update(`${tenantId} ${endUserId}`).digest("hex").slice(0, 32);
}
