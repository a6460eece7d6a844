// A plugin that the meshes of the fault tests load: tools whose only effect is that somebody outside remembers it.
import { setTimeout as sleep } from "node:timers/promises";
import { definePlugin } from "#platform/plugin/define-plugin.ts";
import { defineTool, type Risk } from "#platform/plugin/define-tool.ts";
import { ASKS_FIRST, type Execution } from "./history.ts";

/** Where the side effects go, by the environment of the process that has the tools. */
export const SIDE_EFFECTS_URL = "FAULTS_SIDE_EFFECTS_URL";

function recording(name: string, idempotent: boolean, risk: Risk = "write") {
  return defineTool<{ wait_ms: number }>({
    name,
    description: "Acts on the world and takes a while.",
    input: { type: "object", properties: { wait_ms: { type: "integer" } }, required: ["wait_ms"] },
    risk,
    concurrencySafe: true,
    idempotent,
    timeoutMs: 10_000,
    maxOutputBytes: 1_000,
    async run({ wait_ms }, { runId, callId, requestKey }, signal) {
      const execution: Execution = { tool: name, runId, callId, requestKey, idempotent };
      const url = process.env[SIDE_EFFECTS_URL] ?? "";
      const { ok } = await fetch(url, { method: "POST", body: JSON.stringify(execution), signal });
      if (!ok) throw new Error("the world did not take it");
      await sleep(wait_ms, undefined, { signal });
      return "done";
    },
  });
}

export const plugin = definePlugin({
  name: "recording",
  version: "1.0.0",
  tools: [recording("act_once", false), recording("act_again", true), recording(ASKS_FIRST, false, "destructive")],
});
