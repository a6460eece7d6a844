import type { Transfer } from "../../store/transfer-store.ts";
import { amountText, CURRENCY } from "../money.ts";
import { ACCOUNTS, BOOKINGS, PAYEES } from "./accounts.ts";

/** One line of an account. */
export interface Line {
  readonly account: string;
  readonly date: Date;
  readonly amountMinor: number;
  readonly category: string;
  readonly description: string;
}

const DAY_MS = 86_400_000;

/** The demo bookings and the user's transfers since then, the newest first. */
export function linesSince(from: Date, transfers: readonly Transfer[], now: Date): Line[] {
  const fixed = BOOKINGS.map(({ daysAgo, ...line }) => ({ ...line, date: new Date(now.getTime() - daysAgo * DAY_MS) }));
  const own = (id: string) => ACCOUNTS.some((account) => account.id === id);
  const moved = transfers.flatMap(({ from: source, to, amountMinor, note, createdAt: date }): Line[] => {
    const category = own(to) ? "own transfers" : "payments";
    const about = note === "" ? "" : `: ${note}`;
    const out = { account: source, date, amountMinor: -amountMinor, category, description: `To ${nameOf(to)}${about}` };
    const into = { account: to, date, amountMinor, category, description: `From ${nameOf(source)}${about}` };
    return own(to) ? [out, into] : [out];
  });
  return [...moved, ...fixed].filter(({ date }) => date >= from).sort((a, b) => b.date.getTime() - a.date.getTime());
}

/** What was spent in each category, the most first; what moved between own accounts is not spent. */
export function spendingOf(lines: readonly Line[]) {
  const spent = lines.filter(({ amountMinor, category }) => amountMinor < 0 && category !== "own transfers");
  const total = spent.reduce((sum, { amountMinor }) => sum - amountMinor, 0);
  const income = lines.filter(({ amountMinor, category }) => amountMinor > 0 && category !== "own transfers");
  const byCategory = Map.groupBy(spent, ({ category }) => category);
  const categories = [...byCategory].map(([category, of]) => {
    const minor = of.reduce((sum, { amountMinor }) => sum - amountMinor, 0);
    return { category, minor, count: of.length };
  });
  return {
    total: amountText(total),
    income: amountText(income.reduce((sum, { amountMinor }) => sum + amountMinor, 0)),
    currency: CURRENCY,
    categories: categories
      .sort((a, b) => b.minor - a.minor || (a.category < b.category ? -1 : 1))
      .map(({ category, minor, count }) => {
        return { category, amount: amountText(minor), percent: Math.round((minor * 1000) / total) / 10, count };
      }),
  };
}

export function nameOf(id: string): string {
  return [...ACCOUNTS, ...PAYEES].find((one) => one.id === id)?.name ?? id;
}
