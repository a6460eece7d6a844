import { type Message, type StreamEvent, split } from "./message-events.ts";
import type { ChatQuirks, Turn, TurnError } from "./turn.ts";

const finishReasons: Record<string, string> = {
  end_turn: "stop",
  tool_use: "tool_calls",
  max_tokens: "length",
  refusal: "content_filter",
};

/** A turn as a response of Chat Completions that is not streamed. */
export function toChatCompletion(turn: Turn, message: Message): unknown {
  const content = turn.content ?? [];
  const text = content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
  const calls = content.flatMap((block) => (block.type === "tool_use" ? [block] : []));
  return {
    id: message.id,
    object: "chat.completion",
    created: 1_790_000_000,
    model: message.model,
    choices: [
      {
        index: 0,
        message: {
          role: "assistant",
          content: text === "" ? null : text,
          ...(calls.length > 0 && {
            tool_calls: calls.map((call) => ({
              id: call.id,
              type: "function",
              function: { name: call.name, arguments: call.rawJson ?? JSON.stringify(call.input) },
            })),
          }),
        },
        finish_reason: finishReason(message),
      },
    ],
    usage: chatUsage(message),
  };
}

/** The same as the chunks of a stream, with the oddities that servers of this API are known for where the turn asks. */
export function toChatEvents(turn: Turn, message: Message, includeUsage: boolean): StreamEvent[] {
  const quirks = turn.chat ?? {};
  const events: StreamEvent[] = [];
  const base = { id: message.id, object: "chat.completion.chunk", created: 1_790_000_000, model: message.model };
  const write = (data: string, delta = false) => events.push({ text: frame(data, quirks), delta });
  const add = (delta: object, isDelta = false) =>
    write(JSON.stringify({ ...base, choices: [{ index: 0, delta, finish_reason: null }] }), isDelta);

  add({ role: "assistant", content: "" });
  if (quirks.comments) events.push({ text: ": keep-alive\n\n", delta: false });
  let calls = 0;
  for (const block of turn.content ?? []) {
    if (block.type === "text") {
      for (const piece of split(block.text, turn.deltas)) add({ content: piece }, true);
    } else if (block.type === "thinking") {
      const field = quirks.reasoningField ?? "reasoning_content";
      for (const piece of split(block.thinking, turn.deltas)) add({ [field]: piece }, true);
    } else if (block.type === "tool_use") {
      const position = quirks.noCallIndex ? {} : { index: quirks.oneCallIndex ? 0 : calls };
      const id = quirks.noCallIds ? {} : { id: block.id };
      const json = block.rawJson ?? JSON.stringify(block.input);
      if (quirks.wholeCalls) {
        const args = quirks.objectArguments ? block.input : json;
        add({
          tool_calls: [{ ...position, ...id, type: "function", function: { name: block.name, arguments: args } }],
        });
      } else {
        add({ tool_calls: [{ ...position, ...id, type: "function", function: { name: block.name, arguments: "" } }] });
        for (const piece of split(json, turn.deltas)) {
          add({ tool_calls: [{ ...position, function: { arguments: piece } }] }, true);
        }
      }
      calls++;
    }
  }
  if (!quirks.noFinish) {
    write(JSON.stringify({ ...base, choices: [{ index: 0, delta: {}, finish_reason: finishReason(message) }] }));
  }
  if (includeUsage && !quirks.noUsage) write(JSON.stringify({ ...base, choices: [], usage: chatUsage(message) }));
  if (!quirks.noDone) write("[DONE]");
  return events;
}

/** An error in the API's form. */
export function chatError(error: Pick<TurnError, "type" | "message" | "errorCode">): unknown {
  return { error: { message: error.message, type: error.type, param: null, code: error.errorCode ?? null } };
}

/** An error in the middle of a stream. */
export function chatErrorEvent(type: string, message: string): string {
  return `data: ${JSON.stringify(chatError({ type, message }))}\n\n`;
}

function frame(data: string, { crlf }: ChatQuirks): string {
  return crlf ? `data: ${data}\r\n\r\n` : `data: ${data}\n\n`;
}

function finishReason({ stop_reason: reason }: Message): string | null {
  return reason === null ? null : (finishReasons[reason] ?? reason);
}

function chatUsage({ usage }: Message): unknown {
  const prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;
  return {
    prompt_tokens: prompt,
    completion_tokens: usage.output_tokens,
    total_tokens: prompt + usage.output_tokens,
    prompt_tokens_details: {
      cached_tokens: usage.cache_read_input_tokens,
      cache_write_tokens: usage.cache_creation_input_tokens,
    },
  };
}
