import { NatsBus } from "#platform/bus/nats-bus.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithout } from "#platform/testing/missing-server.ts";
import { natsUrlVariable, privateNats } from "#platform/testing/private-nats.ts";
import { describeQueue } from "./queue.contract.ts";

describeQueue("the embedded bus", async () => undefined, false);

describeQueue(
  "NATS",
  async () => {
    const { url, stream, prefix, ...nats } = await privateNats();
    const log = createLog({ level: "silent", service: "bus" });
    const make = () => new NatsBus({ url, stream, prefix, log, maxBytes: 16 * 1024 ** 2 });
    return { make, [Symbol.asyncDispose]: () => nats[Symbol.asyncDispose]() };
  },
  skipWithout("nats-server", natsUrlVariable),
);
