import { RESUMED, type Resume, type Resumed } from "./measures/resume.ts";
import { WEIGHED } from "./measures/stored.ts";
import type { Results, Round } from "./run-bench.ts";
import { type Spread, spread } from "./statistics.ts";
import { TARGETS, type TargetName } from "./target.ts";

const SERVICE: readonly TargetName[] = ["grpc", "connect", "sse"];

/** The text with what stands between the markers of this name replaced; throws when there are no markers. */
export function insertTable(text: string, table: string, name = "bench"): string {
  const [begin, end] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`];
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`no ${begin} … ${end}`);
  return `${text.slice(0, from + begin.length)}\n${table}\n${text.slice(to)}`;
}

/** Markdown of what a run has found: medians over its rounds, ratios to the relay of the same run. */
export function table(results: Results): string {
  const { plan, machine, startedAt, form } = results;
  const names = Object.keys(TARGETS) as TargetName[];
  const head = [
    `${startedAt.slice(0, 10)}, \`npm run bench${form === "full" ? "" : ` -- --${form}`}\`: ${machine.cpu}, Node ${machine.node.slice(1)}, ${plan.rounds} alternating rounds,`,
    `medians (least–most); ${machine.pinned ? "servers on one core, load, model and PostgreSQL on another" : "not pinned"}; load average ${machine.loadBefore} before and ${machine.loadAfter} after the run, in which others took ${Math.round(machine.othersShare * 100)} % of the CPU time.`,
    `${plan.paced.streams} streams get a piece every ${plan.paced.paceMs} ms. ×: against the bare relay of the same run.`,
  ].join("\n");
  const parts = [
    head,
    ...plan.deltas.map((deltas) => throughputTable(results, deltas, names)),
    pacedTable(results, names),
  ];
  return [...parts, resumeTable(results), storedTable(results), otherTable(results)].join("\n\n");
}

function throughputTable(results: Results, deltas: number, names: readonly TargetName[]): string {
  const { concurrency } = results.plan;
  const middle = concurrency[Math.floor(concurrency.length / 2)] ?? 1;
  const cell = (name: TargetName, at: number, pick: (of: Cell["result"]) => number) =>
    over(results, (round) => pick(cellOf(round, name, deltas, at).result));
  const rows = names.map((name) => {
    const turns = concurrency.map((at) => {
      const value = cell(name, at, (of) => of.turnsPerSecond);
      const relay = cell("relay", at, (of) => of.turnsPerSecond);
      return `${show(value)}${times(name, value.median / relay.median)}`;
    });
    const cpu = cell(name, middle, (of) => of.cpuPerTurn);
    const relayCpu = cell("relay", middle, (of) => of.cpuPerTurn);
    const backends = cell(name, middle, (of) => of.backendCpuPerTurn);
    const apart = SERVICE.includes(name) ? number(backends.median) : "";
    return [TARGETS[name], ...turns, `${show(cpu)}${times(name, cpu.median / relayCpu.median)}`, apart];
  });
  const heads = concurrency.map((at) => `turns/s, ${at} at once`);
  return grid([`${deltas} deltas`, ...heads, "CPU µs per turn", "PostgreSQL's µs"], rows);
}

function pacedTable(results: Results, names: readonly TargetName[]): string {
  const value = (name: TargetName, pick: (of: Slow["result"]) => number) =>
    over(results, (round) => pick(slowOf(round, name).result));
  const added = (name: TargetName, pick: (of: Slow["result"]) => number) =>
    over(results, (round) => pick(slowOf(round, name).result) - pick(slowOf(round, "direct").result));
  const rows = names.map((name) => {
    const first = name === "direct" ? ["", ""] : [added(name, (of) => of.firstP50), added(name, (of) => of.firstP99)];
    const each = [
      value(name, (of) => of.eventP50),
      value(name, (of) => of.eventP99),
      value(name, (of) => of.cpuPerDelta),
    ];
    return [TARGETS[name], ...first.map((one) => (typeof one === "string" ? one : show(one))), ...each.map(show)];
  });
  const columns = ["added to first event, ms p50", "p99", "piece to client, ms p50", "p99", "CPU µs per piece"];
  return grid([`${results.plan.paced.streams} paced streams`, ...columns], rows);
}

function resumeTable(results: Results): string {
  const cell = (run: Resumed, pick: (of: Resume) => number) =>
    show(over(results, (round) => pick(measured(round.resume.find((one) => one.run === run)?.result, RESUMED[run]))));
  const rows = (Object.keys(RESUMED) as Resumed[]).map((run) => [
    RESUMED[run],
    cell(run, (of) => of.missed),
    cell(run, (of) => of.firstP50),
    cell(run, (of) => of.firstP99),
    cell(run, (of) => of.caughtUpP50),
    cell(run, (of) => of.caughtUpP99),
  ]);
  return grid(
    ["A reader comes back to", "events missed", "ms to the first, p50", "p99", "to caught_up, p50", "p99"],
    rows,
  );
}

/** Tables in the order of what the first kind of turn costs them. */
function storedTable({ stored }: Results): string {
  const tables = [...new Set(stored.flatMap(({ result }) => result.map(({ table }) => table)))];
  const rows = stored.map(({ turn, result }) => {
    const all = { grown: 0, bytes: 0 };
    for (const { grown, bytes } of result) {
      all.grown += grown;
      all.bytes += bytes;
    }
    const cells = tables.map((table) => {
      const found = result.find((one) => one.table === table);
      return found === undefined ? "" : `${number(found.grown)} (${number(found.rows)})`;
    });
    return [WEIGHED[turn], `${number(all.grown)} for ${number(all.bytes)} of rows`, ...cells];
  });
  return grid(["PostgreSQL, bytes per run (rows)", "all tables", ...tables], rows);
}

function otherTable(results: Results): string {
  const kib = (name: TargetName) => {
    const found = results.open.filter(({ target }) => target === name).map(({ result }) => result);
    return { each: spread(found.map((of) => of.kibPerStream)), base: spread(found.map((of) => of.baseKib / 1024)) };
  };
  const memory = results.plan.open.targets.map((name) => {
    const { each, base } = kib(name);
    return [`KiB per open slow stream, ${TARGETS[name]}`, `${show(each)} above ${number(base.median)} MiB`];
  });
  const { creates } = results;
  const rows = [
    ...memory,
    [
      `durable events/s, ${durablePerRun(results)} of each run`,
      show(over(results, ({ events }) => events.durablePerSecond)),
    ],
    [
      `events shown/s, ${results.plan.events.deltas} deltas each`,
      show(over(results, ({ events }) => events.shownPerSecond)),
    ],
    ["CPU µs per event shown", show(over(results, ({ events }) => events.cpuPerShown))],
    ["background runs/s, from the call to the end seen", show(over(results, (of) => of.background.runsPerSecond))],
    ["ms until a background run's end is seen, p50", show(over(results, (of) => of.background.endedP50))],
    ["CPU µs per background run and its reader", show(over(results, (of) => of.background.cpuPerRun))],
    ["PostgreSQL's µs per background run and its reader", show(over(results, (of) => of.background.backendCpuPerRun))],
    ["run creates/s with durable acknowledgement", show(spread(creates.map((of) => of.createsPerSecond)))],
    ["ms until a run is acknowledged, p50", show(spread(creates.map((of) => of.p50)))],
    ["CPU µs per run create", show(spread(creates.map((of) => of.cpuPerCreate)))],
    ["GetSession over Connect, ms p50", show(over(results, ({ unary }) => unary.connectP50))],
    ["what REST adds to it, ms p50", show(over(results, ({ unary }) => unary.restP50 - unary.connectP50))],
  ];
  return grid(["Besides", ""], rows);
}

type Cell = Round["throughput"][number];
type Slow = Round["paced"][number];

function cellOf(round: Round, name: TargetName, deltas: number, concurrency: number): Cell {
  const found = round.throughput.find(
    (one) => one.target === name && one.deltas === deltas && one.concurrency === concurrency,
  );
  return measured(found, name);
}

function slowOf(round: Round, name: TargetName): Slow {
  return measured(
    round.paced.find(({ target }) => target === name),
    name,
  );
}

function durablePerRun(results: Results): string {
  return number(over(results, ({ events }) => events.durablePerRun).median);
}

function measured<T>(found: T | undefined, what: string): T {
  if (found === undefined) throw new Error(`${what} was not measured`);
  return found;
}

function over({ rounds }: Results, pick: (round: Round) => number): Spread {
  return spread(rounds.map(pick));
}

function show({ median, min, max }: Spread): string {
  return min === max ? number(median) : `${number(median)} (${number(min)}–${number(max)})`;
}

function times(name: TargetName, ratio: number): string {
  return SERVICE.includes(name) ? ` **×${ratio.toFixed(2)}**` : "";
}

function number(value: number): string {
  if (Number.isInteger(value)) return String(value);
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(digits);
}

function grid(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "--:"))), ...rows.map(line)].join("\n");
}
