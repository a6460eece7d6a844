import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { CHARGES_FILE } from "./charging-plugin.ts";
import { type MeshUnderTest, startMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

const PLUGIN = join(import.meta.dirname, "charging-plugin.ts");

describe("a failed run that is retried", { skip: skipWithoutPostgres() }, () => {
  let dir: string;
  let file: string;
  let mesh: MeshUnderTest;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "charges-"));
    file = join(dir, "charges");
    await writeFile(file, "");
    mesh = await startMesh("distributed", {
      AGENTMESH_PLUGINS__MODULES: PLUGIN,
      // A run whose owner is lost fails, and is not taken up.
      AGENTMESH_AGENT__MAX_ATTEMPTS: "1",
      [CHARGES_FILE]: file,
    });
  });
  after(async () => {
    await mesh.stop();
    await rm(dir, { recursive: true });
  });

  const charges = async () => (await readFile(file, "utf8")).split("\n").filter((line) => line !== "");

  test("charges once, though its process was killed while it charged, and goes on with what was charged", async () => {
    const rest = new RestClient(mesh.baseUrl, mesh.adminKey);
    assert.equal((await rest.call("PATCH", "/api/v1/tenants/me", { enabled_tools: ["charge"] })).status, 200);
    // Nobody is asked: what cannot be undone would wait for an approval.
    const { body: agent } = await rest.call("POST", "/api/v1/tenants/me/agents", {
      name: "Till",
      tools: ["charge"],
      approval_policy: { min_risk: "APPROVAL_THRESHOLD_NEVER" },
    });
    mesh.model.script(turnOf(toolUse("charge", { amount: 7, wait_ms: 500 })), says("Seven are charged."));
    const started = await rest.call("POST", "/api/v1/runs", { message: "charge 7", agent_id: agent.agent_id });
    const runId = started.body.run.run_id;
    while ((await charges()).length === 0) await sleep(10);
    await mesh.processes.get("agent")?.kill();
    const other = new RestClient((await mesh.gatewayTo("agent-2")).baseUrl, mesh.adminKey);
    for await (const { data } of other.stream("GET", `/api/v1/runs/${runId}/events:stream`)) void data;
    const failed = await other.call("GET", `/api/v1/runs/${runId}`);
    assert.equal(failed.body.state, "RUN_STATE_FAILED");

    const { status, body: retry } = await other.call("POST", `/api/v1/runs/${runId}:retry`, {
      request_id: "once more",
    });
    assert.equal(status, 200, JSON.stringify(retry));
    assert.equal(retry.retry_of, runId);
    for await (const { data } of other.stream("GET", `/api/v1/runs/${retry.run_id}/events:stream`)) void data;
    const { body: run } = await other.call("GET", `/api/v1/runs/${retry.run_id}`);
    assert.deepEqual([run.state, run.response], ["RUN_STATE_COMPLETED", "Seven are charged."]);
    const [line, ...more] = await charges();
    assert.match(line ?? "", new RegExp(`^${runId}/call_\\w+ 7$`));
    assert.deepEqual(more, [], "nothing was charged twice");
    assert.match(JSON.stringify(mesh.model.requests.at(-1)?.body.messages), /charged 7/);
    const again = await other.call("POST", `/api/v1/runs/${runId}:retry`, { request_id: "once more" });
    assert.equal(again.body.run_id, retry.run_id);
  });
});
