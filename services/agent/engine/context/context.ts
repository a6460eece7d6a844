import type { ModelMessage, ToolResultPart } from "../../llm/chat-model.ts";
import type { ModelUsage } from "../events.ts";
import { estimateMessage } from "./estimate.ts";
import { type Evicted, Evictions } from "./evict.ts";
import { contextTokens, Gauge } from "./gauge.ts";

/** The history of a run and what the model sees of it. The history itself keeps every output whole. */
export class Context {
  #history: ModelMessage[] = [];
  readonly #keep: ReadonlyMap<string, number>;
  readonly #batch: number;
  #evictions: Evictions;
  /** Calls whose eviction was told of. */
  readonly #told = new Set<string>();
  readonly #gauge = new Gauge();

  /** `keep` and `batch` are those of {@link Evictions}. */
  constructor(history: readonly ModelMessage[], keep: ReadonlyMap<string, number>, batch: number) {
    this.#keep = keep;
    this.#batch = batch;
    this.#evictions = new Evictions(keep, batch);
    this.add(history);
  }

  get history(): readonly ModelMessage[] {
    return this.#history;
  }

  add(messages: readonly ModelMessage[]): void {
    for (const message of messages) {
      this.#history.push(message);
      this.#evictions.append(message);
    }
  }

  /** Goes on with another history in place of this one. */
  replace(history: readonly ModelMessage[]): void {
    this.#history = [];
    this.#evictions = new Evictions(this.#keep, this.#batch);
    this.add(history);
    this.#evictions.decide();
  }

  /** What the model is shown. */
  view(): ModelMessage[] {
    return this.#history.map((message) => this.#evictions.view(message));
  }

  viewOf(messages: readonly ModelMessage[]): ModelMessage[] {
    return messages.map((message) => this.#evictions.view(message));
  }

  /** Tokens of a message as the model is shown it. */
  readonly tokensOf = (message: ModelMessage): number => estimateMessage(this.#evictions.view(message));

  /** Evicts what may go before the request that comes; undefined: nothing new. */
  evict(): Evicted | undefined {
    const evicted = this.#evictions.decide();
    if (evicted === undefined) return undefined;
    const callIds = evicted.callIds.filter((callId) => !this.#told.has(callId));
    for (const callId of callIds) this.#told.add(callId);
    return callIds.length === 0 ? undefined : { ...evicted, callIds };
  }

  /** The result of a call, as long as the history holds it. */
  readonly find = (callId: string): ToolResultPart | undefined => {
    for (let i = this.#history.length - 1; i >= 0; i--) {
      const message = this.#history[i];
      if (message?.role !== "tool") continue;
      const found = message.content.find((part) => part.callId === callId);
      if (found !== undefined) return found;
    }
    return undefined;
  };

  /** Tokens of a request with this history and `lead` behind it; `frame`: what system and tools take. */
  estimate(lead: readonly ModelMessage[], frame: number): number {
    return this.#gauge.estimate([...this.view(), ...lead], frame);
  }

  /** Takes what the last call used, when its answer is the last message of the request. */
  observe(usage: ModelUsage, request: readonly ModelMessage[], frame: number): void {
    this.#gauge.observe(contextTokens(usage), request, frame);
  }
}
