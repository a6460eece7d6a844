import type { ConfigSource } from "#platform/config/source.ts";
import { readPluginConfig } from "#platform/plugin/plugin-config.ts";

export interface ToolConfig {
  /** How long a tool whose signal has fired may take to end by itself. */
  readonly abandonAfterMs: number;
  /** Most entries of a session's to-do list. */
  readonly todoMaxItems: number;
  /** How long whole outputs can be read again. */
  readonly outputRetentionMs: number;
  /** How long it is remembered what became of a call that must not run twice. */
  readonly journalRetentionMs: number;
  /** Plugins whose tools are offered. */
  readonly pluginModules: readonly string[];
}

/** Reads the sections `tool` and `plugins`. */
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
    outputRetentionMs: tool.duration("output_retention", {
      default: "30d",
      min: "1m",
      max: "3650d",
      doc: "How long the whole output of a tool call can be read again.",
    }),
    journalRetentionMs: tool.duration("journal_retention", {
      default: "7d",
      min: "1h",
      max: "365d",
      doc: "How long a repeated call of a tool that is not idempotent gets the first answer again. After it the call would run again.",
    }),
    pluginModules: readPluginConfig(source).modules,
  };
}
