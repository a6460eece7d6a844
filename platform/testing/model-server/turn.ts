/** What the scripted server answers to one request. */
export interface Turn {
  /** Blocks of the message, in order. Default: none. */
  content?: Block[];
  /** Default: `tool_use` when there is such a block, else `end_turn`. */
  stopReason?: string | null;
  /** Token counts; what is missing is estimated from the lengths. */
  usage?: Partial<TurnUsage>;
  /** Pieces that each text, thinking and tool input is streamed in. Default: one per word or so. */
  deltas?: number;
  /** Wait before each delta, in milliseconds. Default 0: deltas are written one by one as fast as the socket takes them. */
  paceMs?: number;
  /** Everything in one write, so that the client reads it at once. */
  together?: boolean;
  /** Each piece of text begins with `@<microseconds of the monotonic clock>@`, the moment at which it is written. */
  stamped?: boolean;
  /** An answer that is not 200. */
  error?: TurnError;
  /** What goes wrong. */
  fault?: Fault;
  /** Headers added to the response. */
  headers?: Record<string, string>;
  /** Oddities of the Chat Completions face; the other one has none. */
  chat?: ChatQuirks;
}

/** What servers that speak Chat Completions are known to do otherwise than OpenAI does. */
export interface ChatQuirks {
  /** Tool calls without an id. */
  noCallIds?: boolean;
  /** Tool calls without an index. */
  noCallIndex?: boolean;
  /** Every tool call has index 0. */
  oneCallIndex?: boolean;
  /** A tool call in one chunk. */
  wholeCalls?: boolean;
  /** With {@link wholeCalls}: arguments as an object, not as its text. */
  objectArguments?: boolean;
  /** No `finish_reason`. */
  noFinish?: boolean;
  /** No usage, though it was asked for. */
  noUsage?: boolean;
  /** The body ends without `[DONE]`. */
  noDone?: boolean;
  /** Lines end with CR LF. */
  crlf?: boolean;
  /** A comment between the events. */
  comments?: boolean;
  /** Name of the field with the model's reasoning. Default `reasoning_content`. */
  reasoningField?: string;
}

export type Block =
  | { type: "text"; text: string }
  | { type: "thinking"; thinking: string; signature: string }
  | { type: "redacted_thinking"; data: string }
  | {
      type: "tool_use";
      id: string;
      name: string;
      input: unknown /** Streamed as it is, in place of the input. */;
      rawJson?: string;
    };

export interface TurnUsage {
  input_tokens: number;
  cache_read_input_tokens: number;
  cache_creation_input_tokens: number;
  output_tokens: number;
}

/** An error as the API words it: status, `error.type`, `error.message`, and sometimes `error.details.error_code`. */
export interface TurnError {
  status: number;
  type: string;
  message: string;
  errorCode?: string;
  headers?: Record<string, string>;
  /** Body in place of the API's JSON, as a proxy on the way would send it. */
  rawBody?: string;
}

export interface Fault {
  /** Wait before the response's headers, in milliseconds. */
  delayHeadersMs?: number;
  /** Nothing is ever sent, or nothing after this many events. */
  hang?: "before_headers" | { afterEvents: number };
  /** The body ends after this many bytes: by a broken connection, or as if it were whole. */
  cut?: { afterBytes: number; how: "break" | "end" };
  /** An `error` event after this many events, and the end. */
  errorEvent?: { afterEvents: number; type: string; message: string };
  /** Text put into the stream as it is after this many events: malformed or unknown events. */
  insert?: { afterEvents: number; raw: string };
}

/** A turn that answers with this text. */
export function says(text: string, more: Omit<Turn, "content"> = {}): Turn {
  return { ...more, content: [{ type: "text", text }] };
}

let toolUses = 0;

/** A block that calls a tool, with an id of its own. */
export function toolUse(name: string, input: unknown, rawJson?: string): Block {
  const id = `toolu_${String(++toolUses).padStart(6, "0")}`;
  return { type: "tool_use", id, name, input, ...(rawJson !== undefined && { rawJson }) };
}

/** A turn of these blocks. */
export function turnOf(...content: Block[]): Turn {
  return { content };
}

const errors: Record<number, Omit<TurnError, "status">> = {
  400: { type: "invalid_request_error", message: "messages.0.content: Field required" },
  401: { type: "authentication_error", message: "invalid x-api-key" },
  403: { type: "permission_error", message: "Your API key does not have permission to use the specified resource" },
  404: { type: "not_found_error", message: "model: claude-unknown" },
  408: { type: "timeout_error", message: "Request timed out" },
  409: { type: "conflict_error", message: "The resource is being changed by another request" },
  413: { type: "request_too_large", message: "Request exceeds the maximum size" },
  429: {
    type: "rate_limit_error",
    message: "This request would exceed your organization's rate limit of 50 requests per minute",
  },
  500: { type: "api_error", message: "Internal server error" },
  503: { type: "api_error", message: "Service unavailable" },
  504: { type: "timeout_error", message: "Request timed out" },
  529: { type: "overloaded_error", message: "Overloaded" },
};

/** A turn that fails with this status in the API's own words, with what is given in their place. */
export function fails(status: number, more: Partial<Omit<TurnError, "status">> = {}): Turn {
  const words = errors[status] ?? { type: "api_error", message: `status ${status}` };
  return { error: { status, ...words, ...more } };
}
