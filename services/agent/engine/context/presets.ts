import type { CompactionSettings } from "../loop-input.ts";

/** Names of the presets for kinds of business. */
export type CompactionPresetName = "default" | "customer_service" | "coding_assistant" | "data_analysis";

type Preset = Omit<CompactionSettings, "summaryModel">;

const keepTurns = 3;

/** When a history is compacted and what its summary keeps, by kind of business. */
export const compactionPresets: Readonly<Record<CompactionPresetName, Preset>> = {
  default: {
    thresholdRatio: 0.8,
    keepTurns,
    summaryPrompt: [
      "Summarise this conversation so that it can be continued without it. Keep:",
      "1. What the user wants, with every condition and preference that was named",
      "2. What has been done and what came of it",
      "3. Facts, values and decisions that later steps depend on",
      "4. What is still open, and what the next step was to be",
    ].join("\n"),
  },
  customer_service: {
    thresholdRatio: 0.85,
    keepTurns,
    summaryPrompt: [
      "Summarise this customer service conversation. Keep above all:",
      "1. The customer's main problem and what they ask for, with order numbers, products and dates",
      "2. The solutions that were offered, and what was promised",
      "3. How the customer responded, and how satisfied they are",
      "4. What has to be followed up, by whom and until when",
    ].join("\n"),
  },
  coding_assistant: {
    thresholdRatio: 0.8,
    keepTurns,
    summaryPrompt: [
      "Summarise this programming session. Keep:",
      "1. The structure of the project and its important files, with their paths",
      "2. The code that was changed, and why",
      "3. The errors that came up, and how each was solved",
      "4. The tasks that are still to be done",
    ].join("\n"),
  },
  data_analysis: {
    thresholdRatio: 0.75,
    keepTurns,
    summaryPrompt: [
      "Summarise this data analysis session. Keep:",
      "1. The data sources, and how the data is structured: tables, columns, units",
      "2. The findings that matter, with their figures",
      "3. The steps of the analysis that were carried out, with the queries and parameters",
      "4. The charts and reports that were made, and where they are",
    ].join("\n"),
  },
};

/** The preset of a name; undefined for a name that is none. */
export function compactionPreset(name: string): Preset | undefined {
  return Object.hasOwn(compactionPresets, name) ? compactionPresets[name as CompactionPresetName] : undefined;
}
