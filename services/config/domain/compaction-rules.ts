import type { CompactionConfig } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Violations } from "./text-rules.ts";

/**
 * The part of the window above which each preset compacts, as the design document has it (§3.2). What the summaries are
 * asked to keep is the engine's.
 */
export const COMPACTION_PRESETS: Readonly<Record<string, number>> = {
  default: 0.8,
  customer_service: 0.85,
  coding_assistant: 0.8,
  data_analysis: 0.75,
};

const DEFAULT_PRESET = "default";
const DEFAULT_KEEP_TURNS = 3;

/** Business adapters, and the preset of agents that have the adapter and name no preset. */
export const ADAPTERS: Readonly<Record<string, string>> = {
  ecommerce: "customer_service",
  finance: "data_analysis",
  support: "customer_service",
};

/** Checks all but the summary's model, which is a matter of the tenant's list; ranges are the contract's. */
export function checkCompaction(config: CompactionConfig, wrong: Violations): void {
  const { preset, summaryPrompt } = config;
  if (preset !== "" && !Object.hasOwn(COMPACTION_PRESETS, preset)) {
    wrong.add("compaction_config.preset", `must be one of ${Object.keys(COMPACTION_PRESETS).join(", ")}`);
  }
  if (summaryPrompt !== "" && summaryPrompt.trim() === "") {
    wrong.add("compaction_config.summary_prompt", "must say what to keep; empty means the preset's");
  }
  wrong.text("compaction_config.summary_prompt", summaryPrompt);
}

/** How an agent compacts: what it says itself, over its preset, else its adapter's, else the default. */
export function resolveCompaction(config: CompactionConfig | undefined, adapter: string): CompactionConfig {
  const named = [config?.preset ?? "", own(ADAPTERS, adapter) ?? ""].find((preset) =>
    Object.hasOwn(COMPACTION_PRESETS, preset),
  );
  const preset = named ?? DEFAULT_PRESET;
  return {
    $typeName: "agentmesh.config.v1.CompactionConfig",
    preset,
    enabled: config?.enabled ?? true,
    thresholdRatio: config?.thresholdRatio ?? own(COMPACTION_PRESETS, preset) ?? 0.8,
    summaryPrompt: config?.summaryPrompt ?? "",
    summaryModel: config?.summaryModel ?? "",
    keepTurns: config?.keepTurns ?? DEFAULT_KEEP_TURNS,
  };
}

function own<T>(record: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}
