/**
 * An id of ours (its digits are no account number), or 9 digits and more of any script in groups, as account and card
 * numbers are written. Letters of other scripts may touch the digits, Latin ones before them too (an IBAN begins so).
 */
const ID_OR_NUMBER =
  /(?<![0-9a-z_])[a-z]{2,8}_[0-7][0-9a-hjkmnp-tv-z]{25}(?![0-9a-z])|\p{Nd}(?:[ \-\u2010-\u2015\uff0d\u00b7\u00a0\u2009\u202f\u3000]?\p{Nd}){8,}/gu;

/** The text with all but the last four digits of each account number hidden: `**** 7890`. Masking masked text changes nothing. */
export function maskAccountNumbers(text: string): string {
  return text.replace(ID_OR_NUMBER, (found) => {
    if (/^[a-z]/.test(found)) return found;
    const digits = found.match(/\p{Nd}/gu) ?? [];
    return `**** ${digits.slice(-4).join("")}`;
  });
}
