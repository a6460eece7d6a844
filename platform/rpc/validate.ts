import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator as createProtovalidator, type Violation } from "@bufbuild/protovalidate";
import { Code, type Interceptor } from "@connectrpc/connect";
import { AppError, type FieldViolation } from "./errors.ts";

const MAX_VIOLATIONS = 20;

/**
 * Checks request messages against the rules in their protos (buf.validate) and refuses with FIELD_INVALID and one
 * BadRequest violation per field. Streams of requests are checked message by message.
 */
export function createValidator(): Interceptor {
  const validator = createProtovalidator();
  const check: (schema: never, message: never) => void = (schema, message) => {
    const result = validator.validate(schema, message);
    if (result.kind === "valid") return;
    if (result.kind === "error") throw result.error;
    const violations = result.violations.slice(0, MAX_VIOLATIONS).map(fieldViolation);
    throw new AppError({
      code: Code.InvalidArgument,
      reason: "FIELD_INVALID",
      message: violations
        .map(({ field, description }) => (field === "" ? description : `${field}: ${description}`))
        .join("; "),
      violations,
    });
  };
  return (next) => async (request) => {
    if (!request.stream) {
      check(request.method.input as never, request.message as never);
      return next(request);
    }
    const { message, method } = request;
    return next({ ...request, message: checked(message, (one) => check(method.input as never, one as never)) });
  };
}

/** Flat, as a generator would cost a promise more per message. */
function checked<T>(messages: AsyncIterable<T>, check: (message: T) => void): AsyncIterable<T> {
  const pass = (result: IteratorResult<T>) => {
    if (result.done !== true) check(result.value);
    return result;
  };
  return {
    [Symbol.asyncIterator]() {
      const inner = messages[Symbol.asyncIterator]();
      const close = inner.return?.bind(inner);
      return { next: () => inner.next().then(pass), ...(close === undefined ? {} : { return: close }) };
    },
  };
}

function fieldViolation(violation: Violation): FieldViolation {
  return { field: pathToString(violation.field), description: violation.message };
}
