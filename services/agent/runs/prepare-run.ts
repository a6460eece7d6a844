import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { InputGuard } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import { checkCollisions } from "../domain/client-tools.ts";
import { suspicionsIn } from "../domain/input-guard.ts";
import { ownerFor, writeReach } from "../domain/ownership.ts";
import type { RunInput, Said } from "../domain/run-input.ts";
import { inputRefused } from "../errors.ts";
import { findSession, isExternalId } from "../sessions/find-session.ts";
import { type SessionRow, sessionByExternalId } from "../store/session-store.ts";
import { type HookSource, pluginFailed, RunHooks } from "./run-hooks.ts";

/** Where the tenant has set no limit of its own. */
const MAX_MESSAGE_CHARACTERS = 100_000n;

export interface PrepareDeps {
  database: Database;
  resolveAgent(call: Call, agentId: string, endUserId: string): Promise<ResolveAgentResponse>;
  hooks: HookSource;
}

/** Something to be told at a run's beginning. */
export interface StartNotice {
  reason: string;
  message: string;
  facts: Record<string, string>;
}

/** A message as a model may be shown it. */
export interface PreparedInput<I extends Said = Said> {
  /** The caller's input behind adapter and plugins. */
  input: I;
  notices: StartNotice[];
  /** What the input guard has found. */
  suspicions: string[];
}

/** What a run begins with, before anything is written. */
export interface PreparedRun extends PreparedInput<RunInput> {
  resolved: ResolveAgentResponse;
}

/**
 * The agent that is to answer, and the input as it is shown to it. No transaction is held while others are asked. Throws
 * POLICY_DENIED for input that the tenant has refused.
 */
export async function prepareRun(
  deps: PrepareDeps,
  call: Call,
  input: RunInput,
  ids: { runId: string; newSessionId: string },
): Promise<PreparedRun> {
  const session = input.agentId === "" && input.sessionId !== "" ? await readSession(deps, call, input) : undefined;
  const endUserId = session?.end_user_id ?? ownerFor(call.principal, input.endUserId);
  const resolved = await deps.resolveAgent(call, input.agentId || (session?.agent_id ?? ""), endUserId);
  checkCollisions(input.clientTools ?? [], resolved.agent?.tools ?? []);
  const sessionId = session?.session_id ?? (input.sessionId || ids.newSessionId);
  return { resolved, ...(await checkInput(deps, call, resolved, input, { sessionId, runId: ids.runId, endUserId })) };
}

/** A message behind adapter, plugins and input guard. Throws FIELD_INVALID, or POLICY_DENIED for what the tenant refuses. */
export async function checkInput<I extends Said>(
  deps: PrepareDeps,
  call: Call,
  resolved: ResolveAgentResponse,
  input: I,
  about: { sessionId: string; runId: string; endUserId: string },
): Promise<PreparedInput<I>> {
  const { agent = raise(notFound("agent")), limits, inputGuard } = resolved;
  const limit = Number(limits?.maxMessageCharacters ?? MAX_MESSAGE_CHARACTERS);
  if (input.message.length > limit && [...input.message].length > limit) {
    throw invalidFields({
      field: "message",
      description: `is longer than the ${limit} characters that your tier allows`,
    });
  }
  const context = { tenantId: call.principal.tenantId, agentId: agent.agentId, ...about };
  const { text, failed } = await new RunHooks(agent, deps.hooks).beforeInput(input.message, context, call.signal);
  const shown = text === input.message ? input : { ...input, message: text };
  if (text.trim() === "" && input.message.trim() !== "" && input.attachments.length === 0) {
    throw invalidFields({ field: "message", description: "holds nothing that this agent is shown" });
  }
  const notices = failed.map(pluginFailed);
  const suspicions = inputGuard === InputGuard.OFF ? [] : suspicionsIn(allText(shown));
  if (suspicions.length > 0) {
    if (inputGuard === InputGuard.BLOCK) return refuse(deps, call, agent.agentId, suspicions);
    const message = "The message looks like an attempt to change what the agent was told to do.";
    notices.push({ reason: "INPUT_FLAGGED", message, facts: { patterns: suspicions.join(",") } });
  }
  return { input: shown, notices, suspicions };
}

async function refuse({ database }: PrepareDeps, call: Call, agentId: string, patterns: string[]): Promise<never> {
  const event = { type: "input.blocked", resource: agentId, details: { patterns } };
  await database.tenant(call.principal.tenantId, (tx) => audit(tx, "agent", call, event), { signal: call.signal });
  throw inputRefused();
}

function allText({ message, attachments }: Said): string {
  return [message, ...attachments.flatMap((part) => (part.type === "text" ? [part.text] : []))].join("\n");
}

/** The session that a call continues; undefined for a caller's own name that is new. */
async function readSession(deps: PrepareDeps, call: Call, input: RunInput): Promise<SessionRow | undefined> {
  const { tenantId } = call.principal;
  return deps.database.tenant(
    tenantId,
    async (tx) =>
      isExternalId(input.sessionId)
        ? sessionByExternalId(tx, input.sessionId.toLowerCase(), ownerFor(call.principal, input.endUserId))
        : findSession(tx, input.sessionId, writeReach(call.principal)),
    { signal: call.signal, readOnly: true },
  );
}
