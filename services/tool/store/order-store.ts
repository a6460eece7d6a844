import { newId } from "#platform/id.ts";
import type { ToolContext } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { storable } from "./storable.ts";

/** Whose it is, and the key of the call that makes it. */
export type Owner = Pick<ToolContext, "call" | "endUserId" | "sessionId" | "requestKey">;

export interface OrderItem {
  readonly productId: string;
  readonly quantity: number;
  /** Of one piece, in hundredths. */
  readonly priceMinor: number;
}

export interface Order {
  readonly orderId: string;
  readonly items: readonly OrderItem[];
  readonly totalMinor: number;
  readonly createdAt: Date;
}

/** Orders of the demo shop. */
export class OrderStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Pieces of these products that the tenant ordered in the last 24 hours. */
  async sold(
    { call }: Owner,
    productIds: readonly string[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, number>> {
    const options = { readOnly: true, signal, deadline: call.deadline };
    return this.#database.tenant(call.principal.tenantId, (tx) => sold(tx, productIds), options);
  }

  /**
   * Places an order, one of a tenant after another; `check` sees what was sold before it and may throw. A repeated call
   * gets the order that the first one placed; one with the same key and other items is a ToolError.
   */
  async create(
    owner: Owner,
    items: readonly OrderItem[],
    check: (sold: ReadonlyMap<string, number>) => void,
    signal: AbortSignal,
  ): Promise<Order> {
    const { call, requestKey } = owner;
    const options = { signal, deadline: call.deadline };
    return this.#database.tenant(
      call.principal.tenantId,
      async (tx) => {
        await tx.lockKey("demo orders", call.principal.tenantId);
        const earlier = await read(tx, owner, "request_key", requestKey);
        if (earlier !== undefined) return sameOrder(earlier, items);
        const productIds = items.map(({ productId }) => productId);
        check(await sold(tx, productIds));
        const orderId = newId("ord");
        const totalMinor = items.reduce((sum, { quantity, priceMinor }) => sum + quantity * priceMinor, 0);
        const [placed] = await tx.query<{ created_at: Date }>(
          `INSERT INTO tool.demo_orders (tenant_id, order_id, end_user_id, session_id, request_key, total_minor)
           VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5) RETURNING created_at`,
          [orderId, ...[owner.endUserId, owner.sessionId, requestKey].map(storable), totalMinor],
        );
        await tx.execute(
          `INSERT INTO tool.demo_order_items (tenant_id, order_id, product_id, quantity, price_minor)
           SELECT agentmesh.current_tenant(), $1, item.* FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS item`,
          [orderId, productIds, items.map(({ quantity }) => quantity), items.map(({ priceMinor }) => priceMinor)],
        );
        return { orderId, items, totalMinor, createdAt: placed?.created_at as Date };
      },
      options,
    );
  }

  /** An order of this user's own. */
  async find(owner: Owner, orderId: string, signal: AbortSignal): Promise<Order | undefined> {
    const options = { readOnly: true, signal, deadline: owner.call.deadline };
    return this.#database.tenant(owner.call.principal.tenantId, (tx) => read(tx, owner, "order_id", orderId), options);
  }
}

async function sold(tx: Tx, productIds: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const rows = await tx.query<{ product_id: string; pieces: number }>(
    `SELECT product_id, sum(quantity)::integer AS pieces FROM tool.demo_order_items
     WHERE tenant_id = agentmesh.current_tenant() AND product_id = ANY ($1)
       AND created_at > clock_timestamp() - interval '24 hours'
     GROUP BY product_id`,
    [productIds],
  );
  return new Map(rows.map(({ product_id, pieces }) => [product_id, pieces]));
}

async function read(tx: Tx, owner: Owner, by: "order_id" | "request_key", value: string): Promise<Order | undefined> {
  const rows = await tx.query<{
    order_id: string;
    total_minor: string;
    created_at: Date;
    product_id: string;
    quantity: number;
    price_minor: string;
  }>(
    `SELECT o.order_id, o.total_minor::text, o.created_at, i.product_id, i.quantity, i.price_minor::text
     FROM tool.demo_orders o JOIN tool.demo_order_items i USING (tenant_id, order_id)
     WHERE o.tenant_id = agentmesh.current_tenant() AND o.end_user_id = $1 AND o.${by} = $2
     ORDER BY i.product_id`,
    [storable(owner.endUserId), storable(value)],
  );
  const [first] = rows;
  if (first === undefined) return undefined;
  const items = rows.map(({ product_id, quantity, price_minor }) => {
    return { productId: product_id, quantity, priceMinor: Number(price_minor) };
  });
  return { orderId: first.order_id, items, totalMinor: Number(first.total_minor), createdAt: first.created_at };
}

function sameOrder(earlier: Order, items: readonly OrderItem[]): Order {
  const pieces = (of: readonly OrderItem[]) =>
    of
      .map(({ productId, quantity }) => `${productId} ${quantity}`)
      .sort()
      .join();
  if (pieces(earlier.items) === pieces(items)) return earlier;
  throw new ToolError("This call has placed another order before. Call again to place a new one.");
}
