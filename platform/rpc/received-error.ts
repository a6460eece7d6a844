import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

/**
 * An error of a handler as its caller would read it from a socket: code, message and details in their encoded form,
 * and the headers of the answer as metadata. Its cause and stack stay with the callee.
 */
export function receivedError(error: unknown, responseHeader: Headers): ConnectError {
  const { rawMessage, code, metadata, details } =
    error instanceof ConnectError ? error : new ConnectError("internal error", Code.Internal);
  const header = new Headers(responseHeader);
  metadata.forEach((value, name) => {
    header.append(name, value);
  });
  const encoded = details.map((detail) =>
    "desc" in detail
      ? { type: detail.desc.typeName, value: toBinary(detail.desc, create(detail.desc, detail.value)) }
      : detail,
  );
  // The constructor's type knows details that are to be sent only; those that were received have the shape above.
  return new ConnectError(rawMessage, code, header, encoded as never);
}
