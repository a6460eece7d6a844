import { newId } from "#platform/id.ts";
import type { Call } from "#platform/rpc/call.ts";
import { maskJson, maskText } from "#platform/telemetry/mask.ts";
import { jsonText } from "./json-text.ts";
import { schemaName } from "./outbox.ts";
import type { Tx } from "./transaction.ts";

/** What happened; who did it comes from the call. */
export interface AuditEvent {
  /** Such as `api_key.created`. */
  type: string;
  /** Name or id of what was touched. */
  resource?: string | undefined;
  sessionId?: string | undefined;
  /** Masked before it is stored; never hand over a secret all the same. */
  details?: object | undefined;
  /** Characters or bytes of the result, where there is one. */
  resultLength?: number | undefined;
  durationMs?: number | undefined;
}

/**
 * Writes an audit row into a service's schema, in the transaction of the change. The row belongs to the transaction's
 * tenant; `subject_tenant_id` is the caller's, another one when a platform administrator crosses tenants. Rows are only
 * ever added.
 */
export async function audit(tx: Tx, schema: string, call: Call, event: AuditEvent): Promise<void> {
  await tx.execute(auditInsert(schema, "$1"), [auditRows(call, [event])]);
}

/**
 * The statement that adds the {@link auditRows} given as parameter `param`, to be a part of another one; once for each row
 * of `from`, if any.
 */
export function auditInsert(schema: string, param: `$${number}`, from?: string): string {
  return `INSERT INTO ${schemaName(schema)}.audit (tenant_id, id, type, resource, subject, subject_tenant_id, user_id,
      credential_id, actors, ip, user_agent, request_id, session_id, details, result_length, duration_ms)
    SELECT agentmesh.current_tenant(), a.* FROM ${from === undefined ? "" : `${from}, `}json_to_recordset(${param}::json) AS a (
      id text, type text, resource text, subject text, subject_tenant_id text, user_id text, credential_id text,
      actors text[], ip text, user_agent text, request_id text, session_id text, details jsonb, result_length int,
      duration_ms int)`;
}

/** Audit rows of one call, as the parameter of {@link auditInsert}. */
export function auditRows(call: Call, events: readonly AuditEvent[]): string {
  const { principal } = call;
  const who = {
    subject: principal.subject,
    subject_tenant_id: principal.tenantId,
    user_id: principal.userId,
    credential_id: principal.credentialId,
    actors: principal.actors,
    ip: call.ip,
    user_agent: maskText(call.userAgent, 512),
    request_id: call.requestId,
  };
  return jsonText(
    events.map(({ type, resource, sessionId, details = {}, resultLength, durationMs }) => ({
      id: newId("aud"),
      type,
      resource,
      ...who,
      session_id: sessionId,
      details: maskJson(details),
      result_length: resultLength,
      duration_ms: durationMs === undefined ? undefined : Math.round(durationMs),
    })),
  );
}
