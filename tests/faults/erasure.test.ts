import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { findText } from "#platform/testing/find-text.ts";
import { RestClient } from "#tests/e2e/rest-client.ts";
import { declaredFailpoints } from "./declared-failpoints.ts";
import type { Replica } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { report } from "./report.ts";

/** More than one transaction of an erasure deletes. */
const PLANTED = 6_000;
const DEAD_WITHIN_MS = 30_000;
const ERASED_WITHIN_MS = 20_000;

/** Not at once: the replica that deletes a session would mostly be the one that erases it. */
const settings = { AGENTMESH_AGENT__ERASE_INTERVAL: "300ms", AGENTMESH_AGENT__ERASE_AFTER: "500ms" };

describeFaults("an agent that dies while it erases", { settings }, (suite) => {
  test("leaves nothing behind that another replica does not erase", { timeout: LIMIT_MS }, async () => {
    const { mesh } = suite();
    const rest = new RestClient(mesh.gateways[0]?.baseUrl ?? "", mesh.adminKey);
    const database = new pg.Client({ connectionString: mesh.database.superuserUrl });
    await database.connect();
    const query = async (sql: string, params: readonly unknown[]) => (await database.query(sql, [...params])).rows;
    const [victim] = mesh.agents as [Replica];
    let killed = 0;

    /** Deletes a session that holds the canary in more rows than go at a time. */
    const deleteOne = async (canary: string) => {
      const { body } = await rest.call("POST", "/api/v1/sessions", { title: canary });
      const sessionId = body.session_id;
      if (sessionId === undefined) return;
      await query(
        `INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
         SELECT tenant_id, session_id, 100 + n, 'msg_planted', 'run_planted', jsonb_build_object('role', $2::text), 1
         FROM agent.sessions, generate_series(1, $3::int) n WHERE session_id = $1`,
        [sessionId, canary, PLANTED],
      );
      // Asked again: the replica that was asked may have died before it did so.
      let status = 0;
      while (status !== 200 && status !== 404) {
        ({ status } = await rest.call("DELETE", `/api/v1/sessions/${sessionId}`));
      }
    };

    const failpoints = declaredFailpoints("agent").filter((name) => name.startsWith("eraser."));
    assert.ok(failpoints.length > 0);
    for (const name of failpoints) {
      await victim.kill();
      await victim.start(`${name}:kill`);
      victim.process.signal("SIGUSR2");
      let dead = false;
      void victim.process.exited.then(() => {
        dead = true;
      });
      const canary = `canary-of-${name.replace(".", "-")}`;
      for (const until = Date.now() + DEAD_WITHIN_MS; !dead && Date.now() < until; ) await deleteOne(canary);
      if (dead) killed++;
      const until = Date.now() + ERASED_WITHIN_MS;
      while ((await findText(query, canary)).length > 0 && Date.now() < until) await sleep(200);
      assert.deepEqual(await findText(query, canary), [], name);
    }
    report("failpoints of the eraser that killed", killed, `= ${failpoints.length}`, killed === failpoints.length);
    const left = await query("SELECT session_id FROM agent.sessions WHERE deleted_at IS NOT NULL", []);
    const twice = await query(
      "SELECT resource FROM agent.audit WHERE type = 'session.erased' GROUP BY resource HAVING count(*) > 1",
      [],
    );
    report(
      "deleted sessions left, or erased twice",
      left.length + twice.length,
      "= 0",
      left.length + twice.length === 0,
    );
    await database.end();
    assert.deepEqual([killed, left.length, twice.length], [failpoints.length, 0, 0]);
  });
});
