import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { describeConfig, loadConfig } from "../config/load.ts";
import { readTelemetryConfig } from "./config.ts";

describe("readTelemetryConfig", () => {
  test("reads this repository's files for each environment", () => {
    const of = (name: string) => loadConfig(readTelemetryConfig, { env: { AGENTMESH_ENV: name } });
    assert.deepEqual([of("production").log.pretty, of("production").trace.ratio], [false, 0.1]);
    assert.deepEqual([of("development").log.level, of("development").trace.ratio], ["warn", 1]);
  });

  test("takes the collector from OpenTelemetry's own variable", () => {
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" };
    assert.equal(loadConfig(readTelemetryConfig, { env, dir: false }).trace.endpoint, "http://collector:4318");
    assert.equal(loadConfig(readTelemetryConfig, { env: {}, dir: false }).trace.endpoint, undefined);
  });

  test("documents every key", () => {
    for (const { key, doc } of describeConfig(readTelemetryConfig)) assert.ok(doc.length > 10, key);
  });
});
