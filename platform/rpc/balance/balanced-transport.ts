import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Idempotency } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { dependencyDown, reasonOf } from "../errors.ts";
import { Breaker, type BreakerOptions, type Permit, SPENT } from "./breaker.ts";
import { neverSent } from "./carrier.ts";
import type { Endpoint } from "./endpoint.ts";
import { Replicas, type ReplicasOptions } from "./replicas.ts";
import { RETRY_BUDGET, RetryBudget, type RetryBudgetOptions } from "./retry-budget.ts";
import { inFlight } from "./stream-in-flight.ts";
import type { Target } from "./targets.ts";
import { type Verdict, verdictOf } from "./verdict.ts";

const MAX_RETRIES = 2;
/** Deadlines below this are the caller's impatience and no evidence against the callee. */
const PATIENCE_MS = 1_000;

export interface BalanceOptions extends ReplicasOptions {
  readonly breaker?: Partial<BreakerOptions>;
  readonly budget?: RetryBudgetOptions;
}

/** What the balancer knows of a call. */
interface Facts {
  readonly method: DescMethod;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number | undefined;
  /** By performance.now(). */
  readonly startedAt: number;
  readonly tried: Endpoint[];
}

type Attempt<R> = (transport: Transport, leftMs: number | undefined) => Promise<R>;

export interface BalancedTransport {
  readonly transport: Transport;
  readonly replicas: Replicas;
  readonly breaker: Breaker;
  close(): void;
}

/**
 * A carrier to a module with any number of replicas: power of two choices, ejection of broken replicas, retries at
 * another replica within a budget, and a breaker over all. Its errors are those of the carriers, besides UNAVAILABLE
 * DEPENDENCY_DOWN with RetryInfo when the breaker is open.
 */
export function balance(module: string, targets: readonly Target[], options: BalanceOptions = {}): BalancedTransport {
  const replicas = new Replicas(targets, options);
  const breaker = new Breaker(options.breaker);
  const budget = new RetryBudget(options.budget ?? RETRY_BUDGET);
  let answeredAt = Number.NEGATIVE_INFINITY;

  const answered = (endpoint: Endpoint, askedAt: number) => {
    answeredAt = performance.now();
    endpoint.answered(answeredAt - askedAt, answeredAt);
  };
  const note = (endpoint: Endpoint, verdict: Verdict, askedAt: number) => {
    const now = performance.now();
    if (verdict === "answered") answered(endpoint, askedAt);
    else if (verdict === "broken") replicas.broke(endpoint, now);
    else if (verdict === "late") endpoint.slow(now - askedAt, now);
  };
  const settle = (permit: Permit, verdict: Verdict, { timeoutMs = 0, startedAt }: Facts) => {
    // A deadline counts only while the callee answers nobody: else callers with short ones would shut out the others.
    const hung = verdict === "late" && timeoutMs >= PATIENCE_MS && answeredAt < startedAt;
    if (verdict === "broken" || hung) permit.failed();
    else if (verdict === "answered") permit.succeeded();
    else permit.unknown();
  };

  /** The replica for one more attempt, if one is allowed. */
  const another = (facts: Facts, error: unknown, verdict: Verdict): Endpoint | undefined => {
    if (facts.tried.length > MAX_RETRIES || !mayRepeat(facts, error, verdict) || (left(facts) ?? 1) <= 0)
      return undefined;
    const next = replicas.pick(facts.tried, performance.now());
    return next !== undefined && budget.take() ? next : undefined;
  };

  /** Asks one replica after another until one answers. The endpoint of the answer has the call in flight. */
  const attempts = async <R>(facts: Facts, permit: Permit, first: Endpoint, attempt: Attempt<R>) => {
    for (let endpoint = first; ; ) {
      const askedAt = performance.now();
      endpoint.begin();
      facts.tried.push(endpoint);
      try {
        const response = await attempt(endpoint.carrier.transport, left(facts));
        answered(endpoint, askedAt);
        permit.succeeded();
        return { response, endpoint };
      } catch (error) {
        endpoint.end();
        const verdict = verdictOf(error, facts.signal);
        note(endpoint, verdict, askedAt);
        const next = another(facts, error, verdict);
        if (next === undefined) {
          settle(permit, verdict, facts);
          throw error;
        }
        endpoint = next;
      }
    }
  };

  const send = async <R>(facts: Facts, attempt: Attempt<R>) => {
    const wait = replicas.fresh(facts.startedAt);
    if (wait !== undefined) await bounded(wait, facts);
    const first = replicas.pick([], performance.now());
    if (first === undefined) throw new ConnectError("the link is closed", Code.Unavailable);
    const permit = breaker.enter();
    if (typeof permit === "number") throw dependencyDown(module, new Error("the breaker is open"), permit);
    budget.called();
    return attempts(facts, permit, first, attempt);
  };

  const transport: Transport = {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const { response, endpoint } = await send(factsOf(method, signal, timeoutMs), (to, leftMs) =>
        to.unary(method, signal, leftMs, header, input, contextValues),
      );
      endpoint.end();
      return response;
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const facts = factsOf(method, signal, timeoutMs);
      // The one message of a server stream is kept for a retry; other streams are not repeated.
      const request = method.methodKind === "server_streaming" ? repeatable(await collected(input)) : input;
      const attempt = (to: Transport, leftMs: number | undefined) =>
        to.stream(method, signal, leftMs, header, request, contextValues);
      const { response, endpoint } = await send(facts, attempt);
      const failed = (error: unknown, from: Endpoint) => {
        const verdict = verdictOf(error, signal);
        if (verdict === "broken") replicas.broke(from, performance.now());
        return verdict;
      };
      const reopen = async (error: unknown, from: Endpoint) => {
        const next = another(facts, error, failed(error, from));
        if (next === undefined) return undefined;
        const again = await attempts(facts, SPENT, next, attempt);
        return { messages: again.response.message, endpoint: again.endpoint };
      };
      return { ...response, message: inFlight({ messages: response.message, endpoint }, signal, reopen, failed) };
    },
  };
  return { transport, replicas, breaker, close: () => replicas.close() };
}

function factsOf(method: DescMethod, signal: AbortSignal | undefined, timeoutMs: number | undefined): Facts {
  return { method, signal, timeoutMs, startedAt: performance.now(), tried: [] };
}

/** Whether a failed call may be made again elsewhere: nothing was sent, or nothing can have happened. */
function mayRepeat({ method, signal }: Facts, error: unknown, verdict: Verdict): boolean {
  if (signal?.aborted || (method.methodKind !== "unary" && method.methodKind !== "server_streaming")) return false;
  if (neverSent(error)) return true;
  // A callee that says UNAVAILABLE of something behind it has tried that already; one that is leaving has peers.
  const elsewhere = verdict === "broken" || reasonOf(error) === "STREAM_DRAINING";
  return elsewhere && method.idempotency === Idempotency.NO_SIDE_EFFECTS;
}

/** What is left of the call's time. */
function left({ timeoutMs, startedAt }: Facts): number | undefined {
  // For a transport 0 is "no deadline".
  if (timeoutMs === undefined || timeoutMs <= 0) return undefined;
  const rest = timeoutMs - (performance.now() - startedAt);
  return rest > 0 ? Math.max(1, Math.floor(rest)) : -1;
}

/** Waits at most as long as the call may. */
async function bounded(wait: Promise<void>, { signal, timeoutMs }: Facts): Promise<void> {
  const late = Promise.withResolvers<never>();
  const leave = () => late.reject(ConnectError.from(signal?.reason, Code.Canceled));
  const expire = () => late.reject(new ConnectError("the deadline passed", Code.DeadlineExceeded));
  const timer = timeoutMs === undefined || timeoutMs <= 0 ? undefined : setTimeout(expire, timeoutMs);
  if (signal?.aborted) leave();
  signal?.addEventListener("abort", leave, { once: true });
  try {
    await Promise.race([wait, late.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", leave);
  }
}

async function collected<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}

function repeatable<T>(messages: readonly T[]): AsyncIterable<T> {
  return {
    async *[Symbol.asyncIterator]() {
      yield* messages;
    },
  };
}
