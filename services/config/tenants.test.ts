import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { TenantStatus, TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { TenantChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { configDatabase, type OpenConfig, openConfig, platformAdmin } from "./testing/config-service.ts";

const NO_TENANT = {
  code: Code.NotFound,
  message: "No such tenant.",
  reason: "RESOURCE_NOT_FOUND",
  facts: { resource_type: "tenant" },
};

describe("TenantService", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let mesh: OpenConfig;
  before(async () => {
    database = await configDatabase();
    mesh = await openConfig({ database: database.db, values: { config: { first_tenant_name: "Operator" } } });
  });
  after(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await database?.drop();
  });
  const create = (tenant: object, requestId = "", caller = platformAdmin) =>
    mesh.tenants.createTenant({ tenant, requestId }, callAs(caller));

  test("a new tenant is free and active, and has its default agent", async () => {
    const { tenant } = await create({ name: "Acme" });
    assert.match(tenant?.tenantId ?? "", /^ten_[0-9a-z]{26}$/);
    assert.deepEqual([tenant?.name, tenant?.tier, tenant?.status], ["Acme", TenantTier.FREE, TenantStatus.ACTIVE]);
    assert.ok(Math.abs(timestampMs(tenant?.createTime as never) - Date.now()) < 60_000);
    const caller = principalOf(tenant?.tenantId ?? "", TENANT_SCOPES);
    assert.deepEqual(await mesh.read(caller), tenant);
    assert.deepEqual(
      (await mesh.list(caller)).map(({ isDefault, name }) => [isDefault, name]),
      [[true, "Assistant"]],
    );
  });

  test("every field that may be set is kept as it was given", async () => {
    const asked = {
      name: "Käthe 商店",
      tier: TenantTier.PRO,
      status: TenantStatus.SUSPENDED,
      enabledTools: ["todo", "mcp_search-1"],
      toolConfigs: { todo: { max: 5, on: true, none: null } },
      systemPrompt: "hello\nworld",
      promptTemplateId: "tpl",
      kbNamespaces: ["docs"],
      oauthConfig: { issuer: "https://login.example" },
      cannedAnswer: { en: "Sorry.", "zh-CN": "抱歉。" },
      metadata: { plan: "gold" },
    };
    const limits = { maxSessionsPerDay: -1n, maxMessageCharacters: 10n, allowedModels: ["claude-*"] };
    const { tenant } = await create({ ...asked, limits });
    for (const [field, value] of Object.entries(asked))
      assert.deepEqual(tenant?.[field as keyof typeof tenant], value, field);
    const { maxSessionsPerDay, maxTokensPerMonth, maxMessageCharacters, allowedModels } = tenant?.limits ?? {};
    assert.deepEqual(
      [maxSessionsPerDay, maxTokensPerMonth, maxMessageCharacters, allowedModels],
      [-1n, undefined, 10n, ["claude-*"]],
    );
  });

  test("bad input is refused with the fields that are wrong, and no tenant is made", async () => {
    const count = async () => (await mesh.tenants.listTenants({ pageSize: 200 }, callAs(platformAdmin))).tenants.length;
    const before = await count();
    const table: [object, string[]][] = [
      [{ name: "" }, ["tenant.name"]],
      [{ name: "\t" }, ["tenant.name"]],
      [{ name: "x".repeat(256) }, ["tenant.name"]],
      [{ name: "a\u0000" }, ["tenant.name"]],
      [{ tenantId: newId("ten") }, ["tenant.tenant_id"]],
      [{ tier: 9 }, ["tenant.tier"]],
      [{ status: 9 }, ["tenant.status"]],
      [{ status: TenantStatus.DELETED }, ["tenant.status"]],
      [{ enabledTools: ["ok", "not ok"] }, ["tenant.enabled_tools[1]"]],
      [{ toolConfigs: { a: Number.NaN } }, ["tenant.tool_configs"]],
      [{ metadata: { a: "x".repeat(66_000) } }, ["tenant.metadata"]],
      [{ oauthConfig: { "\u0000": 1 } }, ["tenant.oauth_config"]],
      [{ systemPrompt: "\u0000" }, ["tenant.system_prompt"]],
      [{ promptTemplateId: "a\nb" }, ["tenant.prompt_template_id"]],
      [{ kbNamespaces: ["\u0001"] }, ["tenant.kb_namespaces[0]"]],
      [{ cannedAnswer: { "not a language": "x" } }, ["tenant.canned_answer"]],
      [{ limits: { maxSessionsPerDay: -2n } }, ["tenant.limits.max_sessions_per_day"]],
      [{ limits: { maxMessageCharacters: 0n } }, ["tenant.limits.max_message_characters"]],
      [{ limits: { maxMessageCharacters: 100_001n } }, ["tenant.limits.max_message_characters"]],
      [{ limits: { allowedModels: ["a\u0000"] } }, ["tenant.limits.allowed_models[0]"]],
    ];
    for (const [tenant, fields] of table) {
      // A NaN in a Struct cannot even be written as JSON, but a binary client can send it.
      assert.deepEqual(await violations(create({ name: "Acme", ...tenant }, newId("req"))), fields, fields.join());
    }
    assert.deepEqual(await violations(mesh.tenants.createTenant({}, callAs(platformAdmin))), ["tenant"]);
    assert.deepEqual(await violations(mesh.tenants.updateTenant({}, callAs(platformAdmin))), ["tenant.tenant_id"]);
    assert.equal(await count(), before);
  });

  test("only a platform administrator creates, lists and deletes tenants", async () => {
    const caller = await mesh.tenant();
    const facts = { scopes: "platform:admin" };
    assert.deepEqual((await refusal(create({ name: "x" }, "", caller))).facts, facts);
    assert.deepEqual((await refusal(mesh.tenants.listTenants({}, callAs(caller)))).facts, facts);
    assert.deepEqual((await refusal(mesh.tenants.deleteTenant({ tenantId: "me" }, callAs(caller)))).facts, facts);
  });

  test("a foreign tenant answers exactly as a missing one", async () => {
    const [caller, foreign] = [await mesh.tenant(), await mesh.tenant()];
    for (const tenantId of [foreign.tenantId, newId("ten"), FIRST_TENANT_ID, "ten_", "nobody"]) {
      assert.deepEqual(await refusal(mesh.read(caller, tenantId)), NO_TENANT);
      assert.deepEqual(await refusal(mesh.change(caller, { tenantId, name: "mine" })), NO_TENANT);
    }
    const missing = newId("ten");
    for (const tenantId of [missing, "nobody"]) {
      assert.deepEqual(await refusal(mesh.read(platformAdmin, tenantId)), NO_TENANT);
      assert.deepEqual(await refusal(mesh.change(platformAdmin, { tenantId, name: "x" })), NO_TENANT);
      assert.deepEqual(await refusal(mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin))), NO_TENANT);
    }
    assert.equal((await mesh.read(foreign)).name, "Acme");
    const traces = await database.db.tenant(missing, (tx) => tx.query("SELECT FROM config.audit"));
    assert.equal(traces.length, 0);
  });

  test("a creation that is repeated makes one tenant, also when it comes many times at once", async () => {
    const made = await Promise.all(Array.from({ length: 5 }, () => create({ name: "Once" }, "tenant-1")));
    const [first] = made;
    for (const again of made) assert.deepEqual(again, first);
    const { tenantId = "" } = first?.tenant ?? {};
    assert.equal((await mesh.list(principalOf(tenantId, TENANT_SCOPES))).length, 1);
    assert.equal((await refusal(create({ name: "Twice" }, "tenant-1"))).reason, "IDEMPOTENCY_KEY_REUSED");
    await mesh.change(platformAdmin, { tenantId, name: "Later" });
    assert.equal((await create({ name: "Once" }, "tenant-1")).tenant?.name, "Later");
  });

  test("a tenant changes its own settings, but tier, status and limits are the platform's", async () => {
    const caller = await mesh.tenant();
    const changed = await mesh.change(caller, { name: "New", systemPrompt: "hi", enabledTools: ["todo"] });
    assert.deepEqual([changed.name, changed.systemPrompt, changed.enabledTools], ["New", "hi", ["todo"]]);
    const table: [object, string[]][] = [
      [{ tier: TenantTier.ENTERPRISE }, []],
      [{ status: TenantStatus.ACTIVE }, []],
      [{ limits: {} }, []],
      [{ name: "x" }, ["name", "limits"]],
      [{ name: "x" }, ["limits.max_tokens_per_month"]],
      [{ name: "x", tier: TenantTier.PRO }, ["*"]],
    ];
    for (const [tenant, paths] of table) {
      const refused = await refusal(mesh.change(caller, tenant, paths));
      assert.deepEqual(
        [refused.code, refused.reason, refused.facts],
        [Code.PermissionDenied, "SCOPE_MISSING", { scopes: "platform:admin" }],
      );
    }
    assert.deepEqual(await mesh.read(caller), changed);
    const replaced = await mesh.change(caller, { name: "All", tier: TenantTier.FREE }, ["*"]);
    assert.deepEqual([replaced.name, replaced.systemPrompt, replaced.status], ["All", "", TenantStatus.ACTIVE]);
    const { tenantId } = caller;
    const raised = await mesh.change(platformAdmin, {
      tenantId,
      tier: TenantTier.PRO,
      limits: { maxTokensPerMonth: 5n },
    });
    assert.deepEqual([raised.tier, raised.limits?.maxTokensPerMonth, raised.name], [TenantTier.PRO, 5n, "All"]);
    const kept = await mesh.change(caller, { name: "Again" }, ["name"]);
    assert.deepEqual([kept.tier, kept.limits?.maxTokensPerMonth], [TenantTier.PRO, 5n]);
    assert.equal((await refusal(mesh.change(caller, { name: "All" }, ["*"]))).reason, "SCOPE_MISSING");
  });

  test("a mask may name one limit, and an unknown or server-set path is refused", async () => {
    const { tenantId } = await mesh.tenant();
    const change = (limits: object, paths: string[]) => mesh.change(platformAdmin, { tenantId, limits }, paths);
    await change({ maxTokensPerMonth: 5n, maxSessionsPerDay: 7n }, ["limits"]);
    const one = await change({ maxTokensPerMonth: 6n, maxSessionsPerDay: 99n }, ["limits.max_tokens_per_month"]);
    assert.deepEqual([one.limits?.maxTokensPerMonth, one.limits?.maxSessionsPerDay], [6n, 7n]);
    const cleared = await change({}, ["limits.max_tokens_per_month"]);
    assert.deepEqual([cleared.limits?.maxTokensPerMonth, cleared.limits?.maxSessionsPerDay], [undefined, 7n]);
    for (const path of [
      "limits.nope",
      "limits.allowed_models.0",
      "metadata.a",
      "create_time",
      "x",
      "canned_answer.en",
    ]) {
      assert.equal((await refusal(change({}, [path]))).reason, "UPDATE_MASK_INVALID", path);
    }
    for (const path of ["tier", "status", "name"]) {
      assert.deepEqual(await violations(mesh.change(platformAdmin, { tenantId }, [path])), [`tenant.${path}`]);
    }
  });

  test("an etag guards against changing what has changed", async () => {
    const caller = await mesh.tenant();
    const { etag } = await mesh.read(caller);
    const changed = await mesh.change(caller, { etag, name: "One" });
    assert.equal((await refusal(mesh.change(caller, { etag, name: "Two" }))).reason, "ETAG_MISMATCH");
    const { tenantId } = caller;
    const stale = mesh.tenants.deleteTenant({ tenantId, etag }, callAs(platformAdmin));
    assert.equal((await refusal(stale)).reason, "ETAG_MISMATCH");
    await mesh.tenants.deleteTenant({ tenantId, etag: changed.etag }, callAs(platformAdmin));
  });

  test("each change is told with a higher epoch, also when changes come at once", async () => {
    const heard: { tenantId: string; status: string; epoch: bigint }[] = [];
    await using _ = await mesh.bus.listen("agentmesh.tenant.v1.*.changed", ({ data }) => {
      const { tenantId, status, epoch } = fromBinary(TenantChangedSchema, data);
      heard.push({ tenantId, status, epoch });
    });
    const { tenantId } = await mesh.tenant();
    const of = () => heard.filter((event) => event.tenantId === tenantId);
    await mesh.change(platformAdmin, { tenantId, status: TenantStatus.SUSPENDED });
    await mesh.change(platformAdmin, { tenantId, status: TenantStatus.ACTIVE });
    await Promise.all([1, 2, 3].map((i) => mesh.change(platformAdmin, { tenantId, name: `Name ${i}` })));
    await mesh.tenants.deleteTenant({ tenantId, requestId: "d1" }, callAs(platformAdmin));
    await mesh.tenants.deleteTenant({ tenantId, requestId: "d1" }, callAs(platformAdmin));
    await until(() => of().length >= 7, "all events");
    assert.deepEqual(
      of().map(({ status, epoch }) => [status, epoch]),
      [
        ["active", 1n],
        ["suspended", 2n],
        ["active", 3n],
        ["active", 4n],
        ["active", 5n],
        ["active", 6n],
        ["deleted", 7n],
      ],
    );
  });

  test("a deleted tenant is shown to administrators only when asked for, and does not come back", async () => {
    const { tenantId } = await mesh.tenant({ name: "Gone" });
    await mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin));
    assert.equal((await mesh.read(platformAdmin, tenantId)).status, TenantStatus.DELETED);
    const ids = async (status?: TenantStatus) =>
      (await mesh.tenants.listTenants({ pageSize: 200, ...(status && { status }) }, callAs(platformAdmin))).tenants.map(
        (tenant) => tenant.tenantId,
      );
    assert.ok(!(await ids()).includes(tenantId));
    assert.ok((await ids(TenantStatus.DELETED)).includes(tenantId));
    assert.ok(!(await ids(TenantStatus.ACTIVE)).includes(tenantId));
    assert.deepEqual(await refusal(mesh.change(platformAdmin, { tenantId, status: TenantStatus.ACTIVE })), NO_TENANT);
    assert.deepEqual(await refusal(mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin))), NO_TENANT);
  });

  test("the installation's own tenant cannot be suspended or deleted", async () => {
    for (const refused of [
      await refusal(mesh.tenants.deleteTenant({ tenantId: "me" }, callAs(platformAdmin))),
      await refusal(mesh.change(platformAdmin, { status: TenantStatus.SUSPENDED })),
    ]) {
      assert.deepEqual([refused.code, refused.reason], [Code.FailedPrecondition, "RESOURCE_IN_USE"]);
    }
    assert.equal((await mesh.read(platformAdmin)).status, TenantStatus.ACTIVE);
  });

  test("tenants are listed newest first in pages, and a token works for its own list only", async () => {
    const made: string[] = [];
    for (let i = 0; i < 5; i++) made.unshift((await mesh.tenant({ name: `Listed ${i}` })).tenantId);
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await mesh.tenants.listTenants({ pageSize: 2, pageToken }, callAs(platformAdmin));
      seen.push(...page.tenants.map(({ tenantId }) => tenantId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    assert.deepEqual(seen.slice(0, 5), made);
    assert.equal(new Set(seen).size, seen.length);
    assert.equal(seen.at(-1), FIRST_TENANT_ID);
    const { nextPageToken } = await mesh.tenants.listTenants({ pageSize: 1 }, callAs(platformAdmin));
    const other = mesh.tenants.listTenants(
      { pageToken: nextPageToken, status: TenantStatus.ACTIVE },
      callAs(platformAdmin),
    );
    assert.equal((await refusal(other)).reason, "PAGE_TOKEN_INVALID");
  });

  test("what an administrator does and looks at is audited: in the tenant it concerns, lists in its own", async () => {
    const caller = await mesh.tenant();
    const { tenantId } = caller;
    await mesh.read(platformAdmin, tenantId);
    await mesh.read(caller);
    await mesh.change(platformAdmin, { tenantId, tier: TenantTier.PRO });
    await mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin));
    const types = async (tenant: string) =>
      (
        await database.db.tenant(tenant, (tx) =>
          tx.query<{ type: string }>("SELECT type FROM config.audit ORDER BY time, id"),
        )
      ).map(({ type }) => type);
    assert.deepEqual(await types(tenantId), ["tenant.created", "tenant.read", "tenant.updated", "tenant.deleted"]);
    assert.ok((await types(FIRST_TENANT_ID)).includes("tenant.listed"));
  });

  describe("at the first start", () => {
    test("the installation's own tenant is there, with the enterprise tier and its default agent", async () => {
      const own = await mesh.read(platformAdmin);
      assert.deepEqual(
        [own.tenantId, own.name, own.tier, own.status],
        [FIRST_TENANT_ID, "Operator", TenantTier.ENTERPRISE, TenantStatus.ACTIVE],
      );
      const [agent] = (await mesh.list(platformAdmin)).filter(({ isDefault }) => isDefault);
      assert.deepEqual(agent?.tools, ["current_time", "calculator", "todo"]);
    });

    test("replicas that start together make one tenant and one agent, and later starts leave changes alone", async () => {
      await using fresh = await configDatabase();
      const replicas = await Promise.all(Array.from({ length: 4 }, () => openConfig({ database: fresh.db })));
      const [one] = replicas as [OpenConfig, ...OpenConfig[]];
      const [agent, ...more] = await one.list(platformAdmin);
      assert.equal(more.length, 0);
      await one.change(platformAdmin, { name: "Renamed", tier: TenantTier.PRO });
      await one.update(platformAdmin, { agentId: agent?.agentId ?? "", name: "Mine", systemPrompt: "mine" });
      for (const replica of replicas) await replica[Symbol.asyncDispose]();
      await using again = await openConfig({ database: fresh.db });
      assert.deepEqual(
        (await again.list(platformAdmin)).map(({ name, systemPrompt, version }) => [name, systemPrompt, version]),
        [["Mine", "mine", 2]],
      );
      const { name, tier } = await again.read(platformAdmin);
      assert.deepEqual([name, tier], ["Renamed", TenantTier.PRO]);
    });
  });
});
