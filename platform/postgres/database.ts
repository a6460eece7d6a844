import pg from "pg";
import { isId } from "#platform/id.ts";
import { type Connection, clientConfig } from "./connection.ts";
import { databaseError, deadlineExceeded } from "./errors.ts";
import { StatementNames } from "./statement-names.ts";
import { Transaction, type Tx } from "./transaction.ts";

export type { Tx } from "./transaction.ts";

export interface DatabaseOptions {
  connection: Connection;
  /** Shown in pg_stat_activity. */
  applicationName: string;
  /** Most connections at a time; default 10. */
  max?: number | undefined;
  /** How long a transaction waits for a connection, whether a free or a new one; default 5 000 ms, then UNAVAILABLE. */
  acquireTimeoutMs?: number | undefined;
  /** The server's limit for one statement; default 30 000 ms, then DEADLINE_EXCEEDED. A nearer deadline shortens it. */
  statementTimeoutMs?: number | undefined;
  /** How long a transaction may wait for its own process before the server ends it and frees its locks; default 10 000 ms. */
  idleInTransactionMs?: number | undefined;
  /** Keep statements prepared; default true. Switch off behind a pooler that does not know protocol-level statements. */
  prepare?: boolean | undefined;
}

export interface TxOptions {
  /** Ends the wait for a connection and a running statement; the transaction is rolled back and `signal.reason` thrown. */
  signal?: AbortSignal | undefined;
  /** When the caller stops waiting, milliseconds since the epoch; bounds the wait and every statement. */
  deadline?: number | undefined;
  readOnly?: boolean | undefined;
  /** Default "read committed". */
  isolation?: "read committed" | "repeatable read" | "serializable" | undefined;
  /** In place of the database's own limit. */
  idleInTransactionMs?: number | undefined;
}

/** Connections in use, free, and callers waiting for one. */
export interface PoolUse {
  readonly total: number;
  readonly idle: number;
  readonly waiting: number;
}

/** A pool of connections to one PostgreSQL database whose only way in is a transaction under one of two roles. */
export interface Database extends AsyncDisposable {
  /**
   * Runs `fn` in a transaction as agentmesh_app with `tenantId` as the tenant: row-level security shows and takes that
   * tenant's rows only. Commits when `fn` resolves, rolls back when it throws. Failures are those of errors.ts.
   */
  tenant<T>(tenantId: string, fn: (tx: Tx) => Promise<T>, options?: TxOptions): Promise<T>;
  /** Runs `fn` in a transaction as agentmesh_worker, which sees all tenants' rows in the few tables that let it. */
  worker<T>(fn: (tx: Tx) => Promise<T>, options?: TxOptions): Promise<T>;
  /** Calls `listener` after each transaction of this process that announced `topic` and committed. Returns the way to stop. */
  onCommitted(topic: string, listener: () => void): () => void;
  /** Resolves when the server answers; else UNAVAILABLE. */
  ping(signal?: AbortSignal): Promise<void>;
  use(): PoolUse;
  /** Waits for running transactions, then closes all connections. */
  close(): Promise<void>;
}

/** How much longer the client waits for an answer than the server may take to give one. */
const answerMarginMs = 2_000;

/** Opens the pool; connects on first use. */
export function openDatabase(options: DatabaseOptions): Database {
  const acquireTimeoutMs = options.acquireTimeoutMs ?? 5_000;
  const statementTimeoutMs = options.statementTimeoutMs ?? 30_000;
  const pool = new pg.Pool({
    ...clientConfig(options.connection, options.applicationName, acquireTimeoutMs),
    // Statements that need not wait for each other's answers go out together.
    pipeline: true,
    max: options.max ?? 10,
    idleTimeoutMillis: 60_000,
  });
  // A free connection that breaks leaves the pool by itself; the next transaction opens another one.
  pool.on("error", () => {});
  // A server that ends a connection in the moment when it is ready says so before anyone who asked for it can listen.
  pool.on("connect", (client) => void client.on("error", ignore));
  const names = options.prepare === false ? undefined : new StatementNames();
  const listeners = new Map<string, Set<() => void>>();
  let closing: Promise<void> | undefined;

  async function transact<T>(setUp: string, fn: (tx: Tx) => Promise<T>, o: TxOptions): Promise<T> {
    const client = await acquire(pool, o);
    client.on("error", ignore);
    const limitMs = within(o.deadline, statementTimeoutMs);
    const idleMs = o.idleInTransactionMs ?? options.idleInTransactionMs ?? 10_000;
    const transaction = new Transaction(client, names, {
      signal: o.signal,
      answerTimeoutMs: limitMs + answerMarginMs,
      beginTimeoutMs: within(o.deadline, acquireTimeoutMs),
      readOnly: o.readOnly,
    });
    try {
      void transaction.begin(`${beginSql(o)};${setUp};${limitsSql(limitMs, idleMs)}`);
      const result = await fn(transaction.tx);
      if (!transaction.committing) o.signal?.throwIfAborted();
      await transaction.commit();
      // Later, so that a listener that throws does not make a committed transaction look failed.
      for (const topic of transaction.topics)
        for (const listener of listeners.get(topic) ?? []) queueMicrotask(listener);
      return result;
    } catch (error) {
      await transaction.rollback();
      throw error;
    } finally {
      client.off("error", ignore);
      client.release(transaction.broken);
    }
  }

  const database: Database = {
    tenant: async (tenantId, fn, o = {}) => {
      if (!isId("ten", tenantId)) throw new TypeError("not a tenant id");
      return transact(`SET LOCAL ROLE agentmesh_app;SET LOCAL app.tenant_id='${tenantId}'`, fn, o);
    },
    worker: async (fn, o = {}) => transact("SET LOCAL ROLE agentmesh_worker", fn, o),
    onCommitted(topic, listener) {
      const set = listeners.get(topic) ?? new Set();
      listeners.set(topic, set.add(listener));
      return () => void set.delete(listener);
    },
    async ping(signal) {
      const client = await acquire(pool, { signal });
      client.on("error", ignore);
      const transaction = new Transaction(client, undefined, {
        signal,
        answerTimeoutMs: 0,
        beginTimeoutMs: acquireTimeoutMs,
      });
      try {
        await transaction.begin("SELECT 1");
      } finally {
        client.off("error", ignore);
        client.release(transaction.broken);
      }
    },
    use: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    close: () => (closing ??= pool.end()),
    [Symbol.asyncDispose]: () => database.close(),
  };
  return database;
}

/** A connection, or `signal.reason` at once when the caller leaves; a connection that comes later goes back unused. */
async function acquire(pool: pg.Pool, { signal, deadline }: TxOptions): Promise<pg.PoolClient> {
  signal?.throwIfAborted();
  const connecting = pool.connect();
  const given = Promise.withResolvers<never>();
  const leave = () => given.reject(signal?.reason);
  const timer =
    deadline === undefined ? undefined : setTimeout(() => given.reject(deadlineExceeded()), remaining(deadline));
  signal?.addEventListener("abort", leave, { once: true });
  try {
    return await Promise.race([connecting, given.promise]);
  } catch (error) {
    connecting.then((client) => client.release(), ignore);
    throw signal?.aborted ? signal.reason : databaseError(error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", leave);
  }
}

function beginSql({ isolation, readOnly }: TxOptions): string {
  const level =
    isolation === undefined || isolation === "read committed" ? "" : ` ISOLATION LEVEL ${isolation.toUpperCase()}`;
  return `BEGIN${level}${readOnly ? " READ ONLY" : ""}`;
}

/** The last one makes the server notice within a second that a client has gone in the middle of a statement. */
function limitsSql(statementMs: number, idleMs: number): string {
  return (
    `SET LOCAL statement_timeout=${Math.ceil(statementMs)};` +
    `SET LOCAL idle_in_transaction_session_timeout=${Math.ceil(idleMs)};` +
    "SET LOCAL client_connection_check_interval=1000"
  );
}

function within(deadline: number | undefined, limitMs: number): number {
  return deadline === undefined ? limitMs : Math.min(limitMs, remaining(deadline));
}

function remaining(deadline: number): number {
  return Math.max(1, deadline - Date.now());
}

function ignore(): void {}
