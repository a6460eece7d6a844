import type { Tx } from "#platform/postgres/database.ts";
import type { StoredClientTool } from "../domain/client-tools.ts";
import type { ModelUsage } from "../engine/events.ts";
import type { ModelMessage } from "../llm/chat-model.ts";

/** The open step of a run, when its model has asked for tools. */
export interface StepDraft {
  step: number;
  usage: ModelUsage;
  /** With their ids; the last one holds the calls. */
  messages: ModelMessage[];
}

/** A draft as it is read. */
export interface StoredDraft extends StepDraft {
  /** The run in whose name the calls were asked for; null: this one. */
  asked_in: string | null;
}

/** How far the runs had come that a run goes on with; see `ResumedWork`. */
export interface EarlierWork {
  nextStep: number;
  toolTurns: number;
  lastFinish?: string;
}

/** What of a run's beginning is stored beside its plan. */
export interface RunPlanRow {
  /** Null: a run of an earlier release. */
  plan: Uint8Array | null;
  begun_with: { chosen: unknown; language: string; earlier?: EarlierWork; client_tools?: StoredClientTool[] } | null;
}

/** A part of a statement that stores the draft of parameter `param` for the row of `run`. */
export function draftInsert(run: string, param: `$${number}`): string {
  return `INSERT INTO agent.step_drafts (tenant_id, run_id, step, usage, messages)
    SELECT agentmesh.current_tenant(), ${run}.run_id, d.step, d.usage, d.messages
    FROM ${run}, json_to_record(${param}::json) AS d (step integer, usage jsonb, messages jsonb)
    ON CONFLICT (tenant_id, run_id) DO UPDATE SET step = excluded.step, usage = excluded.usage, messages = excluded.messages,
      asked_in = NULL`;
}

/** A part of a statement that hands the draft of the run of parameter `from` on to the run of parameter `to`. */
export function draftMove(from: `$${number}`, to: `$${number}`): string {
  return `UPDATE agent.step_drafts SET run_id = ${to}, asked_in = coalesce(asked_in, ${from})
    WHERE tenant_id = agentmesh.current_tenant() AND run_id = ${from}`;
}

/** What a run was begun with. */
export async function planOf(tx: Tx, runId: string): Promise<RunPlanRow | undefined> {
  return tx.one<RunPlanRow>(
    `SELECT p.plan, r.begun_with FROM agent.runs r
     LEFT JOIN agent.plans p ON p.tenant_id = r.tenant_id AND p.plan_id = r.plan_id
     WHERE r.tenant_id = agentmesh.current_tenant() AND r.run_id = $1`,
    [runId],
  );
}

/** The draft of a run's open step, if it has come so far. */
export async function draftOf(tx: Tx, runId: string): Promise<StoredDraft | undefined> {
  return tx.one<StoredDraft>(
    `SELECT step, usage, messages, asked_in FROM agent.step_drafts
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1`,
    [runId],
  );
}

/** Durable events of some types, oldest first. */
export async function eventsOfTypes(tx: Tx, runId: string, types: readonly string[]): Promise<Uint8Array[]> {
  const rows = await tx.query<{ event: Uint8Array }>(
    `SELECT event FROM agent.run_events
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND type = ANY ($2) ORDER BY seq`,
    [runId, types],
  );
  return rows.map(({ event }) => event);
}
