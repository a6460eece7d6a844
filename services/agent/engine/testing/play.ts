import assert from "node:assert/strict";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "../../llm/anthropic-request.ts";
import type { ModelMessage } from "../../llm/chat-model.ts";
import { type Script, type ScriptedModel, scriptedModel } from "../../llm/testing/scripted-model.ts";
import type { EngineEvent, LoopResult, ModelUsage } from "../events.ts";
import { runLoop } from "../loop.ts";
import type { LoopInput, ModelRung } from "../loop-input.ts";
import type { ExecuteTool, ToolOutcome, ToolSpec } from "../tool-spec.ts";

export interface Played {
  events: EngineEvent[];
  result: LoopResult | undefined;
  error: unknown;
  /** The history with what the run added. */
  history: ModelMessage[];
  model: ScriptedModel;
  /** Calls that reached a tool, in the order in which they began. */
  executed: string[];
}

export type PlayOptions = Partial<Omit<LoopInput, "tools" | "executeTool" | "limits" | "models">> & {
  /** The ladder; without it there is the scripted model alone. All rungs without a model of their own play the scripts. */
  rungs?: Partial<ModelRung>[];
  tools?: Record<string, Tool>;
  limits?: Partial<LoopInput["limits"]>;
  /** Told of each event before the loop goes on. */
  onEvent?: (event: EngineEvent) => void;
};

export type Tool = Partial<ToolSpec> & { run?: ExecuteTool };

/** A user's message. */
export function user(said: string): ModelMessage {
  return { role: "user", content: [{ type: "text", text: said }] };
}

/** A tool's answer. */
export function answers(said: string): ToolOutcome {
  return { content: [{ type: "text", text: said }] };
}

/** Runs the loop against a script to its end, and checks what must hold for every run. */
export async function play(scripts: Script[], options: PlayOptions = {}): Promise<Played> {
  const model = scriptedModel(...scripts);
  const executed: string[] = [];
  const { tools = {}, limits, onEvent, rungs = [{}], ...rest } = options;
  const ids: Record<string, number> = {};
  const input: LoopInput = {
    models: rungs.map((rung) => ({ kind: "primary", model, modelName: "m-1", contextWindow: 200_000, ...rung })),
    system: "Be brief.",
    history: [user("Go")],
    tools: Object.entries(tools).map(([name, { run: _run, ...spec }]) => ({
      name,
      description: name,
      inputSchema: { type: "object" },
      ...spec,
    })),
    async executeTool(call, signal, onProgress) {
      executed.push(`${call.name} ${call.argumentsJson}`);
      return (await tools[call.name]?.run?.(call, signal, onProgress)) ?? answers(`${call.name} ran`);
    },
    requireDoneTool: false,
    newItemId(kind) {
      const n = (ids[kind] ?? 0) + 1;
      ids[kind] = n;
      return `${kind}_${n}`;
    },
    signal: new AbortController().signal,
    ...rest,
    limits: { maxIterations: 10, maxTokens: 1_000, ...limits },
  };
  const events: EngineEvent[] = [];
  const history = [...input.history];
  let result: LoopResult | undefined;
  let error: unknown;
  try {
    const loop = runLoop(input);
    for (let next = await loop.next(); ; next = await loop.next()) {
      if (next.done) {
        result = next.value;
        break;
      }
      events.push(next.value);
      if (next.value.type === "step_completed") history.push(...next.value.messages);
      onEvent?.(next.value);
    }
  } catch (e) {
    error = e;
  }
  checkEvents(events);
  checkIds(history.slice(input.history.length));
  checkHistory(history, input);
  if (result !== undefined) checkUsage(events, result);
  for (const request of model.requests) request.messages = withoutIds(request.messages);
  return { events, result, error, history: withoutIds(history), model, executed };
}

const betweenSteps = new Set(["notice", "model_called", "context_compacted", "tool_outputs_evicted"]);

/** Steps and items begin and end once, in order; deltas fit together and make up what completes them. */
function checkEvents(events: EngineEvent[]): void {
  let step = 0;
  let inStep = false;
  const open = new Map<string, { text: string; bytes: number; kind: string }>();
  const requested = new Set<string>();
  const grow = (itemId: string, offset: number, piece: string, kind: string) => {
    const item = open.get(itemId) ?? { text: "", bytes: 0, kind };
    assert.equal(offset, item.bytes, "a delta begins where the one before it ended");
    item.text += piece;
    item.bytes += Buffer.byteLength(piece);
    open.set(itemId, item);
  };
  const complete = (itemId: string, whole: string) => {
    assert.equal(open.get(itemId)?.text ?? "", whole, "the deltas joined are the whole");
    open.delete(itemId);
  };
  for (const event of events) {
    assert.equal(typeof event.type, "string");
    if (event.type === "notice") assert.notEqual(event.message, "", `the notice ${event.reason} has words for people`);
    if (event.type === "step_started") {
      assert.equal(inStep, false, "steps do not overlap");
      assert.equal(event.step, ++step);
      inStep = true;
      continue;
    }
    if (betweenSteps.has(event.type)) continue;
    assert.ok(inStep, `${event.type} outside of a step`);
    if (event.type === "message_started") open.set(event.itemId, { text: "", bytes: 0, kind: "message" });
    if (event.type === "tool_call_started") open.set(event.itemId, { text: "", bytes: 0, kind: "call" });
    if (event.type === "text_delta") grow(event.itemId, event.offset, event.text, "message");
    if (event.type === "reasoning_delta") grow(event.itemId, event.offset, event.text, "reasoning");
    if (event.type === "tool_call_arguments_delta") grow(event.itemId, event.offset, event.jsonFragment, "call");
    if (event.type === "message_completed") {
      complete(event.itemId, event.parts.map((part) => (part.type === "text" ? part.text : "")).join(""));
    }
    if (event.type === "reasoning_completed") complete(event.itemId, event.text);
    if (event.type === "item_discarded") open.clear();
    if (event.type === "tool_call_requested") {
      open.delete(event.itemId);
      requested.add(event.itemId);
    }
    if (event.type === "tool_call_completed") {
      assert.ok(requested.delete(event.itemId), "a call is completed once, after it was requested");
    }
    if (event.type === "step_completed") {
      assert.equal(event.step, step);
      assert.deepEqual([...open.values()], [], "every item that was started has its end");
      assert.deepEqual([...requested], [], "every call that was requested has its result");
      inStep = false;
    }
  }
  assert.equal(inStep, false, "the last step is completed");
}

/** Each message that a run adds has its own id, and a message that was shown has that of its item. */
function checkIds(added: ModelMessage[]): void {
  const ids = added.map(({ id }) => id);
  assert.ok(
    ids.every((id) => id?.startsWith("msg_")),
    "every message has an id",
  );
  assert.equal(new Set(ids).size, ids.length, "no two have the same");
}

/** What is booked is what the run says it used. */
function checkUsage(events: EngineEvent[], result: LoopResult): void {
  const tokens = (usages: ModelUsage[]) =>
    usages.reduce((sum, u) => sum + u.inputTokens + u.cacheReadTokens + u.cacheWriteTokens + u.outputTokens, 0);
  const booked = events.flatMap((event) => (event.type === "model_called" ? [event.usage] : []));
  assert.equal(tokens(booked), tokens(result.usage));
}

function withoutIds(messages: readonly ModelMessage[]): ModelMessage[] {
  return messages.map(({ id: _id, ...message }) => message as ModelMessage);
}

/** The next request, with another message of the user, would be accepted. */
function checkHistory(history: ModelMessage[], input: LoopInput): void {
  if (input.history.some((message) => message.role !== "user")) return;
  const tools = [{ name: "t", description: "", inputSchema: {} }];
  const body = toMessagesBody({ model: "m-1", system: "", messages: [...history, user("Next")], tools, maxTokens: 1 });
  assert.equal(refusal(body, "2026-10-21"), undefined, "the history stays valid");
}

/** Types of events, with runs of the same type as one. */
export function outline(events: EngineEvent[]): string[] {
  return events.map((event) => event.type).filter((type, i, all) => type !== all[i - 1]);
}

/** The results that the model was given in a history, by call id. */
export function resultsIn(history: ModelMessage[]): [callId: string, text: string, isError: boolean][] {
  return history.flatMap((message) =>
    message.role !== "tool"
      ? []
      : message.content.map(({ callId, content, isError }): [string, string, boolean] => [
          callId,
          content.map((part) => (part.type === "text" ? part.text : `[${part.mediaType}]`)).join(""),
          isError,
        ]),
  );
}
