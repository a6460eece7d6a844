import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ConfigError } from "#platform/config/config-error.ts";
import { loadConfig } from "#platform/config/load.ts";
import { readAuthConfig } from "./config.ts";
import { parseApiKey } from "./domain/api-key-format.ts";
import { givenKey } from "./testing/auth-service.ts";

const read = (env: Record<string, string>) => loadConfig(readAuthConfig, { env, dir: false });

describe("auth's configuration", () => {
  test("has defaults for everything", () => {
    assert.deepEqual(read({}), { adminKey: undefined, tenantWaitMs: 2_000, useFlushMs: 30_000 });
  });

  test("takes an administrator's key from AGENTMESH_ADMIN_KEY and does not print it", () => {
    const key = givenKey();
    const config = read({ AGENTMESH_ADMIN_KEY: key });
    assert.equal(config.adminKey?.reveal(), key);
    assert.equal(JSON.stringify(config).includes(key), false);
  });

  test("refuses one of another form before anything opens, without quoting it, and offers one that would do", () => {
    for (const wrong of ["hunter2-hunter2", givenKey().slice(0, -1), `${givenKey()}x`]) {
      assert.throws(
        () => read({ AGENTMESH_ADMIN_KEY: wrong }),
        (error: unknown) => {
          assert.ok(error instanceof ConfigError);
          assert.equal(error.problems.length, 1);
          const { key, problem, origin } = error.problems[0] ?? {};
          assert.deepEqual([key, origin], ["auth.admin_key", "AGENTMESH_ADMIN_KEY"]);
          assert.equal(error.message.includes(wrong), false);
          assert.notEqual(parseApiKey(problem?.slice(problem.indexOf("made for you: ") + 14) ?? ""), undefined);
          return true;
        },
      );
    }
  });
});
