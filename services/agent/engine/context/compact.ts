import type { FinishReason, ModelMessage, ModelTool, RequestMetadata, UserMessage } from "../../llm/chat-model.ts";
import { answerOf } from "../answer-of.ts";
import { type EngineEvent, notice } from "../events.ts";
import { isModelError } from "../is-model-error.ts";
import type { CompactionSettings, ModelRung } from "../loop-input.ts";
import { ModelTurn, type NewItemId } from "../model-turn.ts";
import type { UsageTally } from "../usage-tally.ts";
import type { Context } from "./context.ts";
import { estimateMessage, estimateMessages } from "./estimate.ts";
import { fitMessages } from "./fit.ts";
import { type CutHistory, cutHistory, isWorthCutting } from "./rounds.ts";
import { summaryIn, summaryMessage, summaryRequest } from "./summary.ts";

/** The request for which the context is prepared. */
export interface ComingRequest {
  step: number;
  rung: ModelRung;
  system: string;
  tools: readonly ModelTool[];
  /** Tokens of system and tools. */
  frame: number;
  /** Messages that come behind the history. */
  lead: readonly UserMessage[];
}

/** What compacting takes from the run. */
export interface CompactionTools {
  newItemId: NewItemId;
  signal: AbortSignal;
  told: Set<string>;
  tally: UsageTally;
  openTodos: (() => Promise<readonly string[]>) | undefined;
  metadata: RequestMetadata | undefined;
}

type Failure = { cause: "empty" | "truncated" | "refused" | "not_shorter" | "model_failed"; kind?: string };
type Summary = { text: string } | Failure;

/** Output tokens of a summary, and the part of a small window that they may be. */
const maxSummaryTokens = 8_192;
const maxSummaryPart = 1 / 8;
/** A middle below this part of the threshold is not worth a call of the model. */
const leastMiddle = 1 / 10;
/** After a failure nothing is tried before the context has grown by this part of the window. */
const growthBeforeRetry = 1 / 20;
/** Estimates are rough: so much of the window is filled with a request for a summary. */
const usablePart = 0.95;

/** Replaces the middle of a long history by a summary. */
export class Compaction {
  readonly #settings: CompactionSettings;
  readonly #context: Context;
  readonly #tools: CompactionTools;
  #notBefore = 0;

  constructor(settings: CompactionSettings, context: Context, tools: CompactionTools) {
    this.#settings = settings;
    this.#context = context;
    this.#tools = tools;
  }

  /** Whether a context of so many tokens is to be compacted for this model. */
  isDue(tokens: number, { contextWindow }: ModelRung): boolean {
    const threshold = this.#settings.thresholdRatio * contextWindow;
    if (tokens < threshold || tokens < this.#notBefore) return false;
    const { middle } = this.#cut();
    return isWorthCutting(middle) && estimateMessages(this.#context.viewOf(middle)) >= threshold * leastMiddle;
  }

  /**
   * Compacts a context of so many tokens, with one call of a model. False: nothing was changed, because there is nothing to
   * leave out or because no summary came; a notice tells of the latter. It throws the signal's reason.
   */
  async *run(coming: ComingRequest, tokensBefore: number): AsyncGenerator<EngineEvent, boolean, void> {
    const cut = this.#cut();
    if (!isWorthCutting(cut.middle)) return false;
    const { summaryModel } = this.#settings;
    let summary = yield* this.#ask(summaryModel ?? coming.rung, cut, coming);
    if (summaryModel !== undefined && "cause" in summary && summary.cause === "model_failed") {
      summary = yield* this.#ask(coming.rung, cut, coming);
    }
    const failure = "cause" in summary ? summary : yield* this.#apply(summary.text, cut, coming, tokensBefore);
    if (failure === undefined) return true;
    this.#notBefore = tokensBefore + coming.rung.contextWindow * growthBeforeRetry;
    const { cause, kind } = failure;
    const facts = kind === undefined ? { cause } : { cause, kind };
    yield notice("COMPACTION_FAILED", "The conversation could not be summarised; it stays as it is.", { facts });
    return false;
  }

  #cut(): CutHistory {
    return cutHistory(this.#context.history, this.#settings.keepTurns);
  }

  /** Asks for a summary; a second time with half as much where the first request was too long after all. */
  async *#ask(rung: ModelRung, cut: CutHistory, coming: ComingRequest): AsyncGenerator<EngineEvent, Summary, void> {
    const answerTokens = Math.floor(Math.min(maxSummaryTokens, rung.contextWindow * maxSummaryPart));
    const instruction = summaryRequest(this.#settings.summaryPrompt);
    const room = rung.contextWindow * usablePart - answerTokens - coming.frame - estimateMessage(instruction);
    const [front, middle] = [this.#context.viewOf(cut.front), this.#context.viewOf(cut.middle)];
    const messages = fitMessages(front, middle, room);
    const summary = yield* this.#call(rung, [...messages, instruction], answerTokens, coming);
    if (!("kind" in summary) || summary.kind !== "context_overflow") return summary;
    const half = fitMessages(front, middle, estimateMessages(messages) / 2);
    return yield* this.#call(rung, [...half, instruction], answerTokens, coming);
  }

  async *#call(
    rung: ModelRung,
    messages: ModelMessage[],
    maxTokens: number,
    { step, system, tools }: ComingRequest,
  ): AsyncGenerator<EngineEvent, Summary, void> {
    const { newItemId, signal, told, tally, metadata } = this.#tools;
    signal.throwIfAborted();
    const turn = new ModelTurn({ step, rung, purpose: "summary", newItemId, told, tally });
    const out: EngineEvent[] = [];
    try {
      // Tools and system prompt stay, and calls are forbidden: the provider's cache holds what the run has sent before.
      const request = { model: rung.modelName, system, messages, tools, toolChoice: "none", maxTokens } as const;
      const options = { signal, mayDiscard: true, ...(rung.credential && { credential: rung.credential }) };
      for await (const event of rung.model.stream({ ...request, ...(metadata && { metadata }) }, options)) {
        turn.accept(event, out);
        for (const one of out) if (one.type === "notice" || one.type === "model_called") yield one;
        out.length = 0;
      }
    } catch (error) {
      if (turn.owes) turn.book(true, out);
      yield* out;
      signal.throwIfAborted();
      if (!isModelError(error)) throw error;
      return { cause: "model_failed", kind: error.kind };
    }
    turn.book(false, out);
    yield* out;
    return judged(turn.text, turn.finish);
  }

  async *#apply(
    summary: string,
    { front, middle, tail }: CutHistory,
    coming: ComingRequest,
    tokensBefore: number,
  ): AsyncGenerator<EngineEvent, Failure | undefined, void> {
    const { openTodos, newItemId, signal } = this.#tools;
    const todos = openTodos === undefined ? undefined : await answerOf(openTodos, signal);
    signal.throwIfAborted();
    const message = summaryMessage(summary, todos ?? [], newItemId("msg"));
    if (estimateMessage(message) >= estimateMessages(this.#context.viewOf(middle))) return { cause: "not_shorter" };
    this.#context.replace([...front, message, ...tail]);
    const tokensAfter = this.#context.estimate(coming.lead, coming.frame);
    yield {
      type: "context_compacted",
      summary,
      messages: middle.length,
      firstKeptMessageId: idsOf(tail)[0] ?? "",
      keptMessageIds: idsOf(front),
      message,
      tokensBefore,
      tokensAfter,
    };
    return undefined;
  }
}

function judged(answer: string, finish: FinishReason | undefined): Summary {
  if (finish === "refusal") return { cause: "refused" };
  if (finish === "length" || finish === "pause") return { cause: "truncated" };
  const text = summaryIn(answer);
  return text === "" ? { cause: "empty" } : { text };
}

function idsOf(messages: readonly ModelMessage[]): string[] {
  return messages.flatMap(({ id }) => (id === undefined ? [] : [id]));
}
