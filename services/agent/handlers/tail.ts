import type { ServiceImpl } from "@connectrpc/connect";
import type { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { abortable } from "#platform/abortable.ts";
import { callOf } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { Runs } from "../runs/runs.ts";

const WAIT_MS = 15_000;

/** For other replicas of this service: what only the owner of a run has. */
export function tailHandler(runs: Runs): ServiceImpl<typeof RunTailService> {
  return {
    async *tailRun({ runId }, context) {
      const call = callOf(context);
      const { principal, signal } = call;
      // The replica that asks has checked its reader, whose name it asks in; what belongs to one user is checked here, too.
      await runs.get(call, runId);
      using subscription = runs.subscribeOwned(principal.tenantId, runId) ?? raise(notFound("run"));
      yield { frame: { case: "openItems", value: subscription.open } };
      const { queue } = subscription;
      while (!signal.aborted && queue.ended === undefined) {
        await queue.wait(signal, WAIT_MS);
        for (const event of queue.take()) yield { frame: { case: "event", value: event } };
      }
    },

    async nudgeOwnedRun({ runId }, context) {
      const call = callOf(context);
      await runs.mayChange(call, runId);
      if (!runs.nudgeOwned(call.principal.tenantId, runId)) throw notFound("run");
      return {};
    },

    async cancelOwnedRun({ runId, cause }, context) {
      const call = callOf(context);
      await runs.mayChange(call, runId);
      const ended = runs.cancelOwned(call.principal.tenantId, runId, cause) ?? raise(notFound("run"));
      await abortable(ended, call.signal);
      const run = await runs.get(call, runId);
      return { terminalSeq: run.last_seq };
    },
  };
}
