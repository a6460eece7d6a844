import type { Results, Round } from "./run-bench.ts";
import { type Spread, spread } from "./statistics.ts";
import type { TargetName } from "./target.ts";

const FACES: readonly TargetName[] = ["grpc", "connect", "sse"];

/** What was asked of the service, and what the run has found. */
interface Goal {
  readonly goal: string;
  /** Medians over the rounds, one for each face or one in all. */
  readonly found: readonly number[];
  readonly unit: string;
  readonly reached: (value: number) => boolean;
}

/** Markdown of the goals that the bench can tell of: the least and the most over the faces, and whether all reach it. */
export function goals(results: Results): string {
  const rows = goalsOf(results).map(({ goal, found, unit, reached }) => {
    const { min, max } = spread(found);
    const range = min === max ? digits(min) : `${digits(min)}–${digits(max)}`;
    return `| ${goal} | ${range} ${unit} | ${found.every(reached) ? "yes" : found.some(reached) ? "in part" : "no"} |`;
  });
  return ["| Goal | Found | Reached |", "|---|---|---|", ...rows].join("\n");
}

function goalsOf(results: Results): Goal[] {
  const { creates, open, plan } = results;
  const middle = plan.concurrency[Math.floor(plan.concurrency.length / 2)] ?? 1;
  const perTurn = (deltas: number) =>
    FACES.map((name) => turns(results, name, deltas, middle) / turns(results, "relay", deltas, middle));
  const added = (pick: (of: Slow) => number) =>
    FACES.map((name) => over(results, (round) => pick(slow(round, name)) - pick(slow(round, "direct"))));
  const faces = open.filter(({ target }) => FACES.includes(target));
  const [few = 0, many = 0] = [Math.min(...plan.deltas), Math.max(...plan.deltas)];
  return [
    atLeast(`turns/s at ${few} deltas, ${middle} at once: ≥ 1 × the relay`, perTurn(few), "×", 1),
    atLeast(`turns/s at ${many} deltas, ${middle} at once: ≥ 3 × the relay`, perTurn(many), "×", 3),
    atMost(
      "added time to first event, paced streams, p50: ≤ 5 ms",
      added((of) => of.firstP50),
      "ms",
      5,
    ),
    atMost(
      "the same, p99: ≤ 30 ms",
      added((of) => of.firstP99),
      "ms",
      30,
    ),
    atMost(
      "per event, p50: ≤ 2 ms",
      FACES.map((name) => over(results, (round) => slow(round, name).eventP50)),
      "ms",
      2,
    ),
    atMost(
      "an open slow stream: ≤ 64 KiB",
      faces.map(({ result }) => result.kibPerStream),
      "KiB",
      64,
    ),
    atMost(
      "above a base of ≤ 200 MiB",
      faces.map(({ result }) => result.baseKib / 1024),
      "MiB",
      200,
    ),
    atLeast(
      "run creates with durable acknowledgement: ≥ 400/s",
      [median(creates.map((of) => of.createsPerSecond))],
      "/s",
      400,
    ),
    atMost(
      "what REST adds, p50: ≤ 0.5 ms",
      [over(results, ({ unary }) => unary.restP50 - unary.connectP50)],
      "ms",
      0.5,
    ),
  ].filter(({ found }) => found.length > 0);
}

type Slow = Round["paced"][number]["result"];

function atLeast(goal: string, found: readonly number[], unit: string, bar: number): Goal {
  return { goal, found, unit, reached: (value) => value >= bar };
}

function atMost(goal: string, found: readonly number[], unit: string, bar: number): Goal {
  return { goal, found, unit, reached: (value) => value <= bar };
}

function turns(results: Results, name: TargetName, deltas: number, concurrency: number): number {
  return over(results, ({ throughput }) => {
    const found = throughput.find(
      (one) => one.target === name && one.deltas === deltas && one.concurrency === concurrency,
    );
    return found?.result.turnsPerSecond ?? Number.NaN;
  });
}

function slow({ paced }: Round, name: TargetName): Slow {
  const found = paced.find(({ target }) => target === name);
  if (found === undefined) throw new Error(`${name} was not measured`);
  return found.result;
}

function over({ rounds }: Results, pick: (round: Round) => number): number {
  return median(rounds.map(pick));
}

function median(values: readonly number[]): number {
  const { median: middle }: Spread = spread(values);
  return middle;
}

function digits(value: number): string {
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
}
