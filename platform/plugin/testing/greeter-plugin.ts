import { definePlugin } from "../define-plugin.ts";
import { defineTool } from "../define-tool.ts";

/** What the plugin's hooks were called for, the newest last. */
export const heard: string[] = [];

export const plugin = definePlugin({
  name: "greeter",
  version: "1.2.0",
  tools: [
    defineTool<{ name: string }>({
      name: "greet",
      description: "Greets somebody.",
      input: { type: "object", properties: { name: { type: "string" } }, required: ["name"] },
      risk: "read_only",
      concurrencySafe: true,
      idempotent: true,
      timeoutMs: 1_000,
      maxOutputBytes: 1_000,
      run: ({ name }) => `Hello, ${name}!`,
    }),
  ],
  promptAdditions: ["  You can greet people. ", ""],
  onLoad: () => void heard.push("load"),
  onUnload: () => void heard.push("unload"),
});
