import { type EngineEvent, notice } from "../events.ts";
import type { LoopInput, ModelRung } from "../loop-input.ts";
import { type ComingRequest, Compaction, type CompactionTools } from "./compact.ts";
import type { Context } from "./context.ts";
import { trimHistory } from "./trim.ts";

/** Turns at the end that trimming leaves. */
const trimmedTurns = 3;
/** Part of the room that a trimmed history takes, so that not every turn begins with another prefix. */
const trimmedPart = 0.75;
/** Estimates are rough: this part of the room is used. */
const usablePart = 0.95;

/** Keeps a run's context within the model's window: evicts outputs, then compacts or, where that is off, trims. */
export class ContextKeeper {
  readonly #context: Context;
  readonly #compaction: Compaction | undefined;
  readonly #maxTokens: number;

  constructor(context: Context, input: LoopInput, tools: CompactionTools) {
    this.#context = context;
    this.#maxTokens = input.limits.maxTokens;
    this.#compaction = input.compaction && new Compaction(input.compaction, context, tools);
  }

  /** Prepares the context for a request. */
  async *prepare(coming: ComingRequest): AsyncGenerator<EngineEvent, void, void> {
    const evicted = this.#context.evict();
    if (evicted !== undefined) yield { type: "tool_outputs_evicted", ...evicted };
    const tokens = this.#context.estimate(coming.lead, coming.frame);
    if (this.#compaction !== undefined) {
      if (this.#compaction.isDue(tokens, coming.rung)) yield* this.#compaction.run(coming, tokens);
      return;
    }
    const room = roomOf(coming.rung, this.#maxTokens);
    if (tokens > room) yield* this.#trim(tokens - room * trimmedPart);
  }

  /** Makes the context shorter after the provider found it too long; false: it cannot be made shorter. */
  async *shrink(coming: ComingRequest): AsyncGenerator<EngineEvent, boolean, void> {
    const tokens = this.#context.estimate(coming.lead, coming.frame);
    if (this.#compaction !== undefined) return yield* this.#compaction.run(coming, tokens);
    // What was estimated is wrong; half of it is a safe guess.
    return yield* this.#trim(tokens / 2);
  }

  *#trim(excess: number): Generator<EngineEvent, boolean, void> {
    const { history, dropped } = trimHistory(this.#context.history, excess, trimmedTurns, this.#context.tokensOf);
    if (dropped === 0) return false;
    this.#context.replace(history);
    const facts = { messages: String(dropped) };
    yield notice("HISTORY_TRIMMED", "The conversation is long; its oldest messages are not shown to the model.", {
      facts,
    });
    return true;
  }
}

/** Tokens that a prompt may have so that the answer has room behind it. */
function roomOf({ contextWindow }: ModelRung, maxTokens: number): number {
  return (contextWindow - Math.min(maxTokens, contextWindow / 2)) * usablePart;
}
