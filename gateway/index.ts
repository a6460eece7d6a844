import type { Module, Platform, Running } from "#platform/module/module.ts";
import type { NodeListener } from "#platform/rpc/port.ts";
import { rpcObservation } from "#platform/telemetry/rpc-observation.ts";
import { type GatewayConfig, readGatewayConfig } from "./config.ts";
import { createGateway } from "./gateway.ts";
import { PUBLIC_SERVICES } from "./public-services.ts";

/** A running gateway has what a port needs; between services it serves nothing. */
export interface GatewayRunning extends Running {
  readonly listener: NodeListener;
}

/** What of its configuration whoever opens the port needs to know. */
export type GatewayPortConfig = Pick<GatewayConfig, "port">;

/** The edge: verifies credentials and hands calls on to the services. */
export const gateway = {
  name: "gateway",
  services: [],
  config: readGatewayConfig,
  create(config: GatewayConfig, platform: Platform): GatewayRunning {
    const { edge, verifier, isDraining, drain, stop } = createGateway(
      config,
      platform,
      rpcObservation(platform.log, platform.metrics),
      PUBLIC_SERVICES,
    );
    return {
      listener: edge.listener,
      routes() {},
      start: () => verifier.listen(platform.bus),
      ready: () => !isDraining(),
      drain,
      stop,
    };
  },
} satisfies Module<GatewayConfig>;
