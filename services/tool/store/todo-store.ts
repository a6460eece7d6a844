import type { Database, Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";

export interface Todo {
  /** Number in the list. */
  readonly id: number;
  readonly text: string;
  readonly done: boolean;
}

/** One session's to-do list inside a transaction. */
export interface TodoList {
  /** All entries by number. */
  all(): Promise<Todo[]>;
  add(text: string): Promise<Todo>;
  complete(id: number): Promise<void>;
  remove(id: number): Promise<void>;
  /** Removes all; returns how many there were. */
  clear(): Promise<number>;
}

export interface TodoChange {
  readonly call: Call;
  readonly sessionId: string;
  /** A repeated change with the same key is not made again, and answers what the first one answered. */
  readonly requestKey: string;
  /** What is asked for, so that a key is not used for something else. */
  readonly asked: string;
}

/** To-do lists, one per session. */
export class TodoStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async read(call: Call, sessionId: string, signal: AbortSignal): Promise<Todo[]> {
    const options = { readOnly: true, signal, deadline: call.deadline };
    return this.#database.tenant(call.principal.tenantId, (tx) => listOf(tx, sessionId).all(), options);
  }

  /** Runs `fn` on the list, one change of a session after another. What `fn` returns must be JSON. */
  async change<T>(change: TodoChange, fn: (list: TodoList) => Promise<T>, signal: AbortSignal): Promise<T> {
    const { call, sessionId, requestKey, asked } = change;
    const request = Buffer.from(JSON.stringify([sessionId, asked]));
    const { response } = await this.#database.tenant(
      call.principal.tenantId,
      (tx) =>
        idempotent(tx, { schema: "tool", call, method: "tool:todo", requestId: requestKey, request }, async () => {
          await tx.lockKey("todo", call.principal.tenantId, sessionId);
          return Buffer.from(JSON.stringify(await fn(listOf(tx, sessionId))));
        }),
      { signal, deadline: call.deadline },
    );
    return JSON.parse(Buffer.from(response).toString()) as T;
  }
}

/** A list of the current tenant; the condition stands beside row-level security, not in its place. */
const OWN = "tenant_id = agentmesh.current_tenant() AND session_id = $1";

function listOf(tx: Tx, sessionId: string): TodoList {
  return {
    all: () =>
      tx.query<Todo>(`SELECT item_id AS id, text, done FROM tool.session_todos WHERE ${OWN} ORDER BY item_id`, [
        sessionId,
      ]),
    async add(text) {
      const [added] = await tx.query<Todo>(
        `INSERT INTO tool.session_todos (tenant_id, session_id, item_id, text)
         SELECT agentmesh.current_tenant(), $1, coalesce(max(item_id), 0) + 1, $2
         FROM tool.session_todos WHERE ${OWN}
         RETURNING item_id AS id, text, done`,
        [sessionId, text],
      );
      return added as Todo;
    },
    async complete(id) {
      await tx.execute(
        `UPDATE tool.session_todos SET done = true, completed_at = clock_timestamp()
         WHERE ${OWN} AND item_id = $2 AND NOT done`,
        [sessionId, id],
      );
    },
    async remove(id) {
      await tx.execute(`DELETE FROM tool.session_todos WHERE ${OWN} AND item_id = $2`, [sessionId, id]);
    },
    clear: () => tx.execute(`DELETE FROM tool.session_todos WHERE ${OWN}`, [sessionId]),
  };
}
