import type {
  ChatCompletionContentPart,
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageParam,
  ChatCompletionMessageToolCall,
} from "openai/resources/chat/completions";
import type { AssistantMessage, ContentPart, ImagePart, ModelRequest, ToolResultPart } from "./chat-model.ts";
import { modelFacts, openAiModel } from "./model-facts.ts";
import { toolInput } from "./tool-input.ts";
import { toolSchema } from "./tool-schema.ts";

/** Provider name of every server that speaks Chat Completions. */
export const openAiOrigin = "openai";

/** Which field limits the output: by the server and the model, or always this one. */
export type MaxTokensField = "auto" | "max_tokens" | "max_completion_tokens";

export interface CompletionsBodyOptions {
  /** The server that is asked. */
  baseUrl: string;
  /** Default `auto`. */
  maxTokensField?: MaxTokensField;
}

/** OpenAI takes no longer id of a tool call. */
const maxIdLength = 40;

type Body = ChatCompletionCreateParamsStreaming;

/**
 * The request's body: `POST /chat/completions` (developers.openai.com/api/reference). Nothing beyond what most servers of
 * this API know is sent: the default tool choice and absent settings are left out.
 */
export function toCompletionsBody(request: ModelRequest, options: CompletionsBodyOptions): Body {
  const family = openAiModel(request.model);
  const official = isOpenAi(options.baseUrl);
  const body: Body = {
    model: request.model,
    messages: toMessages(request, family),
    stream: true,
    stream_options: { include_usage: true },
  };
  const maxTokens = Math.max(1, Math.min(request.maxTokens, modelFacts(request.model).maxOutputTokens));
  const field = options.maxTokensField ?? "auto";
  if (field === "max_completion_tokens" || (field === "auto" && (official || family === "thinks"))) {
    body.max_completion_tokens = maxTokens;
  } else {
    body.max_tokens = maxTokens;
  }
  if (takesTemperature(request)) body.temperature = request.temperature as number;
  if (request.tools.length > 0) {
    body.tools = request.tools.map(({ name, description, inputSchema }) => ({
      type: "function",
      function: { name, description, parameters: toolSchema(inputSchema) },
    }));
    const choice = request.toolChoice ?? "auto";
    if (typeof choice === "object") body.tool_choice = { type: "function", function: { name: choice.tool } };
    else if (choice !== "auto") body.tool_choice = choice === "any" ? "required" : "none";
  }
  const userId = request.metadata?.userId;
  if (userId !== undefined) body[official ? "safety_identifier" : "user"] = userId;
  return body;
}

/** Whether the request's temperature is sent. */
export function takesTemperature(request: ModelRequest): boolean {
  return request.temperature !== undefined && modelFacts(request.model).acceptsTemperature;
}

function isOpenAi(baseUrl: string): boolean {
  const host = URL.canParse(baseUrl) ? new URL(baseUrl).hostname : "";
  return host === "api.openai.com" || host.endsWith(".api.openai.com") || host.endsWith(".openai.azure.com");
}

/**
 * Everything between two assistant messages is the results, each a message, and then one user message: what the results
 * show as images, which a result cannot hold, and what was said. Some servers take roles in alternation only.
 */
function toMessages(request: ModelRequest, family: "thinks" | "plain" | undefined): ChatCompletionMessageParam[] {
  const messages: ChatCompletionMessageParam[] = [];
  if (request.system !== "") {
    messages.push({ role: family === "thinks" ? "developer" : "system", content: request.system });
  }
  const ids = new Map<string, string>();
  let results: ToolResultPart[] = [];
  let said: ContentPart[] = [];
  const flush = () => {
    const shown = results.flatMap((result) => toShownImages(result, ids));
    for (const result of results) messages.push(toToolMessage(result, ids));
    const content = [...shown, ...said].filter((part) => part.type === "image" || part.text.trim() !== "");
    if (content.length > 0) messages.push({ role: "user", content: toContent(content) });
    results = [];
    said = [];
  };
  const loopBegins = request.messages.findLastIndex(({ role }) => role === "user");
  for (const [i, message] of request.messages.entries()) {
    if (message.role === "tool") results.push(...message.content);
    else if (message.role === "user") said.push(...message.content);
    else {
      const assistant = toAssistantMessage(message, ids, family === undefined && i > loopBegins);
      if (assistant === undefined) continue;
      flush();
      messages.push(assistant);
    }
  }
  flush();
  return messages;
}

/** `thoughts`: servers of models that show their reasoning want it back within the loop that it belongs to. */
function toAssistantMessage(
  message: AssistantMessage,
  ids: Map<string, string>,
  thoughts: boolean,
): ChatCompletionMessageParam | undefined {
  let text = "";
  let reasoning = "";
  const calls: ChatCompletionMessageToolCall[] = [];
  for (const part of message.content) {
    if (part.type === "text") text += part.text;
    else if (part.type === "thinking") reasoning += part.origin === openAiOrigin ? part.text : "";
    else {
      const provided = part.providerCallId ?? "";
      const id = provided === "" || provided.length > maxIdLength ? part.callId : provided;
      ids.set(part.callId, id);
      const args = JSON.stringify(toolInput(part.argumentsJson));
      calls.push({ id, type: "function", function: { name: part.name || "unnamed", arguments: args } });
    }
  }
  if (calls.length === 0) return text.trim() === "" ? undefined : { role: "assistant", content: text };
  return {
    role: "assistant",
    content: text === "" ? null : text,
    tool_calls: calls,
    ...(thoughts && reasoning !== "" && { reasoning_content: reasoning }),
  };
}

function toToolMessage(result: ToolResultPart, ids: Map<string, string>): ChatCompletionMessageParam {
  const texts = result.content.map((part) => (part.type === "text" ? part.text : "[image: in the next message]"));
  const text = texts.filter((piece) => piece.trim() !== "").join("\n");
  const content = result.isError ? `Error: ${text}` : text;
  return { role: "tool", tool_call_id: ids.get(result.callId) ?? result.callId, content: content || "(no output)" };
}

function toShownImages(result: ToolResultPart, ids: Map<string, string>): ContentPart[] {
  const images = result.content.filter((part) => part.type === "image");
  if (images.length === 0) return [];
  const id = ids.get(result.callId) ?? result.callId;
  return [{ type: "text", text: `[shown by the tool call ${id}]` }, ...images];
}

/** Text alone is a string: servers without images often take nothing else. */
function toContent(parts: readonly ContentPart[]): string | ChatCompletionContentPart[] {
  if (parts.every((part) => part.type === "text")) return parts.map(({ text }) => text).join("\n\n");
  return parts.map((part) => (part.type === "text" ? { type: "text", text: part.text } : toImage(part)));
}

function toImage({ mediaType, data }: ImagePart): ChatCompletionContentPart {
  if (!/^image\/(png|jpeg|gif|webp)$/.test(mediaType)) {
    return { type: "text", text: `[image of type ${mediaType}, which you cannot see]` };
  }
  return { type: "image_url", image_url: { url: `data:${mediaType};base64,${data}` } };
}
