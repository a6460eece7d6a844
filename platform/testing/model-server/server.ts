import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { chatError, chatErrorEvent, toChatCompletion, toChatEvents } from "./chat-events.ts";
import { type ChatRequest, chatRefusal, toMessagesRequest } from "./check-chat-request.ts";
import { type MessagesRequest, refusal } from "./check-request.ts";
import { defaultReply, type ReplyDefaults } from "./default-reply.ts";
import { sse, toMessage, toStreamEvents } from "./message-events.ts";
import type { Turn, TurnError } from "./turn.ts";
import { TurnStream } from "./turn-stream.ts";

const maxBodyBytes = 64 * 1024 * 1024;

/** A request that the server got. */
export interface RecordedRequest {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  /** From `authorization: Bearer` or `x-api-key`. */
  apiKey: string | undefined;
  /** The body; of a request to Chat Completions the same in the words of the Messages API. */
  body: MessagesRequest;
  /** The body of a request to Chat Completions as it came. */
  chat?: ChatRequest;
  /** Whether the client went away before the answer was whole. */
  abandoned: boolean;
}

/** Which requests a rule is for. Everything given must fit. */
export interface RequestMatch {
  apiKey?: string;
  model?: string;
  where?: (request: RecordedRequest) => boolean;
}

export interface ModelServerOptions extends ReplyDefaults {
  /** Default 0: any free one. */
  port?: number;
  /** Default 127.0.0.1. */
  host?: string;
  /** Keep requests for assertions. Default true; a bench switches it off. */
  record?: boolean;
  /** Answer 500 to a request that no script covers. Default false: {@link defaultReply} answers. */
  strict?: boolean;
}

/**
 * A scripted server that speaks Anthropic's Messages API and OpenAI's Chat Completions, streamed and not, and breaks as it
 * is told. Both faces play the same scripts.
 */
export interface ModelServer extends AsyncDisposable {
  /** Base URL, without a slash at the end. */
  readonly url: string;
  readonly port: number;
  /** Every request to `/v1/messages` and `/v1/chat/completions` in order, with those that were refused. */
  readonly requests: RecordedRequest[];
  /** Answers of the next requests, one each. A function is given the request. */
  script(...turns: Scripted[]): void;
  /** As {@link script}, for requests that match; such a rule comes before the general script. */
  when(match: RequestMatch, ...turns: Scripted[]): void;
  /** Turns that were scripted and not asked for. */
  pending(): number;
  /** Connections that are open now. */
  openSockets(): number;
  /** Forgets scripts and requests. */
  reset(): void;
  /** Breaks what is open and stops. */
  close(): Promise<void>;
}

export type Scripted = Turn | ((request: RecordedRequest) => Turn);

/** Starts a server on a loopback port. */
export async function startModelServer(options: ModelServerOptions = {}): Promise<ModelServer> {
  const sockets = new Set<Socket>();
  const requests: RecordedRequest[] = [];
  const rules: { match: RequestMatch; turns: Scripted[] }[] = [];
  let queue: Scripted[] = [];
  let ids = 0;
  const stopped = new AbortController();

  const nextTurn = (request: RecordedRequest): Turn => {
    const rule = rules.find(({ match, turns }) => turns.length > 0 && fits(match, request));
    const scripted = rule ? rule.turns.shift() : queue.shift();
    if (typeof scripted === "function") return scripted(request);
    if (scripted !== undefined) return scripted;
    if (!options.strict) return defaultReply(request.body, options);
    return { error: { status: 500, type: "api_error", message: "no turn is scripted for this request" } };
  };

  const answer = async (recorded: RecordedRequest, length: number, response: ServerResponse): Promise<void> => {
    const id = String(++ids).padStart(8, "0");
    const { chat } = recorded;
    const sendError = chat === undefined ? sendMessagesError : sendChatError;
    response.setHeader(chat === undefined ? "request-id" : "x-request-id", `req_${id}`);
    response.once("close", () => {
      if (!response.writableFinished) recorded.abandoned = true;
    });
    if (recorded.apiKey === undefined) {
      sendError(response, { status: 401, type: "authentication_error", message: "an API key is required" });
      return;
    }
    const version = recorded.headers["anthropic-version"] as string | undefined;
    const problem = chat === undefined ? refusal(recorded.body, version) : chatRefusal(chat);
    if (problem !== undefined) {
      sendError(response, { status: 400, type: "invalid_request_error", message: problem });
      return;
    }
    const turn = nextTurn(recorded);
    const fault = turn.fault ?? {};
    if (fault.delayHeadersMs) await sleep(fault.delayHeadersMs, undefined, { signal: stopped.signal });
    if (fault.hang === "before_headers") return;
    for (const [name, value] of Object.entries(turn.headers ?? {})) response.setHeader(name, value);
    if (turn.error) {
      sendError(response, turn.error);
      return;
    }
    const message = toMessage(turn, `msg_${id}`, recorded.body.model, length);
    if (!recorded.body.stream) {
      sendJson(response, 200, chat === undefined ? message : toChatCompletion(turn, message));
      return;
    }
    const wire =
      chat === undefined
        ? { events: toStreamEvents(turn, message), errorEvent: messagesErrorEvent }
        : {
            events: toChatEvents(turn, message, chat.stream_options?.include_usage === true),
            errorEvent: chatErrorEvent,
          };
    await new TurnStream(response, turn, wire, stopped.signal).send();
  };

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = (request.url ?? "/").split("?")[0] as string;
    const text = await readBody(request);
    if (path === "/v1/models" && request.method === "GET") {
      sendJson(response, 200, modelList());
      return;
    }
    const isChat = path === "/v1/chat/completions";
    if ((path !== "/v1/messages" && !isChat) || request.method !== "POST") {
      sendMessagesError(response, { status: 404, type: "not_found_error", message: "Not found" });
      return;
    }
    const { method, headers } = request;
    const sent = parseBody(text);
    const body = isChat ? toMessagesRequest(sent as ChatRequest) : (sent as MessagesRequest);
    const recorded: RecordedRequest = { method, path, headers, apiKey: credential(headers), body, abandoned: false };
    if (isChat) recorded.chat = sent as ChatRequest;
    if (options.record ?? true) requests.push(recorded);
    await answer(recorded, text.length, response);
  };

  const server = createServer((request, response) => {
    handle(request, response).catch(() => response.destroy());
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.keepAliveTimeout = 60_000;
  server.listen(options.port ?? 0, options.host ?? "127.0.0.1");
  await once(server, "listening");
  const { port, address } = server.address() as AddressInfo;

  const close = async () => {
    if (stopped.signal.aborted) return;
    stopped.abort();
    const ends = [once(server, "close"), ...Array.from(sockets, (socket) => once(socket, "close"))];
    server.close();
    for (const socket of sockets) socket.destroy();
    await Promise.all(ends);
  };
  return {
    url: `http://${address}:${port}`,
    port,
    requests,
    script: (...turns) => void queue.push(...turns),
    when: (match, ...turns) => void rules.push({ match, turns }),
    pending: () => queue.length + rules.reduce((sum, rule) => sum + rule.turns.length, 0),
    openSockets: () => sockets.size,
    reset: () => {
      requests.length = 0;
      rules.length = 0;
      queue = [];
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function fits(match: RequestMatch, request: RecordedRequest): boolean {
  if (match.apiKey !== undefined && match.apiKey !== request.apiKey) return false;
  if (match.model !== undefined && match.model !== request.body.model) return false;
  return match.where?.(request) ?? true;
}

function credential(headers: IncomingHttpHeaders): string | undefined {
  const key = headers["x-api-key"] ?? /^Bearer (.+)$/i.exec(headers.authorization ?? "")?.[1];
  return typeof key === "string" && key !== "" ? key : undefined;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes) throw new RangeError("request body too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function parseBody(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

function messagesErrorEvent(type: string, message: string): string {
  return sse("error", { type: "error", error: { type, message, details: null } });
}

/** Whether the error went out as the proxy's page that it is. */
function sentRaw(response: ServerResponse, error: TurnError): boolean {
  for (const [name, value] of Object.entries(error.headers ?? {})) response.setHeader(name, value);
  if (error.rawBody === undefined) return false;
  response.writeHead(error.status, { "content-type": "text/html" }).end(error.rawBody);
  return true;
}

function sendChatError(response: ServerResponse, error: TurnError): void {
  if (!sentRaw(response, error)) sendJson(response, error.status, chatError(error));
}

function sendMessagesError(response: ServerResponse, error: TurnError): void {
  if (sentRaw(response, error)) return;
  const details = error.errorCode === undefined ? null : { error_code: error.errorCode };
  sendJson(response, error.status, {
    type: "error",
    error: { type: error.type, message: error.message, details },
    request_id: response.getHeader("request-id"),
  });
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function modelList(): unknown {
  const names = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"];
  const data = names.map((id) => ({
    type: "model",
    id,
    display_name: id,
    created_at: "2026-09-01T00:00:00Z",
    max_input_tokens: 1_000_000,
    max_tokens: 64_000,
  }));
  return { data, has_more: false, first_id: names[0], last_id: names.at(-1) };
}
