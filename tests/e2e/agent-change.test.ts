import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { says } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

/** A process that another one's change reaches by the bus only: relay and bus take part of a second. */
const TOLD_WITHIN_MS = 5_000;

describeMesh("a change of an agent", (mesh) => {
  test("is seen by the next run: at once where it was made in the same process, else when the bus has told", async () => {
    const rest = new RestClient(mesh().baseUrl, mesh().adminKey);
    const shown = async () => {
      mesh().model.script(says("Yes."));
      await rest.call("POST", "/api/v1/chat", { message: "hi" });
      const system = mesh().model.requests.at(-1)?.body.system;
      return JSON.stringify(system);
    };
    const { body } = await rest.call("GET", "/api/v1/tenants/me/agents");
    const agent = body.agents.find((one: { is_default: boolean }) => one.is_default);
    // Asked twice, so that what it is is known by heart.
    for (let i = 0; i < 2; i++) assert.doesNotMatch(await shown(), /piglatin/);
    for (const prompt of ["Speak piglatin-1.", "Speak piglatin-2."]) {
      const path = `/api/v1/tenants/me/agents/${agent.agent_id}`;
      const { status } = await rest.call("PATCH", path, { system_prompt: prompt });
      assert.equal(status, 200);
      const until = performance.now() + TOLD_WITHIN_MS;
      let seen = await shown();
      while (mesh().mode !== "embedded" && !seen.includes(prompt) && performance.now() < until) {
        await sleep(100);
        seen = await shown();
      }
      assert.ok(seen.includes(prompt), seen);
    }
  });
});
