import type { CompactionPresetName } from "../engine/context/presets.ts";
import type { MaskRule } from "../runs/stream-mask.ts";

/** What an agent of a line of business has beside its own configuration. */
export interface BusinessAdapter {
  /** Follows the agent's system prompt. */
  readonly prompt: string;
  /** Tools of the business; an agent has those of them that it names itself. */
  readonly tools: readonly string[];
  /** How long conversations are compacted where the agent says nothing. */
  readonly compaction: CompactionPresetName;
  /** What the user wrote, as the model shall see it. */
  beforeInput?(text: string): string;
  /** Hidden in everything that leaves a run, streamed text included. */
  readonly hides?: MaskRule;
}
