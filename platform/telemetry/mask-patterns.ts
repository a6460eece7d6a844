/** One kind of sensitive text: what it looks like and what is written in its place. */
export interface MaskPattern {
  readonly name: string;
  readonly pattern: RegExp;
  readonly replacement: string;
  /** Cheap necessary condition: without it the text cannot match. */
  readonly hint?: RegExp;
}

// The edges of a number are said with look-arounds over ASCII letters and digits, never with a word boundary: CJK
// text has no spaces, so a number there touches letters on both sides, and in Unicode mode those are word characters.
// Digits are \p{Nd} because CJK input methods also write full-width ones.
const FROM = "(?<![\\p{Nd}A-Za-z])";
const TO = "(?![\\p{Nd}A-Za-z])";
// The digits of 0.8414709848078965 are no card number.
const NO_FRACTION = "(?<!(?<!\\p{Nd})0\\.)";
const DIGITS = /\p{Nd}{3}/u;
const GAP = "[ \\u00a0-]?";

function number(...alternatives: string[]): RegExp {
  return new RegExp(`${FROM}${NO_FRACTION}(?:${alternatives.join("|")})${TO}`, "gu");
}

const SECRET_NAME =
  "(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|authorization|cookies?)";

/**
 * The patterns of the design document's masker (card, ID card, phone, e-mail, API key) and the token forms that this
 * system itself handles. They run in this order: whole credentials first, so that the digits in a key are not taken
 * for a phone number.
 *
 * Each is linear in the length of the text: a repeated class is followed by something outside the class, and either
 * begins at a fixed literal or has a look-behind that lets only the first character of a run start a match.
 */
export const MASK_PATTERNS: readonly MaskPattern[] = [
  {
    name: "private key",
    pattern: /-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,32}PRIVATE KEY-----)?/g,
    replacement: "[PRIVATE_KEY]",
    hint: /PRIVATE KEY/,
  },
  { name: "credentials in a URL", pattern: /(:\/\/)[^\s/?#]*@/g, replacement: "$1[CREDENTIALS]@", hint: /:\/\// },
  {
    name: "credential header",
    pattern: /((?:authorization|cookie|api-key)[ \t]{0,4}:[ \t]{0,4})(?![\s[{"'])[^\r\n"'{}]+/gi,
    replacement: "$1[TOKEN]",
    hint: /:/,
  },
  {
    name: "bearer token",
    pattern: /(?<![A-Za-z])(bearer)[ \t]{1,4}(?:[A-Za-z._~+/=-]{0,64}[0-9][\w.~+/=-]{4,}|[\w.~+/=-]{16,})/gi,
    replacement: "$1 [TOKEN]",
  },
  { name: "JWT", pattern: /eyJ[\w-]{6,}(?:\.[\w-]*){0,4}/g, replacement: "[TOKEN]", hint: /eyJ/ },
  {
    name: "API key",
    pattern:
      /(?<![A-Za-z0-9])(?:am_(?:live|test)_\w{8,}|(?:sk|pk|rk)[-_][\w-]{16,}|api[-_]\w{20,}|(?:whsec|gh[opsur]|github_pat|glpat|xox[abeprs]|npm|hf)[-_][\w+/=-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,})/g,
    replacement: "[API_KEY]",
    hint: /[-_]|AK|AI/,
  },
  {
    name: "assigned secret",
    pattern: new RegExp(
      `(${SECRET_NAME}=)(?!["']?\\[)(?:"[^"]*"?|'[^']*'?|\\\\{1,3}["'][^"'\\\\]*|[^\\s&"',;)\\]}]+)`,
      "gi",
    ),
    replacement: "$1[redacted]",
    hint: /=/,
  },
  {
    name: "quoted secret",
    pattern: new RegExp(
      `(${SECRET_NAME}(?:\\\\{0,3}["'])?[ \\t]{0,4}:[ \\t]{0,4})(?!["']\\[)(?:"(?:[^"\\\\]|\\\\.)*"?|'(?:[^'\\\\]|\\\\.)*'?|\\\\{1,3}["'](?!\\[)[^"'\\\\]*)`,
      "gis",
    ),
    replacement: '$1"[redacted]"',
    hint: /:/,
  },
  {
    // Latin letters only before the @, so that CJK text around an address stays readable.
    name: "e-mail",
    pattern:
      /(?<![\p{Script=Latin}\p{Nd}_.+%'-])[\p{Script=Latin}\p{Nd}_.+%'-]+[@＠][A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+/gu,
    replacement: "[EMAIL]",
    hint: /[@＠]/,
  },
  {
    name: "e-mail in another script",
    pattern: /(?<![\p{L}\p{N}_.+%'-])[\p{L}\p{N}_.+%'-]+[@＠][\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+/gu,
    replacement: "[EMAIL]",
    hint: /[@＠]/,
  },
  {
    name: "ID card",
    pattern: number(`\\p{Nd}{6}${GAP}\\p{Nd}{8}${GAP}\\p{Nd}{3}[\\p{Nd}XxＸｘ]`),
    replacement: "[ID_CARD]",
    hint: DIGITS,
  },
  {
    name: "card",
    // UnionPay's 19 digits, the usual 16, American Express's 4-6-5.
    pattern: number(
      `[6６][2２]\\p{Nd}{2}(?:${GAP}\\p{Nd}{4}){3}${GAP}\\p{Nd}{3}`,
      `\\p{Nd}{4}(?:${GAP}\\p{Nd}{4}){3}`,
      `[3３][4７7４]\\p{Nd}{2}${GAP}\\p{Nd}{6}${GAP}\\p{Nd}{5}`,
    ),
    replacement: "[CARD_NUMBER]",
    hint: DIGITS,
  },
  {
    name: "mobile phone",
    pattern: number(`(?:(?:\\+|00)?86${GAP})?[1１][3-9３-９]\\p{Nd}(?:${GAP}\\p{Nd}{4}){2}`),
    replacement: "[PHONE]",
    hint: DIGITS,
  },
  {
    name: "international phone",
    pattern: /(?<![\p{Nd}A-Za-z)])\+[1-9](?:[ ()-]{0,2}\p{Nd}){7,14}(?!\p{Nd})/gu,
    replacement: "[PHONE]",
    hint: /\+/,
  },
];

const SENSITIVE_KEY =
  /(?:password|passwd|pwd|secret|token|apikey|accesskey|privatekey|credentials?|authorization|cookies?)$/;

/**
 * Whether a field of this name holds a credential whatever its value looks like: `password`, `client_secret`,
 * `X-Api-Key`, `refreshToken`; not `input_tokens` or `token_count`.
 */
export function isSensitiveKey(name: string): boolean {
  return SENSITIVE_KEY.test(name.toLowerCase().replaceAll(/[^a-z0-9]/g, ""));
}
