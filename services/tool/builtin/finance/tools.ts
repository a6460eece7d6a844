import { type CodeTool, defineTool, type ToolDefinition } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import { maskAccountNumbers } from "#platform/telemetry/mask-account-numbers.ts";
import type { Movements, TransferRequest, TransferStore } from "../../store/transfer-store.ts";
import { amountText, CURRENCY, minorUnits } from "../money.ts";
import { ACCOUNTS, type Account, findAccount, PAYEES, type Payee } from "./accounts.ts";
import { linesSince, nameOf, spendingOf } from "./bookings.ts";

const DAY_MS = 86_400_000;

const reading = {
  risk: "read_only",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 10_000,
  maxOutputBytes: 32_768,
  category: "finance",
  mask: maskAccountNumbers,
} satisfies Partial<ToolDefinition<never>>;

const ownAccount = {
  type: "string",
  description: "One of the user's accounts: its id, name or last four digits. check_balance lists them.",
  maxLength: 64,
};
const days = { type: "integer", description: "How far back. Default 30.", minimum: 1, maximum: 365, default: 30 };

/** The demo bank: the same accounts for every user, and transfers per tenant and user. `now` is the clock. */
export function financeTools(transfers: TransferStore, now: () => Date = () => new Date()): CodeTool[] {
  const checkBalance = defineTool<{ account?: string }>({
    ...reading,
    name: "check_balance",
    description: "Balances of the user's accounts, of all or of one.",
    input: { type: "object", properties: { account: ownAccount }, additionalProperties: false },
    async run({ account }, context, signal) {
      const asked = account === undefined ? ACCOUNTS : [ownOne("account", account)];
      const moved = await transfers.movements(context, signal);
      return { structured: { accounts: asked.map((one) => withBalance(one, moved)), currency: CURRENCY } };
    },
  });

  const transferFunds = defineTool<{ from: string; to: string; amount: number; note: string }>({
    ...reading,
    name: "transfer_funds",
    description:
      "Moves money from one of the user's accounts to another one or to a known payee. It cannot be undone: call it only " +
      "after the user has confirmed both accounts and the amount.",
    input: {
      type: "object",
      properties: {
        from: ownAccount,
        to: { type: "string", description: "An own account or a payee: id, name or last four digits.", maxLength: 64 },
        amount: { type: "number", description: `In ${CURRENCY}, above 0, such as 25.50.` },
        note: { type: "string", description: "Text for the statement.", maxLength: 140, default: "" },
      },
      required: ["from", "to", "amount"],
      additionalProperties: false,
    },
    risk: "destructive",
    concurrencySafe: false,
    callsPerMinute: 30,
    async run({ from, to, amount, note }, context, signal) {
      if (context.requestKey === "") throw new ToolError("Money can only be moved within a run.");
      const source = ownOne("from", from);
      const target = findAccount<Payee>([...ACCOUNTS, ...PAYEES], to) ?? unknownTarget(to);
      if (target.id === source.id)
        throw new ToolError('"from" and "to" are the same account. Name two different ones.');
      const request = { from: source.id, to: target.id, amountMinor: minorUnits("amount", amount), note: plain(note) };
      const booked = await transfers.book(context, request, (moved) => mustCover(source, request, moved), signal);
      if (!isSame(booked, request)) {
        throw new ToolError("This call has moved other money before. Call again for another transfer.");
      }
      const { transferId, createdAt } = booked;
      const balance = withBalance(source, await transfers.movements(context, signal));
      return {
        structured: {
          transfer_id: transferId,
          status: "booked",
          from: { account: source.id, number: source.number },
          to: { name: target.name, number: target.number },
          amount: amountText(booked.amountMinor),
          currency: CURRENCY,
          booked_at: createdAt.toISOString(),
          balance_now: balance.balance,
        },
      };
    },
  });

  const getTransactionHistory = defineTool<{ account?: string; days: number; limit: number }>({
    ...reading,
    name: "get_transaction_history",
    description: "What was booked on the user's accounts, the newest first.",
    input: {
      type: "object",
      properties: { account: ownAccount, days, limit: { type: "integer", minimum: 1, maximum: 100, default: 20 } },
      additionalProperties: false,
    },
    async run({ account, days: back, limit }, context, signal) {
      const of = account === undefined ? undefined : ownOne("account", account).id;
      const lines = await linesOf(context, back, signal);
      const asked = lines.filter((line) => of === undefined || line.account === of);
      const transactions = asked.slice(0, limit).map(({ date, amountMinor, ...line }) => {
        return { ...line, date: date.toISOString(), amount: amountText(amountMinor) };
      });
      return { structured: { transactions, found: asked.length, currency: CURRENCY } };
    },
  });

  const analyzeSpending = defineTool<{ account?: string; days: number }>({
    ...reading,
    name: "analyze_spending",
    description: "What the user has spent, by category, and what came in.",
    input: { type: "object", properties: { account: ownAccount, days }, additionalProperties: false },
    async run({ account, days: back }, context, signal) {
      const of = account === undefined ? undefined : ownOne("account", account).id;
      const lines = await linesOf(context, back, signal);
      return {
        structured: { days: back, ...spendingOf(lines.filter((line) => of === undefined || line.account === of)) },
      };
    },
  });

  const linesOf = async (context: Parameters<TransferStore["since"]>[0], back: number, signal: AbortSignal) => {
    const [until, from] = [now(), new Date(now().getTime() - back * DAY_MS)];
    return linesSince(from, await transfers.since(context, from, signal), until);
  };

  return [checkBalance, transferFunds, getTransactionHistory, analyzeSpending];
}

function ownOne(parameter: string, named: string): Account {
  const account = findAccount(ACCOUNTS, named);
  if (account !== undefined) return account;
  const known = ACCOUNTS.map(({ id }) => id).join(", ");
  throw new ToolError(
    `Parameter "${parameter}": ${JSON.stringify(named)} is none of the user's accounts, which are ${known}.`,
  );
}

function unknownTarget(named: string): never {
  const known = [...ACCOUNTS, ...PAYEES].map(({ id }) => id).join(", ");
  throw new ToolError(
    `Parameter "to": ${JSON.stringify(named)} is no account or payee of the user. Known are ${known}.`,
  );
}

function balanceOf({ id, openingMinor }: Account, moved: Movements): number {
  return openingMinor + (moved.get(id) ?? 0);
}

function withBalance(account: Account, moved: Movements) {
  const { id, name, number } = account;
  return { account: id, name, number, balance: amountText(balanceOf(account, moved)) };
}

function mustCover(source: Account, { amountMinor }: TransferRequest, moved: Movements): void {
  const balance = balanceOf(source, moved);
  if (balance >= amountMinor) return;
  const [has, needs] = [amountText(balance), amountText(amountMinor)];
  throw new ToolError(
    `${nameOf(source.id)} has ${has} ${CURRENCY}, which does not cover ${needs}. Nothing was moved; lower the amount or use another account.`,
  );
}

function isSame(booked: TransferRequest, { from, to, amountMinor, note }: TransferRequest): boolean {
  return booked.from === from && booked.to === to && booked.amountMinor === amountMinor && booked.note === note;
}

/** On one line, without control characters, and without account numbers: statements are read aloud. */
function plain(note: string): string {
  return maskAccountNumbers(
    note
      .toWellFormed()
      .replace(/[\p{Cc}\s]+/gu, " ")
      .trim(),
  );
}
