import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { TenantStatus, TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { createCache } from "#platform/redis/create-cache.ts";
import { EmbeddedCache } from "#platform/redis/embedded-cache.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { MissingServer } from "#platform/testing/missing-server.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { type PrivateRedis, privateRedis } from "#platform/testing/private-redis.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { configDatabase, type OpenConfig, openConfig, platformAdmin } from "./testing/config-service.ts";

describe("ResolutionService.ResolveAgent", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let mesh: OpenConfig;
  before(async () => {
    database = await configDatabase();
    mesh = await openConfig({ database: database.db });
  });
  after(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await database?.drop();
  });
  const loads = async (of: OpenConfig) =>
    Number(/config_resolutions_total\{how="loaded"\} (\d+)/.exec(await of.service.metrics.text())?.[1] ?? 0);

  test("without an id resolves the tenant's default agent, whole", async () => {
    const caller = await mesh.tenant();
    const { agent, limits, tier, toolConfigsJson } = await mesh.resolve(caller);
    assert.deepEqual(
      [
        agent?.isDefault,
        agent?.llmProvider,
        agent?.llmModel,
        agent?.maxTokens,
        agent?.temperature,
        agent?.maxIterations,
      ],
      [true, "anthropic", "claude-haiku-5-5", 4096, undefined, 20],
    );
    assert.deepEqual(agent?.tools, ["current_time", "calculator", "todo"]);
    assert.match(agent?.systemPrompt ?? "", /helpful/);
    assert.deepEqual([tier, toolConfigsJson], [TenantTier.FREE, "{}"]);
    assert.deepEqual(
      { ...limits, $typeName: undefined },
      {
        $typeName: undefined,
        maxSessionsPerDay: 50n,
        maxMessagesPerSession: 20n,
        maxTokensPerMonth: 100_000n,
        maxConcurrentSessions: 2n,
        maxToolCallsPerMinute: 60n,
        maxMessageCharacters: 10_000n,
        allowedModels: ["claude-haiku-*"],
      },
    );
    await mesh.add(caller, { name: "New default", isDefault: true });
    assert.equal((await mesh.resolve(caller)).agent?.name, "New default");
  });

  test("puts the agent over the tenant and the tenant over the tier", async () => {
    const caller = await mesh.tenant({
      tier: TenantTier.STARTER,
      systemPrompt: "of the tenant",
      promptTemplateId: "tpl_tenant",
      kbNamespaces: ["shared"],
      toolConfigs: { todo: { max: 3 } },
      limits: { maxTokensPerMonth: 7n, maxSessionsPerDay: -1n },
    });
    const bare = await mesh.add(caller, { name: "Bare" });
    const own = await mesh.add(caller, {
      name: "Own",
      systemPrompt: "mine",
      kbNamespaces: ["own"],
      llmModel: "claude-haiku-4-5",
    });
    const template = await mesh.add(caller, { name: "Template", promptTemplateId: "tpl_own" });
    const of = async ({ agentId }: { agentId: string }) => {
      const { agent } = await mesh.resolve(caller, agentId);
      return [agent?.systemPrompt, agent?.promptTemplateId, agent?.kbNamespaces, agent?.llmModel];
    };
    assert.deepEqual(await of(bare), ["of the tenant", "tpl_tenant", ["shared"], "claude-sonnet-5-5"]);
    assert.deepEqual(await of(own), ["mine", "", ["own"], "claude-haiku-4-5"]);
    assert.deepEqual(await of(template), ["", "tpl_own", ["shared"], "claude-sonnet-5-5"]);
    const { limits, toolConfigsJson } = await mesh.resolve(caller, bare.agentId);
    assert.deepEqual(
      [
        limits?.maxTokensPerMonth,
        limits?.maxSessionsPerDay,
        limits?.maxMessagesPerSession,
        JSON.parse(toolConfigsJson),
      ],
      [7n, -1n, 50n, { todo: { max: 3 } }],
    );
    assert.equal((await mesh.resolve(caller, own.agentId)).agent?.version, 1);
  });

  test("leaves out tools that the tenant has switched off, and gives none to an agent that names none", async () => {
    const caller = await mesh.tenant({ enabledTools: ["web", "todo"] });
    const { agentId } = await mesh.add(caller, { tools: ["web", "todo"] });
    const { agentId: bare } = await mesh.add(caller, { name: "Bare" });
    await mesh.change(caller, { enabledTools: ["web"] });
    assert.deepEqual((await mesh.resolve(caller, agentId)).agent?.tools, ["web"]);
    assert.deepEqual((await mesh.resolve(caller, bare)).agent?.tools, []);
  });

  test("an agent whose model the tenant has lost is inactive until it or the tenant changes", async () => {
    const caller = await mesh.tenant({ tier: TenantTier.PRO });
    const { tenantId } = caller;
    const { agentId } = await mesh.add(caller, { llmModel: "claude-opus-5-5" });
    await mesh.resolve(caller, agentId);
    await mesh.change(platformAdmin, { tenantId, tier: TenantTier.FREE });
    const { code, reason, facts } = await refusal(mesh.resolve(caller, agentId));
    assert.deepEqual(
      [code, reason, facts],
      [Code.FailedPrecondition, "AGENT_INACTIVE", { agent_id: agentId, model: "claude-opus-5-5" }],
    );
    await mesh.update(caller, { agentId, llmModel: "claude-haiku-5-5" });
    assert.equal((await mesh.resolve(caller, agentId)).agent?.llmModel, "claude-haiku-5-5");
  });

  test("a tenant whose own list leaves out the tier's model gets the first whole name of its list", async () => {
    const named = await mesh.tenant({
      limits: { allowedModels: ["claude-mythos-*", "claude-opus-5", "claude-opus-4-8"] },
    });
    assert.equal((await mesh.resolve(named)).agent?.llmModel, "claude-opus-5");
    const patterns = await mesh.tenant({ limits: { allowedModels: ["claude-opus-*"] } });
    assert.equal((await refusal(mesh.resolve(patterns))).reason, "AGENT_INACTIVE");
  });

  test("the demo provider has one model, whatever the tier allows", async () => {
    const caller = await mesh.tenant();
    const { agentId } = await mesh.add(caller, { llmProvider: "demo" });
    const { agent } = await mesh.resolve(caller, agentId);
    assert.deepEqual([agent?.llmProvider, agent?.llmModel], ["demo", "demo"]);
  });

  test("needs agents:run or agents:read", async () => {
    const { tenantId } = await mesh.tenant();
    await mesh.resolve(principalOf(tenantId, ["agents:run"]));
    await mesh.resolve(principalOf(tenantId, ["agents:read"]));
    assert.equal((await refusal(mesh.resolve(principalOf(tenantId, ["sessions:read"])))).reason, "SCOPE_MISSING");
  });

  test("a suspended tenant's agents are refused, a deleted one's are gone, cached or not", async () => {
    const caller = await mesh.tenant();
    const { tenantId } = caller;
    await mesh.resolve(caller);
    await mesh.change(platformAdmin, { tenantId, status: TenantStatus.SUSPENDED });
    assert.equal((await refusal(mesh.resolve(caller))).reason, "TENANT_SUSPENDED");
    await mesh.change(platformAdmin, { tenantId, status: TenantStatus.ACTIVE });
    await mesh.resolve(caller);
    await mesh.tenants.deleteTenant({ tenantId }, callAs(platformAdmin));
    assert.deepEqual((await refusal(mesh.resolve(caller))).facts, { resource_type: "agent" });
  });

  test("is cached: many questions, one load; and one tenant's cache is not another's", async () => {
    // The events of the creations would invalidate at some moment, so they go to another mesh's bus.
    await using deaf = await openConfig({ database: database.db, relay: false });
    const [one, two] = [await mesh.tenant(), await mesh.tenant()];
    const before = await loads(deaf);
    await Promise.all(Array.from({ length: 10 }, () => deaf.resolve(one)));
    for (let i = 0; i < 5; i++) await deaf.resolve(one);
    assert.equal((await loads(deaf)) - before, 1);
    assert.equal((await deaf.resolve(two)).agent?.tenantId, two.tenantId);
    assert.equal((await deaf.resolve(one)).agent?.tenantId, one.tenantId);
    assert.equal((await loads(deaf)) - before, 2);
  });

  /** Every kind of change, and what a resolution shows of it. */
  const changes: [string, (at: OpenConfig, caller: Principal, agentId: string) => Promise<unknown>][] = [
    ["an agent's change", (at, caller, agentId) => at.update(caller, { agentId, systemPrompt: "changed" })],
    ["a tenant's change", (at, caller) => at.change(caller, { systemPrompt: "changed" })],
    ["a tier's change", (at, { tenantId }) => at.change(platformAdmin, { tenantId, tier: TenantTier.PRO })],
    ["an agent's deletion", (at, caller, agentId) => at.remove(caller, agentId)],
  ];
  const shown = (at: OpenConfig, caller: Principal, agentId: string) =>
    at.resolve(caller, agentId).then(
      ({ agent, tier }) => `${agent?.systemPrompt} ${tier}`,
      () => "gone",
    );

  test("who has the answer to a write never resolves what was before it, in a race with other readers too", async () => {
    const caller = await mesh.tenant();
    const { agentId } = await mesh.add(caller);
    let reading = true;
    const readers = Array.from({ length: 3 }, async () => {
      while (reading) {
        await mesh.resolve(caller, agentId);
        // A hit takes no turn of the event loop, and the writer needs some.
        await new Promise((resolve) => setImmediate(resolve));
      }
    });
    try {
      for (let i = 0; i < 25; i++) {
        const { version } = await mesh.update(caller, { agentId, systemPrompt: `prompt ${i}` });
        const { agent } = await mesh.resolve(caller, agentId);
        assert.deepEqual([agent?.systemPrompt, agent?.version], [`prompt ${i}`, version]);
      }
    } finally {
      reading = false;
    }
    await Promise.all(readers);
  });

  test("another process with a cache of its own hears of every change on the bus", async () => {
    // A database of its own: the relay of another mesh would publish on another bus.
    await using shared = await configDatabase();
    await using bus = new EmbeddedBus({ log: { info() {}, warn() {}, error() {} } });
    await using one = await openConfig({ database: shared.db, bus });
    await using two = await openConfig({ database: shared.db, bus, relay: false });
    for (const [what, change] of changes) {
      const caller = await one.tenant();
      const { agentId } = await one.add(caller);
      const before = await shown(two, caller, agentId);
      assert.equal(await shown(two, caller, agentId), before);
      await change(one, caller, agentId);
      const now = await shown(one, caller, agentId);
      assert.notEqual(now, before, what);
      for (let i = 0; (await shown(two, caller, agentId)) !== now; i++) {
        assert.ok(i < 200, `${what} did not reach the other process`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  });

  test("with a shared Redis another process sees every change as soon as it is answered, without the bus", async (t) => {
    let redis: PrivateRedis;
    try {
      redis = await privateRedis();
    } catch (error) {
      if (error instanceof MissingServer) return t.skip(error.message);
      throw error;
    }
    await using _ = redis;
    const open = () => createCache({ url: redis.url, prefix: redis.prefix, log: { info() {}, warn() {} } });
    const [first, second] = [open(), open()];
    try {
      for (const cache of [first, second]) await connected(cache);
      await using one = await openConfig({ database: database.db, cache: first, relay: false });
      await using two = await openConfig({ database: database.db, cache: second, relay: false });
      for (const [what, change] of changes) {
        const caller = await one.tenant();
        const { agentId } = await one.add(caller);
        const before = await shown(two, caller, agentId);
        await change(one, caller, agentId);
        const now = await shown(two, caller, agentId);
        assert.notEqual(now, before, what);
        assert.equal(await shown(one, caller, agentId), now, what);
      }
    } finally {
      await first.close();
      await second.close();
    }
  });

  test("without a usable cache everything is loaded each time, and nothing fails", async () => {
    const closed = new EmbeddedCache({});
    await closed.close();
    await using away = await openConfig({ database: database.db, cache: closed });
    const caller = await away.tenant();
    const before = await loads(away);
    for (let i = 0; i < 2; i++) await away.resolve(caller);
    assert.equal((await loads(away)) - before, 2);
    await away.change(caller, { name: "Changed" });
  });
});

async function connected(cache: Cache): Promise<void> {
  for (let i = 0; i < 500; i++) {
    const there = await cache.ping().then(
      () => true,
      () => false,
    );
    if (there) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("the cache did not connect");
}
