import type { Bus } from "./bus.ts";
import { EmbeddedBus, type EmbeddedBusConfig } from "./embedded-bus.ts";
import { NatsBus, type NatsBusConfig } from "./nats-bus.ts";

/** `url` is NATS_URL; without it the bus is this process. What only one of the two buses knows is ignored by the other. */
export type BusConfig = Omit<NatsBusConfig, "url"> & EmbeddedBusConfig & { url?: string | undefined };

/** The bus that the configuration names. It returns at once; the connection is made, and made again, in the background. */
export function createBus({ url, ...config }: BusConfig): Bus {
  return url ? new NatsBus({ ...config, url }) : new EmbeddedBus(config);
}
