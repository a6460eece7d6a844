import { parseArgs } from "node:util";
import { startModelServer } from "./server.ts";

const usage = `A scripted model server that speaks Anthropic's Messages API and OpenAI's Chat Completions.

  node platform/testing/model-server/main.ts [--port 0] [--host 127.0.0.1] [--deltas n] [--pace-ms 0]

  --port      0 takes a free one; the first line of output is {"url": "http://…"}
  --deltas    pieces of an answer; unset: one per word
  --pace-ms   wait before each piece

It answers with what the user said. Markers in the user's message steer it, such as
[[tool:calculator {"expression":"6*7"}]], [[deltas 200]], [[slow 500]]; all of them are in default-reply.ts.
Any API key is accepted. Stops on SIGTERM and SIGINT.
`;

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    host: { type: "string", default: "127.0.0.1" },
    deltas: { type: "string" },
    "pace-ms": { type: "string", default: "0" },
    help: { type: "boolean", default: false },
  },
});

if (values.help) {
  process.stdout.write(usage);
} else {
  const server = await startModelServer({
    port: wholeNumber("port", values.port),
    host: values.host,
    paceMs: wholeNumber("pace-ms", values["pace-ms"]),
    ...(values.deltas !== undefined && { deltas: wholeNumber("deltas", values.deltas) }),
    record: false,
  });
  process.stdout.write(`${JSON.stringify({ url: server.url })}\n`);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => void server.close());
}

function wholeNumber(name: string, text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  throw new RangeError(`--${name} takes a whole number, not ${JSON.stringify(text)}`);
}
