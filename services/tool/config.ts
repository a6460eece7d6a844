import type { ConfigSource } from "#platform/config/source.ts";

export interface ToolConfig {
  /** How long a tool whose signal has fired may take to end by itself. */
  readonly abandonAfterMs: number;
  /** Most entries of a session's to-do list. */
  readonly todoMaxItems: number;
}

/** Reads the section `tool`. */
export function readToolConfig(source: ConfigSource): ToolConfig {
  const tool = source.section("tool");
  return {
    abandonAfterMs: tool.duration("abandon_after", {
      default: "500ms",
      min: "0s",
      max: "30s",
      doc: "How long a tool that was cancelled or ran out of time may take to end before it is left behind.",
    }),
    todoMaxItems: tool.int("todo_max_items", {
      default: 100,
      min: 1,
      max: 1_000,
      doc: "Most entries of one session's to-do list.",
    }),
  };
}
