import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { newId } from "#platform/id.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";

const TURNS = 200;
const TABLES = ["messages", "run_events", "runs", "model_calls", "audit", "step_drafts", "compactions"];
let mesh: AgentMesh;
before(async () => {
  mesh = await openAgentMesh();
});
after(() => mesh?.[Symbol.asyncDispose]());

test("a session of 200 turns with 100 tool calls stores bytes linear in its turns", {
  skip: skipWithoutPostgres(),
  timeout: 120_000,
}, async (t) => {
  const me = principalOf(newId("ten"), TENANT_SCOPES);
  const stored = async () => {
    const sums = TABLES.map(
      (table) =>
        `coalesce((SELECT sum(pg_column_size(t)) FROM agent.${table} t WHERE tenant_id = agentmesh.current_tenant()), 0)`,
    );
    const row = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.one<{ bytes: string }>(`SELECT (${sums.join("+")})::text AS bytes`, []),
    );
    return Number(row?.bytes);
  };
  const message = "A question of an ordinary length about one thing or another. ".repeat(2);
  let sessionId = "";
  const marks: number[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    if (turn % 2 === 0) mesh.model.script(turnOf(toolUse("echo", { question: message })), says(message));
    else mesh.model.script(says(message));
    const answer = await mesh.one.chat.chat({ message, sessionId }, callAs(me));
    sessionId = answer.sessionId;
    if ((turn + 1) % 50 === 0) marks.push(await stored());
  }
  const perTurn = marks.map((bytes, i) => (bytes - (marks[i - 1] ?? 0)) / 50);
  t.diagnostic(`bytes per turn, by 50 turns: ${perTurn.map((bytes) => bytes.toFixed(0)).join(", ")}`);
  assert.equal(mesh.neighbours.executed.length, TURNS / 2);
  for (const bytes of perTurn)
    assert.ok(bytes < 1.05 * (perTurn[0] ?? 0), `${bytes} bytes per turn grow from ${perTurn[0]}`);
});
