import type {
  AssistantMessage,
  AssistantPart,
  FinishReason,
  ModelEvent,
  TextPart,
  ToolCallPart,
  UsageEvent,
} from "../llm/chat-model.ts";
import { type DiscardCause, type EngineEvent, type ModelCallPurpose, type ModelUsage, notice } from "./events.ts";
import type { ModelRung } from "./loop-input.ts";
import { addTokens, noTokens, type UsageTally } from "./usage-tally.ts";

/** Makes the id of a new item. */
export type NewItemId = (kind: "msg" | "rsn" | "call") => string;

export interface ModelTurnOptions {
  step: number;
  rung: ModelRung;
  purpose: ModelCallPurpose;
  newItemId: NewItemId;
  /** Reasons of notices that the run has given already; they are not repeated. */
  told: Set<string>;
  /** The run's usage; each call of a model is added to it once. */
  tally: UsageTally;
}

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

  readonly #options: ModelTurnOptions;
  readonly #usage: ModelUsage;
  #last: ModelUsage;
  #current: UsageEvent | undefined;
  /** The attempt has said something, so it costs something. */
  #begun = false;
  /** Id of the message: that of the item in which it is shown. */
  #messageId: string | undefined;
  #message: { itemId: string; offset: number } | undefined;
  #reasoning: { itemId: string; offset: number } | undefined;
  #calls = new Map<string, OpenCall>();
  #completions: EngineEvent[] = [];

  constructor(options: ModelTurnOptions) {
    this.#options = options;
    this.#usage = noTokens(options.rung.model.provider, options.rung.modelName);
    this.#last = this.#usage;
  }

  /** Takes one model event and appends what it means to `out`. */
  accept(event: ModelEvent, out: EngineEvent[]): void {
    this.#begun ||= isOutput(event);
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
        if (this.#options.told.has(event.reason)) break;
        this.#options.told.add(event.reason);
        out.push(notice(event.reason, event.message, { facts: event.facts ?? {} }));
        break;
      case "discard":
        this.#discard("model_retry", out);
        break;
      case "retry": {
        if (this.owes) this.book(true, out);
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
    if (!says && (this.finish !== "pause" || this.parts.length === 0)) return [];
    this.#messageId ??= this.#options.newItemId("msg");
    return [{ role: "assistant", id: this.#messageId, content: this.parts }];
  }

  /** Tokens of what was booked: of the call, and of attempts before it that broke off. */
  get usage(): ModelUsage {
    return this.#usage;
  }

  /** Tokens of the attempt that was booked last. */
  get lastUsage(): ModelUsage {
    return this.#last;
  }

  /** True when the attempt is not booked and has used something, although not every provider says how much before the end. */
  get owes(): boolean {
    return this.#current !== undefined || this.#begun;
  }

  /** Books the attempt that has ended, as `model_called`. */
  book(aborted: boolean, out: EngineEvent[]): void {
    const { step, rung, purpose, tally } = this.#options;
    const used = noTokens(this.#usage.provider, this.#usage.model);
    if (this.#current !== undefined) {
      addTokens(used, this.#current);
      used.provider = this.#current.provider;
      if (this.#current.model !== "") used.model = this.#current.model;
    }
    this.#current = undefined;
    this.#begun = false;
    this.#last = used;
    addTokens(this.#usage, used);
    this.#usage.provider = used.provider;
    this.#usage.model = used.model;
    tally.add(used);
    const { provider, model } = used;
    const credentialId = rung.credential?.id ?? platformCredential;
    out.push({ type: "model_called", step, purpose, provider, model, credentialId, usage: used, aborted });
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

  /** Says another text in place of the one that was shown, which is void. */
  rewrite(text: string, out: EngineEvent[]): void {
    out.push(...this.#completions);
    this.#completions = [];
    if (this.#message !== undefined) this.#void("rewritten", false, out);
    this.parts = this.parts.filter(({ type }) => type !== "text");
    if (text !== "") this.#text(text, out);
  }

  /** Declares void what was shown and is not complete, and forgets the calls. */
  discardRest(cause: DiscardCause, out: EngineEvent[]): void {
    this.#void(
      cause,
      this.parts.some(({ type }) => type === "tool_call"),
      out,
    );
    this.#completions = [];
    this.parts = this.parts.filter((part) => part.type !== "tool_call");
  }

  /** Declares void what a model began and never gave whole, once its calls are requested. */
  discardUnfinished(out: EngineEvent[]): void {
    this.#void("not_executed", false, out);
  }

  #void(cause: DiscardCause, shownCalls: boolean, out: EngineEvent[]): void {
    const open = this.#message !== undefined || this.#reasoning !== undefined || this.#calls.size > 0;
    if (open || shownCalls || this.#completions.length > 0) {
      out.push({ type: "item_discarded", step: this.#options.step, cause });
    }
    this.#message = undefined;
    this.#reasoning = undefined;
    this.#calls.clear();
  }

  #discard(cause: DiscardCause, out: EngineEvent[]): void {
    this.discardRest(cause, out);
    this.parts = [];
    this.#messageId = undefined;
    this.finish = undefined;
  }

  #text(text: string, out: EngineEvent[]): void {
    if (this.#message === undefined) {
      this.#message = { itemId: this.#options.newItemId("msg"), offset: 0 };
      this.#messageId = this.#message.itemId;
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
    this.#reasoning ??= { itemId: this.#options.newItemId("rsn"), offset: 0 };
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
    const call = { callId: this.#options.newItemId("call"), offset: 0 };
    this.#calls.set(id, call);
    out.push({ type: "tool_call_started", itemId: call.callId, tool });
    return call;
  }
}

/** Id of the platform's own credential. */
const platformCredential = "platform";

function isOutput({ type }: ModelEvent): boolean {
  return type !== "usage" && type !== "notice" && type !== "retry" && type !== "discard";
}

function byteLength(text: string): number {
  return Buffer.byteLength(text);
}
