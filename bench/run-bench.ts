import { cpus } from "node:os";
import { collectGarbage } from "./collect-garbage.ts";
import { type Background, background } from "./measures/background.ts";
import { type Creates, creates } from "./measures/creates.ts";
import { type Events, events } from "./measures/events.ts";
import { type OpenStreams, openStreams } from "./measures/open-streams.ts";
import { type Paced, paced } from "./measures/paced.ts";
import { type Resume, type Resumed, resume } from "./measures/resume.ts";
import { type StoredRows, stored, type Weighed } from "./measures/stored.ts";
import { type Throughput, throughput } from "./measures/throughput.ts";
import { type Unary, unary } from "./measures/unary.ts";
import type { Plan } from "./plan.ts";
import { descendants, familyCpuMicros, loadAverage, machineCpuMicros } from "./proc-stat.ts";
import {
  canPin,
  OTHER_CORE,
  pin,
  type Server,
  type Service,
  startModel,
  startRelay,
  startService,
} from "./processes.ts";
import { ask, inLanes, type Target, type TargetName, targetsOf } from "./target.ts";

const WARM_UP_LANES = 16;
/** Turns that a fresh process answers before it is measured. */
const FRESH_TURNS_MS = 1_000;

/** Everything that one run has measured, round by round. */
export interface Results {
  readonly form: Plan["name"];
  readonly startedAt: string;
  readonly seconds: number;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly node: string;
    readonly pinned: boolean;
    /** One-minute load averages; the run's own work is in the second one. */
    readonly loadBefore: number;
    readonly loadAfter: number;
    /** Share of the machine's CPU time that others took during the run, 0 to 1. What is measured beside them is slower. */
    readonly othersShare: number;
  };
  readonly plan: Plan;
  readonly rounds: readonly Round[];
  readonly creates: readonly Creates[];
  readonly stored: readonly { readonly turn: Weighed; readonly result: readonly StoredRows[] }[];
  readonly open: readonly { readonly target: TargetName; readonly result: OpenStreams }[];
}

export interface Round {
  readonly throughput: readonly {
    readonly target: TargetName;
    readonly deltas: number;
    readonly concurrency: number;
    readonly result: Throughput;
  }[];
  readonly paced: readonly { readonly target: TargetName; readonly result: Paced }[];
  readonly unary: Unary;
  readonly events: Events;
  readonly background: Background;
  readonly resume: readonly { readonly run: Resumed; readonly result: Resume }[];
}

/**
 * Runs the whole plan. Memory and creates are measured on fresh processes: what a process of many turns has taken already
 * would hide what they add.
 */
export async function runBench(plan: Plan, say: (line: string) => void): Promise<Results> {
  const began = performance.now();
  const startedAt = new Date().toISOString();
  const [loadBefore] = loadAverage();
  const others = () => machineCpuMicros() - familyCpuMicros();
  const othersBefore = others();
  const pinned = plan.pin && canPin();
  if (pinned) pin([process.pid], OTHER_CORE);
  await using model = await startModel({ pinned });
  const { rounds, weighed } = await alternate(plan, model, pinned, say);
  say("run creates");
  const created = await onFreshService(model, pinned, plan, (service) => creates(service, plan.creates));
  const open: Results["open"][number][] = [];
  for (let i = 0; i < plan.open.samples; i++) {
    for (const name of plan.open.targets) {
      say(`open streams: ${name}`);
      open.push({ target: name, result: await memoryOf(name, model, pinned, plan) });
    }
  }
  return {
    form: plan.name,
    startedAt,
    seconds: Math.round((performance.now() - began) / 1_000),
    machine: {
      cpu: cpus()[0]?.model ?? "",
      cores: cpus().length,
      node: process.version,
      pinned,
      loadBefore,
      loadAfter: loadAverage()[0],
      othersShare: Math.max(0, others() - othersBefore) / ((performance.now() - began) * 1_000 * cpus().length),
    },
    plan,
    rounds,
    creates: created,
    stored: weighed,
    open,
  };
}

async function alternate(
  plan: Plan,
  model: Server,
  pinned: boolean,
  say: (line: string) => void,
): Promise<{ rounds: Round[]; weighed: Results["stored"] }> {
  await using relay = await startRelay(model.url, { pinned });
  await using service = await startService(model.url, { pinned });
  const targets = targetsOf(model, relay, service);
  await using undo = new AsyncDisposableStack();
  for (const { caller } of targets) undo.use(caller);
  say("warm-up");
  for (const target of targets) await warmUp(target, plan);
  const rounds: Round[] = [];
  for (let i = 0; i < plan.rounds; i++) {
    say(`round ${i + 1} of ${plan.rounds}`);
    rounds.push(await round(plan, i % 2 === 0 ? targets : targets.toReversed(), service, pinned));
  }
  say("bytes per run");
  return { rounds, weighed: await stored(service, plan.stored) };
}

/** Answers of every size, whole and piece by piece, since each takes another way through the code. */
async function warmUp({ caller }: Target, { deltas, warmUpTurns }: Plan): Promise<void> {
  const shapes = deltas.flatMap((count) => [ask(`deltas ${count}`, "together"), ask(`deltas ${count}`)]);
  let left = warmUpTurns;
  const lane = async () => {
    while (left > 0) await caller.turn(shapes[left-- % shapes.length] as string);
  };
  await Promise.all(Array.from({ length: WARM_UP_LANES }, lane));
}

async function round(plan: Plan, targets: readonly Target[], service: Service, pinned: boolean): Promise<Round> {
  // PostgreSQL forks a process for each new connection; from the pinned server they are pinned, too.
  if (pinned) pin(descendants(service.pid), OTHER_CORE);
  const measured: Round["throughput"][number][] = [];
  for (const deltas of plan.deltas) {
    for (const concurrency of plan.concurrency) {
      for (const target of targets) {
        const result = await throughput(target, deltas, concurrency, plan.windowMs);
        measured.push({ target: target.name, deltas, concurrency, result });
      }
    }
  }
  const slow: Round["paced"][number][] = [];
  for (const target of targets) slow.push({ target: target.name, result: await paced(target, plan.paced) });
  return {
    throughput: measured,
    paced: slow,
    unary: await unary(service, plan.unaryCalls),
    events: await events(service, plan.events),
    background: await background(service, plan.background),
    resume: await resume(service, plan.resume),
  };
}

async function onFreshService<T>(
  model: Server,
  pinned: boolean,
  plan: Plan,
  measure: (service: Service) => Promise<T>,
): Promise<T> {
  await using service = await startService(model.url, { pinned });
  const [, , , caller] = targetsOf(model, model, service);
  await using connect = (caller as Target).caller;
  await inLanes(
    WARM_UP_LANES,
    plan.name === "smoke" ? 1 : FRESH_TURNS_MS,
    async () => void (await connect.turn(ask("deltas 20", "together"))),
  );
  return await measure(service);
}

async function memoryOf(name: TargetName, model: Server, pinned: boolean, plan: Plan): Promise<OpenStreams> {
  const measure = async (relay: Server, service: Service) => {
    const target = targetsOf(model, relay, service).find((one) => one.name === name) as Target;
    await using _ = target.caller;
    const collect = () => collectGarbage((name === "relay" ? relay : service).output);
    return await openStreams(target, plan.open, collect, plan.name === "smoke");
  };
  if (name === "relay") {
    await using relay = await startRelay(model.url, { pinned, inspected: true });
    return await measure(relay, { ...relay, key: "", dataDir: "" });
  }
  await using service = await startService(model.url, { pinned, inspected: true });
  return await measure(service, service);
}
