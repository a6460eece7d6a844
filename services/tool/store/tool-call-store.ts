import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database } from "#platform/postgres/database.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import type { Call } from "#platform/rpc/call.ts";
import { maskJson } from "#platform/telemetry/mask.ts";
import type { ExecutedCall, Outcome } from "../domain/execution.ts";
import { lengthOf } from "../domain/tool-result.ts";
import type { ToolCallRequest } from "../domain/tools.ts";
import { endEntry, type JournalEnd } from "./journal-store.ts";
import { keepOutput } from "./output-store.ts";
import { storable } from "./storable.ts";

/** What happened must be written also when the caller has left, so this has a time of its own. */
const WRITE_WITHIN_MS = 10_000;

/** The log of executions. */
export class ToolCallStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Writes an execution, its audit row, its whole output where that is kept, and what its entry in the journal becomes, in
   * one transaction. False when others have given up on that entry.
   */
  async record(call: Call, request: ToolCallRequest, executed: ExecutedCall, end?: JournalEnd): Promise<boolean> {
    const { tool, runId, sessionId, agentId, callId } = request;
    const { outcome, result, durationMs, afterwards } = executed;
    const { whole } = afterwards ?? result;
    const args = maskJson(executed.args ?? null);
    const resultLength = lengthOf(result);
    const duration = Math.round(durationMs);
    const executionId = newId("exe");
    const options = { signal: AbortSignal.timeout(WRITE_WITHIN_MS), deadline: Date.now() + WRITE_WITHIN_MS };
    return this.#database.tenant(
      call.principal.tenantId,
      async (tx) => {
        await tx.execute(
          `INSERT INTO tool.tool_calls (tenant_id, execution_id, run_id, session_id, agent_id, call_id, tool, arguments,
             result_length, is_error, outcome, duration_ms)
           VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
          [
            executionId,
            ...[runId, sessionId, agentId, callId].map(storable),
            tool,
            jsonText(args),
            resultLength,
            result.isError,
            outcome,
            duration,
          ],
        );
        await audit(tx, "tool", call, {
          type: auditType(outcome),
          resource: tool,
          sessionId: storable(sessionId),
          // What was said is in the call's row: audit rows outlive sessions.
          details: { execution_id: executionId, run_id: runId, call_id: callId, agent_id: agentId, outcome },
          resultLength,
          durationMs,
        });
        if (whole !== undefined && sessionId !== "") await keepOutput(tx, request, whole);
        return end === undefined || endEntry(tx, end);
      },
      options,
    );
  }
}

function auditType(outcome: Outcome): string {
  if (outcome === "permission_denied") return "tool.denied";
  return outcome === "replayed" || outcome === "unknown" ? "tool.repeated" : "tool.called";
}
