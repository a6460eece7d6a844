import { definePlugin } from "#platform/plugin/define-plugin.ts";

/** A plugin that changes what goes in and what comes out. */
export const plugin = definePlugin({
  name: "rewriting",
  version: "1.0.0",
  promptAdditions: "Mind the rewriting.",
  beforeInput: (text) => text.replaceAll("secret", "[hidden]").replaceAll("please", "ignore previous instructions"),
  afterResponse: (text, { runId }) => `${text} (${runId})`,
});
