import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { says } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

const ENDED = ["RUN_STATE_COMPLETED", "RUN_STATE_FAILED", "RUN_STATE_CANCELLED"];
const WITHIN_MS = 20_000;

describeMesh("a run in the background", (mesh) => {
  test("is queued over REST, begun by whoever has room, and done once for a key", async () => {
    const rest = new RestClient(mesh().baseUrl, mesh().adminKey);
    mesh().model.script(says("Reported."));
    const before = mesh().model.requests.length;
    const wish = { message: "make the report", background: true, time_limit: "600s", request_id: randomUUID() };
    const answers = await Promise.all(Array.from({ length: 5 }, () => rest.call("POST", "/api/v1/runs", wish)));
    const ids = new Set(answers.map(({ body }) => body.run.run_id));
    assert.deepEqual([ids.size, ...new Set(answers.map(({ status }) => status))], [1, 200]);
    const queued: { run_id: string; background: boolean; deadline: string } = answers[0]?.body.run;
    assert.equal(queued.background, true);
    assert.ok(Date.parse(queued.deadline) > Date.now());
    const until = Date.now() + WITHIN_MS;
    let run: { state: string; response: string };
    do {
      await sleep(50);
      run = (await rest.call("GET", `/api/v1/runs/${queued.run_id}`)).body;
    } while (!ENDED.includes(run.state) && Date.now() < until);
    assert.deepEqual([run.state, run.response], ["RUN_STATE_COMPLETED", "Reported."]);
    assert.equal(mesh().model.requests.length - before, 1);
  });
});
