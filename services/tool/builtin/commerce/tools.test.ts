import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { ToolContext } from "#platform/plugin/define-tool.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { OrderStore } from "../../store/order-store.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "../../testing/tool-service.ts";
import { CATALOGUE } from "./catalogue.ts";
import { commerceTools } from "./tools.ts";

describe("the demo shop", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  function shop(by: Principal = caller(), endUserId = by.userId ?? "ada") {
    const [runId, sessionId] = [newId("run"), newId("ses")];
    const call = (tool: string, args: object, callId = newId("call")) =>
      open.execute(by, { tool, argumentsJson: JSON.stringify(args), runId, sessionId, callId, endUserId });
    return {
      call,
      order: (items: object[], callId?: string) => call("create_order", { items }, callId),
      found: async (args: object) => {
        const { value } = await call("search_products", args);
        return (value["products"] as { product_id: string }[]).map(({ product_id }) => product_id);
      },
      available: async (product_id: string) =>
        (await call("check_inventory", { product_id })).value["available"] as number,
      refused: async (tool: string, args: object) => {
        const { result, text } = await call(tool, args);
        return result.isError ? text : assert.fail(text);
      },
    };
  }

  test("has a catalogue whose ids are unique, with something of each category and prices in hundredths", () => {
    assert.equal(new Set(CATALOGUE.map(({ id }) => id)).size, CATALOGUE.length);
    for (const { id, priceMinor, stock } of CATALOGUE) {
      assert.ok(Number.isSafeInteger(priceMinor) && priceMinor > 0 && Number.isSafeInteger(stock) && stock >= 0, id);
    }
  });

  test("finds products by words, category and price, also in Chinese", async () => {
    const { found, call } = shop();
    assert.deepEqual(await found({ query: "Bluetooth headphones" }), ["headphones-quiet"]);
    assert.deepEqual(await found({ query: "蓝牙耳机" }), ["earbuds-dot"]);
    assert.deepEqual(await found({ query: "耳机" }), ["earbuds-dot", "headphones-quiet"]);
    assert.deepEqual(await found({ query: "", category: "audio", max_price: 89.5 }), ["earbuds-dot", "speaker-brick"]);
    assert.deepEqual(await found({ query: "unicorn" }), []);
    assert.deepEqual((await found({ query: "" })).length, 5);
    const { value } = await call("search_products", { query: "kettle" });
    assert.deepEqual(value, {
      products: [
        {
          product_id: "kettle-steel",
          name: "Steel kettle 1.7 l",
          category: "kitchen",
          price: "54.90",
          currency: "USD",
        },
      ],
      found: 1,
    });
    const details = await call("get_product_details", { product_id: "kettle-steel" });
    assert.deepEqual(details.value["features"], ["50 to 100 °C", "2200 W"]);
  });

  test("takes an order, which can be tracked and is gone from the stock", async () => {
    const { order, call, available } = shop();
    const before = await available("kettle-steel");
    const placed = await order([{ product_id: "kettle-steel", quantity: 2 }, { product_id: "bottle-vacuum" }]);
    const { order_id, ordered_at, expected_by, ...rest } = placed.value;
    assert.match(String(order_id), /^ord_/);
    assert.equal(Date.parse(String(expected_by)) - Date.parse(String(ordered_at)), 72 * 3_600_000);
    assert.deepEqual(rest, {
      status: "confirmed",
      items: [
        { product_id: "kettle-steel", name: "Steel kettle 1.7 l", quantity: 2, price: "54.90" },
        { product_id: "bottle-vacuum", name: "Vacuum bottle 0.75 l", quantity: 1, price: "28.00" },
      ],
      total: "137.80",
      currency: "USD",
    });
    assert.equal(await available("kettle-steel"), before - 2);
    const tracked = await call("track_order", { order_id });
    assert.deepEqual([tracked.value["total"], tracked.value["status"]], ["137.80", "confirmed"]);
  });

  test("an order moves on with time", async () => {
    let now = Date.now();
    const tools = commerceTools(new OrderStore(database.db), () => new Date(now));
    const principal = caller();
    const call = { principal, signal: new AbortController().signal, requestId: "req_1", ip: "", userAgent: "" };
    const ids = { callId: "call_1", runId: "run_1", sessionId: "ses_1", agentId: "", endUserId: "" };
    const context: ToolContext = { ...ids, call, requestKey: "run_1/call_1", progress: () => {} };
    const run = async (name: string, args: object) => {
      const tool = tools.find((one) => one.name === name);
      const output = await tool?.run({ ...args }, context, call.signal, {});
      return Object(output)["structured"] as Record<string, string>;
    };
    const { order_id } = await run("create_order", { items: [{ product_id: "tent-two", quantity: 1 }] });
    const states: unknown[] = [];
    for (const hours of [0, 1.1, 24, 60]) {
      now += hours * 3_600_000;
      states.push((await run("track_order", { order_id }))["status"]);
    }
    assert.deepEqual(states, ["confirmed", "packed", "shipped", "delivered"]);
  });

  test("a repeated call places one order and answers the same; the same key for something else is refused", async () => {
    const { order, available } = shop();
    const items = [{ product_id: "lamp-desk", quantity: 3 }];
    const first = await order(items, "call_1");
    assert.equal((await order(items, "call_1")).value["order_id"], first.value["order_id"]);
    assert.equal(await available("lamp-desk"), 37);
    const other = await order([{ product_id: "lamp-desk", quantity: 1 }], "call_1");
    assert.match(other.text, /^This call has placed another order before\./);
    assert.equal(await available("lamp-desk"), 37);
  });

  test("orders that come at once never take more than there is", async () => {
    const { order, available } = shop();
    const placed = await Promise.all(Array.from({ length: 8 }, () => order([{ product_id: "chair-task" }])));
    assert.equal(placed.filter(({ result }) => !result.isError).length, 4);
    assert.equal(await available("chair-task"), 0);
  });

  test("says what is wrong and what to change, and orders nothing", async () => {
    const { refused, available } = shop();
    const table: [string, object, RegExp][] = [
      ["get_product_details", { product_id: "kettle" }, /^There is no product "kettle"\. Is it kettle-steel\?$/],
      ["check_inventory", { product_id: "zzz" }, /^There is no product "zzz"\. Find its id with search_products\.$/],
      ["create_order", { items: [{ product_id: "zzz" }] }, /^There is no product "zzz"/],
      [
        "create_order",
        { items: [{ product_id: "grinder-hand" }] },
        /^grinder-hand is out of stock\. Nothing was ordered/,
      ],
      [
        "create_order",
        { items: [{ product_id: "lamp-desk" }, { product_id: "chair-task", quantity: 5 }] },
        /^Of chair-task there are only 4\..*at most 4\.$/,
      ],
      ["create_order", { items: [{ product_id: "lamp-desk" }, { product_id: "lamp-desk" }] }, /listed twice/],
      ["create_order", { items: [] }, /"items" must NOT have fewer than 1 items/],
      ["create_order", { items: [{ product_id: "lamp-desk", quantity: -1 }] }, /"items\.0\.quantity" must be >= 1/],
      ["create_order", { items: [{ product_id: "lamp-desk", quantity: 1.5 }] }, /"items\.0\.quantity" must be integer/],
      ["create_order", { items: [{ product_id: "lamp-desk", price: 1 }] }, /"items\.0\.price" is unknown/],
      ["search_products", { query: "x", max_price: -1 }, /"max_price" must be an amount above 0/],
      ["track_order", { order_id: "ord_x" }, /^There is no order "ord_x"\./],
      ["track_order", { order_id: "\0" }, /^There is no order/],
    ];
    for (const [tool, args, message] of table) assert.match(await refused(tool, args), message, JSON.stringify(args));
    assert.equal(await available("lamp-desk"), 40);
    const outside = await open.execute(caller(), {
      tool: "create_order",
      argumentsJson: '{"items":[{"product_id":"lamp-desk"}]}',
    });
    assert.equal(outside.text, "An order can only be placed within a run.");
  });

  test("an order of another user or tenant is not there", async () => {
    const tenant = caller();
    const ada = shop(caller({ tenantId: tenant.tenantId, userId: "ada" }));
    const { order_id } = (await ada.order([{ product_id: "tent-two" }], "call_1")).value;
    const others = [
      shop(caller({ tenantId: tenant.tenantId, userId: "bob" })),
      shop(caller({ userId: "ada" })),
      shop(tenant, ""),
    ];
    for (const other of others) {
      assert.equal(
        await other.refused("track_order", { order_id }),
        `There is no order "${order_id}". Ask for its id.`,
      );
    }
    assert.equal((await shop(tenant, "ada").call("track_order", { order_id })).result.isError, false);
  });
});
