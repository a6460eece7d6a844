import type { MessagesRequest, RequestBlock } from "./check-request.ts";

/** A request to `POST /v1/chat/completions` as far as it is checked. */
export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  stream?: boolean;
  stream_options?: { include_usage?: boolean };
  tools?: { type: string; function: { name: string; description?: string; parameters?: unknown } }[];
  tool_choice?: unknown;
  max_tokens?: number;
  max_completion_tokens?: number;
  [key: string]: unknown;
}

/** A message of such a request. */
export interface ChatMessage {
  role: string;
  content?: string | null | { type: string; text?: string; image_url?: { url?: string } }[];
  tool_calls?: { id: string; type: string; function: { name: string; arguments: string } }[];
  tool_call_id?: string;
  [key: string]: unknown;
}

const topLevelRefused = ["oneOf", "anyOf", "allOf", "enum", "not"];

/**
 * What a server of Chat Completions would refuse in a request, in about OpenAI's words; undefined when it would accept it.
 * Only rules that a client of the loop can break: pairing of tool calls and results, names, arguments, schemas.
 */
export function chatRefusal(body: unknown): string | undefined {
  if (!isRecord(body)) return "We could not parse the JSON body of your request.";
  const request = body as ChatRequest;
  if (typeof request.model !== "string" || request.model === "") return "you must provide a model parameter";
  if (!Array.isArray(request.messages) || request.messages.length === 0) return "[] is too short - 'messages'";
  if (request.max_tokens !== undefined && request.max_completion_tokens !== undefined) {
    return "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
  }
  return toolProblem(request) ?? pairingProblem(request.messages);
}

function toolProblem(request: ChatRequest): string | undefined {
  if (request.tools !== undefined && request.tools.length === 0) return "[] is too short - 'tools'";
  if (request.tools === undefined && request.tool_choice !== undefined) {
    return "'tool_choice' is only allowed when 'tools' are specified";
  }
  for (const [i, { type, function: tool }] of (request.tools ?? []).entries()) {
    if (type !== "function" || !/^[a-zA-Z0-9_-]{1,64}$/.test(tool?.name ?? "")) return `tools[${i}].function.name: bad`;
    const schema = tool.parameters;
    if (!isRecord(schema) || schema["type"] !== "object") {
      return `Invalid schema for function '${tool.name}': schema must be of type "object"`;
    }
    if (!isRecord(schema["properties"])) {
      return `Invalid schema for function '${tool.name}': object schema missing properties`;
    }
    const refused = topLevelRefused.find((keyword) => keyword in schema);
    if (refused) return `Invalid schema for function '${tool.name}': '${refused}' is not allowed at the top level`;
  }
  return undefined;
}

function pairingProblem(messages: ChatMessage[]): string | undefined {
  let expected = new Set<string>();
  for (const [i, message] of messages.entries()) {
    if (!["developer", "system", "user", "assistant", "tool"].includes(message.role))
      return `messages.[${i}].role: bad`;
    if (message.role === "tool") {
      if (!expected.delete(message.tool_call_id ?? "")) {
        return `messages.[${i}]: 'tool' must be a response to a preceding message with 'tool_calls': ${message.tool_call_id}`;
      }
      if (typeof message.content !== "string") return `messages.[${i}].content: tool messages take text`;
      continue;
    }
    if (expected.size > 0) {
      return `An assistant message with 'tool_calls' must be followed by tool messages. No response for ${[...expected].join(", ")}`;
    }
    if (message.role === "assistant") {
      const problem = assistantProblem(message, i);
      if (problem !== undefined) return problem;
      expected = new Set((message.tool_calls ?? []).map(({ id }) => id));
      if (expected.size < (message.tool_calls?.length ?? 0)) return `messages.[${i}].tool_calls: ids must be unique`;
    } else if (message.content === null || message.content === undefined || message.content.length === 0) {
      return `Invalid value for 'content': expected a string, got null. messages.[${i}]`;
    }
  }
  return expected.size > 0 ? "the last message has 'tool_calls' without results" : undefined;
}

function assistantProblem(message: ChatMessage, i: number): string | undefined {
  if (message.tool_calls === undefined) {
    return message.content ? undefined : `messages.[${i}]: an assistant message needs content or tool_calls`;
  }
  for (const { id, function: call } of message.tool_calls) {
    if (id === "" || call.name === "") return `messages.[${i}].tool_calls: id and name are required`;
    try {
      if (isRecord(JSON.parse(call.arguments))) continue;
    } catch {
      // Not JSON: refused below, as servers with chat templates do.
    }
    return `messages.[${i}].tool_calls: arguments must be a JSON object`;
  }
  return undefined;
}

/** The request as one to the Messages API, for whoever scripts answers by what was asked. */
export function toMessagesRequest(request: ChatRequest): MessagesRequest {
  const messages: MessagesRequest["messages"] = [];
  const system: string[] = [];
  const list: unknown = request.messages;
  for (const message of Array.isArray(list) ? (list as ChatMessage[]) : []) {
    const text = textOf(message.content);
    if (message.role === "system" || message.role === "developer") system.push(text);
    else if (message.role === "tool") {
      const id = message.tool_call_id ?? "";
      messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: id, content: text }] });
    } else {
      const calls = (message.tool_calls ?? []).map(
        ({ id, function: call }): RequestBlock => ({ type: "tool_use", id, name: call.name, input: call.arguments }),
      );
      messages.push({ role: message.role, content: [...(text === "" ? [] : [{ type: "text", text }]), ...calls] });
    }
  }
  return {
    model: request.model,
    max_tokens: request.max_completion_tokens ?? request.max_tokens ?? 0,
    messages,
    ...(request.stream !== undefined && { stream: request.stream }),
    ...(system.length > 0 && { system: system.join("\n") }),
    ...(request.tools && { tools: request.tools.map(({ function: tool }) => ({ name: tool.name })) }),
    ...(request.tool_choice === "none" && { tool_choice: { type: "none" } }),
  };
}

function textOf(content: ChatMessage["content"]): string {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
