import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import type { ModelCredential } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { configDatabase, eventually, type OpenConfig, openConfig, platformAdmin } from "./testing/config-service.ts";

const NO_CREDENTIAL = {
  code: Code.NotFound,
  message: "No such model credential.",
  reason: "RESOURCE_NOT_FOUND",
  facts: { resource_type: "model_credential" },
};
const KEY = "sk-test-ThisIsTheSecretPart-wxyz";
const SERVER = "https://llm.example.com:8443/v1";
const secret = randomBytes(32);

describe("ModelCredentialService", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let mesh: OpenConfig;
  before(async () => {
    database = await configDatabase();
    mesh = await openConfig({ database: database.db, root: rootSecret([secret]) });
  });
  after(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  const list = async (caller: Principal, tenantId = "me") =>
    (await mesh.credentials.listModelCredentials({ tenantId }, callAs(caller))).credentials;
  const put = async (caller: Principal, asked: object = {}, requestId = "", tenantId = "me") => {
    const credential = { llmProvider: "openai", apiKey: KEY, ...asked };
    const answer = await mesh.credentials.putModelCredential({ tenantId, credential, requestId }, callAs(caller));
    return answer.credential as ModelCredential;
  };
  const remove = (caller: Principal, llmProvider = "openai", more: { etag?: string; requestId?: string } = {}) =>
    mesh.credentials.deleteModelCredential({ tenantId: "me", llmProvider, ...more }, callAs(caller));
  const reveal = (caller: Principal, llmProvider = "openai", at = mesh) =>
    at.credentials.revealModelCredential({ llmProvider }, callAs(caller));
  const own = async (caller: Principal, at = mesh) => (await at.resolve(caller)).ownCredentials;
  const auditOf = ({ tenantId }: Principal) =>
    database.db.tenant(tenantId, (tx) =>
      tx.query<{ type: string; details: object }>(
        "SELECT type, details FROM config.audit WHERE type LIKE 'model_credential.%' ORDER BY id",
      ),
    );

  test("a key is shown to nobody, and revealed to the services with its server and its version", async () => {
    const caller = await mesh.tenant();
    const shown = await put(caller, { baseUrl: SERVER });
    assert.deepEqual([shown.llmProvider, shown.apiKey, shown.baseUrl, shown.keySuffix], ["openai", "", SERVER, "wxyz"]);
    assert.deepEqual(await list(caller), [shown]);
    const { apiKey, baseUrl, version } = await reveal(caller);
    assert.deepEqual([apiKey, baseUrl, version], [KEY, SERVER, 1n]);
    await put(caller, { llmProvider: "anthropic", apiKey: "short" });
    assert.deepEqual(
      (await list(caller)).map(({ llmProvider, keySuffix }) => [llmProvider, keySuffix]),
      [
        ["anthropic", ""],
        ["openai", "wxyz"],
      ],
    );
    assert.deepEqual(await own(caller), ["anthropic", "openai"]);
  });

  test("the version rises with every change, over a deletion too, and not without one", async () => {
    const caller = await mesh.tenant();
    const first = await put(caller);
    assert.deepEqual(await put(caller), first);
    assert.equal((await reveal(caller)).version, 1n);
    await put(caller, { baseUrl: SERVER });
    assert.equal((await reveal(caller)).version, 2n);
    await put(caller, { baseUrl: SERVER, apiKey: `${KEY}2` });
    assert.equal((await reveal(caller)).version, 3n);
    await remove(caller);
    assert.deepEqual(await refusal(reveal(caller)), NO_CREDENTIAL);
    assert.deepEqual([await list(caller), await own(caller)], [[], []]);
    assert.deepEqual(await refusal(remove(caller)), NO_CREDENTIAL);
    await put(caller);
    assert.deepEqual([(await reveal(caller)).version, await own(caller)], [5n, ["openai"]]);
  });

  test("with an etag replaces and deletes that version only", async () => {
    const caller = await mesh.tenant();
    assert.equal((await refusal(put(caller, { etag: "v1" }))).reason, "ETAG_MISMATCH");
    const { etag } = await put(caller);
    const second = await put(caller, { etag, apiKey: `${KEY}2` });
    const stale = await refusal(put(caller, { etag, apiKey: `${KEY}3` }));
    assert.deepEqual([stale.code, stale.reason], [Code.Aborted, "ETAG_MISMATCH"]);
    assert.equal((await refusal(remove(caller, "openai", { etag }))).reason, "ETAG_MISMATCH");
    await remove(caller, "openai", { etag: second.etag });
    assert.equal((await refusal(put(caller, { etag: second.etag }))).reason, "ETAG_MISMATCH");
  });

  test("a repeated request gets the first one's answer and changes nothing; one with another key is told apart", async () => {
    const caller = await mesh.tenant();
    const requestId = newId("req");
    const first = await put(caller, {}, requestId);
    await put(caller, { apiKey: `${KEY}2` });
    assert.deepEqual(await put(caller, {}, requestId), first);
    assert.equal((await reveal(caller)).apiKey, `${KEY}2`);
    assert.equal((await refusal(put(caller, { apiKey: `${KEY}3` }, requestId))).reason, "IDEMPOTENCY_KEY_REUSED");
    const deletion = newId("req");
    await remove(caller, "openai", { requestId: deletion });
    await remove(caller, "openai", { requestId: deletion });
  });

  test("many at once leave one of them, its key with its server", async () => {
    const caller = await mesh.tenant();
    await Promise.all(
      Array.from({ length: 8 }, (_, i) => put(caller, { apiKey: `${KEY}${i}`, baseUrl: `https://${i}.example.com` })),
    );
    const { apiKey, baseUrl, version } = await reveal(caller);
    assert.deepEqual([apiKey.at(-1), version], [baseUrl.at(8), 8n]);
  });

  test("bad input is refused with the fields that are wrong, and never quoted", async () => {
    const caller = await mesh.tenant();
    const table: [object, string[]][] = [
      [{ llmProvider: "" }, ["credential.llm_provider"]],
      [{ llmProvider: "demo" }, ["credential.llm_provider"]],
      [{ llmProvider: "OpenAI" }, ["credential.llm_provider"]],
      [{ llmProvider: "x".repeat(33) }, ["credential.llm_provider"]],
      [{ apiKey: "" }, ["credential.api_key"]],
      [{ apiKey: "has space-Secret" }, ["credential.api_key"]],
      [{ apiKey: "line\r\nx-evil: Secret" }, ["credential.api_key"]],
      [{ apiKey: "Secret\u0000" }, ["credential.api_key"]],
      [{ apiKey: "Secretß" }, ["credential.api_key"]],
      [{ apiKey: "Secret".repeat(100) }, ["credential.api_key"]],
      [{ llmProvider: "anthropic", baseUrl: SERVER }, ["credential.base_url"]],
    ];
    const addresses = [
      "http://llm.example.com",
      "llm.example.com",
      "ftp://llm.example.com",
      "javascript:alert(1)",
      "https://",
      "https://user:Secret@llm.example.com",
      "https://user@llm.example.com",
      "https://@llm.example.com",
      "https://llm.example.com?key=Secret",
      "https://llm.example.com/#",
      "https://localhost/v1",
      "https://llm.localhost",
      "https://vllm:8000",
      "https://db.internal",
      "https://printer.local.",
      "https://127.0.0.1",
      "https://127.1",
      "https://0x7f.1",
      "https://2130706433",
      "https://017700000001",
      "https://10.0.0.1:8443/v1",
      "https://169.254.169.254/latest/meta-data",
      "https://8.8.8.8",
      "https://[::1]",
      "https://[::ffff:127.0.0.1]",
      "https://[fd00::1]:8443",
      "https://①②⑦.0.0.1",
      "https://llm.example.com\\@127.0.0.1",
      "https://llm.example.com\n.evil.com",
      "https://exa mple.com",
      "https://-x.example.com",
      "https://llm.example.com:99999",
      `https://${"a".repeat(64)}.com`,
      `https://llm.example.com/${"x".repeat(2_000)}`,
    ];
    for (const baseUrl of addresses) table.push([{ baseUrl }, ["credential.base_url"]]);
    for (const [asked, fields] of table) {
      assert.deepEqual(await violations(put(caller, asked)), fields, JSON.stringify(asked));
      const { message } = await refusal(put(caller, asked));
      assert.ok(!message.includes("Secret") && !message.includes("evil"), message);
    }
    assert.deepEqual(await violations(mesh.credentials.putModelCredential({ tenantId: "me" }, callAs(caller))), [
      "credential",
    ]);
    assert.deepEqual(await list(caller), []);
    for (const baseUrl of ["https://api.example.com", "https://xn--bcher-kva.example/v1/", "https://a-1.b.co:444/x"]) {
      assert.equal((await put(caller, { baseUrl })).baseUrl, baseUrl);
    }
    for (const provider of ["demo", "nobody", "\u0000"]) {
      assert.deepEqual(await refusal(reveal(caller, provider)), NO_CREDENTIAL);
      assert.deepEqual(await refusal(remove(caller, provider)), NO_CREDENTIAL);
    }
  });

  test("a foreign tenant's credentials are neither seen nor used nor changed", async () => {
    const [caller, foreign] = [await mesh.tenant(), await mesh.tenant()];
    await put(foreign);
    assert.deepEqual([await list(caller), await own(caller)], [[], []]);
    assert.deepEqual(await refusal(reveal(caller)), NO_CREDENTIAL);
    assert.deepEqual(await refusal(remove(caller)), NO_CREDENTIAL);
    const noTenant = { resource_type: "tenant" };
    assert.deepEqual((await refusal(list(caller, foreign.tenantId))).facts, noTenant);
    assert.deepEqual((await refusal(put(caller, {}, "", foreign.tenantId))).facts, noTenant);
    assert.deepEqual(await refusal(reveal(principalOf("", ["agents:run"]))), NO_CREDENTIAL);
    assert.equal((await list(platformAdmin, foreign.tenantId)).length, 1);
    assert.deepEqual(
      (await auditOf(foreign)).map(({ type }) => type),
      ["model_credential.created", "model_credential.listed"],
    );
    // Nor does a row that was moved open.
    await put(caller, { apiKey: `${KEY}-mine` });
    const sealedOf = ({ tenantId }: Principal) =>
      database.db.tenant(tenantId, (tx) =>
        tx.one<{ sealed_key: Buffer }>("SELECT sealed_key FROM config.model_credentials"),
      );
    const moved = (await sealedOf(foreign))?.sealed_key;
    await database.db.tenant(caller.tenantId, (tx) =>
      tx.execute("UPDATE config.model_credentials SET sealed_key = $1", [moved]),
    );
    assert.equal((await refusal(reveal(caller))).code, Code.Internal);
  });

  test("a server that was changed behind the service's back gets no key", async () => {
    const caller = await mesh.tenant();
    await put(caller);
    await database.db.tenant(caller.tenantId, (tx) =>
      tx.execute("UPDATE config.model_credentials SET base_url = 'https://evil.example.com'"),
    );
    assert.deepEqual([(await refusal(reveal(caller))).code], [Code.Internal]);
    assert.ok(mesh.logged.some(({ event, alert }) => event === "config.model_credential" && alert === true));
    await put(caller);
    assert.equal((await reveal(caller)).baseUrl, "");
  });

  test("the key is in no table, log line, audit row or event", async () => {
    const caller = await mesh.tenant();
    const heard: Buffer[] = [];
    const listening = await mesh.bus.listen("agentmesh.>", ({ subject, data }) => {
      heard.push(Buffer.concat([Buffer.from(subject), data]));
    });
    await put(caller, { baseUrl: SERVER }, newId("req"));
    await reveal(caller);
    await eventually("the event", async () => heard.some((one) => one.includes("credential_changed")));
    await listening.unsubscribe();
    const tables = await database.db.tenant(caller.tenantId, async (tx) => {
      const texts: string[] = [];
      for (const table of ["model_credentials", "audit", "idempotency_keys", "outbox"]) {
        texts.push(JSON.stringify(await tx.query(`SELECT to_jsonb(t) AS row FROM config.${table} t`)));
      }
      return texts.join();
    });
    const everything = `${tables}${JSON.stringify(mesh.logged)}${Buffer.concat(heard).toString("latin1")}`;
    for (const part of [KEY, "SecretPart", Buffer.from("SecretPart").toString("hex")]) {
      assert.ok(!everything.includes(part), part);
    }
    assert.ok(tables.includes("llm.example.com"));
  });

  test("uses are written to the audit once an hour, changes each time", async () => {
    const caller = await mesh.tenant();
    await put(caller);
    await Promise.all(Array.from({ length: 6 }, () => reveal(caller)));
    const types = async () => (await auditOf(caller)).map(({ type }) => type.replace("model_credential.", ""));
    assert.deepEqual(await types(), ["created", "used"]);
    await database.db.tenant(caller.tenantId, (tx) =>
      tx.execute("UPDATE config.model_credentials SET audited_at = audited_at - interval '61 minutes'"),
    );
    await reveal(caller);
    await reveal(caller);
    assert.deepEqual(await types(), ["created", "used", "used"]);
    await put(caller, { apiKey: `${KEY}2` });
    await remove(caller);
    assert.deepEqual(await types(), ["created", "used", "used", "updated", "deleted"]);
    assert.deepEqual((await auditOf(caller))[0]?.details, { version: 1, own_server: false });
  });

  test("after a rotation of the root secret keys are revealed, and sealed under the new one as they are used", async () => {
    const caller = await mesh.tenant();
    await put(caller);
    const next = randomBytes(32);
    await using rotated = await openConfig({ database: database.db, root: rootSecret([next, secret]), relay: false });
    const { apiKey, version } = await reveal(caller, "openai", rotated);
    assert.deepEqual([apiKey, version], [KEY, 1n]);
    await using later = await openConfig({ database: database.db, root: rootSecret([next]), relay: false });
    assert.deepEqual([(await reveal(caller, "openai", later)).apiKey], [KEY]);
  });

  test("scopes decide; a suspended tenant's keys are not revealed, a deleted one's are gone", async () => {
    const caller = await mesh.tenant();
    const { tenantId } = caller;
    await put(caller);
    const reader = principalOf(tenantId, ["tenant:read", "agents:run"]);
    assert.equal((await list(reader)).length, 1);
    assert.equal((await reveal(reader)).apiKey, KEY);
    assert.deepEqual((await refusal(put(reader))).facts, { scopes: "tenant:write" });
    assert.deepEqual((await refusal(remove(reader))).facts, { scopes: "tenant:write" });
    assert.deepEqual((await refusal(reveal(principalOf(tenantId, ["tenant:write"])))).facts, { scopes: "agents:run" });
    await mesh.change(platformAdmin, { tenantId, status: 2 });
    assert.equal((await refusal(reveal(caller))).reason, "TENANT_SUSPENDED");
    await mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin));
    assert.deepEqual((await refusal(reveal(caller))).facts, { resource_type: "tenant" });
    assert.deepEqual((await refusal(list(caller))).facts, { resource_type: "tenant" });
  });

  test("another process with a cache of its own hears that a tenant has or lost a key", async () => {
    await using shared = await configDatabase();
    await using one = await openConfig({ database: shared.db });
    await using two = await openConfig({ database: shared.db, bus: one.bus, relay: false });
    const caller = await one.tenant();
    assert.deepEqual(await own(caller, two), []);
    const credential = { llmProvider: "openai", apiKey: KEY };
    await one.credentials.putModelCredential({ tenantId: "me", credential }, callAs(caller));
    assert.deepEqual(await own(caller, one), ["openai"]);
    await eventually("the key elsewhere", async () => (await own(caller, two)).length === 1);
    await one.credentials.deleteModelCredential({ tenantId: "me", llmProvider: "openai" }, callAs(caller));
    assert.deepEqual(await own(caller, one), []);
    await eventually("its loss elsewhere", async () => (await own(caller, two)).length === 0);
  });
});
