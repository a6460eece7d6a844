import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMessage, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { ERROR_DOMAIN } from "#platform/rpc/reasons.ts";
import type { SuiteSchema } from "./schema.ts";

// The protos of the suite are read when the test runs, so that their messages have no generated types: these are the
// parts of connectrpc/conformance/v1/service.proto that the service needs.

interface Header {
  readonly name: string;
  readonly value: readonly string[];
}

interface SuiteError {
  readonly code: Code;
  readonly message?: string;
  readonly details: readonly Any[];
}

interface Definition {
  readonly responseHeaders: readonly Header[];
  readonly responseTrailers: readonly Header[];
  readonly responseDelayMs: number;
}

interface UnaryDefinition extends Definition {
  readonly response:
    | { readonly case: "responseData"; readonly value: Uint8Array }
    | { readonly case: "error"; readonly value: SuiteError }
    | { readonly case: undefined };
}

interface StreamDefinition extends Definition {
  readonly responseData: readonly Uint8Array[];
  readonly error?: SuiteError;
}

type UnaryRequest = Message & { readonly responseDefinition?: UnaryDefinition };
type StreamRequest = Message & { readonly responseDefinition?: StreamDefinition; readonly fullDuplex?: boolean };

type Payload = MessageInitShape<DescMessage>;

/** The suite's service, as its documentation and the comments of its protos describe it. */
export function mountConformanceService(router: ConnectRouter, schema: SuiteSchema): void {
  const { service } = schema;
  const byName = new Map(service.methods.map((method) => [method.name, method]));
  const pack = (request: Message) => {
    const desc = schema.registry.getMessage(request.$typeName);
    if (desc === undefined) throw new Error(`${request.$typeName} is not of the suite`);
    return anyPack(desc, request);
  };

  const infoOf = (context: HandlerContext, requests: readonly Message[]): Message =>
    create(schema.message("ConformancePayload.RequestInfo"), {
      requestHeaders: headersOf(context.requestHeader),
      timeoutMs: timeoutOf(context),
      requests: requests.map(pack),
      connectGetInfo: context.requestMethod === "GET" ? { queryParams: queryOf(context.url) } : undefined,
    } as Payload);

  const failure = ({ code, message, details }: SuiteError, info: Message | undefined): ConnectError => {
    const error = new ConnectError(message ?? "", code);
    const all = info === undefined ? details : [...details, pack(info)];
    error.details = all.map(({ typeUrl, value }) => ({ type: typeUrl.split("/").at(-1) ?? "", value }));
    // What a service of ours says with every error; one without it would be taken for a fault and told to nobody.
    error.details.push({ desc: ErrorInfoSchema, value: { reason: "SUITE", domain: ERROR_DOMAIN } });
    return error;
  };

  const unary = async (context: HandlerContext, requests: readonly UnaryRequest[], output: DescMessage) => {
    const definition = requests[0]?.responseDefinition;
    const info = infoOf(context, requests);
    if (definition !== undefined) {
      say(context, definition);
      await sleep(definition.responseDelayMs, undefined, { signal: context.signal });
    }
    if (definition?.response.case === "error") throw failure(definition.response.value, info);
    const data = definition?.response.case === "responseData" ? definition.response.value : new Uint8Array();
    return create(output, { payload: { data, requestInfo: info } } as Payload);
  };

  const oneRequest = (request: UnaryRequest, context: HandlerContext) =>
    unary(context, [request], context.method.output);

  async function* serverStream(request: StreamRequest, context: HandlerContext) {
    const definition = request.responseDefinition;
    if (definition === undefined) return;
    say(context, definition);
    yield* answers(definition, context, () => infoOf(context, [request]), 0);
  }

  async function* answers(definition: StreamDefinition, context: HandlerContext, info: () => Message, from: number) {
    let sent = from;
    for (const data of definition.responseData.slice(from)) {
      await sleep(definition.responseDelayMs, undefined, { signal: context.signal });
      const first = sent === 0 ? { requestInfo: info() } : {};
      sent += 1;
      yield create(context.method.output, { payload: { data, ...first } } as Payload);
    }
    if (definition.error !== undefined) throw failure(definition.error, sent === 0 ? info() : undefined);
  }

  async function* bidiStream(requests: AsyncIterable<StreamRequest>, context: HandlerContext) {
    let definition: StreamDefinition | undefined;
    let fullDuplex = false;
    let sent = 0;
    let isFirst = true;
    let pending: StreamRequest[] = [];
    for await (const request of requests) {
      pending.push(request);
      if (isFirst) {
        isFirst = false;
        ({ responseDefinition: definition, fullDuplex = false } = request);
        if (definition !== undefined) say(context, definition);
      }
      if (!fullDuplex) continue;
      const data = definition?.responseData[sent];
      if (definition === undefined || data === undefined) break;
      const requestInfo =
        sent === 0
          ? infoOf(context, pending)
          : create(schema.message("ConformancePayload.RequestInfo"), { requests: pending.map(pack) } as Payload);
      await sleep(definition.responseDelayMs, undefined, { signal: context.signal });
      yield create(context.method.output, { payload: { data, requestInfo } } as Payload);
      sent += 1;
      pending = [];
    }
    if (definition !== undefined) yield* answers(definition, context, () => infoOf(context, pending), sent);
  }

  async function clientStream(requests: AsyncIterable<UnaryRequest>, context: HandlerContext) {
    const all: UnaryRequest[] = [];
    for await (const request of requests) all.push(request);
    return unary(context, all, context.method.output);
  }

  const handlers = { Unary: oneRequest, IdempotentUnary: oneRequest, ServerStream: serverStream };
  for (const [name, handler] of Object.entries({ ...handlers, ClientStream: clientStream, BidiStream: bidiStream })) {
    router.rpc(byName.get(name) as never, handler as never);
  }
  router.rpc(
    byName.get("Unimplemented") as never,
    (() => {
      throw new ConnectError("not implemented", Code.Unimplemented);
    }) as never,
  );
}

function say(context: HandlerContext, definition: Definition): void {
  for (const { name, value } of definition.responseHeaders) {
    for (const one of value) context.responseHeader.append(name, one);
  }
  for (const { name, value } of definition.responseTrailers) {
    for (const one of value) context.responseTrailer.append(name, one);
  }
}

function headersOf(headers: Headers): Header[] {
  return [...headers].map(([name, value]) => ({ name, value: value.split(", ") }));
}

function queryOf(url: string): Header[] {
  return [...new URL(url).searchParams].map(([name, value]) => ({ name, value: [value] }));
}

/** What is left of it, rounded as the suite compares it. */
function timeoutOf(context: HandlerContext): bigint | undefined {
  const left = context.timeoutMs();
  return left === undefined ? undefined : BigInt(Math.max(0, Math.round(left)));
}
