import type { DescMessage, DescMethodStreaming, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type Interceptor, type StreamResponse } from "@connectrpc/connect";
import { type Arrival, arrivalKey } from "./call.ts";
import { fromSignal, isAbort, isUnreadable, toConnectError } from "./connect-error.ts";
import { reasonOf } from "./errors.ts";

/** How a call ended. */
export interface CallOutcome {
  /** Canonical code in lower case with underscores, such as "not_found"; "ok" for success. */
  code: string;
  reason: string | undefined;
  durationMs: number;
  requestId: string;
  tenantId: string | undefined;
  /** What was thrown, for the log; undefined on success. */
  error: unknown;
}

/** One observed call. */
export interface ObservedCall {
  /** Runs `fn` inside the call's trace context. */
  run<T>(fn: () => T): T;
  end(outcome: CallOutcome): void;
}

/** Where the pipeline reports its calls: traces, metrics and logs behind one port. */
export interface Observation {
  begin(info: { service: string; method: string; header: Headers; requestId: string }): ObservedCall;
}

export interface Observer {
  interceptor: Interceptor;
  /** Reports a call that the request gate refused. */
  refused(context: HandlerContext, arrival: Arrival, refusal: ConnectError, cause: unknown): void;
  /**
   * Watches a call that the gate let in. What the library itself refuses around the interceptors (a body that is too
   * large, unreadable or cut, an answer that is too large) gets its reason and details here, and is reported when the
   * interceptor never saw the call.
   */
  watch(context: HandlerContext, arrival: Arrival): void;
}

/**
 * The interceptor around validation and handler: trace, metrics, log, error mapping, and the release of streams that
 * their readers abandoned. One interceptor, so that a message of a stream passes one wrapper and not four.
 */
export function createObserver(observation: Observation): Observer {
  const reported = new WeakSet<Arrival>();
  const refused: Observer["refused"] = (context, arrival, refusal, cause) => {
    reported.add(arrival);
    const call = observation.begin({
      service: context.service.typeName,
      method: context.method.name,
      header: context.requestHeader,
      requestId: arrival.requestId,
    });
    call.end(outcomeOf(arrival, refusal, cause));
  };
  return {
    refused,
    watch(context, arrival) {
      // The library hands an error to the context's signal right before it writes it.
      const onAbort = () => {
        const reason: unknown = context.signal.reason;
        const refusal =
          reason instanceof ConnectError &&
          (REFUSALS.has(reason.code) || isUnreadable(reason)) &&
          reasonOf(reason) === undefined;
        // Every call ends in an abort, also one that went well; an error made for nothing costs as much as a message.
        if (!refusal && reported.has(arrival)) return;
        const mapped = refusal ? toConnectError(reason, arrival.requestId) : fromSignal(reason, arrival.requestId);
        if (refusal) {
          const { code, details, rawMessage, message } = mapped;
          Object.assign(reason, { code, details, rawMessage, message });
        }
        if (!reported.has(arrival)) refused(context, arrival, mapped, reason);
      };
      context.signal.addEventListener("abort", onAbort, { once: true });
    },
    interceptor: (next) => async (request) => {
      const arrival = request.contextValues.get(arrivalKey) ?? unknownArrival();
      if (reported.has(arrival)) throw fromSignal(request.signal.reason, arrival.requestId);
      reported.add(arrival);
      const call = observation.begin({
        service: request.service.typeName,
        method: request.method.name,
        header: request.header,
        requestId: arrival.requestId,
      });
      try {
        const response = await call.run(() => next(request));
        if (response.stream) return observedStream(response, request.signal, call, arrival);
        call.end(success(arrival));
        return response;
      } catch (error) {
        const mapped = failureOf(error, request.signal, arrival.requestId);
        call.end(outcomeOf(arrival, mapped, error));
        throw mapped;
      }
    },
  };
}

/**
 * Wraps the messages of a stream flatly (no generator per layer). When the call's signal aborts and the reader does not
 * come back for the next message, the handler's generator would stay suspended and its `finally` would never run; so it
 * is returned here.
 */
function observedStream(
  response: StreamResponse,
  signal: AbortSignal,
  call: ObservedCall,
  arrival: Arrival,
): StreamResponse {
  type Message = MessageShape<DescMessage>;
  const inner = (response.message as AsyncIterable<Message>)[Symbol.asyncIterator]();
  let ended = false;
  const end = (outcome: CallOutcome) => {
    if (ended) return;
    ended = true;
    signal.removeEventListener("abort", release);
    call.end(outcome);
  };
  const release = () => {
    const aborted = fromSignal(signal.reason, arrival.requestId);
    const released = inner.return?.();
    if (released === undefined) return end(outcomeOf(arrival, aborted, signal.reason));
    released.then(
      () => end(outcomeOf(arrival, aborted, signal.reason)),
      (error) => end(outcomeOf(arrival, aborted, error)),
    );
  };
  if (signal.aborted) release();
  else signal.addEventListener("abort", release, { once: true });
  const iterator: AsyncIterator<Message> = {
    next: () =>
      call.run(() =>
        inner.next().then(
          (result) => {
            if (result.done === true) end(success(arrival));
            return result;
          },
          (error: unknown) => {
            const mapped = failureOf(error, signal, arrival.requestId);
            end(outcomeOf(arrival, mapped, error));
            throw mapped;
          },
        ),
      ),
    async return(value) {
      try {
        await inner.return?.();
      } finally {
        end(success(arrival));
      }
      return { done: true, value };
    },
  };
  const message = { [Symbol.asyncIterator]: () => iterator };
  return { ...response, message } as StreamResponse<DescMessage, DescMessage> & { method: DescMethodStreaming };
}

/** Codes with which the library refuses what it reads or writes. */
const REFUSALS: ReadonlySet<Code> = new Set([Code.InvalidArgument, Code.ResourceExhausted, Code.Unimplemented]);

/** The wire error of a call that threw; what its own signal aborted it with is no failure of the handler. */
function failureOf(error: unknown, signal: AbortSignal, requestId: string): ConnectError {
  const signalled = signal.aborted && (error === signal.reason || (isAbort(error) && error.cause === signal.reason));
  return signalled ? fromSignal(signal.reason, requestId) : toConnectError(error, requestId);
}

function success(arrival: Arrival): CallOutcome {
  return {
    code: "ok",
    reason: undefined,
    durationMs: performance.now() - arrival.startedAt,
    requestId: arrival.requestId,
    tenantId: arrival.principal?.tenantId,
    error: undefined,
  };
}

function outcomeOf(arrival: Arrival, mapped: ConnectError, cause: unknown): CallOutcome {
  return { ...success(arrival), code: codeName(mapped.code), reason: reasonOf(mapped), error: cause };
}

function unknownArrival(): Arrival {
  return { requestId: "", ip: "", userAgent: "", principal: undefined, startedAt: performance.now() };
}

/** "not_found" for Code.NotFound, as the Connect protocol spells codes; "canceled" has one l there. */
export function codeName(code: Code): string {
  return Code[code].replace(/[A-Z]/g, (letter, index: number) => `${index === 0 ? "" : "_"}${letter.toLowerCase()}`);
}
