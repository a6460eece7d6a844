import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { Call } from "../rpc/call.ts";
import { idempotent } from "./idempotency.ts";
import type { Tx } from "./transaction.ts";

/** A request with the key that makes it safe to repeat, as the verb that carries it out needs it. */
export interface Once<O extends DescMessage> {
  /** Full method name. */
  readonly method: string;
  /** The caller's key; empty when it gave none. */
  readonly requestId: string;
  /** The request without its key, encoded. */
  readonly request: Uint8Array;
  readonly response: O;
}

/** Hides stored responses that hold a secret. `context` must be the same for both, or opening fails. */
export interface Envelope {
  seal(plain: Uint8Array, context: string): Uint8Array;
  open(sealed: Uint8Array, context: string): Uint8Array;
}

export interface AnswerOnceOptions<O extends DescMessage> {
  readonly schema: string;
  /** Tenant of the transaction: another one than the caller's when a platform administrator crosses. */
  readonly tenantId: string;
  readonly call: Call;
  readonly once: Once<O>;
  readonly envelope?: Envelope | undefined;
}

/** A handler's request as a {@link Once}. */
export function onceOf<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  request: MessageShape<I> & { readonly requestId: string },
): Once<O> {
  return {
    method: `${method.parent.typeName}/${method.name}`,
    requestId: request.requestId,
    request: toBinary(method.input, { ...request, requestId: "" }),
    response: method.output,
  };
}

/** {@link idempotent} for protobuf messages: a repeat of the request gets the message that the first one got. */
export async function answerOnce<O extends DescMessage>(
  tx: Tx,
  { schema, tenantId, call, once, envelope }: AnswerOnceOptions<O>,
  run: () => Promise<MessageInitShape<O>>,
): Promise<MessageShape<O>> {
  const { method, requestId, request } = once;
  if (requestId === "") return create(once.response, await run());
  const context = `${tenantId} ${call.principal.subject} ${method} ${requestId}`;
  const asTenant = { ...call, principal: { ...call.principal, tenantId } };
  const { response } = await idempotent(tx, { schema, call: asTenant, method, requestId, request }, async () => {
    const bytes = toBinary(once.response, create(once.response, await run()));
    return envelope === undefined ? bytes : envelope.seal(bytes, context);
  });
  return fromBinary(once.response, envelope === undefined ? response : envelope.open(response, context));
}
