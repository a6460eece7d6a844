import type { Bus, BusMessage, Subscription } from "#platform/bus/bus.ts";
import { isId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { outboxTopic } from "#platform/postgres/outbox.ts";
import type { Principal } from "#platform/rpc/principal.ts";

/** Most tenants, and most answers of one tenant, that are kept. */
const MAX_TENANTS = 1_000;
const MAX_ANSWERS = 1_000;
/** How long after a change nothing is kept: until then what was asked may have been answered from a cache behind it. */
const SETTLING_MS = 1_000;

export interface NeighbourAnswersOptions {
  /** How long an answer is kept at most: the bound for a change that this process never hears of. 0: not at all. */
  ttlMs: number;
}

interface Tenant {
  readonly answers: Map<string, { answer: unknown; until: number }>;
  /** `performance.now()` from which on answers are kept. */
  readonly keepFrom: number;
}

/**
 * What config and tool have answered this process, so that a turn need not ask again. An answer is served to the same
 * tenant, the same end user and exactly the same scopes only: whoever may less, or more, asks for himself. Refusals and
 * failures are not kept.
 */
export class NeighbourAnswers {
  readonly #ttlMs: number;
  readonly #tenants = new Map<string, Tenant>();
  #keepFrom = Number.POSITIVE_INFINITY;

  constructor({ ttlMs }: NeighbourAnswersOptions) {
    this.#ttlMs = ttlMs;
  }

  /** The answer to `question` that is kept for this principal, or what `ask` brings. Not to be changed by the caller. */
  async get<T>(principal: Principal, question: readonly string[], ask: () => Promise<T>): Promise<T> {
    if (this.#ttlMs <= 0) return ask();
    const { tenantId, userId = "", scopes } = principal;
    const tenant = this.#tenants.get(tenantId) ?? this.#renew(tenantId, 0);
    const key = JSON.stringify([userId, scopes, question]);
    const known = tenant.answers.get(key);
    if (known !== undefined && performance.now() < known.until) return known.answer as T;
    const answer = await ask();
    const now = performance.now();
    // After a change meanwhile the tenant has another place.
    const settled = now >= this.#keepFrom && now >= tenant.keepFrom && this.#tenants.get(tenantId) === tenant;
    if (!settled) return answer;
    if (tenant.answers.size >= MAX_ANSWERS) tenant.answers.clear();
    tenant.answers.set(key, { answer, until: now + this.#ttlMs });
    return answer;
  }

  /** Drops what is known of a tenant, or of all of them. */
  forget(tenantId?: string): void {
    const keepFrom = performance.now() + SETTLING_MS;
    if (tenantId !== undefined) {
      this.#renew(tenantId, keepFrom);
    } else {
      this.#tenants.clear();
      this.#keepFrom = Math.max(this.#keepFrom, keepFrom);
    }
  }

  /**
   * Begins to keep answers: as long as it hears of changes, those of this process at its commits and those of others by
   * the bus.
   */
  async follow(database: Pick<Database, "onCommitted">, bus: Bus): Promise<Subscription> {
    const heard = ({ subject }: BusMessage) => {
      const tenantId = subject.split(".")[3];
      if (isId("ten", tenantId)) this.forget(tenantId);
    };
    const subscriptions = await Promise.all([
      bus.listen("agentmesh.config.v1.*.agent_changed", heard),
      bus.listen("agentmesh.config.v1.*.credential_changed", heard),
      bus.listen("agentmesh.config.v1.*.profile_changed", heard),
      bus.listen("agentmesh.tenant.v1.*.changed", heard),
    ]);
    // Config writes an event with every change; which tenant's it is, the transaction does not say.
    const stop = database.onCommitted(outboxTopic("config"), () => this.forget());
    this.#keepFrom = performance.now();
    const unsubscribe = async () => {
      this.#keepFrom = Number.POSITIVE_INFINITY;
      this.forget();
      stop();
      await Promise.all(subscriptions.map((one) => one.unsubscribe()));
    };
    return { unsubscribe, [Symbol.asyncDispose]: unsubscribe };
  }

  #renew(tenantId: string, keepFrom: number): Tenant {
    const [oldest] = this.#tenants.keys();
    if (oldest !== undefined && this.#tenants.size >= MAX_TENANTS) this.#tenants.delete(oldest);
    const tenant: Tenant = { answers: new Map(), keepFrom };
    this.#tenants.set(tenantId, tenant);
    return tenant;
  }
}
