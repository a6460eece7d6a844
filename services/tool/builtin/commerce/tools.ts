import { type CodeTool, defineTool, type ToolContext, type ToolDefinition } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Order, OrderItem, OrderStore } from "../../store/order-store.ts";
import { amountText, CURRENCY, minorUnits } from "../money.ts";
import { CATALOGUE, CATEGORIES, findProducts, type Product, productOf } from "./catalogue.ts";

const MAX_ITEMS = 20;
const MAX_QUANTITY = 100;

const reading = {
  risk: "read_only",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 10_000,
  maxOutputBytes: 32_768,
  category: "commerce",
} satisfies Partial<ToolDefinition<never>>;

const productId = { type: "string", description: "Id of the product, as search_products shows it.", maxLength: 64 };

/** The demo shop: a fixed catalogue, and orders per tenant and user. `now` is the clock. */
export function commerceTools(orders: OrderStore, now: () => Date = () => new Date()): CodeTool[] {
  const available = async (product: Product, context: ToolContext, signal: AbortSignal) =>
    left(product, await orders.sold(context, [product.id], signal));

  const searchProducts = defineTool<{
    query: string;
    category?: Product["category"];
    max_price?: number;
    limit: number;
  }>({
    ...reading,
    name: "search_products",
    description: "Finds products of the shop by words, category and price. Answers ids, names and prices.",
    input: {
      type: "object",
      properties: {
        query: { type: "string", description: 'Words such as "wireless headphones"; empty finds all.', maxLength: 200 },
        category: { type: "string", enum: [...CATEGORIES] },
        max_price: { type: "number", description: `Highest price in ${CURRENCY}, such as 99.90.` },
        limit: { type: "integer", minimum: 1, maximum: 20, default: 5 },
      },
      required: ["query"],
      additionalProperties: false,
    },
    run({ query, category, max_price, limit }) {
      const most = max_price === undefined ? Number.POSITIVE_INFINITY : minorUnits("max_price", max_price);
      const found = findProducts(query).filter(
        (product) => product.priceMinor <= most && (category === undefined || product.category === category),
      );
      return { structured: { products: found.slice(0, limit).map(inShort), found: found.length } };
    },
  });

  const getProductDetails = defineTool<{ product_id: string }>({
    ...reading,
    name: "get_product_details",
    description: "Everything that is known of one product: description, features, price.",
    input: {
      type: "object",
      properties: { product_id: productId },
      required: ["product_id"],
      additionalProperties: false,
    },
    run({ product_id }) {
      const product = known(product_id);
      return { structured: { ...inShort(product), description: product.description, features: product.features } };
    },
  });

  const checkInventory = defineTool<{ product_id: string; quantity: number }>({
    ...reading,
    name: "check_inventory",
    description: "Whether so many pieces of a product can be ordered now. Ask before you promise anything.",
    input: {
      type: "object",
      properties: { product_id: productId, quantity: { type: "integer", minimum: 1, maximum: 1_000, default: 1 } },
      required: ["product_id"],
      additionalProperties: false,
    },
    async run({ product_id, quantity }, context, signal) {
      const pieces = await available(known(product_id), context, signal);
      return { structured: { product_id, available: pieces, enough: pieces >= quantity } };
    },
  });

  const createOrder = defineTool<{ items: { product_id: string; quantity: number }[] }>({
    ...reading,
    name: "create_order",
    description: "Places an order for the user. Only after the user has agreed to the products, quantities and total.",
    input: {
      type: "object",
      properties: {
        items: {
          type: "array",
          minItems: 1,
          maxItems: MAX_ITEMS,
          items: {
            type: "object",
            properties: {
              product_id: productId,
              quantity: { type: "integer", minimum: 1, maximum: MAX_QUANTITY, default: 1 },
            },
            required: ["product_id"],
            additionalProperties: false,
          },
        },
      },
      required: ["items"],
      additionalProperties: false,
    },
    risk: "destructive",
    concurrencySafe: false,
    async run({ items: asked }, context, signal) {
      if (context.requestKey === "") throw new ToolError("An order can only be placed within a run.");
      const items = asked.map(({ product_id, quantity }): OrderItem => {
        return { productId: known(product_id).id, quantity, priceMinor: known(product_id).priceMinor };
      });
      const ids = new Set(items.map((item) => item.productId));
      if (ids.size < items.length) throw new ToolError("A product is listed twice. List it once, with its quantity.");
      const check = (sold: ReadonlyMap<string, number>) => items.forEach((item) => void mustHave(item, sold));
      return { structured: shown(await orders.create(context, items, check, signal), now()) };
    },
  });

  const trackOrder = defineTool<{ order_id: string }>({
    ...reading,
    name: "track_order",
    description: "State and contents of an order that this user has placed.",
    input: {
      type: "object",
      properties: { order_id: { type: "string", description: "ord_…, as create_order answered.", maxLength: 64 } },
      required: ["order_id"],
      additionalProperties: false,
    },
    async run({ order_id }, context, signal) {
      const order = await orders.find(context, order_id.trim(), signal);
      if (order === undefined) throw new ToolError(`There is no order ${JSON.stringify(order_id)}. Ask for its id.`);
      return { structured: shown(order, now()) };
    },
  });

  return [searchProducts, getProductDetails, checkInventory, createOrder, trackOrder];
}

function known(id: string): Product {
  const product = productOf(id.trim());
  if (product !== undefined) return product;
  const similar = findProducts(id.replaceAll("-", " ")).slice(0, 3);
  const hint =
    similar.length === 0 ? "Find its id with search_products." : `Is it ${similar.map((one) => one.id).join(" or ")}?`;
  throw new ToolError(`There is no product ${JSON.stringify(id)}. ${hint}`);
}

/** The shop is filled up again every day. */
function left({ id, stock }: Product, sold: ReadonlyMap<string, number>): number {
  return Math.max(0, stock - (sold.get(id) ?? 0));
}

function mustHave({ productId: id, quantity }: OrderItem, sold: ReadonlyMap<string, number>): void {
  const pieces = left(known(id), sold);
  if (pieces === 0)
    throw new ToolError(`${id} is out of stock. Nothing was ordered; leave it out or offer another product.`);
  if (pieces < quantity)
    throw new ToolError(`Of ${id} there are only ${pieces}. Nothing was ordered; ask for at most ${pieces}.`);
}

function inShort({ id, name, category, priceMinor }: Product) {
  return { product_id: id, name, category, price: amountText(priceMinor), currency: CURRENCY };
}

const HOUR_MS = 3_600_000;

/** How far a demo parcel gets with time. */
const STATES = [
  { fromMs: 72 * HOUR_MS, status: "delivered" },
  { fromMs: 24 * HOUR_MS, status: "shipped" },
  { fromMs: HOUR_MS, status: "packed" },
] as const;

function shown({ orderId, items, totalMinor, createdAt }: Order, now: Date) {
  const age = now.getTime() - createdAt.getTime();
  return {
    order_id: orderId,
    status: STATES.find(({ fromMs }) => age >= fromMs)?.status ?? "confirmed",
    items: items.map((item) => ({
      product_id: item.productId,
      name: CATALOGUE.find(({ id }) => id === item.productId)?.name ?? item.productId,
      quantity: item.quantity,
      price: amountText(item.priceMinor),
    })),
    total: amountText(totalMinor),
    currency: CURRENCY,
    ordered_at: createdAt.toISOString(),
    expected_by: new Date(createdAt.getTime() + 72 * HOUR_MS).toISOString(),
  };
}
