import type { ConnectRouter, HandlerContext } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.ts";
import { notFound } from "./errors.ts";

/** What the health service asks: is this process ready, and does it serve the named service? */
export interface HealthSource {
  ready(): boolean;
  /** Full names of the proto services that this process serves. */
  services(): readonly string[];
  /** Calls back whenever readiness may have changed; returns a function that unsubscribes. */
  onChange(listener: () => void): () => void;
}

/** Mounts grpc.health.v1.Health (the gRPC health checking protocol). It needs no credential. */
export function mountHealth(router: ConnectRouter, source: HealthSource): void {
  const statusOf = (service: string): Status => {
    if (service !== "" && !source.services().includes(service)) return Status.SERVICE_UNKNOWN;
    return source.ready() ? Status.SERVING : Status.NOT_SERVING;
  };
  router.service(Health, {
    check({ service }) {
      const status = statusOf(service);
      if (status === Status.SERVICE_UNKNOWN) throw notFound("service");
      return { status };
    },
    list: () => ({
      statuses: Object.fromEntries(["", ...source.services()].map((name) => [name, { status: statusOf(name) }])),
    }),
    async *watch({ service }, context: HandlerContext) {
      let wake = Promise.withResolvers<void>();
      const unsubscribe = source.onChange(() => wake.resolve());
      const stop = () => wake.resolve();
      context.signal.addEventListener("abort", stop);
      try {
        let last: Status | undefined;
        while (!context.signal.aborted) {
          const status = statusOf(service);
          if (status !== last) yield { status };
          last = status;
          await wake.promise;
          wake = Promise.withResolvers<void>();
        }
      } finally {
        unsubscribe();
        context.signal.removeEventListener("abort", stop);
      }
    },
  });
}
