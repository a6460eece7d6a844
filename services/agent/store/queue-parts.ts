// Parts of the statement that ends a run; `run` is the part that holds its row.

/** Announced where a queued run has come due in a commit; Database.onCommitted. */
export const QUEUE_TOPIC = "agent.queue";

/**
 * Finds the run that is next in the session's queue and makes it due. One that somebody else is busy with is left to them:
 * its row is locked before the session's everywhere, so that nobody waits for the other.
 */
export function wakeNext(name: string): string {
  const queue = "agent.queued_runs q WHERE q.tenant_id = agentmesh.current_tenant()";
  return `head AS (
    SELECT q.run_id FROM ${queue} AND q.due_at IS NOT NULL AND q.run_id <> $1
      AND q.session_id = (SELECT session_id FROM run) ORDER BY q.position LIMIT 1
  ), free AS (
    SELECT q.run_id FROM ${queue} AND q.due_at IS NOT NULL AND q.run_id = (SELECT run_id FROM head)
    FOR UPDATE SKIP LOCKED
  ), ${name} AS (
    UPDATE agent.queued_runs q SET due_at = clock_timestamp() FROM free
    WHERE q.tenant_id = agentmesh.current_tenant() AND q.run_id = free.run_id RETURNING q.run_id
  )`;
}

/** The run's row in the queue goes. */
export function leaveQueue(): string {
  return `queue AS (
    DELETE FROM agent.queued_runs q USING run
    WHERE q.tenant_id = agentmesh.current_tenant() AND q.run_id = run.run_id
  )`;
}

/** The run's row in the queue becomes a dead letter. Takes subject, reason and message. */
export function bury(param: () => string): string {
  return `given_up AS (
    DELETE FROM agent.queued_runs q USING run
    WHERE q.tenant_id = agentmesh.current_tenant() AND q.run_id = run.run_id
    RETURNING q.input, q.attempts, q.create_time
  ), letter AS (
    INSERT INTO agent.dead_letters (tenant_id, run_id, session_id, end_user_id, agent_id, subject, reason, message, input,
      attempts, queue_time)
    SELECT agentmesh.current_tenant(), run_id, session_id, end_user_id, agent_id, ${param()}, ${param()}, ${param()}, g.*
    FROM run, given_up g
  )`;
}
