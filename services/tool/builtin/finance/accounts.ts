/** An account of the demo bank; every user has the same three. */
export interface Account {
  readonly id: string;
  readonly name: string;
  readonly number: string;
  /** Before any transfer, in hundredths. */
  readonly openingMinor: number;
}

/** Somebody whom a demo user may pay. */
export interface Payee {
  readonly id: string;
  readonly name: string;
  readonly number: string;
}

export const ACCOUNTS: readonly Account[] = [
  { id: "checking", name: "Checking account", number: "6222021234567890", openingMinor: 432_175 },
  { id: "savings", name: "Savings account", number: "6222029876543210", openingMinor: 1_850_000 },
  { id: "travel", name: "Travel fund", number: "6222025555123401", openingMinor: 64_000 },
];

export const PAYEES: readonly Payee[] = [
  { id: "landlord", name: "Harbour Homes (rent)", number: "4401887766554433" },
  { id: "electricity", name: "City Power", number: "4401112233445566" },
  { id: "sister", name: "Li Na", number: "6217001122334455" },
];

/** What happened on an account before; negative is money that left. */
export interface Booking {
  readonly account: string;
  readonly daysAgo: number;
  readonly amountMinor: number;
  readonly category: string;
  readonly description: string;
}

const entry = (
  account: string,
  daysAgo: number,
  amountMinor: number,
  category: string,
  description: string,
): Booking => {
  return { account, daysAgo, amountMinor, category, description };
};

/** The newest first. The opening balances include them. */
export const BOOKINGS: readonly Booking[] = [
  entry("checking", 1, -1_280, "restaurants", "Noodle Corner"),
  entry("checking", 2, -6_415, "groceries", "Green Market"),
  entry("checking", 3, -350, "transport", "Metro"),
  entry("checking", 4, -2_999, "subscriptions", "Film stream"),
  entry("checking", 5, -350, "transport", "Metro"),
  entry("checking", 6, -7_230, "groceries", "Green Market"),
  entry("checking", 8, 320_000, "salary", "Salary"),
  entry("checking", 9, -120_000, "rent", "Harbour Homes"),
  entry("checking", 11, -4_590, "restaurants", "Trattoria Uno"),
  entry("checking", 13, -8_800, "utilities", "City Power"),
  entry("checking", 15, -5_120, "groceries", "Green Market"),
  entry("travel", 16, -18_900, "travel", "Rail Europe"),
  entry("checking", 18, -1_450, "restaurants", "Coffee Lab"),
  entry("checking", 21, -9_990, "shopping", "Paper & Ink"),
  entry("savings", 22, 1_200, "interest", "Interest"),
  entry("checking", 24, -6_980, "groceries", "Green Market"),
  entry("checking", 27, -2_200, "health", "Pharmacy"),
  entry("checking", 33, -7_650, "groceries", "Green Market"),
  entry("checking", 38, 320_000, "salary", "Salary"),
  entry("checking", 39, -120_000, "rent", "Harbour Homes"),
  entry("checking", 44, -8_150, "utilities", "City Power"),
  entry("travel", 52, -42_000, "travel", "Hotel Miramar"),
  entry("checking", 61, -15_900, "shopping", "Sports House"),
  entry("checking", 69, -120_000, "rent", "Harbour Homes"),
];

/** The one of that id, name, number or last four digits of it; undefined when there is none, or more than one. */
export function findAccount<T extends Payee>(list: readonly T[], named: string): T | undefined {
  const text = named.normalize("NFKC").trim().toLowerCase();
  const digits = text.replace(/[\s*-]/gu, "");
  const meant = list.filter(({ id, name, number }) => {
    const numbered = /^\d+$/.test(digits) && (digits === number || (digits.length === 4 && number.endsWith(digits)));
    return id === text || name.toLowerCase() === text || numbered;
  });
  return meant.length === 1 ? meant[0] : undefined;
}
