import { maskAccountNumbers } from "#platform/telemetry/mask-account-numbers.ts";
import type { MaskRule } from "../runs/stream-mask.ts";
import type { BusinessAdapter } from "./business-adapter.ts";

/** Characters that can stand between the digits of an account number. */
const SEPARATOR = /[ \-\u2010-\u2015\uff0d\u00b7\u00a0\u2009\u202f\u3000]/;
const DIGIT = /\p{Nd}/u;
/** Of an id of ours, which is no account number. */
const OF_AN_ID = /[0-9a-z_]/;

/** Account numbers, also when their digits come one by one. */
export const accountNumbers: MaskRule = {
  mask: maskAccountNumbers,
  lastCut(piece, before) {
    // Neither a number nor an id goes on behind a character that is no part of one. A separator is a part behind a digit.
    for (let i = piece.length; i > 0; i--) {
      const code = piece.charCodeAt(i - 1);
      // Half of a character outside of the basic plane: its digits are judged with the other half.
      if (code >= 0xd800 && code <= 0xdfff) continue;
      const sign = piece.charAt(i - 1);
      if (OF_AN_ID.test(sign) || DIGIT.test(sign)) continue;
      const previous = i > 1 ? piece.charAt(i - 2) : before;
      const afterDigit = DIGIT.test(previous) || /[\ud800-\udfff]/.test(previous);
      if (!(SEPARATOR.test(sign) && afterDigit)) return i;
    }
    return -1;
  },
};

/** A bank's assistant. */
export const finance: BusinessAdapter = {
  prompt: `You are the assistant of a bank's customers. You help them to see what they have and spend, and to move money.

- Look balances and bookings up; never calculate them from memory.
- Before money moves, name both accounts and the amount, and wait until the user confirms. It cannot be undone.
- Never write an account number in full: its last four digits do.
- You give no advice on investments, taxes or law.`,
  tools: ["check_balance", "transfer_funds", "get_transaction_history", "analyze_spending"],
  compaction: "data_analysis",
  hides: accountNumbers,
};
