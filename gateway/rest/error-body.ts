import { create, type JsonValue, type Message, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { toConnectError } from "#platform/rpc/connect-error.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { codeName } from "#platform/rpc/observe.ts";
import { CHALLENGE } from "../edge/credential.ts";
import { HttpError } from "./errors.ts";
import type { MessageWriter } from "./json/write-message.ts";

/** An error as HTTP shows it. */
export interface HttpFailure {
  readonly error: ConnectError;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** AIP-193. */
  readonly body: { readonly error: ErrorFields };
}

export interface ErrorFields {
  /** HTTP status. */
  readonly code: number;
  /** Canonical code, such as NOT_FOUND. */
  readonly status: string;
  readonly message: string;
  readonly details: readonly JsonValue[];
}

/** The HTTP statuses of the canonical codes (google.rpc.Code), as Connect and grpc-gateway have them, too. */
const HTTP_STATUS: Readonly<Record<Code, number>> = {
  [Code.Canceled]: 499,
  [Code.Unknown]: 500,
  [Code.InvalidArgument]: 400,
  [Code.DeadlineExceeded]: 504,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.PermissionDenied]: 403,
  [Code.ResourceExhausted]: 429,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.OutOfRange]: 400,
  [Code.Unimplemented]: 501,
  [Code.Internal]: 500,
  [Code.Unavailable]: 503,
  [Code.DataLoss]: 500,
  [Code.Unauthenticated]: 401,
};

/** Renders whatever was thrown while a request was served. */
export function failureOf(thrown: unknown, requestId: string, writer: MessageWriter): HttpFailure {
  const error = toConnectError(thrown, requestId);
  const own = thrown instanceof HttpError ? thrown : undefined;
  const status = own?.httpStatus ?? statusOf(error);
  const retryAfter = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    error,
    status,
    headers: {
      ...own?.headers,
      ...(status === 401 ? { "www-authenticate": challenge(error) } : {}),
      ...(retryAfter === undefined ? {} : { "retry-after": String(Math.ceil(durationMs(retryAfter) / 1000)) }),
    },
    body: {
      error: {
        code: status,
        status: canonicalName(error.code),
        message: error.rawMessage,
        details: error.details.map((detail) => detailJson(detail, writer)),
      },
    },
  };
}

/** "NOT_FOUND" for Code.NotFound, as google.rpc.Code spells it; CANCELLED has two l there. */
export function canonicalName(code: Code): string {
  return code === Code.Canceled ? "CANCELLED" : codeName(code).toUpperCase();
}

function statusOf(error: ConnectError): number {
  return reasonOf(error) === "PAYLOAD_TOO_LARGE" ? 413 : HTTP_STATUS[error.code];
}

/** RFC 6750 §3.1: the error attribute only when a credential was given. */
function challenge(error: ConnectError): string {
  return reasonOf(error) === "CREDENTIAL_MISSING" ? CHALLENGE : `${CHALLENGE}, error="invalid_token"`;
}

const TYPE_PREFIX = "type.googleapis.com/";

function detailJson(detail: ConnectError["details"][number], writer: MessageWriter): JsonValue {
  if (!("desc" in detail)) return writer.any({ typeUrl: TYPE_PREFIX + detail.type, value: detail.value });
  const { desc, value } = detail;
  return writer.any({ typeUrl: TYPE_PREFIX + desc.typeName, value: toBinary(desc, create(desc, value) as Message) });
}
