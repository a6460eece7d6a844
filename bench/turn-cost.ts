// node bench/turn-cost.ts [--turns 2000] [--deltas 20] [--lanes 16]: CPU time of one turn in microseconds, of the service
// and of each kind of PostgreSQL's processes, as one line of JSON.
import { parseArgs } from "node:util";
import { familyCpuByKind, preciseCpuMicros } from "./precise-cpu.ts";
import { startModel, startService } from "./processes.ts";
import { ask, type Target, targetsOf } from "./target.ts";

const { values } = parseArgs({
  options: {
    turns: { type: "string", default: "2000" },
    deltas: { type: "string", default: "20" },
    lanes: { type: "string", default: "16" },
  },
});
const [turns, lanes] = [Number(values.turns), Number(values.lanes)];
await using model = await startModel({ pinned: false });
await using service = await startService(model.url, { pinned: false });
const target = targetsOf(model, model, service).find(({ name }) => name === "grpc") as Target;
await using caller = target.caller;
const message = ask(`deltas ${values.deltas}`, "together");

async function play(count: number): Promise<void> {
  let left = count;
  const lane = async () => {
    while (left-- > 0) await caller.turn(message);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

const used = () => familyCpuByKind(service.pid).set("service", preciseCpuMicros(service.pid));
await play(Math.ceil(turns / 2));
const before = used();
await play(turns);
const each = [...used()].map(
  ([kind, micros]) => [kind, Math.round((micros - (before.get(kind) ?? 0)) / turns)] as const,
);
console.log(JSON.stringify(Object.fromEntries(each.filter(([, micros]) => micros > 0))));
