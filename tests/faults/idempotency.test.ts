import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Agent } from "node:http";
import { test } from "node:test";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { oneRunPerKey } from "./checkers.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { report } from "./report.ts";
import { runClient } from "./run-client.ts";
import { messageOf } from "./scripted-model.ts";

const KEYS = 1_000;
const PARALLEL = 20;
/** Keys that are asked for at a time. */
const WIDTH = 10;

describeFaults("a request key that many send at once", { gateways: 2, agents: 2 }, (suite) => {
  test("has one run, whoever asks through which gateway", { timeout: LIMIT_MS }, async () => {
    const { mesh, stored } = suite();
    const agent = new Agent({ keepAlive: true });
    const clients = mesh.gateways.map(({ baseUrl }) => runClient(baseUrl, mesh.adminKey, agent));
    try {
      const answers = new Map<string, string[]>();
      const failed: string[] = [];
      let next = 0;
      const worker = async () => {
        while (next < KEYS) {
          const tag = `k${next++}`;
          const key = randomUUID();
          const asked = await Promise.allSettled(
            Array.from({ length: PARALLEL }, (_, i) => ask(clients[i % clients.length], tag, key)),
          );
          answers.set(
            key,
            asked.flatMap((one) => (one.status === "fulfilled" ? [one.value] : [])),
          );
          for (const one of asked) if (one.status === "rejected") failed.push(String(one.reason));
        }
      };
      await Promise.all(Array.from({ length: WIDTH }, worker));
      const wrong = oneRunPerKey(answers);
      const runs = await stored.count("agent.runs");
      report("keys", KEYS, `= ${KEYS}`, answers.size === KEYS);
      report("I6 runs of these keys", runs, `= ${KEYS}`, runs === KEYS);
      report("I6 keys with more or fewer than one run", wrong.length, "0", wrong.length === 0, wrong);
      report("I6 callers refused", `${failed.length} of ${KEYS * PARALLEL}`, "0", failed.length === 0, failed);
      const [used = ""] = answers.keys();
      await assert.rejects(ask(clients[1], "another", used), (error) => {
        assert.equal(ConnectError.from(error).code, Code.InvalidArgument);
        assert.equal(reasonOf(error), "IDEMPOTENCY_KEY_REUSED");
        return true;
      });
    } finally {
      agent.destroy();
    }
  });
});

async function ask(client: Client<typeof RunService> | undefined, tag: string, key: string): Promise<string> {
  const message = messageOf({ tag, turns: 0, deltas: 1, paceMs: 0, toolMs: 0 });
  const answer = await client?.startRun({ message, requestId: key }, { timeoutMs: 30_000 });
  return answer?.run?.runId ?? "";
}
