import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import type { Cursor } from "../domain/cursor.ts";
import { type Reach, reaches, readReach, writeReach } from "../domain/ownership.ts";
import { prepareRun } from "../runs/prepare-run.ts";
import { type DeadLetterRow, deadLetter, listDeadLetters, markRedriven } from "../store/dead-letter-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import { type EnqueueDeps, storeQueued } from "./enqueue.ts";
import { storedInput } from "./stored-input.ts";

/** Queued work that was given up: who may see it, and how it is put back. */
export class DeadLetters {
  readonly #deps: EnqueueDeps;

  constructor(deps: EnqueueDeps) {
    this.#deps = deps;
  }

  async list(
    call: Call,
    openOnly: boolean,
    page: { limit: number; after: Cursor | undefined },
  ): Promise<DeadLetterRow[]> {
    const { endUserId } = readReach(call.principal);
    return tenant(this.#deps.database, call, (tx) => listDeadLetters(tx, { endUserId, openOnly }, page));
  }

  /**
   * Queues the work again, as a new run of the same session for the principal that it was for: a run has one end. Behind
   * the session's run in progress, should there be one. Checked as a new one is, and refused as one.
   */
  async redrive(call: Call, runId: string, requestId: string): Promise<RunRow> {
    const { database } = this.#deps;
    const reach = writeReach(call.principal);
    const request = canonical({ runId });
    const key = { schema: "agent", call, method: "RunService.RedriveDeadLetter", requestId, request };
    const letter = await tenant(database, call, (tx) => find(tx, runId, reach));
    // The key is this request's all the same.
    const again = async (tx: Tx, by: string) => {
      await remembered(tx, key, Buffer.from(by));
      return redriven(tx, by);
    };
    const { redriven_by: before } = letter;
    if (before !== null) return tenant(database, call, (tx) => again(tx, before));
    // Whoever waited for it has long gone.
    const input = { ...storedInput(letter), background: true as const };
    const ids = { runId: newId("run"), newSessionId: letter.session_id };
    const prepared = await prepareRun(this.#deps, { ...call, principal: letter.principal }, input, ids);
    return tenant(database, call, async (tx) => {
      const current = await find(tx, runId, reach, true);
      if (current.redriven_by !== null) return again(tx, current.redriven_by);
      const earlier = await remembered(tx, key, Buffer.from(ids.runId));
      if (earlier !== undefined) return redriven(tx, Buffer.from(earlier).toString());
      const how = { whenBusy: "wait", retryOf: runId } as const;
      const { principal } = letter;
      const run = await storeQueued(this.#deps, tx, call, { input, prepared, how, principal, ...ids });
      await markRedriven(tx, runId, run.run_id);
      const details = { redriven_by: run.run_id };
      const event = { type: "run.redriven", resource: runId, sessionId: letter.session_id, details };
      await audit(tx, "agent", call, event);
      return run;
    });
  }
}

function tenant<T>(database: Database, call: Call, fn: (tx: Tx) => Promise<T>): Promise<T> {
  return database.tenant(call.principal.tenantId, fn, { signal: call.signal, deadline: call.deadline });
}

async function find(tx: Tx, runId: string, reach: Reach, lock = false): Promise<DeadLetterRow> {
  const letter = await deadLetter(tx, runId, lock);
  return letter !== undefined && reaches(reach, letter) ? letter : raise(notFound("dead_letter"));
}

async function redriven(tx: Tx, runId: string): Promise<RunRow> {
  return (await runById(tx, runId)) ?? raise(notFound("run"));
}
