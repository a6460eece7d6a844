import { Code, type ServiceImpl } from "@connectrpc/connect";
import type { Session, SessionService, UpdateSessionRequest } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { AppError, invalidFields } from "#platform/rpc/errors.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import type { Cursor } from "../domain/cursor.ts";
import { type MessageCursor, sessionToProto, shownMessages } from "../proto-mapping.ts";
import type { SessionChange, Sessions } from "../sessions/sessions.ts";

export function sessionHandler(sessions: Sessions, tokens: PageTokens): ServiceImpl<typeof SessionService> {
  return {
    async createSession({ session, requestId }, context) {
      const { agentId = "", endUserId = "", title = "", labels = {} } = session ?? {};
      const created = await sessions.create(callOf(context), { agentId, endUserId, title, labels }, requestId);
      return { session: sessionToProto(created) };
    },

    async getSession({ sessionId }, context) {
      return { session: sessionToProto(await sessions.get(callOf(context), sessionId)) };
    },

    async listSessions(request, context) {
      const call = callOf(context);
      const filter = { endUserId: request.endUserId, agentId: request.agentId };
      const scope = { call, list: "sessions", filter };
      const limit = pageSize(request.pageSize);
      const after = openPage<Cursor>(tokens, request.pageToken, scope);
      const rows = await sessions.list(call, filter, { limit: limit + 1, skip: request.skip, after });
      const last = rows[limit - 1];
      const more = rows.length > limit && last !== undefined;
      return {
        sessions: rows.slice(0, limit).map(sessionToProto),
        nextPageToken: more ? sealPage(tokens, { time: last.sort_time, id: last.session_id }, scope) : "",
      };
    },

    async updateSession(request, context) {
      const { sessionId = "", etag = "" } = request.session ?? {};
      if (sessionId === "") throw invalidFields({ field: "session.session_id", description: "is required" });
      const conditions = { etag, requestId: request.requestId };
      const updated = await sessions.update(callOf(context), sessionId, changeOf(request), conditions);
      return { session: sessionToProto(updated) };
    },

    async deleteSession({ sessionId, etag, requestId }, context) {
      await sessions.delete(callOf(context), sessionId, { etag, requestId });
      return {};
    },

    async forkSession({ sessionId, messageId, title, requestId }, context) {
      const forked = await sessions.fork(callOf(context), { sessionId, messageId, title, requestId });
      return { session: sessionToProto(forked) };
    },

    async listMessages(request, context) {
      const call = callOf(context);
      const scope = { call, list: "messages", filter: { sessionId: request.sessionId } };
      const limit = pageSize(request.pageSize);
      const from = openPage<MessageCursor>(tokens, request.pageToken, scope) ?? { position: 0, part: 0 };
      const rows = await sessions.messages(call, request.sessionId, { limit: limit + 1, from: from.position });
      const shown = shownMessages(rows).filter(({ at }) => at.position > from.position || at.part >= from.part);
      const next = shown[limit];
      return {
        messages: shown.slice(0, limit).map(({ message }) => message),
        nextPageToken: next === undefined ? "" : sealPage(tokens, next.at, scope),
      };
    },
  };
}

const REPLACEABLE = ["title", "labels", "agent_id"] as const;
/** An escalation is only ever taken back, and only by its name. */
const CHANGEABLE = [...REPLACEABLE, "escalation"] as const;
type Changeable = (typeof CHANGEABLE)[number];

/** The fields that an update names: those of its mask, else the populated ones (AIP-134). */
function changeOf({ session, updateMask }: UpdateSessionRequest): SessionChange {
  const values = valuesOf(session);
  const paths = updateMask?.paths ?? [];
  const chosen = new Set<Changeable>();
  for (const path of paths) {
    if (path === "*") for (const name of REPLACEABLE) chosen.add(name);
    else if (isChangeable(path)) chosen.add(path);
    else throw unknownPath(path);
  }
  if (paths.length === 0) {
    if (values.title !== "") chosen.add("title");
    if (values.agentId !== "") chosen.add("agent_id");
    if (Object.keys(values.labels).length > 0) chosen.add("labels");
  }
  if (chosen.has("escalation") && (session?.escalation?.reason || session?.escalation?.priority)) {
    throw invalidFields({
      field: "session.escalation",
      description: "can only be taken back, by setting it to nothing",
    });
  }
  return {
    deescalate: chosen.has("escalation") ? true : undefined,
    title: chosen.has("title") ? values.title : undefined,
    agentId: chosen.has("agent_id") ? values.agentId : undefined,
    labels: chosen.has("labels") ? values.labels : undefined,
  };
}

function valuesOf(session: Session | undefined) {
  return { title: session?.title ?? "", agentId: session?.agentId ?? "", labels: session?.labels ?? {} };
}

function isChangeable(path: string): path is Changeable {
  return (CHANGEABLE as readonly string[]).includes(path);
}

function unknownPath(path: string): AppError {
  const description = `"${path}" cannot be changed; ${CHANGEABLE.join(", ")} can`;
  return new AppError({
    code: Code.InvalidArgument,
    reason: "UPDATE_MASK_INVALID",
    message: `update_mask: ${description}.`,
    violations: [{ field: "update_mask", description }],
  });
}
