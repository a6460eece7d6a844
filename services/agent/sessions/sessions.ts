import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { etagMismatch, notFound, raise } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import type { Cursor } from "../domain/cursor.ts";
import { ownerFor, readReach, writeReach } from "../domain/ownership.ts";
import { sessionBusy } from "../errors.ts";
import { SESSION_DELETED } from "../retention/eraser.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import * as messages from "../store/message-store.ts";
import { unfinishedRuns } from "../store/run-store.ts";
import * as store from "../store/session-store.ts";

import { findSession } from "./find-session.ts";
import { type ForkRequest, fork } from "./fork-session.ts";

const NOTHING = new Uint8Array();

export interface SessionsDeps {
  database: Database;
  /** Cancels a run wherever it is owned, and waits until it has ended. */
  cancelRun(call: Call, runId: string, cause: string): Promise<void>;
  /** Removes what is kept of a session outside of the database. Never rejects. */
  forgetContext(tenantId: string, sessionId: string): Promise<void>;
}

export interface SessionChange {
  title?: string | undefined;
  labels?: Record<string, string> | undefined;
  agentId?: string | undefined;
  /** True: the conversation waits for nobody any more. */
  deescalate?: true | undefined;
}

/** What a change carries beside itself. */
export interface Conditions {
  /** Empty: whatever the version. */
  etag: string;
  /** Empty: not to be remembered. */
  requestId: string;
}

/** Conversations: who may see them, and what may be done with them. */
export class Sessions {
  readonly #deps: SessionsDeps;

  constructor(deps: SessionsDeps) {
    this.#deps = deps;
  }

  async create(
    call: Call,
    session: Omit<store.NewSession, "sessionId" | "externalId">,
    requestId: string,
  ): Promise<store.SessionRow> {
    return this.#tenant(call, async (tx) => {
      const key = keyOf(call, "CreateSession", requestId, session);
      const { response } = await idempotent(tx, key, async () => {
        const sessionId = newId("ses");
        const endUserId = ownerFor(call.principal, session.endUserId);
        await store.insertSession(tx, { ...session, sessionId, externalId: null, endUserId });
        await audit(tx, "agent", call, { type: "session.created", resource: sessionId, sessionId });
        return new TextEncoder().encode(sessionId);
      });
      return (await store.sessionById(tx, Buffer.from(response).toString())) ?? raise(notFound("session"));
    });
  }

  async get(call: Call, sessionId: string): Promise<store.SessionRow> {
    return this.#tenant(call, (tx) => findSession(tx, sessionId, readReach(call.principal)));
  }

  async list(
    call: Call,
    filter: { endUserId: string; agentId: string },
    page: { limit: number; skip: number; after: Cursor | undefined },
  ): Promise<store.SessionRow[]> {
    const reach = readReach(call.principal);
    if (reach.endUserId !== undefined && filter.endUserId !== "" && filter.endUserId !== reach.endUserId) return [];
    const endUserId = reach.endUserId ?? (filter.endUserId || undefined);
    return this.#tenant(call, (tx) =>
      store.listSessions(tx, { endUserId, agentId: filter.agentId || undefined }, page),
    );
  }

  async update(
    call: Call,
    sessionId: string,
    change: SessionChange,
    { etag, requestId }: Conditions,
  ): Promise<store.SessionRow> {
    return this.#tenant(call, async (tx) => {
      const session = await findSession(tx, sessionId, writeReach(call.principal), true);
      const key = keyOf(call, "UpdateSession", requestId, { sessionId, change, etag });
      await idempotent(tx, key, async () => {
        requireEtag(session, etag);
        await store.updateSession(tx, session.session_id, {
          title: change.title ?? session.title,
          labels: change.labels ?? session.labels,
          agentId: change.agentId ?? session.agent_id,
          escalation: change.deescalate ? null : session.escalation,
        });
        const fields = Object.entries(change).flatMap(([field, value]) =>
          value === undefined ? [] : [field === "deescalate" ? "escalation" : field],
        );
        await audit(tx, "agent", call, {
          type: "session.updated",
          resource: session.session_id,
          sessionId: session.session_id,
          details: { fields: fields.toSorted() },
        });
        return NOTHING;
      });
      return (await store.sessionById(tx, session.session_id)) ?? raise(notFound("session"));
    });
  }

  /**
   * Deletes a session: from then on nobody finds it, its messages, runs or events, and its UUID can be used again. Its runs
   * that have not ended are cancelled first, so that nothing is written into a session that is gone. The eraser removes what
   * is stored.
   */
  async delete(call: Call, sessionId: string, { etag, requestId }: Conditions): Promise<void> {
    const key = keyOf(call, "DeleteSession", requestId, { sessionId, etag });
    const reach = writeReach(call.principal);
    // First: the caller's UUID may be another session's by now.
    if ((await earlierAnswer(this.#deps.database, key)) !== undefined) return;
    const { found, unfinished } = await this.#tenant(call, async (tx) => {
      const session = await findSession(tx, sessionId, reach);
      requireEtag(session, etag);
      return { found: session, unfinished: await unfinishedRuns(tx, session.session_id) };
    });
    const occupied = found.active_run_id === null ? [] : [found.active_run_id];
    for (const runId of new Set([...occupied, ...unfinished])) {
      await this.#deps.cancelRun(call, runId, "session_deleted");
    }
    await this.#tenant(call, async (tx) => {
      await idempotent(tx, key, async () => {
        const session = await findSession(tx, found.session_id, reach, true);
        // A turn may have begun since.
        const runId = session.active_run_id ?? (await unfinishedRuns(tx, session.session_id))[0];
        if (runId !== undefined) throw sessionBusy(runId);
        await store.markDeleted(tx, session.session_id);
        await audit(tx, "agent", call, {
          type: "session.deleted",
          resource: session.session_id,
          sessionId: session.session_id,
          details: { messages: session.message_count },
        });
        tx.announce(SESSION_DELETED);
        return NOTHING;
      });
    });
    await this.#deps.forgetContext(call.principal.tenantId, found.session_id);
  }

  /** See {@link fork}. */
  async fork(call: Call, request: ForkRequest): Promise<store.SessionRow> {
    return fork(this.#deps.database, call, request);
  }

  async messages(call: Call, sessionId: string, page: { limit: number; from: number }): Promise<messages.MessageRow[]> {
    return this.#tenant(call, async (tx) => {
      const session = await findSession(tx, sessionId, readReach(call.principal));
      return messages.listMessages(tx, session.session_id, page);
    });
  }

  #tenant<T>(call: Call, fn: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#deps.database.tenant(call.principal.tenantId, fn, { signal: call.signal, deadline: call.deadline });
  }
}

/** The version tag of a session. */
export function sessionEtag(session: Pick<store.SessionRow, "version">): string {
  return String(session.version);
}

function requireEtag(session: store.SessionRow, etag: string): void {
  if (etag !== "" && etag !== sessionEtag(session)) throw etagMismatch();
}

function keyOf(call: Call, rpc: string, requestId: string, content: object) {
  return { schema: "agent", call, method: `SessionService.${rpc}`, requestId, request: canonical(content) };
}
