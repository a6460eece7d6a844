import { invalidFields } from "#platform/rpc/errors.ts";
import type { RunInput } from "../domain/run-input.ts";
import type { QueuedRun } from "../store/queue-store.ts";

/**
 * What a queued run shall do, with its session, agent and user as they were found when it was queued. Throws what ends the
 * run when it cannot be read: it was written by another release.
 */
export function storedInput(queued: Pick<QueuedRun, "input" | "session_id" | "agent_id" | "end_user_id">): RunInput {
  const { input } = queued;
  if (!isInput(input)) {
    throw invalidFields({
      field: "input",
      description: "was stored by another release and cannot be read; start it again",
    });
  }
  return {
    ...input,
    requestId: "",
    sessionId: queued.session_id,
    agentId: queued.agent_id,
    endUserId: queued.end_user_id,
  };
}

function isInput(value: unknown): value is RunInput {
  const input = value as Partial<RunInput> | null;
  return (
    typeof input === "object" &&
    typeof input?.message === "string" &&
    Array.isArray(input.attachments) &&
    typeof input.context === "object" &&
    input.context !== null
  );
}
