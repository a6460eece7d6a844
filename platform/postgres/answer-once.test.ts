import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ApiKeyService, CreateApiKeyRequestSchema } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { newId } from "../id.ts";
import type { Call } from "../rpc/call.ts";
import { testCall, testPrincipal } from "../rpc/test-mesh.contract.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "../testing/private-postgres.ts";
import { answerOnce, type Envelope, onceOf } from "./answer-once.ts";
import { remembered } from "./idempotency.ts";

describe("answerOnce", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  before(async () => {
    const dir = `${import.meta.dirname}/fixtures/answer-once`;
    database = await testDatabase({ services: [{ schema: "once", dir }] });
  });
  after(() => database?.drop());

  const method = ApiKeyService.method.createApiKey;
  const request = (name: string, requestId: string) =>
    onceOf(method, create(CreateApiKeyRequestSchema, { apiKey: { name }, requestId }));
  const callOf = (): Call => testCall([], { principal: testPrincipal([]) });
  let runs = 0;
  const answer = (
    call: Call,
    once: ReturnType<typeof request>,
    tenantId = call.principal.tenantId,
    envelope?: Envelope,
  ) =>
    database.db.tenant(tenantId, (tx) =>
      answerOnce(tx, { schema: "once", tenantId, call, once, envelope }, async () => ({ secret: `run ${++runs}` })),
    );

  test("a repeat gets the first answer, as a message of the method's output", async () => {
    const call = callOf();
    const first = await answer(call, request("a", "r1"));
    const again = await answer(call, request("a", "r1"));
    assert.equal(first.$typeName, "agentmesh.auth.v1.CreateApiKeyResponse");
    assert.deepEqual(again, first);
  });

  test("without a request id every call runs", async () => {
    const call = callOf();
    assert.notEqual((await answer(call, request("a", ""))).secret, (await answer(call, request("a", ""))).secret);
  });

  test("other content under the same request id is refused", async () => {
    const call = callOf();
    await answer(call, request("a", "r1"));
    await assert.rejects(answer(call, request("b", "r1")), { reason: "IDEMPOTENCY_KEY_REUSED" });
  });

  test("the key belongs to the transaction's tenant and the caller: two administrators' or two tenants' are apart", async () => {
    const [admin, other, tenant, second] = [callOf(), callOf(), newId("ten"), newId("ten")];
    const first = await answer(admin, request("a", "r1"), tenant);
    assert.equal((await answer(admin, request("a", "r1"), tenant)).secret, first.secret);
    assert.notEqual((await answer(admin, request("a", "r1"), second)).secret, first.secret);
    assert.notEqual((await answer(other, request("a", "r1"), tenant)).secret, first.secret);
  });

  test("an answer that is known before is remembered in the transaction that carries it out, or not at all", async () => {
    const call = callOf();
    const { tenantId } = call.principal;
    const key = { schema: "once", call, method: "Known", requestId: "r1", request: Buffer.from("a") };
    const take = (answer: string, request = key) =>
      database.db.tenant(tenantId, async (tx) => (await remembered(tx, request, Buffer.from(answer)))?.toString());
    const undone = database.db.tenant(tenantId, async (tx) => {
      assert.equal(await remembered(tx, key, Buffer.from("zero")), undefined);
      throw new Error("undone");
    });
    await assert.rejects(undone, /undone/);
    assert.equal(await take("one"), undefined);
    assert.equal(await take("two"), "one");
    await assert.rejects(take("two", { ...key, request: Buffer.from("b") }), { reason: "IDEMPOTENCY_KEY_REUSED" });
    assert.equal(await take("three", { ...key, requestId: "" }), undefined);
    await database.db.tenant(tenantId, (tx) =>
      tx.execute("UPDATE once.idempotency_keys SET created_at = created_at - interval '25 hours'"),
    );
    assert.equal(await take("four"), undefined, "a key that is past its time is taken over");
    assert.equal(await take("five"), "four");
  });

  test("an envelope keeps the stored answer sealed, under a context of its own", async () => {
    const contexts: string[] = [];
    const noted = (bytes: Uint8Array, context: string) => {
      contexts.push(context);
      return bytes.map((byte) => byte ^ 0x5a);
    };
    const envelope: Envelope = {
      seal: (plain, context) => noted(plain, context),
      open: (sealed, context) => noted(sealed, context),
    };
    const call = callOf();
    const first = await answer(call, request("a", "r9"), call.principal.tenantId, envelope);
    const again = await answer(call, request("a", "r9"), call.principal.tenantId, envelope);
    assert.deepEqual(again, first);
    const { tenantId, subject } = call.principal;
    const context = `${tenantId} ${subject} agentmesh.auth.v1.ApiKeyService/CreateApiKey r9`;
    assert.deepEqual(new Set(contexts), new Set([context]));
    const stored = await database.db.tenant(tenantId, (tx) =>
      tx.query<{ response: Buffer }>("SELECT response FROM once.idempotency_keys"),
    );
    assert.equal(stored[0]?.response.includes(first.secret), false);
  });
});
