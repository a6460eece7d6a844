// node noisy-tenant.ts <gateway> <key> <callers> <message>: so many callers who ask for a turn, wait for its end and ask
// again; one that is refused waits as it is told. SIGUSR2 begins it, and the next one breaks everything off. After SIGTERM
// it prints `turns <n> refused <n>`.
import { constants, setPriority } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, request } from "undici";

const [url = "", key = "", callers = "0", message = ""] = process.argv.slice(2);
const agent = new Agent({ connections: Number(callers), bodyTimeout: 0, headersTimeout: 0 });
const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
const FALLBACK_WAIT_MS = 1_000;
/** Nobody has a thousand callers begin in one instant. */
const COMING_MS = 2_000;

// A real one has processors of its own; here it shall take none from those whose latency is measured.
setPriority(constants.priority.PRIORITY_LOW);

let noise: AbortController | undefined;
let turns = 0;
let refused = 0;
process.on("SIGUSR2", () => {
  noise?.abort();
  noise = noise === undefined ? new AbortController() : undefined;
  if (noise === undefined) return;
  for (let caller = 0; caller < Number(callers); caller++) void call(noise.signal, caller / Number(callers));
});
process.once("SIGTERM", () => {
  process.stdout.write(`turns ${turns} refused ${refused}\n`);
  process.exit(0);
});
process.stdout.write("ready\n");
setInterval(() => {}, 60_000);

async function call(signal: AbortSignal, share: number): Promise<void> {
  try {
    await sleep(share * COMING_MS, undefined, { signal });
    while (!signal.aborted) {
      const body = JSON.stringify({ message });
      const options = { dispatcher: agent, method: "POST", headers, body, signal } as const;
      const answer = await request(`${url}/api/v1/chat`, options);
      await answer.body.dump();
      if (answer.statusCode === 200) turns += 1;
      else {
        refused += 1;
        const seconds = Number(answer.headers["retry-after"]);
        await sleep(seconds > 0 ? seconds * 1_000 : FALLBACK_WAIT_MS, undefined, { signal });
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
