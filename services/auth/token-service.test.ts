import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import { TenantChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { encodeSecret, formatApiKey } from "./domain/api-key-format.ts";
import { newApiKey } from "./domain/new-api-key.ts";
import {
  announceTenant,
  authDatabase,
  gateway,
  type OpenAuth,
  openAuth,
  platformAdmin,
} from "./testing/auth-service.ts";

const INVALID = {
  code: Code.Unauthenticated,
  message: "The credential is not valid.",
  reason: "CREDENTIAL_INVALID",
  facts: {},
};

describe("TokenService.VerifyCredential", { skip: skipWithoutPostgres() }, () => {
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

  const outcomes = async () => (await auth.metrics.text()).match(/auth_verifications_total\{.*$/gm) ?? [];

  test("answers who a key speaks for", async () => {
    const caller = await auth.tenant();
    const expireTime = timestampFromDate(new Date(Date.now() + 3_600_000));
    const key = await auth.make(caller, { scopes: ["agents:run", "runs:read"], userId: "ada", expireTime });
    const { tenantId, subject, scopes, userId, credentialId, expireTime: until } = await auth.verify(key.secret);
    assert.deepEqual(
      { tenantId, subject, scopes, userId, credentialId },
      {
        tenantId: caller.tenantId,
        subject: key.keyId,
        scopes: ["agents:run", "runs:read"],
        userId: "ada",
        credentialId: key.keyId,
      },
    );
    assert.equal(until && timestampMs(until), timestampMs(expireTime));
    const machine = await auth.verify((await auth.make(caller)).secret);
    assert.deepEqual([machine.userId, machine.expireTime], ["", undefined]);
  });

  test("says one and the same of every credential that does not work", async () => {
    const caller = await auth.tenant();
    const { keyId, secret } = await auth.make(caller);
    const otherSecret = formatApiKey({ keyId, secret: encodeSecret(randomBytes(32)) });
    const other = await auth.make(caller);
    const swapped = formatApiKey({ keyId, secret: other.secret.slice(35, 78) });
    const revoked = await auth.make(caller);
    await auth.keys.revokeApiKey({ apiKeyId: revoked.keyId }, callAs(caller));
    const expired = await auth.make(caller, { expireTime: timestampFromDate(new Date(Date.now() + 60_000)) });
    const past = "UPDATE auth.api_keys SET expires_at = clock_timestamp() WHERE api_key_id = $1";
    await database.db.tenant(caller.tenantId, (tx) => tx.execute(past, [expired.keyId]));
    const orphan = principalOf(newId("ten"), TENANT_SCOPES);
    const ofUnknownTenant = await auth.make(orphan);
    const bad = [
      "x",
      "am_live_",
      `${secret} `,
      `Bearer ${secret}`,
      secret.slice(0, -1),
      formatApiKey(newApiKey()),
      otherSecret,
      swapped,
      revoked.secret,
      expired.secret,
      ofUnknownTenant.secret,
    ];
    for (const credential of bad) assert.deepEqual(await refusal(auth.verify(credential)), INVALID, credential);
    const gone = await auth.make(caller);
    await announceTenant(auth.bus, caller.tenantId, "deleted", 2n);
    for (const credential of [gone.secret, secret]) assert.deepEqual(await refusal(auth.verify(credential)), INVALID);
    const counted = (await outcomes()).join();
    for (const outcome of ["malformed", "unknown", "wrong_secret", "revoked", "expired", "tenant_gone"]) {
      assert.match(counted, new RegExp(`outcome="${outcome}"`));
    }
    assert.ok(auth.logged.some((line) => line["alert"] === true && line["key_id"] === keyId));
  });

  test("a suspended tenant's key is told so; a wrong, revoked or expired one learns nothing of the tenant", async () => {
    const caller = await auth.tenant();
    const [key, revoked] = [await auth.make(caller), await auth.make(caller)];
    await auth.keys.revokeApiKey({ apiKeyId: revoked.keyId }, callAs(caller));
    await announceTenant(auth.bus, caller.tenantId, "suspended", 2n);
    const { code, reason } = await refusal(auth.verify(key.secret));
    assert.deepEqual([code, reason], [Code.PermissionDenied, "TENANT_SUSPENDED"]);
    assert.deepEqual(await refusal(auth.verify(revoked.secret)), INVALID);
    const wrong = formatApiKey({ keyId: key.keyId, secret: encodeSecret(randomBytes(32)) });
    assert.deepEqual(await refusal(auth.verify(wrong)), INVALID);
    await announceTenant(auth.bus, caller.tenantId, "active", 3n);
    assert.equal((await auth.verify(key.secret)).subject, key.keyId);
  });

  test("an older or repeated event on a tenant never overwrites a newer one", async () => {
    const caller = await auth.tenant();
    const { secret } = await auth.make(caller);
    await announceTenant(auth.bus, caller.tenantId, "suspended", 5n);
    for (const epoch of [4n, 5n, 1n]) await announceTenant(auth.bus, caller.tenantId, "active", epoch);
    assert.equal((await refusal(auth.verify(secret))).reason, "TENANT_SUSPENDED");
    await announceTenant(auth.bus, caller.tenantId, "active", 6n);
    await auth.verify(secret);
  });

  test("only services with their own identity may ask, and the credential is bounded", async () => {
    const tokens = auth.service.client(TokenService);
    for (const caller of [platformAdmin, await auth.tenant()]) {
      const asked = tokens.verifyCredential({ credential: "x" }, callAs(caller));
      assert.equal((await refusal(asked)).reason, "SCOPE_MISSING");
    }
    for (const credential of ["", "x".repeat(8193)]) {
      assert.equal((await refusal(tokens.verifyCredential({ credential }, callAs(gateway)))).reason, "FIELD_INVALID");
    }
  });

  test("the last use is written to the minute, apart from the call, for keys of any tenant", async () => {
    const [one, two] = [await auth.tenant(), await auth.tenant()];
    const keys = [
      { caller: one, ...(await auth.make(one)) },
      { caller: two, ...(await auth.make(two)) },
    ];
    for (const { secret } of keys) await auth.verify(secret);
    for (const { caller, keyId } of keys) {
      let used: number | undefined;
      for (let i = 0; used === undefined && i < 100; i++) {
        const { apiKey } = await auth.keys.getApiKey({ apiKeyId: keyId }, callAs(caller));
        used = apiKey?.lastUseTime && timestampMs(apiKey.lastUseTime);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assert.ok(used !== undefined && used % 60_000 === 0 && Date.now() - used < 130_000, String(used));
    }
  });

  test("a key made under an earlier root secret works as long as that one is configured, and moves to the current one", async () => {
    const [before, current] = [randomBytes(32), randomBytes(32)];
    const old = await openAuth({ database: database.db, root: rootSecret([before]), bus: auth.bus });
    const caller = await old.tenant();
    const { keyId, secret } = await old.make(caller);
    const unused = await old.make(caller);
    await old[Symbol.asyncDispose]();
    const pepper = async () => {
      const sql = "SELECT pepper_id FROM auth.credentials WHERE api_key_id = $1";
      return (await database.db.worker((tx) => tx.one<{ pepper_id: string }>(sql, [keyId])))?.pepper_id;
    };
    const first = await pepper();
    await using rotated = await openAuth({ database: database.db, root: rootSecret([current, before]), bus: auth.bus });
    assert.equal((await rotated.verify(secret)).subject, keyId);
    assert.notEqual(await pepper(), first);
    await using later = await openAuth({ database: database.db, root: rootSecret([current]), bus: auth.bus });
    assert.equal((await later.verify(secret)).subject, keyId);
    assert.deepEqual(await refusal(later.verify(unused.secret)), INVALID);
  });

  test("without a database the answer is UNAVAILABLE, never that the credential is wrong", async () => {
    await using away = await authDatabase();
    const service = await openAuth({ database: away.db });
    const { secret } = await service.make({ ...platformAdmin, tenantId: FIRST_TENANT_ID });
    await service.verify(secret);
    await away.db.close();
    const { code, reason } = await refusal(service.verify(secret));
    assert.deepEqual([code, reason], [Code.Unavailable, "DEPENDENCY_DOWN"]);
    await service[Symbol.asyncDispose]();
  });

  test("an event that names a tenant other than its subject, or no known status, changes nothing", async () => {
    const [caller, other] = [await auth.tenant(), await auth.tenant()];
    const { secret } = await auth.make(caller);
    const publish = (subjectTenant: string, status: string) =>
      auth.bus.publish(
        {
          subject: `agentmesh.tenant.v1.${subjectTenant}.changed`,
          id: newId("evt"),
          data: toBinary(
            TenantChangedSchema,
            create(TenantChangedSchema, { tenantId: caller.tenantId, status, epoch: 9n }),
          ),
        },
        AbortSignal.timeout(300),
      );
    await assert.rejects(publish(other.tenantId, "deleted"), { name: "TimeoutError" });
    await assert.rejects(publish(caller.tenantId, "hibernating"), { name: "TimeoutError" });
    await auth.verify(secret);
    await until(() => auth.logged.some((line) => JSON.stringify(line).includes("auth-tenants")), "the log of it");
  });
});
