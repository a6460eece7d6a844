import assert from "node:assert/strict";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "../anthropic-request.ts";
import type { ChatModel, FinishReason, ModelEvent, ModelRequest, StreamOptions } from "../chat-model.ts";

/** What the model does in one call: its events in order; an error is thrown, a function is awaited in its place. */
export type Script = (ModelEvent | Error | ((options: StreamOptions) => Promise<void> | void))[];

export interface ScriptedModel extends ChatModel {
  /** What it was asked, in order. */
  readonly requests: ModelRequest[];
}

/**
 * A model in this process that plays its scripts one after the other. Each request is checked against the rules of the real
 * API; one that it would refuse fails the test.
 */
export function scriptedModel(...scripts: Script[]): ScriptedModel {
  const requests: ModelRequest[] = [];
  async function* stream(request: ModelRequest, options: StreamOptions): AsyncGenerator<ModelEvent> {
    options.signal.throwIfAborted();
    const script = scripts[requests.length];
    requests.push({ ...request, messages: structuredClone(request.messages) as ModelRequest["messages"] });
    assert.equal(refusal(toMessagesBody(request), "2026-10-21"), undefined, "the provider would refuse this request");
    assert.ok(script, `the model was asked ${requests.length} times`);
    for (const step of script) {
      if (step instanceof Error) throw step;
      if (typeof step === "function") await step(options);
      else yield { ...step };
      options.signal.throwIfAborted();
    }
  }
  return { provider: "scripted", requests, stream };
}

let ids = 0;

/** Text in as many deltas as it has words. */
export function text(words: string): ModelEvent[] {
  return (words.match(/\S+\s*/g) ?? []).map((piece) => ({ type: "text_delta", text: piece }));
}

/** A whole tool call with its deltas. */
export function call(name: string, input: unknown = {}, id = `toolu_${++ids}`): ModelEvent[] {
  const json = typeof input === "string" ? input : JSON.stringify(input);
  const middle = Math.ceil(json.length / 2);
  const deltas = [json.slice(0, middle), json.slice(middle)].filter((piece) => piece !== "");
  return [
    { type: "tool_call_started", id, name },
    ...deltas.map((piece): ModelEvent => ({ type: "tool_arguments_delta", id, json: piece })),
    { type: "tool_call", id, name, argumentsJson: json },
  ];
}

/** A thinking block with its deltas. */
export function thinking(said: string, signature = "c2ln"): ModelEvent[] {
  const part = { type: "thinking", text: said, signature, origin: "anthropic" } as const;
  const deltas = (said.match(/\S+\s*/g) ?? []).map((piece): ModelEvent => ({ type: "thinking_delta", text: piece }));
  return [...deltas, { type: "thinking", part }];
}

/** Usage of one call: input, cache read, cache write, output. */
export function used(inputTokens: number, cacheReadTokens = 0, cacheWriteTokens = 0, outputTokens = 0): ModelEvent {
  return {
    type: "usage",
    provider: "scripted",
    model: "m-1",
    inputTokens,
    cacheReadTokens,
    cacheWriteTokens,
    outputTokens,
  };
}

/** The end of a call. */
export function finish(reason: FinishReason = "end_turn"): ModelEvent {
  return { type: "finish", reason };
}
