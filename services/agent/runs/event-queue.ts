import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ContentPart } from "#gen/agentmesh/common/v1/content_pb.ts";

/** Bytes that wait for one reader before it is detached to the log. */
export const MAX_QUEUED_BYTES = 256 * 1024;

/** Why a queue has nothing more to give. */
export type QueueEnd = "closed" | "lagged";

/**
 * Events on their way to one reader. The producer never waits: a reader that lets more than MAX_QUEUED_BYTES pile up has
 * its queue emptied and is told that it lags; it then catches up from the log. One event always fits, however large.
 */
export class EventQueue {
  #events: AgentEvent[] = [];
  #bytes = 0;
  #end: QueueEnd | undefined;
  #wake: (() => void) | undefined;

  push(event: AgentEvent): void {
    if (this.#end !== undefined) return;
    this.#bytes += weight(event);
    if (this.#bytes > MAX_QUEUED_BYTES && this.#events.length > 0) {
      this.end("lagged");
      return;
    }
    this.#events.push(event);
    this.#wake?.();
  }

  end(why: QueueEnd): void {
    if (this.#end !== undefined) return;
    this.#end = why;
    if (why === "lagged") this.#events = [];
    this.#wake?.();
  }

  /** What waits, at once; empty when nothing does. */
  take(): AgentEvent[] {
    const events = this.#events;
    this.#events = [];
    this.#bytes = 0;
    return events;
  }

  /** Set once the queue is at its end and empty. */
  get ended(): QueueEnd | undefined {
    return this.#events.length === 0 ? this.#end : undefined;
  }

  /** Ends a wait as if there were something to take. */
  nudge(): void {
    this.#wake?.();
  }

  /**
   * Resolves when there is something to take, the queue has ended, the signal aborts, somebody nudges, or `ms` have passed.
   * A thousand readers wait at a time, so that it makes little: no signal of one's own for those who can nudge.
   */
  wait(signal: AbortSignal | undefined, ms: number): Promise<"ready" | "idle"> {
    if (this.#events.length > 0 || this.#end !== undefined || signal?.aborted) return READY;
    return new Promise((resolve) => {
      const finish = (how: "ready" | "idle") => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", wake);
        this.#wake = undefined;
        resolve(how);
      };
      const wake = () => finish("ready");
      const timer = setTimeout(finish, ms, "idle");
      signal?.addEventListener("abort", wake, { once: true });
      this.#wake = wake;
    });
  }
}

const READY = Promise.resolve("ready" as const);

const ENVELOPE_BYTES = 200;

/** About what an event takes in memory and on the wire; exact sizes would cost an encoding per reader. */
function weight({ payload }: AgentEvent): number {
  switch (payload.case) {
    case "textDelta":
    case "reasoningDelta":
    case "reasoningCompleted":
      return ENVELOPE_BYTES + payload.value.text.length;
    case "toolCallArgumentsDelta":
      return ENVELOPE_BYTES + payload.value.jsonFragment.length;
    case "messageCompleted":
      return ENVELOPE_BYTES + contentBytes(payload.value.parts);
    case "toolCallRequested":
      return ENVELOPE_BYTES + payload.value.argumentsJson.length;
    case "toolCallCompleted":
      return ENVELOPE_BYTES + contentBytes(payload.value.content) + payload.value.structuredJson.length;
    case "runCompleted":
      return ENVELOPE_BYTES + payload.value.response.length;
    case "contextCompacted":
      return ENVELOPE_BYTES + payload.value.summary.length;
    default:
      return 2 * ENVELOPE_BYTES;
  }
}

function contentBytes(parts: readonly ContentPart[]): number {
  let bytes = 0;
  for (const { part } of parts) {
    if (part.case === "text") bytes += part.value.text.length;
    else if (part.case === "image") bytes += part.value.data.length;
  }
  return bytes;
}
