// npm run bench:engine: what the engine costs, with nothing around it. In one process and one run, alternating: the events
// of a scripted model are read by nobody, and by the loop. Ratios are between those of the same run.
import { writeFileSync } from "node:fs";
import type { ChatModel, ModelEvent, ModelMessage } from "../../llm/chat-model.ts";
import { runLoop } from "../loop.ts";

const ROUNDS = 7;
const text = (deltas: number): ModelEvent[] => [
  ...Array.from({ length: deltas }, (): ModelEvent => ({ type: "text_delta", text: "word and " })),
  { type: "finish", reason: "end_turn" },
];
const call: ModelEvent[] = [
  { type: "tool_call_started", id: "t", name: "echo" },
  { type: "tool_arguments_delta", id: "t", json: '{"a":1}' },
  { type: "tool_call", id: "t", name: "echo", argumentsJson: '{"a":1}' },
  { type: "finish", reason: "tool_use" },
];

/** A model that says these, one after the other. */
function modelOf(turns: ModelEvent[][]): ChatModel {
  let turn = 0;
  return {
    provider: "scripted",
    async *stream() {
      for (const event of turns[turn++ % turns.length] ?? []) yield event;
    },
  };
}

let ids = 0;

async function play(turns: ModelEvent[][], maxIterations: number): Promise<void> {
  const history: ModelMessage[] = [{ role: "user", content: [{ type: "text", text: "go" }], id: "msg_1" }];
  const loop = runLoop({
    models: [{ kind: "primary", model: modelOf(turns), modelName: "m", contextWindow: 1_000_000 }],
    system: "Be brief.",
    history,
    tools: [{ name: "echo", description: "echo", inputSchema: { type: "object" } }],
    executeTool: async () => ({ content: [{ type: "text", text: "ran" }] }),
    limits: { maxIterations, maxTokens: 1_000 },
    requireDoneTool: false,
    newItemId: (kind) => `${kind}_${++ids}`,
    signal: new AbortController().signal,
  });
  for await (const _ of loop) {
  }
}

async function read(turns: ModelEvent[][], count: number): Promise<void> {
  const model = modelOf(turns);
  for (let i = 0; i < count; i++) {
    for await (const _ of model.stream({} as never, {} as never)) {
    }
  }
}

async function microseconds(work: () => Promise<void>, times: number): Promise<number> {
  const before = process.cpuUsage();
  for (let i = 0; i < times; i++) await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / times;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** CPU of the loop and of reading alone, per play. */
async function compare(name: string, turns: ModelEvent[][], steps: number, times: number) {
  const [looped, bare]: [number[], number[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const loop = () => microseconds(() => play(turns, steps + 1), times);
    const alone = () => microseconds(() => read(turns, steps), times);
    const [a, b] = round % 2 === 0 ? [await loop(), await alone()] : [await alone(), await loop()];
    // The first round warms up.
    if (round === 0) continue;
    looped.push(round % 2 === 0 ? a : b);
    bare.push(round % 2 === 0 ? b : a);
  }
  return { name, steps, events: turns.flat().length, loopMicros: median(looped), bareMicros: median(bare) };
}

const results = [
  await compare("a turn of 20 deltas", [text(20)], 1, 300),
  await compare("a turn of 200 deltas", [text(200)], 1, 100),
  await compare("a turn of 2 000 deltas", [text(2_000)], 1, 20),
  await compare("a turn of 20 000 deltas", [text(20_000)], 1, 3),
  await compare("a turn of 200 000 deltas", [text(200_000)], 1, 1),
  await compare("100 turns with a tool", [...Array.from({ length: 99 }, () => call), text(1)], 100, 3),
];
process.stdout.write("| | loop µs | events alone µs | ratio | loop µs per event |\n| --- | --: | --: | --: | --: |\n");
for (const { name, events, loopMicros, bareMicros } of results) {
  const ratio = (loopMicros / bareMicros).toFixed(1);
  process.stdout.write(
    `| ${name} | ${loopMicros.toFixed(0)} | ${bareMicros.toFixed(0)} | ${ratio} | ${(loopMicros / events).toFixed(2)} |\n`,
  );
}
const out = process.argv[2];
if (out !== undefined)
  writeFileSync(out, `${JSON.stringify({ node: process.version, rounds: ROUNDS, results }, null, 2)}\n`);
