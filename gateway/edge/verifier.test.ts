import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ApiKeyRevokedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { KEY, openTestGateway, TENANT, type TestGateway } from "../testing/test-gateway.ts";

const ARRIVAL = { requestId: "req_1", ip: "203.0.113.1", userAgent: "" };
const TTL_MS = 1_000;
const REFUSAL_TTL_MS = 500;

let edge: TestGateway;

async function reopen(): Promise<void> {
  edge = await openTestGateway({
    services: [SessionService],
    routes: (router) => router.service(SessionService, {}),
    limits: { credentialTtlMs: TTL_MS, refusalTtlMs: REFUSAL_TTL_MS, maxCredentials: 3, verifyTimeoutMs: 1_000 },
  });
}

const verify = (credential = KEY) => edge.gateway.verifier.verify(credential, ARRIVAL);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const revoked = (apiKeyId: string) =>
  toBinary(ApiKeyRevokedSchema, create(ApiKeyRevokedSchema, { tenantId: TENANT, apiKeyId }));

describe("the credential verifier", () => {
  before(reopen);
  after(() => edge[Symbol.asyncDispose]());
  beforeEach(async () => {
    await edge[Symbol.asyncDispose]();
    await reopen();
  });

  test("asks auth once for as long as it believes the answer, and the principal stays the same object", async () => {
    const first = await verify();
    assert.equal(first.tenantId, TENANT);
    assert.equal(await verify(), first);
    assert.equal(edge.keys.asked, 1);
    await pause(TTL_MS + 20);
    await verify();
    assert.equal(edge.keys.asked, 2);
  });

  test("asks once for callers that come together", async () => {
    const gate = Promise.withResolvers<void>();
    edge.keys.away = gate.promise;
    const all = Promise.all(Array.from({ length: 20 }, () => verify()));
    await until(() => edge.keys.asked > 0, "the question");
    gate.resolve();
    assert.equal(new Set(await all).size, 1);
    assert.equal(edge.keys.asked, 1);
  });

  test("believes no longer than the credential lives", async () => {
    edge.keys.known.set("brief", { expireTime: { $typeName: "google.protobuf.Timestamp", seconds: 1n, nanos: 0 } });
    await verify("brief");
    await verify("brief");
    assert.equal(edge.keys.asked, 2);
  });

  test("remembers a refusal briefly, and what auth said", async () => {
    for (let time = 0; time < 3; time += 1)
      assert.equal(reasonOf(await rejection(verify("nope"))), "CREDENTIAL_INVALID");
    assert.equal(edge.keys.asked, 1);
    await pause(REFUSAL_TTL_MS + 20);
    edge.keys.known.set("nope", {});
    await verify("nope");
    edge.keys.suspended = true;
    assert.equal(reasonOf(await rejection(verify("other"))), "TENANT_SUSPENDED");
  });

  test("each refused caller gets its own request id", async () => {
    for (const id of ["one", "two"]) {
      const answer = await edge.json("GET", "/api/v1/sessions", undefined, {
        authorization: "Bearer nope",
        "x-request-id": id,
      });
      assert.equal(answer.status, 401);
      assert.equal(answer.headers.get("www-authenticate"), 'Bearer realm="agentmesh", error="invalid_token"');
      assert.match(JSON.stringify(answer.body.error.details), new RegExp(`"request_id":"${id}"`));
    }
    assert.equal(edge.keys.asked, 1);
  });

  test("refused credentials do not push out verified ones", async () => {
    await verify();
    for (let junk = 0; junk < 20; junk += 1) await rejection(verify(`junk${junk}`));
    const asked = edge.keys.asked;
    await verify();
    assert.equal(edge.keys.asked, asked);
  });

  test("remembers a bounded number, and forgets the oldest", async () => {
    for (const key of ["a", "b", "c", "d"]) edge.keys.known.set(key, {});
    for (const key of ["a", "b", "c", "d"]) await verify(key);
    await verify("d");
    assert.equal(edge.keys.asked, 4);
    await verify("a");
    assert.equal(edge.keys.asked, 5);
  });

  test("forgets a revoked key at once, and no other", async () => {
    edge.keys.known.set("second", { credentialId: "key_2" });
    await verify();
    await verify("second");
    edge.keys.known.delete(KEY);
    edge.bus.notify(`agentmesh.auth.v1.${TENANT}.key_revoked`, revoked("key_1"));
    await pause(5);
    assert.equal(reasonOf(await rejection(verify())), "CREDENTIAL_INVALID");
    const asked = edge.keys.asked;
    await verify("second");
    assert.equal(edge.keys.asked, asked);
  });

  test("does not take a key of another tenant for a revoked one", async () => {
    await verify();
    edge.bus.notify("agentmesh.auth.v1.ten_other.key_revoked", revoked("key_1"));
    await pause(5);
    await verify();
    assert.equal(edge.keys.asked, 1);
  });

  test("forgets every key of a tenant that changed, refusals included", async () => {
    await verify();
    edge.keys.suspended = true;
    edge.bus.notify(`agentmesh.tenant.v1.${TENANT}.changed`, new Uint8Array());
    await pause(5);
    assert.equal(reasonOf(await rejection(verify())), "TENANT_SUSPENDED");
    edge.keys.suspended = false;
    edge.bus.notify(`agentmesh.tenant.v1.${TENANT}.changed`, new Uint8Array());
    await pause(5);
    await verify();
  });

  test("an event that cannot be read forgets every key of its tenant", async () => {
    await verify();
    edge.bus.notify(`agentmesh.auth.v1.${TENANT}.key_revoked`, new Uint8Array([0xff]));
    await pause(5);
    await verify();
    assert.equal(edge.keys.asked, 2);
  });

  test("does not remember what it asked before a revocation, nor let later callers join that question", async () => {
    const gate = Promise.withResolvers<void>();
    edge.keys.away = gate.promise;
    const before = verify();
    await until(() => edge.keys.asked === 1, "the question");
    edge.bus.notify(`agentmesh.auth.v1.${TENANT}.key_revoked`, revoked("key_1"));
    await pause(5);
    edge.keys.known.delete(KEY);
    edge.keys.away = undefined;
    assert.equal(reasonOf(await rejection(verify())), "CREDENTIAL_INVALID");
    gate.resolve();
    await before;
    assert.equal(reasonOf(await rejection(verify())), "CREDENTIAL_INVALID");
  });

  test("auth that does not answer is UNAVAILABLE, and nothing is remembered of it", async () => {
    const gate = Promise.withResolvers<void>();
    edge.keys.away = gate.promise;
    const error = await rejection(verify());
    assert.equal(reasonOf(error), "DEPENDENCY_DOWN");
    const answer = await edge.json("GET", "/api/v1/sessions");
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get("retry-after"), "1");
    gate.resolve();
    edge.keys.away = undefined;
    await verify();
  });
});
