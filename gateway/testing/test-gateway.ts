import type { DescService } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { VerifyCredentialResponse } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import type { Component } from "#platform/module/module.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import type { Limiter } from "#platform/redis/limiter.ts";
import { callOf } from "#platform/rpc/call.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { openPort, PORT_LIMITS, type Port, type PortLimits } from "#platform/rpc/port.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import {
  type Carrier,
  openTestMesh,
  RecordedCalls,
  type TestMesh,
  type TestModule,
} from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import type { GatewayConfig } from "../config.ts";
import { createGateway, type Gateway } from "../gateway.ts";
import { GATEWAY_LIMITS, type GatewayLimits } from "../limits.ts";

/** The API key that a test gateway knows from the start; it holds every tenant scope. */
export const KEY = "am_live_test";
export const TENANT = "ten_00000000000000000000000001";

/** Tests send more than any client may; those of rate limits say which. */
const NO_RATES = {
  tenantRunRate: 0,
  tenantWriteRate: 0,
  tenantReadRate: 0,
  keyRunRate: 0,
  keyWriteRate: 0,
  keyReadRate: 0,
  addressFailureRate: 0,
} satisfies Partial<GatewayLimits>;

export interface TestGatewayInit {
  /** Served by one backend, and mounted. */
  readonly services: readonly DescService[];
  readonly routes: TestModule["routes"];
  readonly limits?: Partial<GatewayLimits>;
  readonly config?: Partial<Omit<GatewayConfig, "limits" | "port">>;
  readonly port?: Partial<PortLimits>;
  readonly carrier?: Carrier;
  readonly components?: readonly Component[];
  readonly limiter?: Limiter;
  readonly mode?: "embedded" | "distributed";
}

type Verification = Partial<Omit<VerifyCredentialResponse, "$typeName">>;

/** auth's VerifyCredential, with the keys of a test. */
export class TestKeys {
  readonly known = new Map<string, Verification>([[KEY, {}]]);
  suspended = false;
  /** While set, auth does not answer. */
  away: Promise<void> | undefined;
  asked = 0;

  async verify(credential: string): Promise<Verification> {
    this.asked += 1;
    const answer = this.known.get(credential);
    const { suspended } = this;
    await this.away;
    if (suspended) {
      throw new AppError({
        code: Code.PermissionDenied,
        reason: "TENANT_SUSPENDED",
        message: "The tenant is suspended.",
      });
    }
    if (answer === undefined) {
      throw new AppError({
        code: Code.Unauthenticated,
        reason: "CREDENTIAL_INVALID",
        message: "The credential is not valid.",
      });
    }
    const defaults = { tenantId: TENANT, subject: "key_1", scopes: [...TENANT_SCOPES], credentialId: "key_1" };
    return { ...defaults, ...answer };
  }
}

/** A gateway on a port of its own, before real routers with the service pipeline. */
export interface TestGateway extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly gateway: Gateway;
  readonly keys: TestKeys;
  readonly bus: EmbeddedBus;
  /** What the edge reported. */
  readonly calls: RecordedCalls;
  readonly health: { isReady: boolean };
  /** With the key, unless the test says otherwise. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON and reads it. */
  json(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<JsonAnswer>;
}

export interface JsonAnswer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly body: any;
}

export async function openTestGateway(init: TestGatewayInit): Promise<TestGateway> {
  await using undo = new AsyncDisposableStack();
  const keys = new TestKeys();
  const log = createLog({ level: "silent", service: "test" });
  const mesh: TestMesh = undo.use(
    await openTestMesh(init.carrier ?? "memory", {
      auth: {
        services: [TokenService],
        routes: (router) =>
          router.service(TokenService, {
            verifyCredential: ({ credential }, context) => {
              callOf(context);
              return keys.verify(credential);
            },
          }),
      },
      backend: { services: init.services, routes: init.routes },
    }),
  );
  const bus = undo.use(new EmbeddedBus({ log }));
  const calls = new RecordedCalls();
  const health = { isReady: true };
  const gateway = createGateway(
    {
      trustedProxies: [],
      corsOrigins: undefined,
      metricsPublic: false,
      replicas: 1,
      ...init.config,
      limits: { ...GATEWAY_LIMITS, ...NO_RATES, ...init.limits },
      port: PORT_LIMITS,
    },
    {
      mode: init.mode ?? "embedded",
      log,
      metrics: createMetrics({ process: false }),
      bus,
      links: mesh.links("edge"),
      limiter: init.limiter ?? new EmbeddedLimiter(),
      components: init.components ?? [],
      health: { ready: () => health.isReady, services: () => [], onChange: () => () => {} },
    },
    calls,
    init.services,
  );
  await gateway.verifier.listen(bus);
  undo.defer(() => gateway.stop());
  const port: Port = await openPort({
    host: "127.0.0.1",
    port: 0,
    listener: gateway.edge.listener,
    ...(init.port === undefined ? {} : { limits: init.port }),
  });
  undo.defer(() => port.close(200));
  const url = `http://127.0.0.1:${port.port}`;
  const owned = undo.move();
  const request = (path: string, more: RequestInit = {}) =>
    fetch(url + path, {
      ...more,
      headers: { authorization: `Bearer ${KEY}`, ...(more.headers as Record<string, string>) },
    });
  return {
    url,
    port: port.port,
    gateway,
    keys,
    bus,
    calls,
    health,
    fetch: request,
    async json(method, path, body, headers = {}) {
      const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
      const type: Record<string, string> = body === undefined ? {} : { "content-type": "application/json" };
      const response = await request(path, { method, ...sent, headers: { ...type, ...headers } });
      return { status: response.status, headers: response.headers, body: await response.json() };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
