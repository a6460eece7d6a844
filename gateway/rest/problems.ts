import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { Reason } from "#platform/rpc/reasons.ts";

export type ProblemReason = Extract<
  Reason,
  "FIELD_INVALID" | "FIELD_UNKNOWN" | "FIELD_CONFLICT" | "UPDATE_MASK_INVALID"
>;

/** Names come from the caller; an answer must not grow with them. */
const MAX_NAME = 128;

/** What is wrong with the fields of one request, collected so that a caller learns of everything at once. */
export class Problems {
  readonly #max: number;
  readonly #found: { reason: ProblemReason; field: string; description: string }[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  /** @param field path in proto names, such as `session.labels["a"]` */
  add(reason: ProblemReason, field: string, description: string): void {
    if (this.full) return;
    this.#found.push({ reason, field: shortened(field), description });
  }

  /** True when more would not be listed; whoever reads on may stop. */
  get full(): boolean {
    return this.#found.length >= this.#max;
  }

  /** Throws INVALID_ARGUMENT with one violation per problem, under the reason of the first. */
  throwIfAny(): void {
    const [first] = this.#found;
    if (first === undefined) return;
    throw new AppError({
      code: Code.InvalidArgument,
      reason: first.reason,
      message: this.#found.map(({ field, description }) => `${field}: ${description}`).join("; "),
      violations: this.#found.map(({ field, description }) => ({ field, description })),
    });
  }
}

function shortened(name: string): string {
  const characters = name.length > MAX_NAME ? `${name.slice(0, MAX_NAME)}…` : name;
  return characters.toWellFormed();
}
