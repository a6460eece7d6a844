import { createHash } from "node:crypto";
import { Code } from "@connectrpc/connect";
import type { Call } from "../rpc/call.ts";
import { AppError } from "../rpc/errors.ts";
import type { Tx } from "./database.ts";

/** How long a request id is remembered, in hours. */
export const IDEMPOTENCY_KEPT_HOURS = 24;

export interface IdempotentRequest {
  /** Schema whose `idempotency_keys` table (agentmesh.create_idempotency_table) remembers the request. */
  schema: string;
  call: Call;
  /** Full method name; the same request id may be used once per method. */
  method: string;
  /** The caller's key, 1-128 characters; empty runs without remembering. */
  requestId: string;
  /** The request in a canonical form, without the key itself; its hash tells a retry from a misuse. */
  request: Uint8Array;
}

export interface IdempotentResult {
  response: Uint8Array;
  /** True when an earlier call made the response. */
  replayed: boolean;
}

/**
 * Runs `run` at most once per tenant, subject, method and request id, inside the caller's transaction: the key and the
 * effect commit together or not at all (contracts: Idempotency). A repeat with the same content returns the stored
 * response; with other content it is INVALID_ARGUMENT IDEMPOTENCY_KEY_REUSED. A repeat that comes while the first is
 * still in its transaction waits for its end on the table's key, bounded by the statement timeout. Failures are not
 * remembered, so they can be tried again.
 */
export async function idempotent(
  tx: Tx,
  request: IdempotentRequest,
  run: () => Promise<Uint8Array>,
): Promise<IdempotentResult> {
  if (request.requestId === "") return { response: await run(), replayed: false };
  const { table, key } = entryOf(request);
  const earlier = await take(tx, request, null);
  if (earlier !== undefined) return { response: earlier, replayed: true };
  const response = await run();
  await tx.query(
    `UPDATE ${table} SET response = $5 WHERE tenant_id = $1 AND subject = $2 AND method = $3 AND request_id = $4`,
    [...key, response],
  );
  return { response, replayed: false };
}

/**
 * {@link idempotent} for a response that is known before it is carried out: remembers it in one statement. Returns what an
 * earlier call was answered; undefined when this is the first one, which then carries it out in the same transaction.
 */
export async function remembered(
  tx: Tx,
  request: IdempotentRequest,
  response: Uint8Array,
): Promise<Uint8Array | undefined> {
  return request.requestId === "" ? undefined : take(tx, request, response);
}

/** Takes the key with this response; or returns the response of who has it. */
async function take(tx: Tx, request: IdempotentRequest, response: Uint8Array | null): Promise<Uint8Array | undefined> {
  const { table, key, hash } = entryOf(request);
  // A key that is past its time is taken over in the same statement, so the clean-up job is never needed for correctness.
  const taken = await tx.one<{ request_id: string }>(
    `INSERT INTO ${table} AS k (tenant_id, subject, method, request_id, request_hash, response) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (tenant_id, subject, method, request_id) DO UPDATE
       SET request_hash = excluded.request_hash, response = excluded.response, created_at = clock_timestamp()
       WHERE k.created_at < clock_timestamp() - make_interval(hours => $7)
     RETURNING request_id`,
    [...key, hash, response, IDEMPOTENCY_KEPT_HOURS],
  );
  return taken === undefined ? replay(tx, table, key, hash) : undefined;
}

/** Removes keys that are older than `ageMs`, about `limit` of them, the oldest; returns how many. Worker role. */
export async function removeOldKeys(tx: Tx, schema: string, ageMs: number, limit: number): Promise<number> {
  const table = `${quoted(schema)}.idempotency_keys`;
  // By time: the worker role sees nothing else of them.
  return tx.execute(
    `DELETE FROM ${table} WHERE created_at <= (SELECT max(created_at) FROM (
       SELECT created_at FROM ${table} WHERE created_at < clock_timestamp() - make_interval(secs => $1)
       ORDER BY created_at LIMIT $2) oldest)`,
    [ageMs / 1000, limit],
  );
}

function entryOf({ schema, call: { principal }, method, requestId, request }: IdempotentRequest) {
  return {
    table: `${quoted(schema)}.idempotency_keys`,
    key: [principal.tenantId, principal.subject, method, requestId],
    hash: createHash("sha256").update(request).digest(),
  };
}

async function replay(tx: Tx, table: string, key: string[], hash: Buffer): Promise<Uint8Array> {
  const stored = await tx.one<{ request_hash: Buffer; response: Buffer | null }>(
    `SELECT request_hash, response FROM ${table} WHERE tenant_id = $1 AND subject = $2 AND method = $3 AND request_id = $4`,
    key,
  );
  if (stored?.response == null) {
    throw new AppError({
      code: Code.Aborted,
      reason: "IDEMPOTENCY_IN_PROGRESS",
      message: "A call with this request id is still running. Try again shortly.",
      retryAfterMs: 500,
    });
  }
  if (!stored.request_hash.equals(hash)) {
    throw new AppError({
      code: Code.InvalidArgument,
      reason: "IDEMPOTENCY_KEY_REUSED",
      message: "This request id was used before with other content. Use a new one for a new request.",
      violations: [{ field: "request_id", description: "was used before with other content" }],
    });
  }
  return stored.response;
}

function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
