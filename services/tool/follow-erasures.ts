import { fromBinary } from "@bufbuild/protobuf";
import { SessionErasedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import type { Bus, Subscription } from "#platform/bus/bus.ts";
import { isId } from "#platform/id.ts";
import type { ErasureStore } from "./store/erasure-store.ts";

/** About an hour and a half, for a database that is away. */
const MAX_DELIVER = 100;

/**
 * Erases what belongs to sessions that the agent service has erased. One process handles each event; what cannot be
 * erased is delivered again.
 */
export function followErasures(bus: Bus, store: ErasureStore): Promise<Subscription> {
  return bus.consume({
    durable: "tool-erasure",
    subjects: ["agentmesh.session.v1.*.erased"],
    maxDeliver: MAX_DELIVER,
    async onMessage({ subject, data }, signal) {
      const { tenantId, sessionId } = fromBinary(SessionErasedSchema, data);
      if (!isId("ten", tenantId) || !subject.includes(`.${tenantId}.`) || sessionId === "") {
        throw new Error("an event on an erased session names no tenant, another one than its subject, or no session");
      }
      await store.erase({ tenantId, sessionId }, signal);
    },
  });
}
