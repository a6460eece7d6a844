import { definePlugin } from "#platform/plugin/define-plugin.ts";

/** A plugin whose hooks do no good: one throws, the other never ends. */
export const plugin = definePlugin({
  name: "failing",
  version: "1.0.0",
  beforeInput() {
    throw new Error("no luck");
  },
  afterResponse: () => new Promise<string>(() => {}),
});
