// A plugin that a mesh of these tests loads: a tool that must not run twice, and whose effect is a line in a file.
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { definePlugin } from "#platform/plugin/define-plugin.ts";
import { defineTool } from "#platform/plugin/define-tool.ts";

/** Where the charges go, by the environment of the process that has the tool. */
export const CHARGES_FILE = "TEST_CHARGES_FILE";

const charge = defineTool<{ amount: number; wait_ms: number }>({
  name: "charge",
  description: "Takes money, and a while.",
  input: { type: "object", properties: { amount: { type: "integer" }, wait_ms: { type: "integer" } } },
  risk: "destructive",
  concurrencySafe: true,
  idempotent: false,
  timeoutMs: 10_000,
  maxOutputBytes: 1_000,
  async run({ amount, wait_ms }, { requestKey }) {
    appendFileSync(process.env[CHARGES_FILE] ?? "", `${requestKey} ${amount}\n`);
    await sleep(wait_ms);
    return `charged ${amount}`;
  },
});

export const plugin = definePlugin({ name: "charging", version: "1.0.0", tools: [charge] });
