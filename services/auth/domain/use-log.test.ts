import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { createAuthEvents } from "../events.ts";
import type { KeyUse } from "../store/credential-store.ts";
import { UseLog } from "./use-log.ts";

const tenantId = newId("ten");
const events = createAuthEvents(createLog({ level: "silent", service: "test" }), createMetrics({ process: false }));

/** A log whose batches are kept here, and cannot be written while `away` is set. */
function useLog() {
  const batches: KeyUse[][] = [];
  const state = { away: false };
  const write = async (uses: readonly KeyUse[]) => {
    if (state.away) throw new Error("away");
    batches.push([...uses]);
  };
  return { log: new UseLog(write, events), batches, state };
}

describe("the log of uses", () => {
  test("writes each key once per flush, with its latest minute", async () => {
    const { log, batches } = useLog();
    for (const now of [60_001, 119_999, 180_500]) log.record({ tenantId, keyId: "key_a" }, now);
    log.record({ tenantId, keyId: "key_b" }, 59_999);
    await log.flush();
    assert.deepEqual(batches, [
      [
        { tenantId, keyId: "key_a", at: new Date(180_000) },
        { tenantId, keyId: "key_b", at: new Date(0) },
      ],
    ]);
    await log.flush();
    assert.equal(batches.length, 1);
  });

  test("keeps what could not be written for the next time, and newer uses over older ones", async () => {
    const { log, batches, state } = useLog();
    state.away = true;
    log.record({ tenantId, keyId: "key_a" }, 0);
    log.record({ tenantId, keyId: "key_b" }, 0);
    await log.flush();
    log.record({ tenantId, keyId: "key_a" }, 60_000);
    state.away = false;
    await log.flush();
    assert.deepEqual(
      batches.flat().map(({ keyId, at }) => [keyId, at.getTime()]),
      [
        ["key_a", 60_000],
        ["key_b", 0],
      ],
    );
  });

  test("writes in batches of a thousand, and remembers a hundred thousand keys at most", async () => {
    const { log, batches } = useLog();
    for (let i = 0; i < 100_050; i++) log.record({ tenantId, keyId: `key_${i}` }, 0);
    await log.flush();
    assert.equal(batches.length, 100);
    assert.ok(batches.every(({ length }) => length === 1_000));
  });

  test("writes what is left when it stops", async () => {
    const { log, batches } = useLog();
    log.start(60_000);
    log.record({ tenantId, keyId: "key_a" }, 0);
    await log.stop();
    assert.equal(batches.flat().length, 1);
  });
});
