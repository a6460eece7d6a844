import type { AuthEvents } from "../events.ts";
import type { KeyUse } from "../store/credential-store.ts";

const MINUTE_MS = 60_000;
/** Uses of one statement. */
const BATCH = 1_000;
/** Keys whose use is remembered until it is written; more are not remembered, for `last_use_time` is a courtesy. */
const MAX_PENDING = 100_000;

/** Collects when keys were used and writes it apart from the calls that used them. */
export class UseLog {
  readonly #writeBatch: (uses: readonly KeyUse[]) => Promise<void>;
  readonly #events: AuthEvents;
  #pending = new Map<string, KeyUse>();
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  /** @param writeBatch writes up to a thousand uses of different keys */
  constructor(writeBatch: (uses: readonly KeyUse[]) => Promise<void>, events: AuthEvents) {
    this.#writeBatch = writeBatch;
    this.#events = events;
  }

  record({ tenantId, keyId }: { tenantId: string; keyId: string }, now = Date.now()): void {
    if (this.#pending.size >= MAX_PENDING && !this.#pending.has(keyId)) return;
    this.#pending.set(keyId, { tenantId, keyId, at: new Date(Math.floor(now / MINUTE_MS) * MINUTE_MS) });
  }

  start(everyMs: number): void {
    this.#timer = setInterval(() => void this.flush(), everyMs);
    this.#timer.unref();
  }

  /** Writes what was collected; what cannot be written waits for the next time. Never rejects. */
  flush(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  async #write(): Promise<void> {
    const uses = [...this.#pending.values()];
    this.#pending = new Map();
    for (let at = 0; at < uses.length; at += BATCH) {
      try {
        await this.#writeBatch(uses.slice(at, at + BATCH));
      } catch (error) {
        for (const use of uses.slice(at)) {
          if (!this.#pending.has(use.keyId)) this.#pending.set(use.keyId, use);
        }
        this.#events.useNotWritten(error, uses.length - at);
        return;
      }
    }
  }
}
