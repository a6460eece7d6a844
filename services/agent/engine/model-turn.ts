import type {
  AssistantMessage,
  AssistantPart,
  FinishReason,
  ModelEvent,
  TextPart,
  ToolCallPart,
  UsageEvent,
} from "../llm/chat-model.ts";
import { type DiscardCause, type EngineEvent, type ModelUsage, notice } from "./events.ts";

/** Makes the id of a new item. */
export type NewItemId = (kind: "msg" | "rsn" | "call") => string;

interface OpenCall {
  callId: string;
  offset: number;
}

/**
 * One call of the model as it comes in: turns model events into engine events and collects the message. What completes an
 * item is held back until the call is over, because until then it can be discarded.
 * A delta costs the same whatever came before it: offsets are added up, texts are joined by reference.
 */
export class ModelTurn {
  finish: FinishReason | undefined;
  /** The message's parts in order. */
  parts: AssistantPart[] = [];

  readonly #step: number;
  readonly #newItemId: NewItemId;
  readonly #told: Set<string>;
  readonly #usage: ModelUsage;
  #current: UsageEvent | undefined;
  #message: { itemId: string; offset: number } | undefined;
  #reasoning: { itemId: string; offset: number } | undefined;
  #calls = new Map<string, OpenCall>();
  #completions: EngineEvent[] = [];

  /** `told` holds the reasons of notices that the run has given already; they are not repeated. */
  constructor(step: number, provider: string, model: string, newItemId: NewItemId, told: Set<string>) {
    this.#step = step;
    this.#newItemId = newItemId;
    this.#told = told;
    this.#usage = { provider, model, inputTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0, outputTokens: 0 };
  }

  /** Takes one model event and appends what it means to `out`. */
  accept(event: ModelEvent, out: EngineEvent[]): void {
    switch (event.type) {
      case "text_delta":
        this.#text(event.text, out);
        break;
      case "thinking_delta":
        this.#thinking(event.text, out);
        break;
      case "thinking":
        this.parts.push(event.part);
        if (event.part.text !== "") this.#completeReasoning(event.part.text, out);
        break;
      case "tool_call_started":
        this.#startCall(event.id, event.name, out);
        break;
      case "tool_arguments_delta": {
        const call = this.#calls.get(event.id);
        if (call === undefined) break;
        const { callId: itemId, offset } = call;
        out.push({ type: "tool_call_arguments_delta", itemId, offset, jsonFragment: event.json });
        call.offset += byteLength(event.json);
        break;
      }
      case "tool_call": {
        const { callId } = this.#calls.get(event.id) ?? this.#startCall(event.id, event.name, out);
        this.#calls.delete(event.id);
        const { id: providerCallId, name, argumentsJson } = event;
        this.parts.push({ type: "tool_call", callId, providerCallId, name, argumentsJson });
        break;
      }
      case "usage":
        this.#current = event;
        break;
      case "finish":
        this.finish = event.reason;
        break;
      case "notice":
        if (this.#told.has(event.reason)) break;
        this.#told.add(event.reason);
        out.push(notice(event.reason, event.message, { facts: event.facts ?? {} }));
        break;
      case "discard":
        this.#discard("model_retry", out);
        break;
      case "retry": {
        this.#bankUsage();
        const facts = { attempt: String(event.attempt), delay_ms: String(event.delayMs), kind: event.kind };
        out.push(notice("MODEL_RETRY", "The model did not answer; trying again.", { facts, retrying: true }));
      }
    }
  }

  get calls(): ToolCallPart[] {
    return this.parts.filter((part) => part.type === "tool_call");
  }

  /** All text of the message. */
  get text(): string {
    return this.parts.reduce((text, part) => (part.type === "text" ? text + part.text : text), "");
  }

  /** The message for the history; none when the model said nothing. */
  message(): AssistantMessage[] {
    const says = this.parts.some(
      (part) => part.type === "tool_call" || (part.type === "text" && part.text.trim() !== ""),
    );
    // Thinking alone is kept only where the model goes on from it.
    return says || (this.finish === "pause" && this.parts.length > 0)
      ? [{ role: "assistant", content: this.parts }]
      : [];
  }

  /** Tokens of the call, attempts that broke off included. */
  get usage(): ModelUsage {
    this.#bankUsage();
    return this.#usage;
  }

  /** Completes reasoning and message. Open or unwanted calls are left to {@link discardRest}. */
  complete(out: EngineEvent[]): void {
    out.push(...this.#completions);
    this.#completions = [];
    if (this.#message !== undefined) {
      out.push({ type: "message_completed", itemId: this.#message.itemId, parts: [{ type: "text", text: this.text }] });
      this.#message = undefined;
    }
  }

  /** Declares void what was shown and is not complete, and forgets the calls. */
  discardRest(cause: DiscardCause, out: EngineEvent[]): void {
    const open = this.#message !== undefined || this.#reasoning !== undefined || this.#calls.size > 0;
    if (open || this.#completions.length > 0 || this.calls.length > 0) {
      out.push({ type: "item_discarded", step: this.#step, cause });
    }
    this.#message = undefined;
    this.#reasoning = undefined;
    this.#completions = [];
    this.#calls.clear();
    this.parts = this.parts.filter((part) => part.type !== "tool_call");
  }

  #discard(cause: DiscardCause, out: EngineEvent[]): void {
    this.discardRest(cause, out);
    this.parts = [];
    this.finish = undefined;
  }

  #text(text: string, out: EngineEvent[]): void {
    if (this.#message === undefined) {
      this.#message = { itemId: this.#newItemId("msg"), offset: 0 };
      out.push({ type: "message_started", itemId: this.#message.itemId });
    }
    const { itemId, offset } = this.#message;
    out.push({ type: "text_delta", itemId, offset, text });
    this.#message.offset += byteLength(text);
    const last = this.parts.at(-1);
    if (last?.type === "text") last.text += text;
    else this.parts.push({ type: "text", text } satisfies TextPart);
  }

  #thinking(text: string, out: EngineEvent[]): void {
    this.#reasoning ??= { itemId: this.#newItemId("rsn"), offset: 0 };
    const { itemId, offset } = this.#reasoning;
    out.push({ type: "reasoning_delta", itemId, offset, text });
    this.#reasoning.offset += byteLength(text);
  }

  #completeReasoning(text: string, out: EngineEvent[]): void {
    if (this.#reasoning === undefined) this.#thinking(text, out);
    const { itemId } = this.#reasoning as { itemId: string };
    this.#completions.push({ type: "reasoning_completed", itemId, text });
    this.#reasoning = undefined;
  }

  #startCall(id: string, tool: string, out: EngineEvent[]): OpenCall {
    const call = { callId: this.#newItemId("call"), offset: 0 };
    this.#calls.set(id, call);
    out.push({ type: "tool_call_started", itemId: call.callId, tool });
    return call;
  }

  #bankUsage(): void {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    const sum = this.#usage;
    sum.provider = current.provider;
    if (current.model !== "") sum.model = current.model;
    sum.inputTokens += current.inputTokens;
    sum.cacheReadTokens += current.cacheReadTokens;
    sum.cacheWriteTokens += current.cacheWriteTokens;
    sum.outputTokens += current.outputTokens;
  }
}

function byteLength(text: string): number {
  return Buffer.byteLength(text);
}
