/** A request to `POST /v1/messages` as far as it is checked. */
export interface MessagesRequest {
  model: string;
  max_tokens: number;
  stream?: boolean;
  system?: unknown;
  messages: { role: string; content: string | RequestBlock[] }[];
  tools?: { name: string; input_schema?: unknown; cache_control?: unknown }[];
  tool_choice?: { type: string; name?: string };
  [key: string]: unknown;
}

/** A content block of a request. */
export interface RequestBlock {
  type: string;
  text?: string;
  id?: string;
  name?: string;
  input?: unknown;
  tool_use_id?: string;
  content?: unknown;
  is_error?: boolean;
  cache_control?: unknown;
  [key: string]: unknown;
}

const versionWithoutSampling = "2026-10-21";

/**
 * What the real API would refuse in a request, in about its words; undefined when it would accept it. Only rules that a
 * client of the loop can break: pairing of tool calls and results, empty content, breakpoints, sampling parameters.
 */
export function refusal(body: unknown, apiVersion: string | undefined): string | undefined {
  if (apiVersion === undefined) return "anthropic-version: header is required";
  if (!isRecord(body)) return "the request body is not a JSON object";
  const request = body as MessagesRequest;
  if (typeof request.model !== "string" || request.model === "") return "model: Field required";
  if (!Number.isInteger(request.max_tokens) || request.max_tokens < 0) return "max_tokens: Field required";
  if (!Array.isArray(request.messages) || request.messages.length === 0) {
    return "messages: at least one message is required";
  }
  for (const name of ["temperature", "top_p", "top_k"]) {
    if (name in request && apiVersion >= versionWithoutSampling) return `${name}: Extra inputs are not permitted`;
  }
  if (typeof request["temperature"] === "number" && (request["temperature"] < 0 || request["temperature"] > 1)) {
    return "temperature: range: 0..1";
  }
  return contentProblem(request) ?? pairingProblem(request) ?? cacheProblem(request);
}

function contentProblem(request: MessagesRequest): string | undefined {
  for (const [i, message] of request.messages.entries()) {
    if (message.role !== "user" && message.role !== "assistant") return `messages.${i}.role: unexpected role`;
    if (message.content === "" || message.content?.length === 0) {
      return `messages.${i}: all messages must have non-empty content`;
    }
    for (const [j, block] of blocks(message).entries()) {
      const at = `messages.${i}.content.${j}`;
      if (block.type === "text" && !block.text) return `${at}: text content blocks must be non-empty`;
      if (block.type === "tool_use" && !isRecord(block.input)) return `${at}.tool_use.input: Input should be an object`;
      if (block.type === "thinking" && !block["signature"]) return `${at}.thinking.signature: Field required`;
      if (block.type === "tool_use" && !/^[a-zA-Z0-9_-]+$/.test(block.id ?? ""))
        return `${at}.tool_use.id: bad pattern`;
    }
  }
  return undefined;
}

function pairingProblem(request: MessagesRequest): string | undefined {
  let expected = new Set<string>();
  const seen = new Set<string>();
  for (const [i, message] of request.messages.entries()) {
    const content = blocks(message);
    const answered = new Set<string>();
    for (const [j, block] of content.entries()) {
      if (block.type !== "tool_result") continue;
      const id = block.tool_use_id ?? "";
      if (!expected.has(id))
        return `messages.${i}.content.${j}: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${id}`;
      if (answered.has(id)) return `messages.${i}: each tool_use must have a single result. Found multiple for ${id}`;
      if (j > 0 && content[j - 1]?.type !== "tool_result") return `messages.${i}: tool_result blocks must come first`;
      answered.add(id);
    }
    for (const id of expected) {
      if (!answered.has(id)) return `messages.${i}: \`tool_use\` ids were found without \`tool_result\` blocks: ${id}`;
    }
    expected = new Set();
    for (const block of message.role === "assistant" ? content : []) {
      if (block.type !== "tool_use") continue;
      if (seen.has(block.id ?? "")) return `messages.${i}: \`tool_use\` ids must be unique`;
      seen.add(block.id ?? "");
      expected.add(block.id ?? "");
    }
  }
  if (expected.size > 0) return "messages: the last message has `tool_use` blocks without results";
  if (seen.size > 0 && !request.tools?.length) return "tools: required when messages contain `tool_use` blocks";
  return undefined;
}

function cacheProblem(request: MessagesRequest): string | undefined {
  const system = Array.isArray(request.system) ? (request.system as RequestBlock[]) : [];
  const content = request.messages.flatMap(blocks);
  const marked = [...(request.tools ?? []), ...system, ...content].filter((block) => block.cache_control !== undefined);
  if (marked.length > 4) return `A maximum of 4 blocks with cache_control may be provided. Found ${marked.length}.`;
  if (marked.some((block) => block.cache_control === null)) return "cache_control: null";
  if (content.some((block) => block.type.includes("thinking") && block.cache_control !== undefined)) {
    return "thinking blocks cannot have cache_control";
  }
  return undefined;
}

function blocks(message: { content: string | RequestBlock[] }): RequestBlock[] {
  return typeof message.content === "string" ? [] : message.content;
}

function isRecord(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
