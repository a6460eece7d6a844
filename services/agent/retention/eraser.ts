import { create, toBinary } from "@bufbuild/protobuf";
import { SessionErasedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { enqueue } from "#platform/postgres/outbox.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Log } from "#platform/telemetry/log.ts";
import * as store from "../store/erasure-store.ts";
import { jobCall } from "./job-call.ts";

/** Sessions that a round takes on at a time. */
const BATCH = 50;

/** The topic that a transaction announces when it has deleted a session; Database.onCommitted. */
export const SESSION_DELETED = "agent.session_deleted";

export interface EraserOptions {
  database: Database;
  /** How long a deleted session stays before it is erased. */
  afterMs: number;
  log: Log;
  /** Rows that one transaction deletes at most; default ERASURE_ROWS. */
  rows?: number | undefined;
  /** Removes what is kept of a session outside of the database; once more, for a run that ended as the session was deleted. */
  forgetContext?: ((tenantId: string, sessionId: string) => Promise<void>) | undefined;
  onErased(tenantId: string): void;
}

/**
 * Erases deleted sessions with all that hangs on them, each in transactions of its own tenant, a bounded number of rows at a
 * time; the last one, in which the session itself goes, tells other services of it. Every replica may run one: who locks
 * the session is at it. What a crash leaves is still a deleted session, and the next round of any replica goes on with it.
 */
export class Eraser {
  readonly #options: EraserOptions;

  constructor(options: EraserOptions) {
    this.#options = options;
  }

  /** Erases what is due. One session that cannot be erased does not keep the others. Returns how many were. */
  async round(signal: AbortSignal): Promise<number> {
    const { database, afterMs, log, onErased } = this.#options;
    let erased = 0;
    let after: store.DeletedSession | undefined;
    for (;;) {
      const due = await store.deletedSessions(database, { afterMs, limit: BATCH, after }, signal);
      for (const { tenantId, sessionId } of due) {
        try {
          if (!(await this.#erase(tenantId, sessionId, signal))) continue;
          await this.#options.forgetContext?.(tenantId, sessionId);
          erased++;
          onErased(tenantId);
        } catch (error) {
          signal.throwIfAborted();
          const about = { event: "agent.erasure_failed", tenant_id: tenantId, session_id: sessionId, err: error };
          log.warn(about, "a deleted session could not be erased; it is tried again");
        }
      }
      after = due.at(-1);
      if (due.length < BATCH) return erased;
    }
  }

  /** False when another process is at it, or was. */
  async #erase(tenantId: string, sessionId: string, signal: AbortSignal): Promise<boolean> {
    const { database, rows } = this.#options;
    for (;;) {
      const step = await database.tenant(
        tenantId,
        async (tx) => {
          if (!(await store.claimDeleted(tx, sessionId))) return "taken";
          if (!(await store.eraseSome(tx, sessionId, rows))) return "more";
          await finish(tx, tenantId, sessionId, signal);
          return "erased";
        },
        { signal },
      );
      failpoint("eraser.after-some");
      if (step !== "more") return step === "erased";
    }
  }
}

async function finish(tx: Tx, tenantId: string, sessionId: string, signal: AbortSignal): Promise<void> {
  await store.eraseRest(tx, sessionId);
  await audit(tx, "agent", jobCall(tenantId, signal), { type: "session.erased", resource: sessionId, sessionId });
  await enqueue(tx, "agent", {
    subject: `agentmesh.session.v1.${tenantId}.erased`,
    eventId: newId("evt"),
    tenantId,
    payload: toBinary(SessionErasedSchema, create(SessionErasedSchema, { tenantId, sessionId })),
  });
  failpoint("eraser.before-commit");
}
