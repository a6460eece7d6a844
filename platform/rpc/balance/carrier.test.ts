import assert from "node:assert/strict";
import { after, before, describe, mock, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { onward } from "../call.ts";
import { reasonOf } from "../errors.ts";
import { rejection, testCall } from "../test-mesh.contract.ts";
import { openTestReplicas } from "./test-replicas.contract.ts";

describe("the connection to one replica", () => {
  before(() => void mock.method(console, "error", () => {}));
  after(() => mock.restoreAll());

  // An error of the session that nobody listens to would end the process, and fails this test.
  test("that goes away while calls are made fails calls only", async () => {
    for (let round = 0; round < 15; round++) {
      await using mesh = await openTestReplicas(1, (router) =>
        router.service(RunTailService, { cancelOwnedRun: () => ({}) }),
      );
      const ask = () =>
        mesh.links
          .at(RunTailService, mesh.addresses[0] ?? "")
          .cancelOwnedRun({ runId: "run_1" }, onward(testCall(["agents:run"])));
      await ask();
      const killed = mesh.kill(0);
      const calls: Promise<unknown>[] = [];
      for (let moment = 0; moment < 20; moment++) {
        calls.push(ask().catch((error) => error));
        await turn();
      }
      await killed;
      assert.equal(reasonOf(await rejection(ask())), "DEPENDENCY_DOWN");
      await Promise.all(calls);
    }
  });
});
