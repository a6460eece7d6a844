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
  const { principal } = call;
  await tx.execute(
    `INSERT INTO ${schemaName(schema)}.audit (tenant_id, id, type, resource, subject, subject_tenant_id, user_id,
       credential_id, actors, ip, user_agent, request_id, session_id, details, result_length, duration_ms)
     VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
    [
      newId("aud"),
      event.type,
      event.resource,
      principal.subject,
      principal.tenantId,
      principal.userId,
      principal.credentialId,
      principal.actors,
      call.ip,
      maskText(call.userAgent, 512),
      call.requestId,
      event.sessionId,
      jsonText(maskJson(event.details ?? {})),
      event.resultLength,
      event.durationMs === undefined ? undefined : Math.round(event.durationMs),
    ],
  );
}
