import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { PORT_LIMITS, type PortLimits } from "#platform/rpc/port.ts";
import { readGatewayConfig } from "./config.ts";
import { GATEWAY_LIMITS } from "./limits.ts";

const read = (gateway: object) => loadConfig(readGatewayConfig, { env: {}, dir: false, values: { gateway } });

/** A value of each key of the port that is not its default, and the limit that it sets. */
const PORT_KEYS: Readonly<Record<string, readonly [string | number, keyof PortLimits, number]>> = {
  connections: [11, "maxConnections", 11],
  connections_per_address: [12, "maxConnectionsPerAddress", 12],
  streams: [13, "maxConcurrentStreams", 13],
  session_memory_mb: [14, "maxSessionMemoryMb", 14],
  header_bytes: [40_000, "maxHeaderBytes", 40_000],
  header_pairs: [100, "maxHeaderPairs", 100],
  first_byte_timeout: ["1s", "sniffTimeoutMs", 1_000],
  headers_timeout: ["2s", "headersTimeoutMs", 2_000],
  request_timeout: ["3s", "requestTimeoutMs", 3_000],
  keep_alive: ["4s", "keepAliveTimeoutMs", 4_000],
  session_idle: ["5s", "sessionIdleMs", 5_000],
  session_age: ["6s", "maxSessionAgeMs", 6_000],
  session_grace: ["7s", "sessionGraceMs", 7_000],
  ping_interval: ["8s", "pingIntervalMs", 8_000],
  ping_timeout: ["9s", "pingTimeoutMs", 9_000],
  reset_burst: [15, "streamResetBurst", 15],
  reset_rate: [16, "streamResetRate", 16],
  ping_burst: [17, "pingBurst", 17],
  ping_rate: [18, "pingRate", 18],
  settings_burst: [19, "settingsBurst", 19],
  settings_rate: [21, "settingsRate", 21],
  offence_burst: [22, "offenceBurst", 22],
  offences_forgiven_per_minute: [23, "offencesForgivenPerMinute", 23],
};

describe("the gateway's configuration", () => {
  test("has the limits of the gateway and of its port, when nothing is said", () => {
    const { limits, port } = read({});
    assert.deepEqual(limits, { ...GATEWAY_LIMITS });
    assert.deepEqual(port, { ...PORT_LIMITS });
  });

  test("has a key for every limit of the port, and each sets that limit alone", () => {
    for (const [key, [value, limit, expected]] of Object.entries(PORT_KEYS)) {
      assert.deepEqual(read({ port: { [key]: value } }).port, { ...PORT_LIMITS, [limit]: expected }, key);
    }
    const covered = Object.values(PORT_KEYS).map(([, limit]) => limit);
    assert.deepEqual(covered.toSorted(), Object.keys(PORT_LIMITS).toSorted());
  });

  test("refuses limits that would let nobody in, or everybody", () => {
    for (const port of [{ streams: 0 }, { connections: 0 }, { header_bytes: 10 }, { ping_interval: "1ms" }]) {
      assert.throws(() => read({ port }), /gateway\.port\./, JSON.stringify(port));
    }
    assert.throws(() => read({ port: { reset_bursts: 1 } }), /reset_bursts/);
  });

  test("sets what bounds an open stream, and the heap", () => {
    const { limits } = read({
      stream_recheck: "1s",
      stream_age: "2m",
      heap_refuse_percent: 80,
      heap_resume_percent: 60,
    });
    const { streamRecheckMs, streamAgeMs, heapRefusePercent, heapResumePercent } = limits;
    assert.deepEqual([streamRecheckMs, streamAgeMs, heapRefusePercent, heapResumePercent], [1_000, 120_000, 80, 60]);
  });

  test("refuses thresholds of the heap between which a call would be taken and refused in turn", () => {
    assert.throws(() => read({ heap_refuse_percent: 80 }), /heap_resume_percent/);
  });

  test("lets a stream end with a reason before its connection is cut for its age", () => {
    assert.ok(PORT_LIMITS.sessionGraceMs > GATEWAY_LIMITS.streamAgeMs);
  });
});
