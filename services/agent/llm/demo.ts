import type { ChatModel, ModelEvent, ModelMessage, ModelRequest, StreamOptions } from "./chat-model.ts";
import { demoReply } from "./demo-answer.ts";
import { abortableSleep } from "./retry.ts";

/** Provider and model name of the demo model. */
export const demoProvider = "demo";

const doneTool = "done";

export interface DemoModelOptions {
  /** Wait before each piece of an answer, in milliseconds, so that streaming can be seen. Default 15. */
  paceMs?: number;
  /** It answers in the place of the model that was asked for, and begins with a notice that says so. */
  substitute?: boolean;
}

/**
 * A model for machines without a key: a few rules, no network, the same answer for the same conversation. It says that it
 * is a demo model, streams in small pieces, calls the clock, the calculator and the to-do list, and speaks English and
 * Chinese.
 */
export function createDemoModel({ paceMs = 15, substitute = false }: DemoModelOptions = {}): ChatModel {
  async function* stream(request: ModelRequest, { signal }: StreamOptions): AsyncGenerator<ModelEvent> {
    signal.throwIfAborted();
    if (substitute) yield substituteNotice(request.model);
    const mayCall = request.toolChoice !== "none";
    const reply = demoReply(request.messages, request.tools, mayCall);
    const usage = estimateUsage(request);
    yield { ...usage };
    for (const text of pieces(reply.text)) {
      if (paceMs > 0) await abortableSleep(paceMs, signal);
      signal.throwIfAborted();
      yield { type: "text_delta", text };
    }
    const calls = [...reply.calls];
    if (calls.length === 0 && mayCall && request.tools.some(({ name }) => name === doneTool)) {
      calls.push({ name: doneTool, input: { message: reply.text } });
    }
    let number = countCalls(request.messages);
    for (const { name, input } of calls) {
      const id = `demo_${++number}`;
      const argumentsJson = JSON.stringify(input);
      yield { type: "tool_call_started", id, name };
      for (const json of pieces(argumentsJson)) yield { type: "tool_arguments_delta", id, json };
      signal.throwIfAborted();
      yield { type: "tool_call", id, name, argumentsJson };
    }
    const said = reply.text + calls.map((call) => JSON.stringify(call)).join("");
    yield { ...usage, outputTokens: estimateTokens(said) };
    yield { type: "finish", reason: calls.length > 0 ? "tool_use" : "end_turn" };
  }
  return { provider: demoProvider, stream };
}

function substituteNotice(model: string): ModelEvent {
  const message = `No API key for ${model} is configured; the built-in demo model answers in its place.`;
  return { type: "notice", reason: "DEMO_MODEL", message, facts: { model } };
}

/** A text in words, Chinese in one or two characters; joined they are the text. */
export function pieces(text: string): string[] {
  return text.match(/\s*(?:\p{Script=Han}{1,2}|[^\s\p{Script=Han}]+)|\s+/gu) ?? [];
}

/** About four Latin characters or one Chinese one to a token. */
export function estimateTokens(text: string): number {
  const han = text.match(/\p{Script=Han}/gu)?.length ?? 0;
  return han + Math.ceil((text.length - han) / 4);
}

function estimateUsage(request: ModelRequest) {
  const prompt = request.system + JSON.stringify(request.tools) + JSON.stringify(request.messages);
  const counts = { inputTokens: estimateTokens(prompt), cacheReadTokens: 0, cacheWriteTokens: 0, outputTokens: 0 };
  return { type: "usage", provider: demoProvider, model: demoProvider, ...counts } as const;
}

function countCalls(messages: readonly ModelMessage[]): number {
  let calls = 0;
  for (const message of messages) {
    if (message.role === "assistant") for (const part of message.content) if (part.type === "tool_call") calls++;
  }
  return calls;
}
