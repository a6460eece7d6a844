import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { type BalanceOptions, balance } from "./balance/balanced-transport.ts";
import { openCarrier } from "./balance/carrier.ts";
import { parseTargets } from "./balance/targets.ts";
import { verdictOf } from "./balance/verdict.ts";
import { onwardKey } from "./call.ts";
import { dependencyDown } from "./errors.ts";
import type { HopSigner } from "./hop-token.ts";

/** How one service reaches another: a generated client over a carrier, with the caller's hop token on every call. */
export interface Links {
  /** A client of the service, wherever it runs; its calls are spread over the replicas. */
  to<S extends DescService>(service: S): Client<S>;
  /** The carrier itself, for code that works from descriptors, such as the gateway's pass-through. */
  transport(service: DescService): Transport;
  /** A client of one replica of the service, by its advertised address; never another one. */
  at<S extends DescService>(service: S, address: string): Client<S>;
  close(): Promise<void>;
}

export interface LinksOptions {
  /** Name of the calling module, for example "gateway". */
  caller: string;
  signer: HopSigner;
  /** Name of the module that serves a proto service, for example "agent" for agentmesh.agent.v1.ChatService. */
  moduleOf(service: DescService): string;
  /** Modules of this process by name; a call to one of them stays in memory. */
  local(module: string): Transport | undefined;
  /** Where a module in other processes is: an address list as {@link parseTargets} reads it. */
  address(module: string): string | undefined;
  /** Advertised address of this process: a replica-to-replica call to it stays in memory. */
  ownAddress: string;
  /** Adds `traceparent` to the headers of a call. */
  injectTrace(header: Headers): void;
  /** Limits of the balancing between replicas. */
  balance?: BalanceOptions;
}

export function createLinks(options: LinksOptions): Links {
  const opened: { close(): void }[] = [];
  const replicas = new Map<string, Transport>();

  const replica = (baseUrl: string, module: string): Transport => {
    const key = `${module} ${baseUrl}`;
    let transport = replicas.get(key);
    if (transport === undefined) {
      const carrier = openCarrier({ baseUrl, ip: undefined });
      opened.push(carrier);
      transport = withSender(carrier.transport, options, module);
      replicas.set(key, transport);
    }
    return transport;
  };

  const transportOf = (module: string): Transport => {
    const local = options.local(module);
    if (local !== undefined) return withSender(local, options, module);
    const address = options.address(module);
    if (address === undefined) throw dependencyDown(module, new Error(`no address configured for ${module}`));
    const balanced = balance(module, parseTargets(address), options.balance);
    opened.push(balanced);
    return withSender(balanced.transport, options, module);
  };

  const resolved = new Map<string, Transport>();
  const lazily = (service: DescService): Transport => {
    const module = options.moduleOf(service);
    const current = () => {
      let transport = resolved.get(module);
      if (transport === undefined) {
        transport = transportOf(module);
        resolved.set(module, transport);
      }
      return transport;
    };
    return {
      unary: (...call) => current().unary(...call),
      stream: (...call) => current().stream(...call),
    };
  };

  return {
    to: (service) => createClient(service, lazily(service)),
    transport: lazily,
    at(service, address) {
      const module = options.moduleOf(service);
      const local = address === options.ownAddress ? options.local(module) : undefined;
      return createClient(service, local === undefined ? replica(address, module) : withSender(local, options, module));
    },
    async close() {
      for (const one of opened.splice(0)) one.close();
      replicas.clear();
    },
  };
}

/** Gives every call of a carrier its hop token, request id, trace and the client's address. */
function withSender(inner: Transport, options: LinksOptions, callee: string): Transport {
  const prepare = async (
    header: Parameters<Transport["unary"]>[3],
    contextValues: Parameters<Transport["unary"]>[5],
  ) => {
    const call = contextValues?.get(onwardKey);
    if (call === undefined) throw new Error(`a call to ${callee} was made without onward(call)`);
    const headers = new Headers(header);
    headers.set("authorization", `Bearer ${await options.signer.sign(call.principal, callee)}`);
    headers.set("x-request-id", call.requestId);
    if (call.ip !== "") headers.set("agentmesh-client-ip", call.ip);
    if (call.userAgent !== "") headers.set("agentmesh-client-agent", encodeURIComponent(call.userAgent));
    options.injectTrace(headers);
    return headers;
  };
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const headers = await prepare(header, contextValues);
      try {
        return await inner.unary(method, signal, timeoutMs, headers, input, contextValues);
      } catch (error) {
        throw lost(error, signal, callee);
      }
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const headers = await prepare(header, contextValues);
      try {
        const response = await inner.stream(method, signal, timeoutMs, headers, input, contextValues);
        return { ...response, message: losing(response.message, (error) => lost(error, signal, callee)) };
      } catch (error) {
        throw lost(error, signal, callee);
      }
    },
  };
}

/** An error that the callee did not write, and that the caller did not cause by leaving, is the way's: DEPENDENCY_DOWN. */
function lost(error: unknown, signal: AbortSignal | undefined, callee: string): unknown {
  return verdictOf(error, signal) === "broken" ? dependencyDown(callee, error) : error;
}

/** The same messages with their failure mapped; flat, as one wrapper per message is what a stream can afford. */
function losing<T>(messages: AsyncIterable<T>, map: (error: unknown) => unknown): AsyncIterable<T> {
  const fail = (error: unknown) => {
    throw map(error);
  };
  return {
    [Symbol.asyncIterator]() {
      const inner = messages[Symbol.asyncIterator]();
      const close = inner.return?.bind(inner);
      return { next: () => inner.next().catch(fail), ...(close === undefined ? {} : { return: close }) };
    },
  };
}
