import type { EngineEvent } from "../engine/events.ts";
import type { ContentPart, ModelMessage } from "../llm/chat-model.ts";
import { type MaskRule, StreamMask } from "./stream-mask.ts";

/**
 * Hides in all that leaves a run what a rule hides: in text as it is streamed, in what is complete, and in what is stored.
 * The model itself goes on seeing what it wrote. Arguments of calls are shown when they are whole; what is executed, and
 * the digest of it, stays as it is.
 */
export class MaskedOutput {
  readonly #rule: MaskRule;
  readonly #open = new Map<string, StreamMask>();

  constructor(rule: MaskRule) {
    this.#rule = rule;
  }

  /** What is shown in place of an event, in order. */
  of(event: EngineEvent): EngineEvent[] {
    const { mask } = this.#rule;
    switch (event.type) {
      case "text_delta":
      case "reasoning_delta": {
        const open = this.#open.get(event.itemId) ?? new StreamMask(this.#rule);
        this.#open.set(event.itemId, open);
        return open.feed(event.text).map((piece) => ({ type: event.type, itemId: event.itemId, ...piece }));
      }
      case "message_completed":
        return [
          ...this.#rest(event.itemId, "text_delta"),
          { ...event, parts: event.parts.map((part) => this.#part(part)) },
        ];
      case "reasoning_completed":
        return [...this.#rest(event.itemId, "reasoning_delta"), { ...event, text: mask(event.text) }];
      case "item_discarded":
        this.#open.clear();
        return [event];
      case "tool_call_arguments_delta":
        return [];
      case "tool_call_progress":
        return [{ ...event, message: mask(event.message) }];
      case "tool_call_requested":
        return [{ ...event, argumentsJson: maskedJson(this.#rule, event.argumentsJson) }];
      case "tool_call_completed": {
        const content = event.content.map((part) => this.#part(part));
        const structuredJson = event.structuredJson === "" ? "" : maskedJson(this.#rule, event.structuredJson);
        return [{ ...event, content, structuredJson }];
      }
      case "context_compacted":
        return [
          { ...event, summary: mask(event.summary), message: this.#message(event.message) as typeof event.message },
        ];
      case "escalated":
        return [{ ...event, reason: mask(event.reason) }];
      case "input_accepted":
        return [{ ...event, shown: event.message.content.map((part) => this.#part(part)) }];
      case "step_completed":
        return [{ ...event, messages: event.messages.map((message) => this.#message(message)) }];
      default:
        return [event];
    }
  }

  #rest(itemId: string, type: "text_delta" | "reasoning_delta"): EngineEvent[] {
    const pieces = this.#open.get(itemId)?.end() ?? [];
    this.#open.delete(itemId);
    return pieces.map((piece) => ({ type, itemId, ...piece }));
  }

  #part(part: ContentPart): ContentPart {
    return part.type === "text" ? { ...part, text: this.#rule.mask(part.text) } : part;
  }

  #message(message: ModelMessage): ModelMessage {
    switch (message.role) {
      case "user":
        return { ...message, content: message.content.map((part) => this.#part(part)) };
      case "tool":
        return {
          ...message,
          content: message.content.map((result) => ({
            ...result,
            content: result.content.map((part) => this.#part(part)),
          })),
        };
      case "assistant":
        return {
          ...message,
          content: message.content.map((part) => {
            // A thinking part goes back to its model unchanged, or not at all; it is never shown.
            if (part.type === "thinking") return part;
            if (part.type === "text") return { ...part, text: this.#rule.mask(part.text) };
            return { ...part, argumentsJson: maskedJson(this.#rule, part.argumentsJson) };
          }),
        };
    }
  }
}

/** JSON text with every text and number in it masked; what is no JSON is masked as text. */
export function maskedJson({ mask }: MaskRule, json: string): string {
  try {
    return JSON.stringify(
      JSON.parse(json, (_key, value: unknown) => {
        if (typeof value === "string") return mask(value);
        if (typeof value !== "number") return value;
        const masked = mask(String(value));
        return masked === String(value) ? value : masked;
      }),
    );
  } catch {
    return mask(json);
  }
}
