import type { Writable } from "node:stream";
import type { PoolClient } from "pg";
import { dependencyDown } from "#platform/rpc/errors.ts";
import { breaksConnection, databaseError } from "./errors.ts";
import type { StatementNames } from "./statement-names.ts";

/** An open transaction. It is valid until the function that received it has returned. Statements run one after another. */
export interface Tx {
  /**
   * Runs one statement and returns its rows. Values go into `params` ($1, $2, …), never into the text: the text is the
   * key under which the server keeps the prepared statement. Types: value-types.ts; errors: errors.ts. After an error
   * the transaction can only be left (or {@link Tx.savepoint} be used around the statement).
   */
  query<R = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<R[]>;
  /** Like query, for at most one row; throws when there are more. */
  one<R = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<R | undefined>;
  /** Runs one statement and returns how many rows it changed. */
  execute(sql: string, params?: readonly unknown[]): Promise<number>;
  /**
   * Like query, for the transaction's last statement: its commit goes along in the same round trip. What is thrown after
   * it undoes nothing any more, so a statement whose rows can refuse the change must itself have changed nothing then. Once
   * it is sent the caller's signal does not interrupt it. The commit itself may fail still: that is thrown by Database.tenant.
   */
  finish<R = Record<string, unknown>>(sql: string, params?: readonly unknown[]): Promise<R[]>;
  /** Waits for an exclusive lock of this name, held until the transaction ends (an advisory lock of this database). */
  lockKey(...name: readonly string[]): Promise<void>;
  /** Like lockKey, but returns false at once when somebody else holds it. */
  tryLockKey(...name: readonly string[]): Promise<boolean>;
  /** Runs `fn`; when it throws, only what it did is undone, and the error goes on. Not to be run beside other statements. */
  savepoint<T>(fn: () => Promise<T>): Promise<T>;
  /** Tells the listeners of `topic` in this process (Database.onCommitted) once the transaction has been committed. */
  announce(topic: string): void;
}

export interface RunLimits {
  signal: AbortSignal | undefined;
  /** How long the client waits for an answer to one statement, longer than the server's own limit. Then the server or the way to it is broken. */
  answerTimeoutMs: number;
  /** The same for the transaction's start, which the server does at once. */
  beginTimeoutMs: number;
  readOnly?: boolean | undefined;
}

/** A connection with a transaction on it, driven by {@link Database}. */
export class Transaction {
  readonly tx: Tx;
  readonly topics = new Set<string>();
  /** True when the connection must not be used again. */
  broken = false;
  readonly #client: PoolClient;
  readonly #names: StatementNames | undefined;
  readonly #limits: RunLimits;
  #begun: Promise<unknown> = Promise.resolve();
  #tail: Promise<unknown> = Promise.resolve();
  #committing: Promise<Answer> | undefined;
  #over = false;
  #depth = 0;

  constructor(client: PoolClient, names: StatementNames | undefined, limits: RunLimits) {
    this.#client = client;
    this.#names = names;
    this.#limits = limits;
    this.tx = {
      query: async <R>(sql: string, params?: readonly unknown[]) => (await this.#run(sql, params)).rows as R[],
      one: async <R>(sql: string, params?: readonly unknown[]) => atMostOne((await this.#run(sql, params)).rows as R[]),
      execute: async (sql, params) => (await this.#run(sql, params)).rowCount,
      finish: async <R>(sql: string, params?: readonly unknown[]) => (await this.#finish(sql, params)).rows as R[],
      lockKey: async (...name) => {
        await this.#run("select pg_advisory_xact_lock(hashtextextended($1, 0))", [JSON.stringify(name)]);
      },
      tryLockKey: async (...name) => {
        const sql = "select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as locked";
        return (await this.#run(sql, [JSON.stringify(name)])).rows[0]?.["locked"] === true;
      },
      savepoint: (fn) => this.#savepoint(fn),
      announce: (topic) => void this.topics.add(topic),
    };
  }

  /**
   * Starts the transaction; `sql` is a batch of statements. Need not be waited for: the first statement goes along in the
   * same round trip. BEGIN is the batch's first statement, so that one whose rest failed leaves a transaction in which
   * nothing runs.
   */
  begin(sql: string): Promise<void> {
    this.#limits.signal?.throwIfAborted();
    this.#cork();
    const begun = this.#send(sql, undefined, this.#limits.signal, this.#limits.beginTimeoutMs).then(ignore);
    this.#begun = begun;
    // It is thrown where it is waited for: by a statement, or by the end.
    begun.catch(() => (this.broken = true));
    return begun;
  }

  /** Not to be interrupted by the caller's signal: its outcome would be unknown. */
  async commit(): Promise<void> {
    this.#over = true;
    await this.#tail;
    await this.#begun;
    const { command } = await (this.#committing ?? this.#send("COMMIT", undefined, undefined));
    if (command === "ROLLBACK") {
      throw new Error("the transaction was rolled back: a statement in it had failed, and its error was not passed on");
    }
  }

  async rollback(): Promise<void> {
    this.#over = true;
    await this.#tail;
    await this.#begun.catch(ignore);
    if (this.broken) return;
    // Behind a statement that failed the commit that went along has rolled back.
    const ending = this.#committing ?? this.#send("ROLLBACK", undefined, undefined);
    await ending.catch(() => (this.broken = true));
  }

  /** True when the commit went along with the last statement. */
  get committing(): boolean {
    return this.#committing !== undefined;
  }

  #run(sql: string, params: readonly unknown[] = []): Promise<Answer> {
    return this.#queue(() => this.#send(sql, params, this.#limits.signal));
  }

  #finish(sql: string, params: readonly unknown[] = []): Promise<Answer> {
    const answer = this.#queue(() => {
      this.#cork();
      // Cut off in the middle its outcome would be unknown.
      const last = this.#send(sql, params, undefined);
      this.#committing = this.#send("COMMIT", undefined, undefined);
      this.#committing.catch(ignore);
      return last;
    });
    this.#over = true;
    return answer;
  }

  #queue(send: () => Promise<Answer>): Promise<Answer> {
    if (this.#over) return Promise.reject(new Error("the transaction is over: a statement was not awaited"));
    const answer = this.#tail.then(() => {
      this.#limits.signal?.throwIfAborted();
      return send().catch(async (error: unknown) => {
        // What failed first says why.
        await this.#begun;
        throw error;
      });
    });
    this.#tail = answer.catch(ignore);
    return answer;
  }

  /** What is sent until the end of this tick goes out in one write. */
  #cork(): void {
    const { stream } = wire(this.#client);
    stream.cork();
    process.nextTick(() => stream.uncork());
  }

  async #send(
    sql: string,
    params: readonly unknown[] | undefined,
    signal: AbortSignal | undefined,
    timeoutMs = this.#limits.answerTimeoutMs,
  ): Promise<Answer> {
    if (this.broken) throw databaseError(new Error("Connection terminated"));
    let late = false;
    let left = false;
    const cut = () => {
      this.broken = true;
      // The connection is given up with the statement; the server notices by client_connection_check_interval.
      destroy(this.#client);
    };
    const timer = setTimeout(() => {
      late = true;
      cut();
    }, timeoutMs);
    const leave = () => {
      // Once the commit is on its way nobody who leaves may cut it off, also not from the start that it went along with.
      if (this.#committing !== undefined) return;
      left = true;
      cut();
    };
    signal?.addEventListener("abort", leave, { once: true });
    try {
      return (await this.#client.query(this.#statement(sql, params))) as unknown as Answer;
    } catch (error) {
      this.broken ||= breaksConnection(error);
      if (left) throw signal?.reason;
      if (late) throw dependencyDown("postgres", error);
      throw databaseError(error, { readOnly: this.#limits.readOnly === true });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
    }
  }

  #statement(text: string, params: readonly unknown[] | undefined) {
    if (params === undefined) return { text };
    const name = this.#names?.of(text);
    // The extended protocol takes one statement only, so that a text never holds a second one.
    return { text, values: [...params], queryMode: "extended", ...(name === undefined ? {} : { name }) };
  }

  async #savepoint<T>(fn: () => Promise<T>): Promise<T> {
    const name = `s${++this.#depth}`;
    try {
      await this.#run(`savepoint ${name}`);
      try {
        const result = await fn();
        await this.#run(`release savepoint ${name}`);
        return result;
      } catch (error) {
        if (!this.broken) await this.#run(`rollback to savepoint ${name}`);
        throw error;
      }
    } finally {
      this.#depth--;
    }
  }
}

interface Answer {
  rows: Record<string, unknown>[];
  rowCount: number;
  command: string;
}

function atMostOne<R>(rows: R[]): R | undefined {
  if (rows.length > 1) throw new Error(`a statement for at most one row returned ${rows.length}`);
  return rows[0];
}

function destroy(client: PoolClient): void {
  wire(client).stream.destroy();
}

/** The connection below a client, which pg does not type. */
function wire(client: PoolClient) {
  return (client as unknown as { connection: { stream: Writable } }).connection;
}

function ignore(): void {}
