import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import type { OnBusy } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { ClientTool } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import type { ContentPartSchema, ContentPart as ProtoPart } from "#gen/agentmesh/common/v1/content_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import type { ContentPart } from "../llm/chat-model.ts";
import { canonical } from "./canonical.ts";
import { parseClientTools, type StoredClientTool } from "./client-tools.ts";

/** What a caller asks an agent, parsed: the common part of Chat, ChatStream and StartRun. */
export interface RunInput {
  message: string;
  /** `ses_…`, the caller's own UUID, or empty for a new session. */
  sessionId: string;
  agentId: string;
  attachments: ContentPart[];
  requestId: string;
  endUserId: string;
  context: JsonObject;
  /** Tools that the caller executes; absent: none. */
  clientTools?: StoredClientTool[] | undefined;
  /** True: nobody waits for it; absent: somebody does. */
  background?: true | undefined;
  /** Longest life of the run. */
  timeLimitMs?: number | undefined;
  /** What the turn does while its session has a run in progress; absent: it is refused. */
  onBusy?: "enqueue" | "interrupt" | "steer" | undefined;
}

/** What of an input a model reads. */
export type Said = Pick<RunInput, "message" | "attachments">;

/** The request messages that carry a RunInput. */
export interface RunInputRequest {
  message: string;
  sessionId: string;
  agentId: string;
  attachments: ProtoPart[];
  requestId: string;
  endUserId: string;
  context?: JsonObject | undefined;
  clientTools?: ClientTool[];
  background?: boolean;
  timeLimit?: Duration | undefined;
  onBusy?: OnBusy;
}

/** By the number of agentmesh.agent.v1.OnBusy. */
const POLICIES: Partial<Record<OnBusy, RunInput["onBusy"]>> = { 2: "enqueue", 3: "interrupt", 4: "steer" };

/** Narrows a message whose form was validated. Throws FIELD_INVALID when it holds nothing that a model could read. */
export function parseSaid(request: Pick<RunInputRequest, "message" | "attachments">): Said {
  const attachments = request.attachments.map(contentFromProto);
  // Providers take no text of white space only, and it is left out of what they are sent.
  const isBlank = (part: ContentPart) => part.type === "text" && part.text.trim() === "";
  if (request.message.trim() === "" && attachments.every(isBlank)) {
    throw invalidFields({ field: "message", description: "must hold more than white space" });
  }
  return { message: request.message, attachments };
}

/** Narrows a request whose form was validated; see {@link parseSaid}. */
export function parseRunInput(request: RunInputRequest): RunInput {
  const onBusy = POLICIES[request.onBusy ?? 0];
  if (request.background === true && (onBusy === "interrupt" || onBusy === "steer")) {
    const description = "a run in the background can be refused or enqueued where its session is busy, nothing else";
    throw invalidFields({ field: "on_busy", description });
  }
  return {
    ...parseSaid(request),
    sessionId: request.sessionId,
    agentId: request.agentId,
    requestId: request.requestId,
    endUserId: request.endUserId,
    context: request.context ?? {},
    ...(request.clientTools?.length && { clientTools: parseClientTools(request.clientTools) }),
    ...(request.background === true && { background: true }),
    ...(onBusy !== undefined && { onBusy }),
    ...(request.timeLimit !== undefined && { timeLimitMs: durationMs(request.timeLimit) }),
  };
}

/** The stored form of a content part. */
export function contentFromProto({ part }: ProtoPart): ContentPart {
  if (part.case === "image") {
    return { type: "image", mediaType: part.value.mediaType, data: Buffer.from(part.value.data).toString("base64") };
  }
  return { type: "text", text: part.case === "text" ? part.value.text : "" };
}

/** The wire form of a content part. */
export function contentToProto(part: ContentPart): MessageInitShape<typeof ContentPartSchema> {
  if (part.type === "text") return { part: { case: "text", value: { text: part.text } } };
  return { part: { case: "image", value: { mediaType: part.mediaType, data: Buffer.from(part.data, "base64") } } };
}

/** The input without its key, in a canonical form. */
export function canonicalInput(input: RunInput): Uint8Array {
  const { requestId: _, ...content } = input;
  return canonical(content);
}
