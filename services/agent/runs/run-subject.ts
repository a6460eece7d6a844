/** Bus subject of a run's wake-ups (RunAdvanced). */
export function runSubject(tenantId: string, runId: string): string {
  return `agentmesh.run.v1.${tenantId}.${runId}`;
}
