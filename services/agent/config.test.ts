import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { readAgentConfig } from "./config.ts";

const read = (agent: object) => loadConfig(readAgentConfig, { env: {}, dir: false, values: { agent } });

describe("the agent's configuration", () => {
  test("has the figures of its README", () => {
    const { leaseMs, heartbeatMs, reaperMs, streamHeartbeatMs, runTimeoutMs, answersTtlMs } = read({});
    assert.deepEqual(
      [leaseMs, heartbeatMs, reaperMs, streamHeartbeatMs, runTimeoutMs, answersTtlMs],
      [10_000, 3_000, 2_000, 15_000, 3_600_000, 10_000],
    );
  });

  test("refuses a heartbeat that leaves no second chance within a lease", () => {
    assert.equal(read({ lease: "4s", heartbeat: "2s" }).heartbeatMs, 2_000);
    assert.throws(() => read({ lease: "4s", heartbeat: "2100ms" }), /agent\.heartbeat/);
  });
});
