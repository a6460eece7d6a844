/** Bus subject of a run's wake-ups (RunAdvanced). */
export function runSubject(tenantId: string, runId: string): string {
  return `agentmesh.run.v1.${tenantId}.${runId}`;
}

/** Bus subject of a queued run's work (RunQueued). */
export function workSubject(tenantId: string, runId: string): string {
  return `agentmesh.run_work.v1.${tenantId}.${runId}`;
}
