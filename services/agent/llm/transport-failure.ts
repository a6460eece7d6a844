import { ModelError } from "./model-error.ts";

const timeoutCodes = new Set([
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "ETIMEDOUT",
]);

/**
 * A failure of the door, whether it is the error itself or the cause of an SDK's, as a {@link ModelError}; undefined when
 * the network has no part in it.
 */
export function transportFailure(error: unknown): ModelError | undefined {
  const found = chain(error);
  const code = (match: (code: string) => boolean) => found.some((e) => match(String(e.code ?? "")));
  // The address came with the credential: another model may still answer.
  if (code((c) => c === "ADDRESS_REFUSED")) {
    return new ModelError("authentication", { retryable: false, code: "address_refused", cause: error });
  }
  if (code((c) => c === "BODY_TOO_LARGE")) {
    return new ModelError("malformed_stream", { retryable: false, detail: "the answer is too large" });
  }
  if (code((c) => timeoutCodes.has(c)) || found.some(({ name }) => name === "TimeoutError")) {
    return new ModelError("timeout", { retryable: true, cause: error });
  }
  // undici's codes and those of system calls; a `TypeError` of our own has none.
  if (code((c) => /^(UND_ERR_|E[A-Z]+$|HPE_|ERR_SSL|ERR_TLS|SELF_SIGNED|DEPTH_ZERO|CERT_|UNABLE_TO_)/.test(c))) {
    return new ModelError("connection", { retryable: true, cause: error });
  }
  return undefined;
}

/** RFC 9110 §10.2.3 (seconds or a date) and `retry-after-ms`, which both providers send. In milliseconds. */
export function retryAfter(headers: Headers | undefined, now: () => number): number | undefined {
  const ms = headers?.get("retry-after-ms");
  if (ms && Number.isFinite(Number(ms))) return Math.max(0, Number(ms));
  const value = headers?.get("retry-after");
  if (!value) return undefined;
  if (/^\s*\d+(\.\d+)?\s*$/.test(value)) return Number(value) * 1_000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now());
}

function chain(error: unknown): NodeJS.ErrnoException[] {
  const found: NodeJS.ErrnoException[] = [];
  for (let e = error; e instanceof Error && found.length < 4; e = e.cause) found.push(e);
  return found;
}
