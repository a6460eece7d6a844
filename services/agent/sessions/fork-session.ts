import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import { writeReach } from "../domain/ownership.ts";
import { FORK_LIMITS, forkSession } from "../store/fork-store.ts";
import { type SessionRow, sessionById } from "../store/session-store.ts";
import { findSession } from "./find-session.ts";

export interface ForkRequest {
  sessionId: string;
  /** Empty: the newest. */
  messageId: string;
  /** Empty: that of the session. */
  title: string;
  requestId: string;
}

/** Copies a session up to a message into a new one of the same owner, which may be gone on with apart from it. */
export async function fork(database: Database, call: Call, request: ForkRequest): Promise<SessionRow> {
  const { requestId, ...content } = request;
  const key = {
    schema: "agent",
    call,
    method: "SessionService.ForkSession",
    requestId,
    request: canonical(content),
  };
  return database.tenant(
    call.principal.tenantId,
    async (tx) => {
      const { response } = await idempotent(tx, key, async () => {
        const source = await findSession(tx, request.sessionId, writeReach(call.principal));
        const sessionId = newId("ses");
        const { messageId, title } = request;
        const forked = await forkSession(tx, { sourceId: source.session_id, messageId, sessionId, title });
        if (forked.kind === "no_message") throw notFound("message");
        if (forked.kind === "too_large") throw tooLarge(forked);
        await audit(tx, "agent", call, {
          type: "session.forked",
          resource: sessionId,
          sessionId,
          details: { forked_from: source.session_id, messages: forked.session.message_count },
        });
        return new TextEncoder().encode(sessionId);
      });
      return (await sessionById(tx, Buffer.from(response).toString())) ?? raise(notFound("session"));
    },
    { signal: call.signal, deadline: call.deadline },
  );
}

function tooLarge({ messages, bytes }: { messages: number; bytes: number }) {
  const { messages: most, bytes: mostBytes } = FORK_LIMITS;
  const description =
    `${messages} messages of ${bytes} bytes are in front of it; ${most} messages of ${mostBytes} bytes can be copied. ` +
    "Name an earlier one";
  return invalidFields({ field: "message_id", description });
}
