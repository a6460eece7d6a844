import { Code } from "@connectrpc/connect";
import { AppError } from "../rpc/errors.ts";
import { type ConsumeOptions, maxDataBytes, maxHeaderBytes, type Publication } from "./bus.ts";
import { assertPattern, assertSubject, overlap } from "./subjects.ts";

/** {@link ConsumeOptions} with every default filled in. */
export type Consumer = ConsumeOptions & Required<Omit<ConsumeOptions, "onPoison">>;

const durableName = /^[a-z0-9_-]{1,64}$/;
const visible = /^[\x21-\x7e]{1,128}$/;
const headerName = /^[a-z0-9-]{1,64}$/;
const headerValue = /^[\x20-\x7e]*$/;

/** Checks what is published; both buses refuse the same things. */
export function assertPublication({ subject, id, data, headers = {} }: Publication): void {
  assertSubject(subject);
  if (!visible.test(id)) throw new TypeError("a publication's id is 1 to 128 visible ASCII characters");
  assertSize(data);
  let bytes = 0;
  for (const [name, value] of Object.entries(headers)) {
    // The server acts upon headers of its own, such as Nats-Rollup.
    if (!headerName.test(name) || name.startsWith("nats-"))
      throw new TypeError(`not a header name: ${JSON.stringify(name)}`);
    if (!headerValue.test(value)) throw new TypeError(`the value of header ${name} is not printable ASCII`);
    bytes += name.length + value.length + 4;
  }
  if (bytes > maxHeaderBytes) throw tooLarge(maxHeaderBytes, "The headers of a message");
}

/** Refuses data that is larger than a message may be. */
export function assertSize(data: Uint8Array): void {
  if (data.length > maxDataBytes) throw tooLarge(maxDataBytes, "A message");
}

/** Checks the options of a consumer and fills in the defaults. */
export function compileConsumer(options: ConsumeOptions): Consumer {
  const { durable, subjects, maxDeliver = 5, backoffMs = [1_000, 5_000, 15_000, 60_000] } = options;
  const { ackWaitMs = 30_000, parallelism = 8, timeoutMs = 300_000 } = options;
  if (!durableName.test(durable)) throw new TypeError(`not a durable name: ${JSON.stringify(durable)}`);
  if (subjects.length === 0) throw new TypeError(`durable ${durable} has no subjects`);
  for (const [i, subject] of subjects.entries()) {
    assertPattern(subject);
    const other = subjects.slice(0, i).find((earlier) => overlap(earlier, subject));
    if (other !== undefined) throw new TypeError(`subjects of durable ${durable} overlap: ${other} and ${subject}`);
  }
  assertWithin("maxDeliver", maxDeliver, 1, 100);
  assertWithin("parallelism", parallelism, 1, 64);
  assertWithin("ackWaitMs", ackWaitMs, 100, 3_600_000);
  assertWithin("timeoutMs", timeoutMs, 1, 3_600_000);
  if (backoffMs.length === 0) throw new TypeError("backoffMs is empty");
  for (const ms of backoffMs) assertWithin("backoffMs", ms, 1, 86_400_000);
  return { ...options, maxDeliver, backoffMs, ackWaitMs, parallelism, timeoutMs };
}

/** The refusal of a publication because too many others are pending. */
export function tooManyPending(): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "CONCURRENCY_LIMIT",
    message: "Too many publications are pending on the event bus.",
    retryAfterMs: 1_000,
  });
}

function assertWithin(name: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new TypeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
}

function tooLarge(maxBytes: number, what: string): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "PAYLOAD_TOO_LARGE",
    message: `${what} may have at most ${maxBytes} bytes.`,
    facts: { max_bytes: String(maxBytes) },
  });
}
