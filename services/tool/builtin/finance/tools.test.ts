import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "../../testing/tool-service.ts";
import { ACCOUNTS, PAYEES } from "./accounts.ts";

const CHECKING = "6222021234567890";

describe("the demo bank", { skip: skipWithoutPostgres() }, () => {
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

  /** A user's calls in one run. */
  function bank(by: Principal = caller(), endUserId = by.userId ?? "ada") {
    const [runId, sessionId] = [newId("run"), newId("ses")];
    const call = (tool: string, args: object, callId = newId("call")) =>
      open.execute(by, { tool, argumentsJson: JSON.stringify(args), runId, sessionId, callId, endUserId });
    return {
      by,
      call,
      transfer: (args: object, callId?: string) => call("transfer_funds", args, callId),
      refused: async (tool: string, args: object) => {
        const { result, text } = await call(tool, args);
        return result.isError ? text : assert.fail(text);
      },
      balances: async () => {
        const { value } = await call("check_balance", {});
        const accounts = value["accounts"] as { account: string; balance: string }[];
        return Object.fromEntries(accounts.map(({ account, balance }) => [account, balance]));
      },
    };
  }

  const opening = { checking: "4321.75", savings: "18500.00", travel: "640.00" };

  test("moves money between accounts and to payees, and the balances show it", async () => {
    const { balances, transfer, call } = bank();
    assert.deepEqual(await balances(), opening);
    const { value } = await transfer({ from: "checking", to: "savings", amount: 100.1 });
    const { transfer_id, booked_at, ...rest } = value;
    assert.match(String(transfer_id), /^trf_/);
    assert.ok(Math.abs(Date.parse(String(booked_at)) - Date.now()) < 60_000);
    assert.deepEqual(rest, {
      status: "booked",
      from: { account: "checking", number: "**** 7890" },
      to: { name: "Savings account", number: "**** 3210" },
      amount: "100.10",
      currency: "USD",
      balance_now: "4221.65",
    });
    await transfer({ from: CHECKING, to: "Li Na", amount: 21.65 });
    await transfer({ from: "3401", to: "checking", amount: 640 });
    assert.deepEqual(await balances(), { checking: "4840.00", savings: "18600.10", travel: "0.00" });
    const one = await call("check_balance", { account: "travel fund" });
    assert.deepEqual(one.value["accounts"], [
      { account: "travel", name: "Travel fund", number: "**** 3401", balance: "0.00" },
    ]);
  });

  test("a repeated call moves the money once and answers the same; the same key for something else is refused", async () => {
    const { balances, transfer } = bank();
    const args = { from: "checking", to: "landlord", amount: 1200, note: "November" };
    const first = await transfer(args, "call_1");
    const again = await transfer(args, "call_1");
    assert.equal(again.value["transfer_id"], first.value["transfer_id"]);
    assert.equal((await balances())["checking"], "3121.75");
    const other = await transfer({ ...args, amount: 5 }, "call_1");
    assert.match(other.text, /^This call has moved other money before\./);
    assert.equal((await balances())["checking"], "3121.75");
  });

  test("calls that come at once never overdraw an account", async () => {
    const { balances, transfer } = bank();
    const moved = await Promise.all(
      Array.from({ length: 10 }, () => transfer({ from: "travel", to: "sister", amount: 100 })),
    );
    assert.equal(moved.filter(({ result }) => !result.isError).length, 6);
    assert.equal((await balances())["travel"], "40.00");
  });

  test("says what is wrong with a transfer and what to change, and moves nothing", async () => {
    const { refused, balances } = bank();
    const good = { from: "travel", to: "savings", amount: 5 };
    const table: [object, RegExp][] = [
      [{ amount: 640.01 }, /^Travel fund has 640\.00 USD, which does not cover 640\.01\. Nothing was moved; lower the/],
      [{ amount: -5 }, /^Parameter "amount" must be an amount above 0/],
      [{ amount: 0 }, /above 0/],
      [{ amount: 0.005 }, /two decimals/],
      [{ amount: 1e12 }, /at most 1000000\.00/],
      [{ amount: "5" }, /parameter "amount" must be number, got string/],
      [{ amount: null }, /parameter "amount" must be number, got null/],
      [{ to: "travel" }, /^"from" and "to" are the same account/],
      [{ to: "6222025555123401" }, /same account/],
      [
        { to: "nobody" },
        /^Parameter "to": "nobody" is no account or payee of the user\. Known are checking, .*, sister\.$/,
      ],
      [
        { from: "landlord" },
        /^Parameter "from": "landlord" is none of the user's accounts, which are checking, savings, travel\.$/,
      ],
      [{ from: "" }, /none of the user's accounts/],
      [{ note: "x".repeat(141) }, /"note" must NOT have more than 140/],
      [{ tenant: "ten_x" }, /parameter "tenant" is unknown/],
    ];
    for (const [fault, message] of table) {
      assert.match(await refused("transfer_funds", { ...good, ...fault }), message, JSON.stringify(fault));
    }
    assert.deepEqual(await balances(), opening);
    const outside = await open.execute(caller(), { tool: "transfer_funds", argumentsJson: JSON.stringify(good) });
    assert.equal(outside.text, "Money can only be moved within a run.");
  });

  test("shows what was booked, and what was spent on what", async () => {
    const { call, transfer } = bank();
    await transfer({ from: "checking", to: "electricity", amount: 50, note: " bill\n11 " });
    await transfer({ from: "checking", to: "savings", amount: 70 });
    const { value } = await call("get_transaction_history", { account: "checking", limit: 3 });
    const transactions = value["transactions"] as Record<string, string>[];
    assert.deepEqual(
      transactions.map(({ description, amount, category }) => [description, amount, category]),
      [
        ["To Savings account", "-70.00", "own transfers"],
        ["To City Power: bill 11", "-50.00", "payments"],
        ["Noodle Corner", "-12.80", "restaurants"],
      ],
    );
    assert.ok(Number(value["found"]) > 10);
    const savings = await call("get_transaction_history", { account: "savings", days: 1 });
    assert.deepEqual(
      (savings.value["transactions"] as Record<string, string>[]).map(({ amount, description }) => [
        amount,
        description,
      ]),
      [["70.00", "From Checking account"]],
    );
    const week = (await call("analyze_spending", { account: "checking", days: 7 })).value;
    assert.deepEqual(week, {
      days: 7,
      total: "236.24",
      income: "0.00",
      currency: "USD",
      categories: [
        { category: "groceries", amount: "136.45", percent: 57.8, count: 2 },
        { category: "payments", amount: "50.00", percent: 21.2, count: 1 },
        { category: "subscriptions", amount: "29.99", percent: 12.7, count: 1 },
        { category: "restaurants", amount: "12.80", percent: 5.4, count: 1 },
        { category: "transport", amount: "7.00", percent: 3, count: 2 },
      ],
    });
    const none = (await call("analyze_spending", { account: "savings", days: 1 })).value;
    assert.deepEqual([none["total"], none["categories"]], ["0.00", []]);
    assert.match((await call("analyze_spending", { days: 366 })).text, /"days" must be <= 365/);
  });

  test("account numbers leave neither with a result nor into log, record and audit, also beside Chinese text", async () => {
    const { by, call, transfer } = bank();
    const note = `账号${CHECKING}转出`;
    await transfer({ from: CHECKING, to: PAYEES[0]?.number, amount: 1, note });
    const unknown = await transfer({ from: CHECKING, to: "6222 0200 0011 1122", amount: 1 });
    assert.match(unknown.text, /"\*\*\*\* 1122" is no account/);
    await call("check_balance", { account: Number(CHECKING) });
    await call("transfer_funds", { [CHECKING]: { deep: [`从${CHECKING}`] } });
    const history = await call("get_transaction_history", {});
    assert.match(history.text, /账号\*\*\*\* 7890转出/);
    const kept = await database.db.tenant(by.tenantId, (tx) =>
      tx.query(
        "SELECT (SELECT json_agg(c) FROM tool.tool_calls c) AS calls, (SELECT json_agg(a) FROM tool.audit a) AS audit, (SELECT json_agg(t) FROM tool.demo_transfers t) AS transfers",
      ),
    );
    const { text } = await call("check_balance", {});
    const logged = open.service.logged.filter((line) => line["tenant_id"] === by.tenantId);
    const left = JSON.stringify([kept, text, history.text, history.value, logged]);
    assert.match(left, /\*\*\*\* 7890/);
    for (const { number } of [...ACCOUNTS, ...PAYEES]) assert.ok(!left.includes(number), number);
    assert.doesNotMatch(left, /0000111122|0000 1111|0011 1122/);
  });

  test("money that another user or tenant moved is neither seen nor touched", async () => {
    const tenant = caller();
    const ada = bank(caller({ tenantId: tenant.tenantId, userId: "ada" }));
    await ada.transfer({ from: "checking", to: "savings", amount: 321.75 });
    const others = [
      bank(caller({ tenantId: tenant.tenantId, userId: "bob" })),
      bank(caller({ userId: "ada" })),
      bank(tenant, ""),
    ];
    for (const other of others) {
      assert.deepEqual(await other.balances(), opening);
      const { value } = await other.call("get_transaction_history", { account: "savings", days: 1 });
      assert.deepEqual(value["transactions"], []);
    }
    assert.equal((await bank(tenant, "ada").balances())["checking"], "4000.00", "a machine may speak for her");
  });
});
