import { createHash } from "node:crypto";
import { pause } from "#platform/abortable.ts";
import type { CodeTool } from "#platform/plugin/define-tool.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { requestKeyReused } from "../errors.ts";
import type { JournalEnd, JournalStore } from "../store/journal-store.ts";
import type { Begun, ExecutedCall } from "./execution.ts";
import { type LiveCall, LiveCalls } from "./live-calls.ts";
import { readResult, storeResult } from "./stored-result.ts";
import { failedResult } from "./tool-result.ts";
import type { ToolCallRequest } from "./tools.ts";

/** How long after its tool's time a call may still be at work: to be left behind, to let go of what it had, to be written down. */
const MARGIN_MS = 5_000;
/** How often another process's call is looked at. */
const LOOK_FROM_MS = 50;
const LOOK_TO_MS = 1_000;

/** Whether a repeated call of the tool has to be kept from running again. */
export function isJournalled({ idempotent, risk }: CodeTool, requestKey: string): boolean {
  return !idempotent && risk !== "read_only" && requestKey !== "";
}

export interface JournalDeps {
  readonly store: JournalStore;
  /** This process. */
  readonly instanceId: string;
  /** How long a tool whose signal has fired may take to end by itself. */
  readonly abandonAfterMs: number;
}

/** What is asked for, and under which key. */
export interface JournalRequest extends ToolCallRequest {
  readonly requestKey: string;
}

/** Sees to it that a call runs once, however often and wherever it is asked for. */
export class Journal {
  readonly #deps: JournalDeps;
  readonly #live = new LiveCalls();

  constructor(deps: JournalDeps) {
    this.#deps = deps;
  }

  /** The call's signal has to fire in the end. */
  attempt(call: Call, tool: CodeTool, request: JournalRequest): Attempt {
    return new Attempt(call, tool, request, this.#deps, this.#live);
  }
}

/** One request to run a call. Call {@link Attempt.leave} in the end. */
export class Attempt {
  readonly #call: Call;
  readonly #tool: CodeTool;
  readonly #request: JournalRequest;
  readonly #deps: JournalDeps;
  readonly #calls: LiveCalls;
  readonly #key: string;
  #live: LiveCall | undefined;
  #claimed = false;

  constructor(call: Call, tool: CodeTool, request: JournalRequest, deps: JournalDeps, calls: LiveCalls) {
    this.#call = call;
    this.#tool = tool;
    this.#request = request;
    this.#deps = deps;
    this.#calls = calls;
    this.#key = JSON.stringify([call.principal.tenantId, request.endUserId, request.requestKey]);
  }

  /**
   * Takes the call over, to be run under the signal that it answers; or what an earlier attempt came to, for which it
   * waits. Throws INVALID_ARGUMENT when the key was used for something else. For arguments that fit only.
   */
  async begin(): Promise<Begun> {
    const { store, instanceId, abandonAfterMs } = this.#deps;
    const digest = digestOf(this.#request);
    const lostAfterMs = this.#tool.timeoutMs + abandonAfterMs + MARGIN_MS;
    const intent = { ...this.#request, digest, instanceId, lostAfterMs };
    const live = await this.#calls.enter(this.#key, digest, this.#call.signal, reused);
    this.#live = live;
    const call = withSignal(this.#call, live.signal, this.#call.deadline);
    for (let wait = LOOK_FROM_MS; ; wait = Math.min(2 * wait, LOOK_TO_MS)) {
      const entry = await store.claim(call, intent);
      if (entry === "claimed") {
        this.#claimed = true;
        failpoint("journal.after-intent");
        return { signal: live.signal };
      }
      if (!digest.equals(entry.digest)) reused();
      if (entry.result !== null) return { earlier: { outcome: "replayed", ...readResult(entry.result) } };
      if (entry.state === "UNKNOWN") return { earlier: outcomeUnknown(this.#tool) };
      // What this process works on is entered above, so an entry of its own is of a call whose end could not be written.
      if (entry.instanceId === instanceId || entry.lostInMs <= 0) {
        if (await store.giveUp(call, intent)) return { earlier: outcomeUnknown(this.#tool) };
        continue;
      }
      await pause(Math.min(wait, Math.max(1, entry.lostInMs)), live.signal);
    }
  }

  /** What the entry becomes, to be written with the call's record; undefined when this attempt has none. */
  endWith({ outcome, result, durationMs, ran, afterwards }: ExecutedCall): JournalEnd | undefined {
    if (!this.#claimed) return undefined;
    failpoint("journal.before-result");
    if (!ran) return { ...this.#whose, become: "REMOVED" };
    const kept = outcome === "cancelled" ? afterwards : result;
    if (kept === undefined) return { ...this.#whose, become: "UNKNOWN" };
    return {
      ...this.#whose,
      become: "FINISHED",
      result: storeResult({ result: kept, durationMs: Math.round(durationMs) }),
    };
  }

  leave(): void {
    if (this.#live !== undefined) this.#calls.leave(this.#key, this.#live);
  }

  get #whose() {
    const { endUserId, requestKey } = this.#request;
    return { endUserId, requestKey, instanceId: this.#deps.instanceId };
  }
}

/** The agent acts on it by the tool's `onUnknown`: the model is told, or people are asked. */
export function outcomeUnknown({ maxOutputBytes }: CodeTool) {
  const text = "The outcome of this call is not known; it may or may not have taken effect.";
  return { outcome: "unknown", result: failedResult(text, maxOutputBytes), durationMs: 0 } as const;
}

function reused(): never {
  throw requestKeyReused();
}

/** The same for arguments that mean the same, however they are written. */
function digestOf({ tool, sessionId, argumentsJson }: ToolCallRequest): Buffer {
  const args = JSON.stringify(sorted(JSON.parse(argumentsJson.trim() === "" ? "{}" : argumentsJson)));
  return createHash("sha256")
    .update(JSON.stringify([tool, sessionId, args]))
    .digest();
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  // A list keeps a field named __proto__, and stands in an object so that it is no array of the arguments.
  return { fields: entries.map(([name, item]) => [name, sorted(item)]) };
}
