import { Code } from "@connectrpc/connect";
import { DatabaseError as PgError } from "pg";
import { AppError, dependencyDown } from "#platform/rpc/errors.ts";

/**
 * An error that PostgreSQL reported, without the statement and the values that its own error carries: `code` is the
 * SQLSTATE, and the names are those of the schema. Callers see INTERNAL; stores may catch it where they expect it.
 */
export class DatabaseError extends Error {
  override readonly name: string = "DatabaseError";
  readonly code: string;
  readonly constraint: string | undefined;
  readonly table: string | undefined;

  constructor(error: PgError) {
    super(describe(error));
    this.code = error.code ?? "";
    this.constraint = error.constraint;
    this.table = error.table && `${error.schema}.${error.table}`;
  }
}

/** A row with the same unique key exists. `constraint` is the name of the constraint or unique index. */
export class UniqueViolation extends DatabaseError {
  override readonly name = "UniqueViolation";
}

/**
 * ABORTED: this transaction and another one could not both go on (serialization failure, deadlock), and this one was
 * rolled back. Running it again from its start may succeed: {@link retryConflicts}.
 */
export class TransactionConflict extends AppError {
  constructor(cause?: unknown) {
    super({
      code: Code.Aborted,
      reason: "CONCURRENT_CHANGE",
      message: "Another change came in between. Try again.",
      retryAfterMs: 100,
      cause,
    });
  }
}

/** Whether `error` is a unique violation, of this constraint when one is named. */
export function isUniqueViolation(error: unknown, constraint?: string): error is UniqueViolation {
  return error instanceof UniqueViolation && (constraint === undefined || error.constraint === constraint);
}

/**
 * The one place where what pg throws becomes what stores and callers see. `readOnly`: the transaction asked to be, so
 * that a refused write is the caller's mistake and not a standby's.
 */
export function databaseError(error: unknown, { readOnly = false }: { readOnly?: boolean } = {}): Error {
  if (error instanceof AppError || error instanceof DatabaseError) return error;
  if (!(error instanceof PgError))
    return isConnectionFailure(error) ? dependencyDown("postgres", error) : asError(error);
  const code = error.code ?? "";
  if (conflictCodes.has(code)) return new TransactionConflict(new DatabaseError(error));
  if (code === "0A000" && error.routine === "RevalidateCachedQuery")
    return new TransactionConflict(new DatabaseError(error));
  if (code === "23505") return new UniqueViolation(error);
  if (textCodes.has(code)) return unstorableText(new DatabaseError(error));
  if (code === "57014") return deadlineExceeded(new DatabaseError(error));
  if (code === "25006" && readOnly) return new DatabaseError(error);
  if (unavailableCodes.has(code) || unavailableClasses.has(code.slice(0, 2))) {
    return dependencyDown("postgres", new DatabaseError(error));
  }
  return new DatabaseError(error);
}

/** DEADLINE_EXCEEDED: the statement ran into its time limit. */
export function deadlineExceeded(cause?: unknown): AppError {
  return new AppError({
    code: Code.DeadlineExceeded,
    reason: "DEADLINE",
    message: "The database did not answer within the time that this call has.",
    cause,
  });
}

/** INVALID_ARGUMENT: text holds a character that PostgreSQL cannot store (U+0000, in JSON also half a surrogate pair). */
function unstorableText(cause: unknown): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "FIELD_INVALID",
    message: "Text must not contain the character U+0000 or half a surrogate pair.",
    cause,
  });
}

/** Whether the connection can no longer be used after this error. */
export function breaksConnection(error: unknown): boolean {
  if (!(error instanceof PgError)) return true;
  return error.severity === "FATAL" || error.severity === "PANIC" || error.routine === "RevalidateCachedQuery";
}

const conflictCodes = new Set(["40001", "40P01"]);
const textCodes = new Set(["22021", "22P05"]);
/** Connection exceptions, insufficient resources (disk full, out of memory, too many connections), I/O errors. */
const unavailableClasses = new Set(["08", "53", "58"]);
/** Shut down by an administrator or a crash, starting up, idle limits, and a standby after a failover. */
const unavailableCodes = new Set(["57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "25006"]);

const networkCodes = new Set(
  "ECONNREFUSED ECONNRESET EPIPE ENOENT ETIMEDOUT EHOSTUNREACH ENETUNREACH ENOTFOUND EAI_AGAIN EACCES".split(" "),
);

function isConnectionFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as NodeJS.ErrnoException;
  if (code !== undefined) return networkCodes.has(code);
  // pg's own errors have no codes.
  return /^(Connection terminated|Client (was closed|has encountered)|timeout exceeded when trying|Cannot use a pool after)/.test(
    error.message,
  );
}

/** Classes of SQLSTATE whose messages name things of the schema only; those of others can quote values. */
const speakingClasses = new Set(["08", "0A", "23", "25", "28", "3D", "3F", "42", "53", "55", "57"]);

function describe(error: PgError): string {
  const code = error.code ?? "";
  const said = speakingClasses.has(code.slice(0, 2)) ? `: ${error.message}` : "";
  return `PostgreSQL error ${code}${said}`;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error("the database client failed", { cause: error });
}
