import type { Database } from "#platform/postgres/database.ts";
import { type IdempotentRequest, idempotent } from "#platform/postgres/idempotency.ts";

/** Thrown inside, so that the key that was only tried is not kept. */
class FirstCall extends Error {}

/**
 * What an earlier call with this key was answered, or undefined when this is the first one. For verbs whose preparation
 * fails once they have been carried out: a repeat must be answered all the same.
 */
export async function earlierAnswer(database: Database, request: IdempotentRequest): Promise<Uint8Array | undefined> {
  const { call, requestId } = request;
  if (requestId === "") return undefined;
  const firstCall = () => Promise.reject(new FirstCall());
  const options = { signal: call.signal, deadline: call.deadline };
  try {
    const answer = await database.tenant(call.principal.tenantId, (tx) => idempotent(tx, request, firstCall), options);
    return answer.response;
  } catch (error) {
    if (error instanceof FirstCall) return undefined;
    throw error;
  }
}
