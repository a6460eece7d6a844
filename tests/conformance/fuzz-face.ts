import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { type MeshUnderTest, startMesh } from "#tests/e2e/mesh-under-test.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { type FuzzTenant, fuzzRequest, fuzzTenant } from "./fuzz-request.ts";
import { Random } from "./random.ts";
import { answerOf } from "./wire/answers.ts";
import { codeName, type Face, isJson } from "./wire/faces.ts";
import { H2Client } from "./wire/h2-client.ts";

/** Messages per face, however long they take: AGENTMESH_FUZZ_MESSAGES=1000 node --test tests/conformance/fuzz-grpc.test.ts */
const MESSAGES = Number(process.env["AGENTMESH_FUZZ_MESSAGES"] ?? 20_000);
/** AGENTMESH_FUZZ_SEED repeats a run. */
const SEED = Number(process.env["AGENTMESH_FUZZ_SEED"] ?? randomInt(2 ** 31));
const CONNECTIONS = 2;
const AT_A_TIME = 64;
const QUIET_MS = 20_000;

const WRONG: ReadonlySet<string> = new Set(["INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "BROKEN", "LEFT"]);

/** The rate limits are not what is tested here. */
const NO_RATE_LIMITS = Object.fromEntries(
  ["TENANT_RUNS", "TENANT_WRITES", "TENANT_READS", "KEY_RUNS", "KEY_WRITES", "KEY_READS", "ADDRESS_FAILURES"].map(
    (name) => [`AGENTMESH_GATEWAY__RATES__${name}`, "0"],
  ),
);

/** Nor is the death of an owner: a process that is this busy is not taken for a dead one. */
const PATIENT = {
  AGENTMESH_AGENT__LEASE: "30s",
  AGENTMESH_AGENT__HEARTBEAT: "5s",
  AGENTMESH_AGENT__REAPER_INTERVAL: "5s",
};

/** Sends a face messages of every kind, made from the descriptors of all public methods; each is asked once. */
export function describeFuzz(face: Face): void {
  describe(`messages of every kind on ${face} (seed ${SEED})`, () => {
    let mesh: MeshUnderTest;
    let tenant: FuzzTenant;
    before(async () => {
      mesh = await startMesh("embedded", { ...NO_RATE_LIMITS, ...PATIENT, AGENTMESH_TELEMETRY__LOG__LEVEL: "error" });
      tenant = await fuzzTenant(mesh);
    });
    after(() => mesh?.stop());

    test("none is answered with INTERNAL or UNKNOWN, and none breaks a stream, a connection or the process", {
      timeout: 3_600_000,
    }, async (t) => {
      const random = new Random(SEED);
      const codes = new Map<string, number>();
      const wrong: string[] = [];
      await using client = new H2Client(mesh.baseUrl, CONNECTIONS);
      let sent = 0;
      const began = performance.now();
      const one = async () => {
        while (sent < MESSAGES) {
          const { method, request, flaw } = fuzzRequest(face, random, tenant);
          if (request === undefined) continue;
          const number = sent++;
          const wire = await client.send(request, QUIET_MS);
          const { code, reason, message } = answerOf(face, method.method, wire);
          codes.set(code, (codes.get(code) ?? 0) + 1);
          if (!isWrong(code, reason, wire.status)) continue;
          const said = Buffer.from(request.body ?? "").toString(isJson(face) ? "utf8" : "base64");
          wrong.push(
            `#${number} ${method.name} ${request.path} ${flaw}: ${code} ${reason} ${message} for ${said.slice(0, 600)}`,
          );
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, one));
      const seconds = (performance.now() - began) / 1000;
      const broken = (codes.get("BROKEN") ?? 0) + (codes.get("LEFT") ?? 0);
      const crashes = await crashesOf(mesh);
      t.diagnostic(
        `fuzz ${face}: messages ${sent} wrong ${wrong.length - broken} crashes ${crashes.length} broken ${broken} ` +
          `seed ${SEED} msg/s ${Math.round(sent / seconds)}`,
      );
      t.diagnostic([...codes].map(([code, count]) => `${code} ${count}`).join(", "));
      const failures = await failedRuns(new RestClient(mesh.baseUrl, tenant.key));
      if (failures.size > 0) t.diagnostic(`failed runs: ${[...failures].map((one) => one.join(" ")).join(", ")}`);
      assert.deepEqual(crashes, []);
      assert.deepEqual(
        [...failures.keys()].filter((failure) => /^(INTERNAL|UNKNOWN) /.test(failure)),
        [],
      );
      assert.deepEqual(
        wrong.slice(0, 5),
        [],
        `${wrong.length} wrong answers; AGENTMESH_FUZZ_SEED=${SEED} repeats them`,
      );
      assert.equal(client.connected, CONNECTIONS, "the first connections are the last");
      assert.ok((codes.get("OK") ?? 0) > sent / 100, "some are right");
    });
  });
}

/** What runs failed of after they were begun, and how many. */
async function failedRuns(rest: RestClient): Promise<Map<string, number>> {
  const failures = new Map<string, number>();
  let token = "";
  do {
    const { body } = await rest.call("GET", `/api/v1/runs?page_size=200&page_token=${encodeURIComponent(token)}`);
    for (const { error } of body.runs ?? []) {
      if (error === null || error === undefined) continue;
      const { reason = "", metadata = {} } = error.details?.[0] ?? {};
      const failure = `${codeName(error.code)} ${reason} ${metadata.kind ?? ""}: ${error.message}`.slice(0, 200);
      failures.set(failure, (failures.get(failure) ?? 0) + 1);
    }
    token = body.next_page_token ?? "";
  } while (token !== "");
  return failures;
}

function isWrong(code: string, reason: string, status: number): boolean {
  if (reason === "RATE_LIMITED" || WRONG.has(code)) return true;
  return status >= 500 && code !== "DEADLINE_EXCEEDED" && code !== "UNIMPLEMENTED";
}

/** Processes that do not live, do not answer, or have printed what only a defect prints. */
async function crashesOf(mesh: MeshUnderTest): Promise<string[]> {
  const defect = /unhandled|uncaught|out of memory|at .*\.ts:\d+:\d+\)/i;
  const found = [...mesh.processes.values()].filter((process) => defect.test(process.output()));
  const ready = await new RestClient(mesh.baseUrl, undefined).call("GET", "/health/ready").catch(String);
  const printed = found.map((process) => `${process.name}: ${process.output().slice(-2_000)}`);
  return typeof ready === "object" && ready.status === 200 ? printed : [...printed, JSON.stringify(ready)];
}
