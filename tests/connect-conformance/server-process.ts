// node server-process.ts <schema>: the server of Connect's conformance suite. It reads a ServerCompatRequest from
// standard input, serves the suite's own service on a port of ours behind the gateway's listener and pipeline, writes a
// ServerCompatResponse with the port to standard output, and serves until SIGTERM.
import { readFile } from "node:fs/promises";
import {
  create,
  createRegistry,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { createAddressGuard } from "#gateway/edge/address-guard.ts";
import { createAdmission } from "#gateway/edge/admission.ts";
import { createCors } from "#gateway/edge/cors.ts";
import { createOpenStreams } from "#gateway/edge/open-streams.ts";
import { createPeerResolver } from "#gateway/edge/peer.ts";
import { createStreamWatch } from "#gateway/edge/stream-watch.ts";
import { GATEWAY_LIMITS } from "#gateway/limits.ts";
import { createGatewayListener } from "#gateway/listener.ts";
import { createAliases } from "#gateway/rest/document-aliases.ts";
import { MessageWriter } from "#gateway/rest/json/write-message.ts";
import { createRestDoor } from "#gateway/rest/rest-door.ts";
import { createRpcDoor } from "#gateway/rpc-door.ts";
import { createEdgePipeline } from "#gateway/rpc-pipeline.ts";
import { openPort } from "#platform/rpc/port.ts";
import { requestIdOf } from "#platform/rpc/request-id.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { rpcObservation } from "#platform/telemetry/rpc-observation.ts";
import { readSuiteSchema } from "./schema.ts";
import { mountConformanceService } from "./service.ts";

const OURS = /^google\.rpc\.(ErrorInfo|RequestInfo|RetryInfo)$/;

const schema = readSuiteSchema(await readFile(process.argv[2] ?? ""));
const asked = fromBinary(schema.message("ServerCompatRequest"), await readDelimited()) as unknown as {
  messageReceiveLimit: number;
};
const limits = {
  ...GATEWAY_LIMITS,
  ...(asked.messageReceiveLimit > 0 ? { maxBodyBytes: asked.messageReceiveLimit } : {}),
};
const log = createLog({ level: "silent", service: "conformance" });
const metrics = createMetrics({ process: false });
const observation = rpcObservation(log, metrics);
// The suite sends no credentials, so what verifies them is never asked.
const admission = createAdmission({
  verifier: {
    verify: () => Promise.reject(new Error("no method of the suite needs a credential")),
    remembers: () => false,
  },
  addresses: createAddressGuard(limits, metrics),
  rates: { enforce: async () => {} },
  streams: createOpenStreams(limits.maxTenantStreams, metrics),
  watch: createStreamWatch(limits),
  heap: { check() {} },
  maxCredentialLength: limits.maxCredentialLength,
  draining: () => false,
});
const pipeline = createEdgePipeline(admission, observation, limits, new AbortController().signal);
const rpc = createRpcDoor(
  (router) => mountConformanceService(router, schema),
  {
    ...pipeline,
    requestGate: bareErrors,
    interceptors: [bareDeadlines, ...(pipeline.interceptors ?? [])],
    // Messages of the suite hold other messages of the suite.
    jsonOptions: { registry: schema.registry },
  },
  { log, bodyTimeoutMs: limits.bodyTimeoutMs },
);
const links = {
  transport: () => {
    throw new Error("nothing is handed on");
  },
};
const edge = createGatewayListener({
  peers: createPeerResolver([]),
  cors: createCors([]),
  rpc,
  rest: createRestDoor({
    services: [],
    links,
    admission,
    observation,
    aliases: createAliases({ query: {}, fields: {}, answer: {} }),
    limits,
  }),
  faces: {},
  sameOrigin: new Set(),
  writer: new MessageWriter(createRegistry()),
  limits,
  requestId: requestIdOf,
});
/**
 * The suite compares the details of errors, to which ours add some of google.rpc. They are taken off again where the
 * library hands an error to the signal of its call, right before it writes it.
 */
async function bareErrors(context: HandlerContext): Promise<void> {
  await pipeline.requestGate?.(context);
  context.signal.addEventListener("abort", () => void bare(context.signal.reason));
}

/** The signal of a call whose deadline passes has aborted before: there the error is met on its way out. */
function bareDeadlines(next: Parameters<Interceptor>[0]): ReturnType<Interceptor> {
  async function* each<T>(messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      throw isLate(error) ? bare(error) : error;
    }
  }
  return async (request) => {
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: each(response.message) } : response;
    } catch (error) {
      throw isLate(error) ? bare(error) : error;
    }
  };
}

function isLate(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.DeadlineExceeded;
}

function bare(error: unknown): unknown {
  if (error instanceof ConnectError) {
    error.details = error.details.filter((one) => !OURS.test("desc" in one ? one.desc.typeName : one.type));
  }
  return error;
}

const port = await openPort({ host: "127.0.0.1", port: 0, listener: edge.listener });
process.once("SIGTERM", async () => {
  await port.close(0);
  process.exit(0);
});
writeDelimited(schema.message("ServerCompatResponse"), {
  host: "127.0.0.1",
  port: port.port,
} as MessageInitShape<DescMessage>);

/** One message behind its length in four bytes, big-endian. */
async function readDelimited(): Promise<Uint8Array> {
  let received = Buffer.alloc(0);
  for await (const chunk of process.stdin) {
    received = Buffer.concat([received, chunk as Buffer]);
    if (received.length >= 4 && received.length >= 4 + received.readUInt32BE(0)) break;
  }
  return received.subarray(4, 4 + received.readUInt32BE(0));
}

function writeDelimited(desc: DescMessage, init: MessageInitShape<DescMessage>): void {
  const bytes = toBinary(desc, create(desc, init));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  process.stdout.write(Buffer.concat([length, bytes]));
}
