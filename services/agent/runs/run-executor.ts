import type { Database } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { adapterOf } from "../adapters/adapters.ts";
import { type PauseContext, suspendRun } from "../approvals/suspend-run.ts";
import { LeaseLost } from "../errors.ts";
import type { AgentEvents, ObservedRun } from "../events.ts";
import type { Pricing } from "../llm/pricing.ts";
import { finishWithInputs, RunInputs } from "../steering/run-inputs.ts";
import type { RunRow } from "../store/run-store.ts";
import { contextMessage } from "../store/session-context.ts";
import type { HotContext } from "./hot-context.ts";
import { type LateBookings, usageSoFar } from "./late-bookings.ts";
import { loadRun } from "./load-run.ts";
import type { ResumableRun, StartedRun } from "./run-begin.ts";
import { type EndContext, finishRun, internalFailure, type RunEnd } from "./run-end.ts";
import { endOf, RunTimeout } from "./run-failure.ts";
import type { RunLog } from "./run-log.ts";
import { RunScribe } from "./run-scribe.ts";
import { type RunPause, type WorkDeps, work } from "./run-work.ts";
import { UsageTotal } from "./usage-total.ts";

/** How long a run that goes on with what was sent to it may take to be read. */
const RELOAD_MS = 10_000;

export interface RunExecutor {
  /** Works on a run until it has ended or waits; never rejects. The call's signal ends the work with a CancelRequest or LeaseLost. */
  execute(call: Call, started: StartedRun, log: RunLog): Promise<void>;
}

export interface ExecutorDeps extends WorkDeps {
  pricing: Pricing;
  events: AgentEvents;
  runTimeoutMs: number;
  database: Database;
  lateBookings: LateBookings;
  hotContext: HotContext;
}

/** Plays the engine on a run: what it yields becomes the run's events, messages and end. */
export function createExecutor(deps: ExecutorDeps): RunExecutor {
  return {
    async execute(call, started, log) {
      const startedAt = performance.now();
      const usage = new UsageTotal();
      for (const booked of started.resume?.booked ?? []) usage.add(booked);
      const { pricing } = deps;
      const hides = adapterOf(started.resolved.agent?.adapter ?? "")?.hides;
      const resumed = started.resume?.work.openStep?.step;
      const scribe = new RunScribe({ log, usage, pricing, call, begun: started.firstStep, resumed, hides });
      const observed = deps.events.runBegan(call, started);
      const { database, lateBookings } = deps;
      const { fence, ids } = log;
      const inputs = new RunInputs(database, log);
      // An earlier owner may have booked what its broken call had cost only after this one began.
      const shared = started.resume !== undefined;
      const usedSoFar = async () =>
        (shared ? await usageSoFar(database, fence, log.unbookedNow).catch(() => usage) : usage).summary();
      const attempt = async (current: ResumableRun): Promise<RunEnd | RunPause> => {
        // Dropped in the end: tools that did not listen to their signal yet, and the model, have nothing more to do then.
        using reins = new Reins(call.signal, timeLeft(startedAt + deps.runTimeoutMs - performance.now(), started.run));
        try {
          const giveUp = (reason: Error) => reins.pull(reason);
          const at = { call: withSignal(call, reins.signal), started: current, log, scribe, inputs, giveUp };
          return await observed.run(() => work(deps, at));
        } catch (error) {
          const end = endOf(error, reins.signal);
          if (end.kind === "failed") observed.failed(error);
          scribe.voidUnbegun();
          return end;
        }
      };
      let summary = usage.summary();
      let outcome: WrittenEnd | "goes_on" = "goes_on";
      for (let current: ResumableRun = started; outcome === "goes_on"; ) {
        const end = await attempt(current);
        if (call.signal.reason instanceof LeaseLost) {
          outcome = GIVEN_UP;
          break;
        }
        summary = await usedSoFar();
        const context = {
          usage: summary,
          call,
          durationMs: performance.now() - startedAt,
          run: started.run,
          shared,
          endUserId: started.session.end_user_id,
          hides,
        };
        outcome = await writeEnd(database, log, end, context, observed);
        if (outcome !== "goes_on") break;
        try {
          current = await whereItIs(database, log);
        } catch (error) {
          observed.failed(error);
          outcome = await writeEnd(database, log, internalFailure(), context, observed);
        }
      }
      const { written, whole } = outcome;
      log.feed.close();
      const { tenantId } = fence;
      if (whole) await keepContext(deps.hotContext, started, scribe, tenantId);
      if (written === undefined) lateBookings.add({ tenantId, ids, calls: await log.unbooked() });
      observed.ended(written, summary, scribe.steps);
    },
  };
}

/** The server's limit, or what is left of the run's own. */
function timeLeft(limitMs: number, { deadline }: Pick<RunRow, "deadline">): number {
  return Math.max(0, Math.min(limitMs, (deadline?.getTime() ?? Number.POSITIVE_INFINITY) - Date.now()));
}

/**
 * Writes the end, or that the run waits. A log that broke on what was to be written before (content that the database refuses, a commit that was
 * tried for too long) is opened once more for the terminal event alone. Undefined when that cannot be written either:
 * another process owns the run, or the database is away; then the reaper ends it. "goes_on" when the run would have been
 * completed, and something was sent to it before.
 */
async function writeEnd(
  database: Database,
  log: RunLog,
  end: RunEnd | RunPause,
  context: EndContext & PauseContext,
  observed: ObservedRun,
): Promise<WrittenEnd | "goes_on"> {
  try {
    failpoint("run-executor.before-end");
    if (end.kind === "suspended") await suspendRun(log, end, context);
    else if (end.kind !== "completed") await finishWithInputs(database, log, end, context, context.hides);
    else if (!(await finishRun(log, end, context))) return "goes_on";
    failpoint("run-executor.after-end");
    return { written: end, whole: end.kind !== "suspended" };
  } catch (error) {
    if (error instanceof LeaseLost) return GIVEN_UP;
    observed.failed(error);
  }
  try {
    const step = await log.reopen();
    if (step > 0) log.append({ body: { payload: { case: "itemDiscarded", value: { step, cause: "not_stored" } } } });
    const last = end.kind === "completed" || end.kind === "suspended" ? internalFailure() : end;
    await finishWithInputs(database, log, last, context, context.hides);
    return { written: last, whole: false };
  } catch {
    return GIVEN_UP;
  }
}

/** How a run ended or paused, if that could be written; `whole`: it is over, and all that came before is stored. */
interface WrittenEnd {
  written: RunEnd | RunPause | undefined;
  whole: boolean;
}

const GIVEN_UP: WrittenEnd = { written: undefined, whole: false };

/** Keeps what the next turn of the session begins with; of a first attempt, which knows all that the run has added. */
async function keepContext(hot: HotContext, { context, session }: StartedRun, { added }: RunScribe, tenantId: string) {
  if (context === undefined || added === undefined) return;
  await hot.keep(tenantId, session.session_id, context, added.map(contextMessage));
}

/** The run as it is stored, for its next turn. */
async function whereItIs(database: Database, log: RunLog): Promise<ResumableRun> {
  const { tenantId, runId } = log.fence;
  const loaded = await loadRun(
    database,
    { tenantId, runId, leasedAt: performance.now(), cause: "input" },
    AbortSignal.timeout(RELOAD_MS),
  );
  if (loaded?.started === undefined) throw new Error("a run at work is not stored whole");
  return loaded.started;
}

/** Nobody waits any more for what hears it; without a reason each run would pay for an exception with a stack. */
const RUN_OVER = new DOMException("the run is over", "AbortError");

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

  pull(reason: Error): void {
    this.#controller.abort(reason);
  }

  drop(): void {
    clearTimeout(this.#timer);
    this.#source.removeEventListener("abort", this.#forward);
    this.#controller.abort(RUN_OVER);
  }

  [Symbol.dispose](): void {
    this.drop();
  }

  readonly #forward = () => this.#controller.abort(this.#source.reason);
}
