import { randomUUID } from "node:crypto";
import { createParser } from "eventsource-parser";
import { fromStreamError } from "./anthropic-errors.ts";
import { anthropicOrigin } from "./anthropic-request.ts";
import type { FinishReason, ModelEvent, UsageEvent } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { maxEventLength, type StreamDecoder } from "./provider-model.ts";
import { type HalfPair, joinSurrogates, leftHalf } from "./surrogates.ts";

const finishReasons = new Map<string | undefined, FinishReason>([
  ["end_turn", "end_turn"],
  ["tool_use", "tool_use"],
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  ["refusal", "refusal"],
  ["pause_turn", "pause"],
  ["stop_sequence", "stop_sequence"],
]);

/** The parts of the wire that are read. Nothing else is relied on: the API adds fields, events and block types at will. */
interface Wire {
  type?: unknown;
  index?: unknown;
  message?: { model?: unknown; usage?: WireUsage };
  content_block?: Record<string, unknown>;
  delta?: Record<string, unknown>;
  usage?: WireUsage;
}

interface WireUsage {
  input_tokens?: unknown;
  cache_read_input_tokens?: unknown;
  cache_creation_input_tokens?: unknown;
  output_tokens?: unknown;
}

interface Block extends HalfPair {
  type: "text" | "thinking" | "redacted_thinking" | "tool_use" | "ignored";
  id: string;
  name: string;
  /** Text, thinking, or argument JSON so far. */
  text: string;
  signature: string;
  /** A tool's input that came with the start of its block. */
  input: unknown;
}

/**
 * Turns the text of a Messages stream (platform.claude.com/docs/en/build-with-claude/streaming) into model events.
 * {@link feed} takes what one read of the socket gave and returns its events; deltas of one thing that came together are
 * one event. After a failure, also one that the stream itself reports, {@link failure} is set and nothing more comes.
 */
export class AnthropicStreamDecoder implements StreamDecoder {
  /** Set when the stream cannot go on. */
  failure: ModelError | undefined;
  /** Whether the message is whole. */
  complete = false;

  readonly #blocks = new Map<number, Block>();
  readonly #parser = createParser({
    maxBufferSize: maxEventLength,
    onEvent: (event) => this.#onEvent(event.event, event.data),
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") this.#fail("an event is too large");
    },
  });
  #out: ModelEvent[] = [];
  #started = false;
  #stopReason: string | undefined;
  #usage: UsageEvent = {
    type: "usage",
    provider: anthropicOrigin,
    model: "",
    inputTokens: 0,
    cacheReadTokens: 0,
    cacheWriteTokens: 0,
    outputTokens: 0,
  };

  /** The events that this piece of the stream completes. */
  feed(text: string): ModelEvent[] {
    const out: ModelEvent[] = [];
    this.#out = out;
    if (this.failure === undefined && !this.complete) this.#parser.feed(text);
    return out;
  }

  /** A message is over only when it says so. */
  end(): ModelEvent[] {
    return [];
  }

  /** The error of a stream that ended here. */
  cutOff(): ModelError {
    return this.failure ?? malformed("the stream ended in the middle of a message");
  }

  #onEvent(name: string | undefined, data: string): void {
    if (this.failure !== undefined || this.complete || data === "") return;
    let wire: Wire;
    try {
      wire = JSON.parse(data) as Wire;
    } catch {
      this.#fail("an event is not JSON");
      return;
    }
    if (typeof wire !== "object" || wire === null) {
      this.#fail("an event is not an object");
      return;
    }
    switch (wire.type ?? name) {
      case "content_block_delta":
        this.#onDelta(wire);
        break;
      case "message_start":
        this.#started = true;
        if (typeof wire.message?.model === "string") this.#usage.model = wire.message.model;
        this.#onUsage(wire.message?.usage);
        break;
      case "content_block_start":
        this.#onBlockStart(wire);
        break;
      case "content_block_stop":
        this.#onBlockStop(wire);
        break;
      case "message_delta":
        if (typeof wire.delta?.["stop_reason"] === "string") this.#stopReason = wire.delta["stop_reason"];
        this.#onUsage(wire.usage);
        break;
      case "message_stop":
        this.#onStop();
        break;
      case "error":
        this.failure = fromStreamError(wire);
        break;
      default: // ping, and what a later version of the API may send
    }
  }

  #onBlockStart(wire: Wire): void {
    const start = wire.content_block;
    if (!this.#started || typeof wire.index !== "number" || typeof start !== "object" || start === null) {
      this.#fail("a content block starts out of place");
      return;
    }
    if (this.#blocks.has(wire.index)) {
      this.#fail("a content block starts twice");
      return;
    }
    const type = blockType(start["type"]);
    const block: Block = { type, id: "", name: "", text: "", signature: "", input: undefined, half: "" };
    this.#blocks.set(wire.index, block);
    if (type === "tool_use") {
      block.id = asText(start["id"]) || `toolu_${randomUUID()}`;
      block.name = asText(start["name"]);
      block.input = start["input"];
      this.#out.push({ type: "tool_call_started", id: block.id, name: block.name });
    } else if (type === "thinking") {
      block.signature = asText(start["signature"]);
      this.#addThinking(block, asText(start["thinking"]));
    } else if (type === "redacted_thinking") {
      block.signature = asText(start["data"]);
    } else if (type === "text") {
      this.#addText(block, asText(start["text"]));
    }
  }

  #onDelta(wire: Wire): void {
    const block = typeof wire.index === "number" ? this.#blocks.get(wire.index) : undefined;
    const delta = wire.delta;
    if (block === undefined || typeof delta !== "object" || delta === null) {
      this.#fail("a delta belongs to no content block");
      return;
    }
    if (delta["type"] === "text_delta" && block.type === "text") {
      this.#addText(block, asText(delta["text"]));
    } else if (delta["type"] === "input_json_delta" && block.type === "tool_use") {
      this.#addArguments(block, asText(delta["partial_json"]));
    } else if (delta["type"] === "thinking_delta" && block.type === "thinking") {
      this.#addThinking(block, asText(delta["thinking"]));
    } else if (delta["type"] === "signature_delta" && block.type === "thinking") {
      block.signature = asText(delta["signature"]);
    }
  }

  #onBlockStop(wire: Wire): void {
    const block = typeof wire.index === "number" ? this.#blocks.get(wire.index) : undefined;
    if (block === undefined) {
      this.#fail("a content block stops that did not start");
      return;
    }
    this.#blocks.delete(wire.index as number);
    const left = leftHalf(block);
    if (block.type === "text") this.#addText(block, left);
    else if (block.type === "thinking") this.#addThinking(block, left);
    else this.#addArguments(block, left);
    if (block.type === "tool_use") {
      const argumentsJson = block.text === "" ? JSON.stringify(block.input ?? {}) : block.text;
      this.#out.push({ type: "tool_call", id: block.id, name: block.name, argumentsJson });
    } else if (block.type === "thinking") {
      const { text, signature } = block;
      this.#out.push({ type: "thinking", part: { type: "thinking", text, signature, origin: anthropicOrigin } });
    } else if (block.type === "redacted_thinking") {
      const { signature } = block;
      const part = { type: "thinking", text: "", signature, redacted: true, origin: anthropicOrigin } as const;
      this.#out.push({ type: "thinking", part });
    }
  }

  #onStop(): void {
    if (!this.#started || this.#blocks.size > 0) {
      this.#fail("the message stops in the middle of a content block");
      return;
    }
    this.complete = true;
    this.#out.push({ type: "finish", reason: finishReasons.get(this.#stopReason) ?? "other" });
  }

  #addText(block: Block, piece: string): void {
    const text = joinSurrogates(block, piece);
    if (text === "") return;
    const last = this.#out.at(-1);
    if (last?.type === "text_delta") last.text += text;
    else this.#out.push({ type: "text_delta", text });
  }

  #addThinking(block: Block, piece: string): void {
    const text = joinSurrogates(block, piece);
    if (text === "") return;
    block.text += text;
    const last = this.#out.at(-1);
    if (last?.type === "thinking_delta") last.text += text;
    else this.#out.push({ type: "thinking_delta", text });
  }

  #addArguments(block: Block, piece: string): void {
    const json = joinSurrogates(block, piece);
    if (json === "") return;
    block.text += json;
    const last = this.#out.at(-1);
    if (last?.type === "tool_arguments_delta" && last.id === block.id) last.json += json;
    else this.#out.push({ type: "tool_arguments_delta", id: block.id, json });
  }

  /** Counts are cumulative, and a field that is missing or null leaves the earlier count standing. */
  #onUsage(usage: WireUsage | undefined): void {
    if (typeof usage !== "object" || usage === null) return;
    const before = this.#usage;
    this.#usage = {
      ...before,
      inputTokens: asCount(usage.input_tokens) ?? before.inputTokens,
      cacheReadTokens: asCount(usage.cache_read_input_tokens) ?? before.cacheReadTokens,
      cacheWriteTokens: asCount(usage.cache_creation_input_tokens) ?? before.cacheWriteTokens,
      outputTokens: asCount(usage.output_tokens) ?? before.outputTokens,
    };
    this.#out.push(this.#usage);
  }

  #fail(what: string): void {
    this.failure ??= malformed(what);
  }
}

function malformed(detail: string): ModelError {
  return new ModelError("malformed_stream", { retryable: true, detail });
}

function blockType(type: unknown): Block["type"] {
  return type === "text" || type === "thinking" || type === "redacted_thinking" || type === "tool_use"
    ? type
    : "ignored";
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function asCount(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
}
