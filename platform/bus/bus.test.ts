import { skipWithout } from "../testing/missing-server.ts";
import { natsUrlVariable, privateNats } from "../testing/private-nats.ts";
import { describeBus } from "./bus.contract.ts";
import { createBus } from "./create-bus.ts";

describeBus("EmbeddedBus", async () => ({
  make: (options) => createBus(options),
  [Symbol.asyncDispose]: async () => {},
}));

describeBus(
  "NatsBus",
  async () => {
    const { url, stream, prefix, ...nats } = await privateNats();
    return { make: (options) => createBus({ ...options, url, stream, prefix, maxBytes: 16 * 1024 ** 2 }), ...nats };
  },
  { skip: skipWithout("nats-server", natsUrlVariable) },
);
