import { createParser } from "eventsource-parser";
import type { FinishReason, ModelEvent, UsageEvent } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { fromStreamError } from "./openai-errors.ts";
import { openAiOrigin } from "./openai-request.ts";
import { CallCollector } from "./openai-tool-calls.ts";
import { maxEventLength, type StreamDecoder } from "./provider-model.ts";
import { type HalfPair, joinSurrogates, leftHalf } from "./surrogates.ts";

const finishReasons = new Map<string, FinishReason>([
  ["stop", "end_turn"],
  ["tool_calls", "tool_use"],
  ["function_call", "tool_use"],
  ["length", "length"],
  ["model_length", "length"],
  ["content_filter", "refusal"],
]);

type Json = Record<string, unknown>;

/**
 * Turns the text of a Chat Completions stream into model events. It relies on little: servers leave out indexes, ids,
 * finish reasons, usage and the last `[DONE]`, and add fields of their own. An answer is whole at `[DONE]`, at usage after a
 * finish reason, or at the end of a body that had a finish reason; anything else that ends is cut off.
 */
export class CompletionsStreamDecoder implements StreamDecoder {
  failure: ModelError | undefined;
  complete = false;

  readonly #parser = createParser({
    maxBufferSize: maxEventLength,
    onEvent: (event) => this.#onData(event.data),
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") this.#fail("an event is too large");
    },
  });
  readonly #calls = new CallCollector();
  readonly #text: HalfPair = { half: "" };
  readonly #thinking = { half: "", said: "" };
  #out: ModelEvent[] = [];
  #model = "";
  #spoke = false;
  #refused = false;
  #finish: string | undefined;
  #usage: UsageEvent | undefined;

  feed(text: string): ModelEvent[] {
    const out: ModelEvent[] = [];
    this.#out = out;
    if (this.failure === undefined && !this.complete) this.#parser.feed(text);
    return out;
  }

  end(): ModelEvent[] {
    // The last event may lack its empty line.
    const out = this.feed("\n\n");
    if (!this.complete && this.failure === undefined && this.#finish !== undefined) this.#complete();
    return out;
  }

  cutOff(): ModelError {
    return this.failure ?? malformed("the stream ended in the middle of a message");
  }

  #onData(data: string): void {
    if (this.failure !== undefined || this.complete || data === "") return;
    if (data.trim() === "[DONE]") {
      if (this.#finish === undefined && !this.#spoke) this.#fail("the answer is empty");
      else this.#complete();
      return;
    }
    let chunk: unknown;
    try {
      chunk = JSON.parse(data);
    } catch {
      this.#fail("an event is not JSON");
      return;
    }
    if (!isRecord(chunk)) {
      this.#fail("an event is not an object");
      return;
    }
    if (chunk["error"] !== undefined && chunk["error"] !== null) {
      this.failure = fromStreamError(chunk["error"]);
      return;
    }
    if (typeof chunk["model"] === "string" && chunk["model"] !== "") this.#model = chunk["model"];
    const choices = Array.isArray(chunk["choices"]) ? chunk["choices"] : [];
    for (const choice of choices) if (isRecord(choice) && (choice["index"] ?? 0) === 0) this.#onChoice(choice);
    this.#onUsage(chunk["usage"]);
    if (this.failure === undefined && choices.length === 0 && this.#finish !== undefined && this.#usage !== undefined) {
      this.#complete();
    }
  }

  #onChoice(choice: Json): void {
    const delta = isRecord(choice["delta"]) ? choice["delta"] : {};
    this.#addThinking(asText(delta["reasoning_content"]) || asText(delta["reasoning"]));
    this.#addText(asText(delta["content"]));
    const refusal = asText(delta["refusal"]);
    if (refusal !== "") this.#refused = true;
    this.#addText(refusal);
    const calls = Array.isArray(delta["tool_calls"]) ? delta["tool_calls"] : [];
    for (const call of calls) if (isRecord(call)) this.#addCall(call);
    if (isRecord(delta["function_call"])) this.#addCall({ index: -1, function: delta["function_call"] });
    const reason = choice["finish_reason"];
    if (typeof reason === "string" && reason !== "") this.#finish = reason;
  }

  #addText(piece: string): void {
    if (piece === "") return;
    this.#endThinking();
    this.#spoke = true;
    const text = joinSurrogates(this.#text, piece);
    if (text === "") return;
    const last = this.#out.at(-1);
    if (last?.type === "text_delta") last.text += text;
    else this.#out.push({ type: "text_delta", text });
  }

  #addThinking(piece: string): void {
    if (piece === "") return;
    this.#spoke = true;
    const text = joinSurrogates(this.#thinking, piece);
    if (text === "") return;
    this.#thinking.said += text;
    const last = this.#out.at(-1);
    if (last?.type === "thinking_delta") last.text += text;
    else this.#out.push({ type: "thinking_delta", text });
  }

  /** Reasoning has no end of its own: it ends where something else begins. */
  #endThinking(): void {
    const left = leftHalf(this.#thinking);
    if (left !== "") this.#addThinking(left);
    const text = this.#thinking.said;
    if (text === "") return;
    this.#thinking.said = "";
    this.#out.push({ type: "thinking", part: { type: "thinking", text, signature: "", origin: openAiOrigin } });
  }

  #addCall(call: Json): void {
    this.#endThinking();
    this.#spoke = true;
    if (!this.#calls.add(call, this.#out)) this.#fail("the tool calls are too many or too large");
  }

  /** Counts are those of the whole answer, in the last chunk or, at some servers, in each. */
  #onUsage(value: unknown): void {
    if (!isRecord(value)) return;
    const prompt = asCount(value["prompt_tokens"]);
    const completion = asCount(value["completion_tokens"]);
    if (prompt === undefined && completion === undefined) return;
    const details = isRecord(value["prompt_tokens_details"]) ? value["prompt_tokens_details"] : {};
    const read = asCount(details["cached_tokens"]) ?? asCount(value["prompt_cache_hit_tokens"]) ?? 0;
    const cacheReadTokens = Math.min(read, prompt ?? 0);
    const cacheWriteTokens = Math.min(asCount(details["cache_write_tokens"]) ?? 0, (prompt ?? 0) - cacheReadTokens);
    this.#usage = {
      type: "usage",
      provider: openAiOrigin,
      model: this.#model,
      inputTokens: (prompt ?? 0) - cacheReadTokens - cacheWriteTokens,
      cacheReadTokens,
      cacheWriteTokens,
      outputTokens: (completion ?? 0) + reasoningBeside(value, prompt ?? 0, completion ?? 0),
    };
    this.#out.push(this.#usage);
  }

  #complete(): void {
    this.#endThinking();
    const left = leftHalf(this.#text);
    if (left !== "") this.#addText(left);
    this.#calls.finish(this.#out);
    if (this.#usage === undefined) {
      this.#out.push({
        type: "notice",
        reason: "USAGE_MISSING",
        message: "The model's server did not say how many tokens the call took.",
      });
    }
    this.complete = true;
    this.#out.push({ type: "finish", reason: this.#reason() });
  }

  #reason(): FinishReason {
    if (this.#refused) return "refusal";
    const reason = this.#finish === undefined ? "end_turn" : (finishReasons.get(this.#finish) ?? "other");
    // Some servers say `stop` where they call tools.
    return this.#calls.size > 0 && (reason === "end_turn" || reason === "other") ? "tool_use" : reason;
  }

  #fail(what: string): void {
    this.failure ??= malformed(what);
  }
}

/** Reasoning tokens that a server counts beside the completion and not in it, as the total tells. */
function reasoningBeside(usage: Json, prompt: number, completion: number): number {
  const details = isRecord(usage["completion_tokens_details"]) ? usage["completion_tokens_details"] : {};
  const reasoning = asCount(details["reasoning_tokens"]) ?? 0;
  return reasoning > 0 && asCount(usage["total_tokens"]) === prompt + completion + reasoning ? reasoning : 0;
}

function malformed(detail: string): ModelError {
  return new ModelError("malformed_stream", { retryable: true, detail });
}

/** Text, or the texts of an array of parts. */
function asText(value: unknown): string {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return "";
  return value.map((part) => (isRecord(part) && typeof part["text"] === "string" ? part["text"] : "")).join("");
}

function asCount(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function isRecord(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
