import { appendFileSync } from "node:fs";
import { type CodeTool, defineTool, type ToolDefinition } from "#platform/plugin/define-tool.ts";

/** What {@link chargingTool} is told. */
export interface Charge {
  amount: number;
  /** The process dies as soon as the effect is there. */
  die?: boolean;
}

/** A tool that must not run twice, unless `more` says otherwise. */
export function acting<Args = Record<string, unknown>>(
  name: string,
  run: ToolDefinition<Args>["run"],
  more: Partial<ToolDefinition<Args>> = {},
): CodeTool {
  return defineTool<Args>({
    name,
    description: "Acts on the world.",
    input: { type: "object" },
    risk: "destructive",
    concurrencySafe: true,
    idempotent: false,
    timeoutMs: 30_000,
    maxOutputBytes: 1_000,
    run,
    ...more,
  });
}

/** Its effect is a line in a file, with which nothing else begins. */
export function chargingTool(file: string): CodeTool {
  return acting<Charge>(
    "charge",
    ({ amount, die = false }, { requestKey }) => {
      appendFileSync(file, `${requestKey} ${amount}\n`);
      if (die) process.kill(process.pid, "SIGKILL");
      return `charged ${amount}`;
    },
    { timeoutMs: 300 },
  );
}
