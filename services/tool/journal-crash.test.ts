import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { newId } from "#platform/id.ts";
import { spawnTied } from "#platform/process/tied-child.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { type Charge, chargingTool } from "./testing/charging-tools.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

const UNKNOWN = "The outcome of this call is not known; it may or may not have taken effect.";
const PROGRAM = fileURLToPath(new URL("./testing/charging-process.ts", import.meta.url));

describe("a call whose process was killed", { skip: skipWithoutPostgres(), concurrency: true }, () => {
  let database: TestDatabase;
  let folder: string;
  let file: string;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    folder = mkdtempSync(join(tmpdir(), "agentmesh-journal-"));
    file = join(folder, "effects");
    open = await openTools({ database: database.db, tools: [chargingTool(file)] });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
    rmSync(folder, { recursive: true, force: true });
  });

  function requested(charge: Charge) {
    const ids = { runId: newId("run"), callId: newId("call"), sessionId: newId("ses"), endUserId: "ada" };
    return { tool: "charge", argumentsJson: JSON.stringify(charge), ...ids };
  }

  async function elsewhere(by: Principal, request: ReturnType<typeof requested>, failpoints = "") {
    const said: string[] = [];
    const env = { PATH: "/usr/local/bin:/usr/bin:/bin", AGENTMESH_FAILPOINTS: failpoints };
    const args = [PROGRAM, database.url, file, JSON.stringify(by), JSON.stringify(request)];
    const child = spawnTied(process.execPath, args, { env, onLine: (line) => said.push(line) });
    const { signal } = await child.exited;
    return { signal, said };
  }

  const effects = ({ runId, callId }: ReturnType<typeof requested>) =>
    readFileSync(file, { encoding: "utf8", flag: "a+" })
      .split("\n")
      .filter((line) => line.startsWith(`${runId}/${callId} `)).length;

  const cases = [
    ["in the middle of the tool, behind its effect", { amount: 1, die: true }, "", 1],
    ["between the effect and the result", { amount: 2 }, "journal.before-result:kill", 1],
    ["between the intent and the effect", { amount: 3 }, "journal.after-intent:kill", 0],
  ] as const;
  for (const [when, charge, failpoints, times] of cases) {
    test(`${when} is not run again: its outcome is not known, however often it is asked for`, async () => {
      const by = caller();
      const request = requested(charge);
      const { signal, said } = await elsewhere(by, request, failpoints);
      assert.deepEqual([signal, said], ["SIGKILL", []]);
      assert.equal(effects(request), times);
      const first = await open.execute(by, request);
      assert.deepEqual([first.result.isError, first.text], [true, UNKNOWN]);
      assert.deepEqual((await open.execute(by, request)).result, first.result);
      assert.deepEqual((await elsewhere(by, request)).said, [UNKNOWN]);
      assert.equal(effects(request), times);
      const rows = await database.db.tenant(by.tenantId, (tx) =>
        tx.query("SELECT state, convert_from(result, 'UTF8') AS result FROM tool.tool_journal"),
      );
      assert.deepEqual(rows, [{ state: "UNKNOWN", result: null }]);
      const recorded = await database.db.tenant(by.tenantId, (tx) => tx.query("SELECT outcome FROM tool.tool_calls"));
      assert.deepEqual(recorded, [{ outcome: "unknown" }, { outcome: "unknown" }, { outcome: "unknown" }]);
    });
  }

  test("behind its result gets that result from another process", async () => {
    const by = caller();
    const request = requested({ amount: 4 });
    assert.equal((await elsewhere(by, request, "tools.after-record:kill")).signal, "SIGKILL");
    const again = await open.execute(by, request);
    assert.deepEqual([again.result.isError, again.text], [false, "charged 4"]);
    assert.equal(effects(request), 1);
  });
});
