/** The first token of every subject. */
const root = "agentmesh";
const maxSubjectLength = 255;
const maxTokens = 16;
const token = /^[A-Za-z0-9_-]+$/;

/**
 * Checks a subject: `agentmesh` and at least one more token, joined by dots; tokens of letters, digits, `_` and `-`
 * (NATS allows more; these never need quoting); at most 16 tokens and 255 characters. Throws `TypeError`.
 */
export function assertSubject(subject: string): void {
  if (!isWellFormed(subject, (part) => token.test(part)))
    throw new TypeError(`not a subject: ${JSON.stringify(subject)}`);
}

/** Checks a subject that may have wildcards after the first token: `*` is any one token, `>` at the end one or more. */
export function assertPattern(pattern: string): void {
  const ok = isWellFormed(pattern, (part, last) => token.test(part) || part === "*" || (part === ">" && last));
  if (!ok) throw new TypeError(`not a subject pattern: ${JSON.stringify(pattern)}`);
}

/** Whether a subject falls under a pattern. Both must be well-formed. */
export function matches(pattern: string, subject: string): boolean {
  const wanted = pattern.split(".");
  const parts = subject.split(".");
  for (const [i, want] of wanted.entries()) {
    const part = parts[i];
    if (part === undefined) return false;
    if (want === ">") return true;
    if (want !== "*" && want !== part) return false;
  }
  return parts.length === wanted.length;
}

/** Whether some subject falls under both patterns. */
export function overlap(a: string, b: string): boolean {
  const left = a.split(".");
  const right = b.split(".");
  for (let i = 0; ; i++) {
    const [l, r] = [left[i], right[i]];
    if (l === undefined || r === undefined) return l === r;
    if (l === ">" || r === ">") return true;
    if (l !== r && l !== "*" && r !== "*") return false;
  }
}

function isWellFormed(subject: string, isToken: (part: string, last: boolean) => boolean): boolean {
  if (typeof subject !== "string" || subject.length > maxSubjectLength) return false;
  const parts = subject.split(".");
  if (parts.length < 2 || parts.length > maxTokens || parts[0] !== root) return false;
  return parts.every((part, i) => isToken(part, i === parts.length - 1));
}
