import { createRegistry, type DescService } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { type Arrival, type Call, onward } from "#platform/rpc/call.ts";
import { AppError, reasonOf } from "#platform/rpc/errors.ts";
import type { Links } from "#platform/rpc/links.ts";
import { codeName, type Observation, type ObservedCall } from "#platform/rpc/observe.ts";
import { defaultTimeoutMs } from "../deadlines.ts";
import { type Admission, ANONYMOUS } from "../edge/admission.ts";
import { answerOf } from "../edge/answer.ts";
import type { Exchange } from "../exchange.ts";
import type { GatewayLimits } from "../limits.ts";
import { callUnary } from "../pass-through.ts";
import { publicMethods } from "../public-services.ts";
import { bindRequest } from "./bind.ts";
import { readJsonBody } from "./body.ts";
import type { Aliases } from "./document-aliases.ts";
import { failureOf } from "./error-body.ts";
import { methodNotAllowed, routeNotFound } from "./errors.ts";
import { MessageWriter } from "./json/write-message.ts";
import { timeoutOf } from "./request-timeout.ts";
import { respondFailure, respondJson } from "./respond.ts";
import { type Route, routesOf } from "./route.ts";
import { createRouter } from "./router.ts";
import { streamEvents } from "./sse/stream-events.ts";
import { unaryAnswer } from "./unary-answer.ts";

export interface RestOptions {
  readonly services: readonly DescService[];
  readonly links: Pick<Links, "transport">;
  readonly admission: Admission;
  readonly observation: Observation;
  readonly aliases: Aliases;
  readonly limits: GatewayLimits;
}

/** The JSON face: google.api.http compiled from descriptors. */
export interface RestDoor {
  /** All that it answers, for the documentation. */
  readonly routes: readonly Route[];
  /** Answers, whatever the path; never rejects. The signal aborts the call. */
  serve(exchange: Exchange, signal: AbortSignal): Promise<void>;
}

/** Compiles the routes of all public methods. Throws an error that names the method when one is invalid or ambiguous. */
export function createRestDoor(options: RestOptions): RestDoor {
  const { admission, limits, links } = options;
  const routes = publicMethods(options.services).flatMap(routesOf);
  const router = createRouter(routes);
  // What error details and google.rpc.Status may hold.
  const details = createRegistry(file_google_rpc_error_details);
  const writer = new MessageWriter(details, (desc) => options.aliases.fields(desc));

  const answer = async (exchange: Exchange, route: Route, segments: readonly string[], call: Call): Promise<void> => {
    const body = await readJsonBody(exchange.request, exchange.header, limits, route.body.kind !== "none");
    const message = bindRequest(
      route,
      { segments, query: exchange.query, header: exchange.header, body },
      {
        aliases: options.aliases,
        maxQueryParameters: limits.maxQueryParameters,
        maxViolations: limits.maxViolations,
      },
    );
    const transport = links.transport(route.method.parent);
    if (route.kind === "stream") {
      return streamEvents({ exchange, route, transport, message, call, writer, times: limits });
    }
    const response = await callUnary(transport, route.method, message, onward(call));
    const { json, headers } = unaryAnswer(route, response, writer, options.aliases);
    respondJson(exchange, 200, json, { ...headers, "x-request-id": call.requestId });
  };

  const serveRoute = async (
    exchange: Exchange,
    route: Route,
    segments: readonly string[],
    arrival: Arrival,
    signal: AbortSignal,
    ending: AbortController | undefined,
  ): Promise<void> => {
    arrival.principal = await admission.admit(route.method, exchange.header, arrival, answerOf(exchange, ending));
    const timeoutMs = timeoutOf(exchange.header, limits.maxTimeoutMs) ?? defaultTimeoutMs(route.method, limits);
    const { requestId, ip, userAgent, principal = ANONYMOUS } = arrival;
    const deadline = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
    await answer(exchange, route, segments, { principal, signal, requestId, ip, userAgent, deadline });
  };

  return {
    routes,
    async serve(exchange, signal) {
      const arrival: Arrival = {
        ...admission.identify(exchange.header, exchange.clientAddress),
        principal: undefined,
        startedAt: performance.now(),
      };
      const match = router.match(exchange.httpMethod, exchange.path);
      if (match.kind !== "route") {
        const error = match.kind === "method" ? methodNotAllowed(match.allow) : routeNotFound();
        return respondFailure(exchange, failureOf(error, arrival.requestId, writer), arrival.requestId);
      }
      const { route, segments } = match;
      const observed = options.observation.begin({
        service: route.method.parent.typeName,
        method: route.method.name,
        header: exchange.header,
        requestId: arrival.requestId,
      });
      const ending = route.kind === "stream" ? new AbortController() : undefined;
      const ends = ending === undefined ? signal : AbortSignal.any([signal, ending.signal]);
      try {
        await observed.run(() => serveRoute(exchange, route, segments, arrival, ends, ending));
        end(observed, arrival, undefined);
      } catch (thrown) {
        const cause = ends.aborted && !(thrown instanceof AppError) ? ends.reason : thrown;
        const failure = failureOf(cause, arrival.requestId, writer);
        respondFailure(exchange, failure, arrival.requestId);
        end(observed, arrival, failure.error, cause);
      }
    },
  };
}

function end(observed: ObservedCall, arrival: Arrival, failure: ConnectError | undefined, cause?: unknown): void {
  observed.end({
    code: failure === undefined ? "ok" : codeName(failure.code),
    reason: failure && reasonOf(failure),
    durationMs: performance.now() - arrival.startedAt,
    requestId: arrival.requestId,
    tenantId: arrival.principal?.tenantId,
    error: cause,
  });
}
