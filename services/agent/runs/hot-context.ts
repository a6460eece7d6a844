import { within } from "#platform/abortable.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { cacheKey } from "#platform/redis/cache-key.ts";
import { type ContextMessage, extended, type SessionContext } from "../store/session-context.ts";
import type { SessionRow } from "../store/session-store.ts";

/** Sessions with fewer messages are read from Postgres as fast (ADR 0021). */
export const HOT_FROM_MESSAGES = 40;
/** How long a transaction waits for the cache at most; then it reads from Postgres. */
const WAIT_MS = 50;

/** What a session's row says of exactly what is stored of it: every turn raises the version as it begins and as it ends. */
export type ContextState = Pick<SessionRow, "version" | "message_count" | "compaction_id">;

/** A context that was looked up, to be held against the session's row. */
export interface WarmContext {
  sessionId: string;
  state: ContextState;
  context: SessionContext;
}

/** The context that a run has begun with, to be kept with what it adds. */
export interface BegunContext {
  /** Of the session's row when the run had begun. */
  state: ContextState;
  context: SessionContext;
}

export interface HotContextOptions {
  cache: Cache;
  /** 0: nothing is kept. */
  ttlMs: number;
  /** Default {@link HOT_FROM_MESSAGES}. */
  fromMessages?: number | undefined;
}

/**
 * The contexts of sessions that are in use, in the cache, so that a turn need not read them from Postgres. One is written at
 * the end of a run and used only when it is what the locked row of its session says; anything else costs a read.
 */
export class HotContext {
  readonly #cache: Cache;
  readonly #ttlMs: number;
  readonly #fromMessages: number;

  constructor({ cache, ttlMs, fromMessages = HOT_FROM_MESSAGES }: HotContextOptions) {
    this.#cache = cache;
    this.#ttlMs = ttlMs;
    this.#fromMessages = fromMessages;
  }

  /** What is kept of a session; undefined when that is nothing, not readable, or not there in time. Never rejects. */
  async lookUp(tenantId: string, sessionId: string): Promise<WarmContext | undefined> {
    if (this.#ttlMs === 0) return undefined;
    const found = this.#cache.get(keyOf(tenantId, sessionId));
    try {
      const text = await within(found, WAIT_MS, () => new Error("late"));
      return text === undefined ? undefined : decoded(text, sessionId);
    } catch {
      return undefined;
    }
  }

  /** Keeps the context of a session whose run has ended, with what the run has added to it. Never rejects. */
  async keep(
    tenantId: string,
    sessionId: string,
    begun: BegunContext,
    added: readonly ContextMessage[],
  ): Promise<void> {
    const { state } = begun;
    const count = state.message_count + added.length;
    if (this.#ttlMs === 0 || count < this.#fromMessages) return;
    const context = extended(begun.context, added);
    // The end frees the session, which raises its version once more.
    const ended = { version: state.version + 1, message_count: count, compaction_id: state.compaction_id };
    await this.#cache.set(
      keyOf(tenantId, sessionId),
      JSON.stringify({ sessionId, state: ended, context }),
      this.#ttlMs,
    );
  }

  async forget(tenantId: string, sessionId: string): Promise<void> {
    await this.#cache.delete(keyOf(tenantId, sessionId));
  }
}

/** Whether a context is that of a session as its locked row is. */
export function isCurrent(warm: WarmContext, session: ContextState & { session_id: string }): boolean {
  const { state } = warm;
  return (
    warm.sessionId === session.session_id &&
    state.version === session.version &&
    state.message_count === session.message_count &&
    state.compaction_id === session.compaction_id
  );
}

function keyOf(tenantId: string, sessionId: string) {
  return cacheKey({ tenantId, namespace: "agent.context", parts: [sessionId] });
}

/** Undefined for what no release writes in this form. */
function decoded(text: string, sessionId: string): WarmContext | undefined {
  const warm = JSON.parse(text) as Partial<WarmContext> | null;
  const { state, context } = warm ?? {};
  if (warm?.sessionId !== sessionId || state === undefined || context === undefined) return undefined;
  const { front, rest, first } = context;
  if (!isMessages(front) || !isMessages(rest) || !Number.isInteger(first)) return undefined;
  // As many as the session has, or as the limits let through.
  return rest.length <= state.message_count - first + 1 ? { sessionId, state, context } : undefined;
}

function isMessages(value: unknown): value is ContextMessage[] {
  return (
    Array.isArray(value) &&
    value.every(
      (one) => typeof one?.id === "string" && Number.isInteger(one.size) && typeof one.message?.role === "string",
    )
  );
}
