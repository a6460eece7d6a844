import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { AppError } from "./errors.ts";
import { hasScope, isPlatformAdmin, requireAnyScope, servicePrincipal } from "./principal.ts";
import { grants, grantsAny, INTERNAL_VERIFY, isScope, PLATFORM_ADMIN, TENANT_SCOPES } from "./scopes.ts";
import { testPrincipal } from "./test-mesh.contract.ts";

const ALL = [...TENANT_SCOPES, PLATFORM_ADMIN, INTERNAL_VERIFY];

describe("scopes", () => {
  test("a scope grants itself, x:write grants x:read, and nothing else grants anything", () => {
    for (const held of ALL) {
      for (const wanted of ALL) {
        const [resource, verb] = wanted.split(":");
        const expected = held === wanted || (verb === "read" && held === `${resource}:write`);
        assert.equal(grants([held], wanted), expected, `${held} for ${wanted}`);
      }
    }
  });

  test("no set of other scopes grants platform:admin, approvals:resolve, sessions:read_all or internal:verify", () => {
    for (const wanted of [PLATFORM_ADMIN, "approvals:resolve", "sessions:read_all", INTERNAL_VERIFY]) {
      const others = ALL.filter((scope) => scope !== wanted);
      assert.equal(grants(others, wanted), false, wanted);
    }
  });

  test("texts that look like scopes grant nothing", () => {
    for (const held of ["*", "agents:*", "agents", "AGENTS:READ", "agents:read ", "agents:write:read", ":write", ""]) {
      assert.equal(grants([held], "agents:read"), false, held);
    }
    assert.equal(grants([":write"], ":read"), true);
    assert.equal(isScope(":write"), false);
  });

  test("grantsAny needs one of several, and none of none", () => {
    assert.equal(grantsAny(["tools:write"], ["agents:run", "tools:read"]), true);
    assert.equal(grantsAny(["kb:write"], ["agents:run", "tools:read"]), false);
    assert.equal(grantsAny(ALL, []), false);
  });

  test("a credential may be given tenant scopes and platform:admin, but not the services' own scope", () => {
    for (const scope of [...TENANT_SCOPES, PLATFORM_ADMIN]) assert.equal(isScope(scope), true, scope);
    for (const scope of [INTERNAL_VERIFY, "agents:delete", "toString", ""]) assert.equal(isScope(scope), false, scope);
    assert.equal(new Set(ALL).size, ALL.length);
  });
});

describe("a principal", () => {
  test("without any of the scopes is refused with the list of those that would do", () => {
    const held = testPrincipal(["kb:read"]);
    assert.throws(
      () => requireAnyScope(held, ["agents:run", "tools:invoke"]),
      (error: unknown) => {
        assert.ok(error instanceof AppError);
        assert.deepEqual([error.code, error.reason], [Code.PermissionDenied, "SCOPE_MISSING"]);
        assert.deepEqual(error.facts, { scopes: "agents:run tools:invoke" });
        return true;
      },
    );
    requireAnyScope(held, ["agents:run", "kb:read"]);
  });

  test("is a platform admin by that scope alone", () => {
    assert.equal(isPlatformAdmin(testPrincipal([...TENANT_SCOPES])), false);
    assert.equal(isPlatformAdmin(testPrincipal([PLATFORM_ADMIN])), true);
    assert.equal(hasScope(testPrincipal([PLATFORM_ADMIN]), "agents:read"), false);
    assert.equal(hasScope(testPrincipal(["agents:write"]), "agents:read"), true);
  });

  test("of a service itself belongs to no tenant", () => {
    const own = servicePrincipal("gateway", [INTERNAL_VERIFY]);
    assert.deepEqual(own, {
      tenantId: "",
      subject: "service:gateway",
      scopes: [INTERNAL_VERIFY],
      credentialId: "",
      actors: [],
    });
  });
});
