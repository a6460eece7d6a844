import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import { reaches, writeReach } from "../domain/ownership.ts";
import { inputsFull, runNotActive } from "../errors.ts";
import type { ContentPart, UserMessage } from "../llm/chat-model.ts";
import { checkInput, type PrepareDeps, type PreparedInput } from "../runs/prepare-run.ts";
import { fromStoredPlan } from "../runs/run-plan.ts";
import { isOver, stateName } from "../runs/run-state.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { insertInput, MAX_PENDING_INPUTS } from "../store/input-store.ts";
import { planOf } from "../store/resume-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";

/** A message for a run that is at work. */
export interface InputToSend {
  runId: string;
  message: string;
  attachments: ContentPart[];
  requestId: string;
}

/** A message that a run will take in, and the run as it was when it was stored. */
export interface SentInput {
  run: RunRow;
  messageId: string;
}

/**
 * Sends a message to a run, through the plugins and the input guard of its plan. A repeated request is answered with the
 * message of the first, whatever has become of the run. Throws RUN_NOT_ACTIVE when the run has ended or not begun.
 */
export async function sendInput(deps: PrepareDeps, call: Call, input: InputToSend): Promise<SentInput> {
  const { runId, message, attachments, requestId } = input;
  const { tenantId } = call.principal;
  const options = { signal: call.signal, deadline: call.deadline };
  const inTenant = <T>(fn: (tx: Tx) => Promise<T>) => deps.database.tenant(tenantId, fn, options);
  const key = {
    schema: "agent",
    call,
    method: "RunService.SendRunInput",
    requestId,
    request: canonical({ runId, message, attachments }),
  };
  const again = (tx: Tx, answer: Uint8Array) => sent(tx, runId, Buffer.from(answer).toString());
  const earlier = await earlierAnswer(deps.database, key);
  if (earlier !== undefined) return inTenant((tx) => again(tx, earlier));
  const { run, resolved } = await inTenant(async (tx) => {
    const found = await runById(tx, runId);
    if (found === undefined || !reaches(writeReach(call.principal), found)) throw notFound("run");
    if (isOver(found)) throw runNotActive(stateName(found));
    const stored = await planOf(tx, runId);
    return { run: found, resolved: stored && fromStoredPlan(stored)?.resolved };
  });
  if (resolved === undefined) throw runNotActive(stateName(run));
  const { session_id: sessionId, end_user_id: endUserId } = run;
  const prepared = await checkInput(deps, call, resolved, input, { sessionId, runId, endUserId });
  const messageId = newId("msg");
  return inTenant(async (tx) => {
    const answer = await remembered(tx, key, Buffer.from(messageId));
    if (answer !== undefined) return again(tx, answer);
    return { run: await storeInput(tx, call, runId, messageId, prepared), messageId };
  });
}

async function sent(tx: Tx, runId: string, messageId: string): Promise<SentInput> {
  return { run: (await runById(tx, runId)) ?? raise(notFound("run")), messageId };
}

/** Stores a message for a run that is at work. Throws RUN_NOT_ACTIVE, or CONCURRENCY_LIMIT while too many wait. */
export async function storeInput(
  tx: Tx,
  call: Call,
  runId: string,
  messageId: string,
  { input, notices, suspicions }: PreparedInput,
): Promise<RunRow> {
  const message: UserMessage = { role: "user", content: [{ type: "text", text: input.message }, ...input.attachments] };
  failpoint("send-input.before-store");
  const run = await insertInput(tx, runId, { message_id: messageId, message, notices });
  if (run === undefined) {
    const now = (await runById(tx, runId)) ?? raise(notFound("run"));
    throw now.inputs_pending >= MAX_PENDING_INPUTS && !isOver(now)
      ? inputsFull(MAX_PENDING_INPUTS)
      : runNotActive(stateName(now));
  }
  const about = { resource: runId, sessionId: run.session_id };
  const details = { message_id: messageId, message_characters: input.message.length };
  await audit(tx, "agent", call, { type: "run.input_sent", ...about, details });
  if (suspicions.length > 0) {
    await audit(tx, "agent", call, { type: "input.flagged", ...about, details: { patterns: suspicions } });
  }
  return run;
}
