import type { Block, Turn, TurnUsage } from "./turn.ts";

/** The API's message object for a turn. */
export interface Message {
  id: string;
  type: "message";
  role: "assistant";
  model: string;
  content: unknown[];
  stop_reason: string | null;
  stop_sequence: null;
  usage: TurnUsage;
}

/** One server-sent event; `delta` marks those that pacing applies to. */
export interface StreamEvent {
  text: string;
  delta: boolean;
}

/** The message as a response that is not streamed carries it. */
export function toMessage(turn: Turn, id: string, model: string, promptLength: number): Message {
  const content = turn.content ?? [];
  const toolUse = content.some((block) => block.type === "tool_use");
  return {
    id,
    type: "message",
    role: "assistant",
    model,
    content: content.map((block) => (block.type === "tool_use" ? withoutRaw(block) : block)),
    stop_reason: turn.stopReason === undefined ? (toolUse ? "tool_use" : "end_turn") : turn.stopReason,
    stop_sequence: null,
    usage: {
      input_tokens: Math.ceil(promptLength / 4),
      cache_read_input_tokens: 0,
      cache_creation_input_tokens: 0,
      output_tokens: Math.ceil(content.reduce((sum, block) => sum + streamedText(block).length, 0) / 4),
      ...turn.usage,
    },
  };
}

/** The same message as the events of a stream (platform.claude.com/docs/en/build-with-claude/streaming). */
export function toStreamEvents(turn: Turn, message: Message): StreamEvent[] {
  const events: StreamEvent[] = [];
  const add = (type: string, rest: object, delta = false) => events.push({ text: sse(type, { type, ...rest }), delta });
  const usage = { ...message.usage, output_tokens: Math.min(1, message.usage.output_tokens) };
  add("message_start", { message: { ...message, content: [], stop_reason: null, usage } });
  for (const [index, block] of (turn.content ?? []).entries()) {
    add("content_block_start", { index, content_block: opening(block) });
    if (index === 0) add("ping", {});
    for (const piece of split(streamedText(block), turn.deltas)) {
      add("content_block_delta", { index, delta: toDelta(block, piece) }, true);
    }
    if (block.type === "thinking") {
      add("content_block_delta", { index, delta: { type: "signature_delta", signature: block.signature } });
    }
    add("content_block_stop", { index });
  }
  const delta = { stop_reason: message.stop_reason, stop_sequence: null };
  add("message_delta", { delta, usage: message.usage });
  add("message_stop", {});
  return events;
}

/** A server-sent event. */
export function sse(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

function opening(block: Block): object {
  switch (block.type) {
    case "text":
      return { type: "text", text: "" };
    case "thinking":
      return { type: "thinking", thinking: "", signature: "" };
    case "redacted_thinking":
      return block;
    case "tool_use":
      return { type: "tool_use", id: block.id, name: block.name, input: {} };
  }
}

function withoutRaw(block: Extract<Block, { type: "tool_use" }>): object {
  return { type: "tool_use", id: block.id, name: block.name, input: block.input };
}

function streamedText(block: Block): string {
  switch (block.type) {
    case "text":
      return block.text;
    case "thinking":
      return block.thinking;
    case "redacted_thinking":
      return "";
    case "tool_use":
      return block.rawJson ?? JSON.stringify(block.input);
  }
}

function toDelta(block: Block, piece: string): object {
  switch (block.type) {
    case "thinking":
      return { type: "thinking_delta", thinking: piece };
    case "tool_use":
      return { type: "input_json_delta", partial_json: piece };
    default:
      return { type: "text_delta", text: piece };
  }
}

/** The text in `pieces` parts of about the same length, never between the halves of a surrogate pair. */
export function split(text: string, pieces: number | undefined): string[] {
  if (text === "") return [];
  if (pieces === undefined) return text.match(/\S+\s*|\s+/g) ?? [];
  const characters = Array.from(text);
  const count = Math.min(Math.max(1, pieces), characters.length);
  const boundary = (i: number) => Math.floor((i * characters.length) / count);
  return Array.from({ length: count }, (_, i) => characters.slice(boundary(i), boundary(i + 1)).join(""));
}
