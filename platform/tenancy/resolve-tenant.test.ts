import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isId, newId } from "../id.ts";
import type { Call } from "../rpc/call.ts";
import { factsOf, reasonOf } from "../rpc/errors.ts";
import { PLATFORM_ADMIN, TENANT_SCOPES } from "../rpc/scopes.ts";
import { createLog } from "../telemetry/log.ts";
import { FIRST_TENANT_ID } from "./first-tenant.ts";
import { resolveTenant } from "./resolve-tenant.ts";

const own = newId("ten");
const other = newId("ten");

function callWith(scopes: readonly string[], tenantId = own): Call {
  return {
    principal: { tenantId, subject: "key_x", scopes, credentialId: "key_x", actors: [] },
    signal: new AbortController().signal,
    requestId: "req_1",
    ip: "203.0.113.9",
    userAgent: "test/1",
  };
}

function recordingLog() {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string) => void lines.push(JSON.parse(line));
  return { lines, log: createLog({ level: "info", service: "test", destination: { write } }) };
}

describe("resolveTenant", () => {
  test("'me' and the caller's own id mean the caller's tenant", () => {
    const { log, lines } = recordingLog();
    for (const requested of ["me", own]) {
      assert.deepEqual(resolveTenant(callWith(["agents:read"]), requested, log), { tenantId: own, crossed: false });
    }
    assert.deepEqual(lines, []);
  });

  test("a foreign tenant, a malformed one and a missing one get the same answer, whatever tenant scopes the caller has", () => {
    const { log } = recordingLog();
    const answers = [other, newId("ten"), "ten_", "ME", "", "../x", FIRST_TENANT_ID].map((requested) => {
      try {
        resolveTenant(callWith(TENANT_SCOPES), requested, log);
        return assert.fail(`${requested} was accepted`);
      } catch (error) {
        return { reason: reasonOf(error), facts: factsOf(error), message: (error as Error).message };
      }
    });
    assert.equal(new Set(answers.map((answer) => JSON.stringify(answer))).size, 1);
    assert.deepEqual(answers[0], {
      reason: "RESOURCE_NOT_FOUND",
      facts: { resource_type: "tenant" },
      message: "No such tenant.",
    });
  });

  test("naming a foreign tenant leaves an alert that says who did it, without quoting malformed input", () => {
    const { log, lines } = recordingLog();
    assert.throws(() => resolveTenant(callWith(["agents:read"]), other, log));
    assert.throws(() => resolveTenant(callWith(["agents:read"]), "x\ny", log));
    assert.deepEqual(
      lines.map(({ level, alert, tenant_id, resource_id, ip }) => ({ level, alert, tenant_id, resource_id, ip })),
      [
        { level: "warn", alert: true, tenant_id: own, resource_id: other, ip: "203.0.113.9" },
        { level: "warn", alert: true, tenant_id: own, resource_id: "malformed", ip: "203.0.113.9" },
      ],
    );
  });

  test("a platform administrator crosses to any well-formed id, and is told apart from one at home", () => {
    const { log, lines } = recordingLog();
    const admin = callWith([PLATFORM_ADMIN]);
    assert.deepEqual(resolveTenant(admin, other, log), { tenantId: other, crossed: true });
    assert.deepEqual(resolveTenant(admin, own, log), { tenantId: own, crossed: false });
    assert.deepEqual(resolveTenant(admin, "me", log), { tenantId: own, crossed: false });
    assert.throws(() => resolveTenant(admin, "ten_nothing", log), { reason: "RESOURCE_NOT_FOUND" });
    assert.deepEqual(lines, []);
  });

  test("a service's own identity has no tenant, so 'me' and an empty id name nothing", () => {
    const { log } = recordingLog();
    for (const requested of ["me", ""]) {
      assert.throws(() => resolveTenant(callWith(["internal:verify"], ""), requested, log), {
        reason: "RESOURCE_NOT_FOUND",
      });
    }
  });

  test("the first tenant's id has the form of a tenant id", () => {
    assert.ok(isId("ten", FIRST_TENANT_ID));
  });
});
