import type {
  ContentBlockParam,
  ImageBlockParam,
  MessageCreateParamsStreaming,
  MessageParam,
  TextBlockParam,
  Tool,
  ToolChoice,
  ToolResultBlockParam,
} from "@anthropic-ai/sdk/resources/messages";
import type {
  AssistantPart,
  ContentPart,
  ModelMessage,
  ModelRequest,
  ModelTool,
  ToolCallPart,
  ToolResultPart,
} from "./chat-model.ts";
import { modelFacts } from "./model-facts.ts";
import { toolInput } from "./tool-input.ts";
import { toolSchema } from "./tool-schema.ts";

/** Thinking blocks with this origin go back to the provider; others do not. */
export const anthropicOrigin = "anthropic";

const cacheControl = { type: "ephemeral" } as const;
/** Breakpoints on messages. With those on tools and system there are four, the most that the API takes. */
const movingBreakpoints = 2;
const imageTypes = ["image/jpeg", "image/png", "image/gif", "image/webp"] as const;

/** The API wants tools where the history has calls, also when the agent has lost its tools since. */
const goneTool: ModelTool = {
  name: "unavailable",
  description: "Stands for tools that are no longer there. Never call it.",
  inputSchema: { type: "object", properties: {} },
};

/** The request's body: `POST /v1/messages`. */
export function toMessagesBody(request: ModelRequest): MessageCreateParamsStreaming {
  const messages = toMessages(request.messages);
  markBreakpoints(messages);
  const body: MessageCreateParamsStreaming = {
    model: request.model,
    max_tokens: Math.max(1, Math.min(request.maxTokens, modelFacts(request.model).maxOutputTokens)),
    messages,
    stream: true,
  };
  if (request.system !== "") body.system = [{ type: "text", text: request.system, cache_control: cacheControl }];
  const tools = request.tools.length === 0 && hasCalls(request.messages) ? [goneTool] : request.tools;
  if (tools.length > 0) {
    body.tools = tools.map(
      (tool, i): Tool => ({
        name: tool.name,
        description: tool.description,
        input_schema: toolSchema(tool.inputSchema),
        ...(i === tools.length - 1 && { cache_control: cacheControl }),
      }),
    );
    body.tool_choice = toToolChoice(request.tools.length === 0 ? "none" : (request.toolChoice ?? "auto"));
  }
  if (request.metadata?.userId !== undefined) body.metadata = { user_id: request.metadata.userId };
  return body;
}

function hasCalls(messages: readonly ModelMessage[]): boolean {
  return messages.some(({ role, content }) => role === "assistant" && content.some(({ type }) => type === "tool_call"));
}

function toToolChoice(choice: NonNullable<ModelRequest["toolChoice"]>): ToolChoice {
  return typeof choice === "string" ? { type: choice } : { type: "tool", name: choice.tool };
}

/**
 * Our messages as the API's turns. Everything between two assistant messages is one user message with the tool results
 * first, as the API demands, and a message without content is left out, as the API refuses it.
 */
function toMessages(history: readonly ModelMessage[]): MessageParam[] {
  const ids: CallIds = { byCall: new Map(), taken: new Set() };
  const messages: MessageParam[] = [];
  let user: ContentBlockParam[] = [];
  let results = 0;
  const flush = () => {
    if (user.length > 0) messages.push({ role: "user", content: user });
    user = [];
    results = 0;
  };
  for (const message of history) {
    if (message.role === "assistant") {
      const content = message.content.flatMap((part) => toAssistantBlock(part, ids));
      if (content.length === 0) continue;
      flush();
      messages.push({ role: "assistant", content });
    } else if (message.role === "tool") {
      const blocks = message.content.map((part) => toResultBlock(part, ids));
      user.splice(results, 0, ...blocks);
      results += blocks.length;
    } else {
      user.push(...toContentBlocks(message.content));
    }
  }
  flush();
  return messages;
}

/** Ids of tool calls as they are sent. */
interface CallIds {
  byCall: Map<string, string>;
  taken: Set<string>;
}

function toAssistantBlock(part: AssistantPart, ids: CallIds): ContentBlockParam[] {
  switch (part.type) {
    case "text":
      return part.text.trim() === "" ? [] : [{ type: "text", text: part.text }];
    case "thinking":
      if (part.origin !== anthropicOrigin) return [];
      return part.redacted
        ? [{ type: "redacted_thinking", data: part.signature }]
        : [{ type: "thinking", thinking: part.text, signature: part.signature }];
    case "tool_call": {
      const id = sendableId(part, ids.taken);
      ids.taken.add(id);
      ids.byCall.set(part.callId, id);
      return [{ type: "tool_use", id, name: part.name, input: toolInput(part.argumentsJson) }];
    }
  }
}

/** Another provider's id may have characters that this one refuses, or come again in every turn; ours does neither. */
function sendableId({ callId, providerCallId = "" }: ToolCallPart, taken: ReadonlySet<string>): string {
  return /^[a-zA-Z0-9_-]+$/.test(providerCallId) && !taken.has(providerCallId) ? providerCallId : callId;
}

function toResultBlock(part: ToolResultPart, ids: CallIds): ToolResultBlockParam {
  const content = toContentBlocks(part.content);
  return {
    type: "tool_result",
    tool_use_id: ids.byCall.get(part.callId) ?? part.callId,
    ...(content.length > 0 && { content }),
    ...(part.isError && { is_error: true }),
  };
}

function toContentBlocks(parts: readonly ContentPart[]): (TextBlockParam | ImageBlockParam)[] {
  return parts.flatMap((part): (TextBlockParam | ImageBlockParam)[] => {
    if (part.type === "text") return part.text.trim() === "" ? [] : [{ type: "text", text: part.text }];
    const mediaType = imageTypes.find((type) => type === part.mediaType);
    if (mediaType === undefined)
      return [{ type: "text", text: `[image of type ${part.mediaType}, which you cannot see]` }];
    return [{ type: "image", source: { type: "base64", media_type: mediaType, data: part.data } }];
  });
}

/** On the newest user messages: the next request of the loop then reads everything before them from the cache. */
function markBreakpoints(messages: MessageParam[]): void {
  let left = movingBreakpoints;
  for (let i = messages.length - 1; i >= 0 && left > 0; i--) {
    const message = messages[i] as MessageParam;
    if (message.role !== "user" || typeof message.content === "string") continue;
    const last = message.content.at(-1);
    if (last === undefined || !("type" in last)) continue;
    (last as TextBlockParam).cache_control = cacheControl;
    left--;
  }
}
