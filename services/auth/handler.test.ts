import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { announceTenant, authDatabase, type OpenAuth, openAuth, platformAdmin } from "./testing/auth-service.ts";

describe("ApiKeyService", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let auth: OpenAuth;
  before(async () => {
    database = await authDatabase();
    auth = await openAuth({ database: database.db });
  });
  after(async () => {
    await auth?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  const get = (caller: Principal, apiKeyId: string) => auth.keys.getApiKey({ apiKeyId }, callAs(caller));

  test("a created key has the documented form, can be read, and does not show its secret again", async () => {
    const caller = await auth.tenant();
    const { keyId, secret, apiKey } = await auth.make(caller, { name: "CI", scopes: ["agents:run", "runs:read"] });
    assert.match(secret, /^am_live_[0-7][0-9a-z]{25}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$/);
    assert.equal(secret.slice(8, 34), keyId.slice(4));
    assert.equal(secret.slice(0, 24), apiKey?.secretPrefix);
    const read = await get(caller, keyId);
    assert.deepEqual(read.apiKey, apiKey);
    assert.equal(read.apiKey?.name, "CI");
    assert.deepEqual(read.apiKey?.scopes, ["agents:run", "runs:read"]);
    assert.equal(read.apiKey?.lastUseTime, undefined);
    assert.doesNotMatch(JSON.stringify(auth.logged), new RegExp(secret.slice(35, 60)));
    const leaked = await database.db.tenant(caller.tenantId, (tx) =>
      tx.query(
        "SELECT row_to_json(a)::text || row_to_json(k)::text || encode(c.digest, 'escape') AS row FROM auth.audit a, auth.api_keys k, auth.credentials c",
      ),
    );
    assert.ok(leaked.length > 0);
    assert.equal(JSON.stringify(leaked).includes(secret.slice(35, 78)), false);
  });

  test("bad input is refused with the fields that are wrong", async () => {
    const caller = await auth.tenant();
    const past = timestampFromDate(new Date(Date.now() - 1000));
    const table: [object, string[]][] = [
      [{ name: "" }, ["api_key.name"]],
      [{ name: "  \t" }, ["api_key.name"]],
      [{ name: "a\u0000b" }, ["api_key.name"]],
      [{ name: "x".repeat(256) }, ["api_key.name"]],
      [{ scopes: [] }, ["api_key.scopes"]],
      [{ scopes: ["agents:run", "agents:fly", ""] }, ["api_key.scopes[2]"]],
      [{ scopes: ["agents:run", "agents:fly"] }, ["api_key.scopes[1]"]],
      [{ scopes: ["internal:verify"] }, ["api_key.scopes[0]"]],
      [{ scopes: ["platform:admin"] }, ["api_key.scopes[0]"]],
      [{ scopes: ["agents:run", "agents:run"] }, ["api_key.scopes"]],
      [{ expireTime: past }, ["api_key.expire_time"]],
      [{ expireTime: { seconds: 9_223_372_036_854_775_807n, nanos: 0 } }, ["api_key.expire_time"]],
      [{ expireTime: { seconds: -9_223_372_036_854_775_808n, nanos: -5 } }, ["api_key.expire_time"]],
      [{ userId: "a\u0000b" }, ["api_key.user_id"]],
      [{ name: "", scopes: ["nope"], userId: "\n" }, ["api_key.name", "api_key.user_id", "api_key.scopes[0]"]],
    ];
    for (const [key, fields] of table) {
      assert.equal((await refusal(auth.make(caller, key))).reason, "FIELD_INVALID", JSON.stringify(fields));
      assert.deepEqual(await violations(auth.make(caller, key)), fields);
    }
    const none = auth.keys.createApiKey({}, callAs(caller));
    assert.deepEqual(await violations(none), ["api_key.name", "api_key.scopes"]);
    assert.deepEqual(await violations(get(caller, "")), ["api_key_id"]);
  });

  test("a key has at most its creator's scopes, where write implies read and nothing else implies anything", async () => {
    const caller = await auth.tenant(["keys:write", "agents:write"]);
    const { apiKey } = await auth.make(caller, { scopes: ["agents:read", "keys:read"] });
    assert.deepEqual(apiKey?.scopes, ["agents:read", "keys:read"]);
    const beyond = await refusal(auth.make(caller, { scopes: ["agents:read", "agents:run", "tenant:write"] }));
    assert.equal(beyond.code, Code.PermissionDenied);
    assert.equal(beyond.reason, "SCOPE_MISSING");
    assert.deepEqual(beyond.facts, { scopes: "agents:run tenant:write" });
    const operator = principalOf(FIRST_TENANT_ID, TENANT_SCOPES);
    assert.equal((await refusal(auth.make(operator, { scopes: [PLATFORM_ADMIN] }))).reason, "SCOPE_MISSING");
    const admin = await auth.make(platformAdmin, { scopes: [PLATFORM_ADMIN] });
    assert.deepEqual((await auth.verify(admin.secret)).scopes, [PLATFORM_ADMIN]);
  });

  test("a caller without the method's scope is refused before anything is looked up", async () => {
    const caller = await auth.tenant(["keys:read"]);
    assert.deepEqual((await refusal(auth.make(caller))).facts, { scopes: "keys:write" });
    const asTenant = auth.keys.createTenantApiKey({ tenantId: "me", apiKey: { name: "x" } }, callAs(caller));
    assert.deepEqual((await refusal(asTenant)).facts, { scopes: PLATFORM_ADMIN });
  });

  test("another tenant's key and another user's answer exactly as a missing one, to reading and to revoking", async () => {
    const [own, foreign] = [await auth.tenant(), await auth.tenant()];
    const bound = { ...own, userId: "ada" };
    const { keyId: foreignKey, secret } = await auth.make(foreign);
    const { keyId: othersKey } = await auth.make(own, { userId: "bob" });
    const { keyId: machineKey } = await auth.make(own);
    const probes: [Principal, string][] = [
      [own, newId("key")],
      [own, foreignKey],
      [own, "key_x"],
      [bound, othersKey],
      [bound, machineKey],
      [platformAdmin, foreignKey],
    ];
    for (const [caller, apiKeyId] of probes) {
      const expected = {
        code: Code.NotFound,
        message: "No such api key.",
        reason: "RESOURCE_NOT_FOUND",
        facts: { resource_type: "api_key" },
      };
      assert.deepEqual(await refusal(get(caller, apiKeyId)), expected);
      assert.deepEqual(await refusal(auth.keys.revokeApiKey({ apiKeyId }, callAs(caller))), expected);
    }
    assert.equal((await auth.verify(secret)).tenantId, foreign.tenantId);
  });

  test("a caller that is bound to a user makes, sees and revokes keys of that user only", async () => {
    const machine = await auth.tenant();
    const ada = { ...machine, userId: "ada" };
    const own = await auth.make(ada, { name: "hers" });
    assert.equal(own.apiKey?.userId, "ada");
    assert.equal((await auth.make(ada, { userId: "ada" })).apiKey?.userId, "ada");
    assert.deepEqual(await violations(auth.make(ada, { userId: "bob" })), ["api_key.user_id"]);
    await auth.make(machine, { userId: "bob" });
    const listed = await auth.keys.listApiKeys({}, callAs(ada));
    assert.deepEqual(
      listed.apiKeys.map(({ userId }) => userId),
      ["ada", "ada"],
    );
    assert.equal((await auth.keys.listApiKeys({}, callAs(machine))).apiKeys.length, 3);
    await auth.keys.revokeApiKey({ apiKeyId: own.keyId }, callAs(ada));
    assert.equal((await refusal(auth.verify(own.secret))).reason, "CREDENTIAL_INVALID");
  });

  test("keys are listed newest first in pages that leave nothing out, and revoked ones only when asked for", async () => {
    const caller = await auth.tenant();
    const made: string[] = [];
    for (let i = 0; i < 7; i++) made.push((await auth.make(caller, { name: `key ${i}` })).keyId);
    await auth.keys.revokeApiKey({ apiKeyId: made[3] as string }, callAs(caller));
    const all = async (showRevoked: boolean, pageSize: number) => {
      const ids: string[] = [];
      let pages = 0;
      for (let pageToken = ""; pages === 0 || pageToken !== ""; pages++) {
        const page = await auth.keys.listApiKeys({ showRevoked, pageSize, pageToken }, callAs(caller));
        assert.ok(page.apiKeys.length <= pageSize);
        ids.push(...page.apiKeys.map(({ apiKeyId }) => apiKeyId));
        pageToken = page.nextPageToken;
      }
      return { ids, pages };
    };
    assert.deepEqual(await all(true, 3), { ids: made.toReversed(), pages: 3 });
    assert.deepEqual(await all(true, 7), { ids: made.toReversed(), pages: 1 });
    assert.deepEqual(
      (await all(false, 2)).ids,
      made.toReversed().filter((id) => id !== made[3]),
    );
  });

  test("a page token works for its own list only", async () => {
    const [caller, other] = [await auth.tenant(), await auth.tenant()];
    for (let i = 0; i < 3; i++) await auth.make(caller);
    const { nextPageToken: pageToken } = await auth.keys.listApiKeys({ pageSize: 1 }, callAs(caller));
    assert.notEqual(pageToken, "");
    const refused: [Principal, object][] = [
      [other, { pageToken }],
      [caller, { pageToken, showRevoked: true }],
      [{ ...caller, userId: "ada" }, { pageToken }],
      [caller, { pageToken: `${pageToken}A` }],
      [caller, { pageToken: "junk" }],
    ];
    for (const [who, request] of refused) {
      assert.equal((await refusal(auth.keys.listApiKeys(request, callAs(who)))).reason, "PAGE_TOKEN_INVALID");
    }
    assert.deepEqual(await violations(auth.keys.listApiKeys({ pageSize: -1 }, callAs(caller))), ["page_size"]);
  });

  test("a page has 50 keys unless more are asked for, and never more than 200", async () => {
    const caller = await auth.tenant();
    await database.db.tenant(caller.tenantId, async (tx) => {
      const ids = Array.from({ length: 205 }, () => newId("key"));
      await tx.execute(
        "INSERT INTO auth.api_keys (tenant_id, api_key_id, name, scopes, user_id, origin) SELECT $1, id, 'x', '{}', '', 'call' FROM unnest($2::text[]) id",
        [caller.tenantId, ids],
      );
      await tx.execute(
        "INSERT INTO auth.credentials (tenant_id, api_key_id, pepper_id, digest) SELECT $1, id, 'x', decode(repeat('00', 32), 'hex') FROM unnest($2::text[]) id",
        [caller.tenantId, ids],
      );
    });
    assert.equal((await auth.keys.listApiKeys({}, callAs(caller))).apiKeys.length, 50);
    assert.equal((await auth.keys.listApiKeys({ pageSize: 10_000 }, callAs(caller))).apiKeys.length, 200);
  });

  test("revoking stops a key at once, is announced and audited once, and may be repeated", async () => {
    const caller = await auth.tenant();
    const { keyId, secret } = await auth.make(caller);
    const heard: string[] = [];
    await using _ = await auth.bus.listen(
      `agentmesh.auth.v1.${caller.tenantId}.key_revoked`,
      ({ subject }) => void heard.push(subject),
    );
    await auth.verify(secret);
    for (let i = 0; i < 2; i++) await auth.keys.revokeApiKey({ apiKeyId: keyId }, callAs(caller));
    assert.equal((await refusal(auth.verify(secret))).reason, "CREDENTIAL_INVALID");
    assert.notEqual((await get(caller, keyId)).apiKey?.revokeTime, undefined);
    const rows = await database.db.tenant(caller.tenantId, (tx) =>
      tx.query<{ type: string; resource: string; subject: string; ip: string }>(
        "SELECT type, resource, subject, ip FROM auth.audit ORDER BY id",
      ),
    );
    const who = { resource: keyId, subject: caller.subject, ip: "203.0.113.9" };
    assert.deepEqual(rows, [
      { type: "api_key.created", ...who },
      { type: "api_key.revoked", ...who },
    ]);
    for (let i = 0; heard.length === 0 && i < 200; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal(heard.length, 1);
  });

  test("a key that holds platform:admin is revoked by a platform administrator only", async () => {
    const { keyId } = await auth.make(platformAdmin, { scopes: [PLATFORM_ADMIN] });
    const operator = principalOf(FIRST_TENANT_ID, TENANT_SCOPES);
    const refused = await refusal(auth.keys.revokeApiKey({ apiKeyId: keyId }, callAs(operator)));
    assert.deepEqual([refused.reason, refused.facts], ["SCOPE_MISSING", { scopes: PLATFORM_ADMIN }]);
    await auth.keys.revokeApiKey({ apiKeyId: keyId }, callAs(platformAdmin));
  });

  describe("with a request id", () => {
    test("a repeated creation answers with the same key and the same secret, which the database does not hold in clear", async () => {
      const caller = await auth.tenant();
      const first = await auth.make(caller, {}, "r1");
      const again = await auth.make(caller, {}, "r1");
      assert.deepEqual(again, first);
      assert.equal((await auth.keys.listApiKeys({}, callAs(caller))).apiKeys.length, 1);
      assert.equal((await auth.verify(again.secret)).subject, first.keyId);
      const stored = await database.db.tenant(caller.tenantId, (tx) =>
        tx.query<{ response: Buffer }>("SELECT response FROM auth.idempotency_keys"),
      );
      assert.equal(stored.length, 1);
      assert.equal(stored[0]?.response.includes(first.secret.slice(35, 78)), false);
      assert.equal(stored[0]?.response.includes("a key"), false);
    });

    test("creations that arrive together make one key", async () => {
      const caller = await auth.tenant();
      const made = await Promise.all(Array.from({ length: 5 }, () => auth.make(caller, {}, "same")));
      assert.equal(new Set(made.map(({ secret }) => secret)).size, 1);
      assert.equal((await auth.keys.listApiKeys({}, callAs(caller))).apiKeys.length, 1);
    });

    test("other content under the same request id is refused, and another caller's request id is another one", async () => {
      const caller = await auth.tenant();
      const first = await auth.make(caller, { name: "one" }, "r1");
      assert.equal((await refusal(auth.make(caller, { name: "two" }, "r1"))).reason, "IDEMPOTENCY_KEY_REUSED");
      const second = principalOf(caller.tenantId, TENANT_SCOPES);
      assert.notEqual((await auth.make(second, { name: "one" }, "r1")).keyId, first.keyId);
    });

    test("a refused creation is not remembered", async () => {
      const caller = await auth.tenant(["keys:write"]);
      assert.equal((await refusal(auth.make(caller, {}, "r1"))).reason, "SCOPE_MISSING");
      await auth.make({ ...caller, scopes: TENANT_SCOPES }, {}, "r1");
    });
  });

  describe("CreateTenantApiKey", () => {
    const makeFor = (tenantId: string, apiKey: object = { name: "first" }, caller = platformAdmin, requestId = "") =>
      auth.keys.createTenantApiKey({ tenantId, apiKey, requestId }, callAs(caller));

    test("gives a tenant its first key, with every tenant scope unless some are named, audited in that tenant", async () => {
      const { tenantId } = await auth.tenant();
      const all = await makeFor(tenantId);
      assert.deepEqual(all.apiKey?.scopes, [...TENANT_SCOPES]);
      const verified = await auth.verify(all.secret);
      assert.deepEqual([verified.tenantId, verified.scopes], [tenantId, [...TENANT_SCOPES]]);
      assert.deepEqual((await makeFor(tenantId, { name: "x", scopes: ["runs:read"] })).apiKey?.scopes, ["runs:read"]);
      const audit = await database.db.tenant(tenantId, (tx) =>
        tx.query("SELECT type, subject, subject_tenant_id FROM auth.audit"),
      );
      const row = { type: "api_key.created", subject: platformAdmin.subject, subject_tenant_id: FIRST_TENANT_ID };
      assert.deepEqual(audit, [row, row]);
    });

    test("a repeat answers with the same secret although the administrator belongs to another tenant", async () => {
      const { tenantId } = await auth.tenant();
      const first = await makeFor(tenantId, { name: "first" }, platformAdmin, "r1");
      assert.equal((await makeFor(tenantId, { name: "first" }, platformAdmin, "r1")).secret, first.secret);
    });

    test("waits a moment for a tenant whose event is still on its way", async () => {
      const tenantId = newId("ten");
      const creation = makeFor(tenantId);
      await new Promise((resolve) => setTimeout(resolve, 100));
      await announceTenant(auth.bus, tenantId);
      assert.equal((await auth.verify((await creation).secret)).tenantId, tenantId);
    });

    test("a tenant that does not exist, is deleted, or has no tenant id's form is not found", async () => {
      const { tenantId: deleted } = await auth.tenant();
      await announceTenant(auth.bus, deleted, "deleted", 2n);
      for (const tenantId of [newId("ten"), deleted, "ten_x"]) {
        const { code, facts } = await refusal(makeFor(tenantId));
        assert.deepEqual([code, facts], [Code.NotFound, { resource_type: "tenant" }]);
      }
    });

    test("platform:admin goes to keys of the first tenant only", async () => {
      const { tenantId } = await auth.tenant();
      const asked = { name: "x", scopes: ["agents:run", PLATFORM_ADMIN] };
      assert.deepEqual(await violations(makeFor(tenantId, asked)), ["api_key.scopes[1]"]);
      assert.deepEqual((await makeFor(FIRST_TENANT_ID, asked)).apiKey?.scopes, asked.scopes);
      assert.deepEqual((await makeFor("me", { name: "x" })).apiKey?.scopes, [...TENANT_SCOPES]);
    });

    test("an administrator that is bound to a user binds keys of its own tenant to it, and others' as it likes", async () => {
      const bound = { ...platformAdmin, userId: "root" };
      const { tenantId } = await auth.tenant();
      assert.equal((await makeFor("me", { name: "x" }, bound)).apiKey?.userId, "root");
      assert.deepEqual(await violations(makeFor("me", { name: "x", userId: "eve" }, bound)), ["api_key.user_id"]);
      assert.equal((await makeFor(tenantId, { name: "x", userId: "eve" }, bound)).apiKey?.userId, "eve");
    });
  });
});
