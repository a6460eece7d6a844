import type { Database, Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { storable } from "./storable.ts";

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

/** Whose list: a session has one user. */
export interface TodoOwner {
  readonly sessionId: string;
  /** Empty for a session of no user. */
  readonly endUserId: string;
}

export interface TodoChange extends TodoOwner {
  readonly call: Call;
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

  async read(call: Call, owner: TodoOwner, signal: AbortSignal): Promise<Todo[]> {
    const options = { readOnly: true, signal, deadline: call.deadline };
    return this.#database.tenant(call.principal.tenantId, (tx) => listOf(tx, owner).all(), options);
  }

  /** Texts of the open entries of a session, in order; of a user's own sessions only where the credential is bound to one. */
  async open(call: Call, sessionId: string): Promise<string[]> {
    const { tenantId, userId } = call.principal;
    const options = { readOnly: true, signal: call.signal, deadline: call.deadline };
    const rows = await this.#database.tenant(
      tenantId,
      (tx) =>
        tx.query<{ text: string }>(
          `SELECT text FROM tool.session_todos
           WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND NOT done
             AND ($2::text IS NULL OR end_user_id = $2)
           ORDER BY item_id`,
          [storable(sessionId), userId ?? null],
        ),
      options,
    );
    return rows.map(({ text }) => text);
  }

  /** Runs `fn` on the list, one change of a session after another. What `fn` returns must be JSON. */
  async change<T>(change: TodoChange, fn: (list: TodoList) => Promise<T>, signal: AbortSignal): Promise<T> {
    const { call, sessionId, endUserId, requestKey, asked } = change;
    const request = Buffer.from(JSON.stringify([sessionId, endUserId, asked]));
    const { response } = await this.#database.tenant(
      call.principal.tenantId,
      (tx) =>
        idempotent(tx, { schema: "tool", call, method: "tool:todo", requestId: requestKey, request }, async () => {
          await tx.lockKey("todo", call.principal.tenantId, sessionId);
          return Buffer.from(JSON.stringify(await fn(listOf(tx, change))));
        }),
      { signal, deadline: call.deadline },
    );
    return JSON.parse(Buffer.from(response).toString()) as T;
  }
}

/** A list of the current tenant; the condition stands beside row-level security, not in its place. */
const OWN = "tenant_id = agentmesh.current_tenant() AND session_id = $1 AND end_user_id = $2";

function listOf(tx: Tx, { sessionId, endUserId }: TodoOwner): TodoList {
  const owner = [storable(sessionId), storable(endUserId)];
  return {
    all: () =>
      tx.query<Todo>(`SELECT item_id AS id, text, done FROM tool.session_todos WHERE ${OWN} ORDER BY item_id`, owner),
    async add(text) {
      const [added] = await tx.query<Todo>(
        `INSERT INTO tool.session_todos (tenant_id, session_id, end_user_id, item_id, text)
         SELECT agentmesh.current_tenant(), $1, $2, coalesce(max(item_id), 0) + 1, $3
         FROM tool.session_todos WHERE ${OWN}
         RETURNING item_id AS id, text, done`,
        [...owner, text],
      );
      return added as Todo;
    },
    async complete(id) {
      await tx.execute(
        `UPDATE tool.session_todos SET done = true, completed_at = clock_timestamp()
         WHERE ${OWN} AND item_id = $3 AND NOT done`,
        [...owner, id],
      );
    },
    async remove(id) {
      await tx.execute(`DELETE FROM tool.session_todos WHERE ${OWN} AND item_id = $3`, [...owner, id]);
    },
    clear: () => tx.execute(`DELETE FROM tool.session_todos WHERE ${OWN}`, owner),
  };
}
