import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { AgentChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { configDatabase, type OpenConfig, openConfig, platformAdmin } from "./testing/config-service.ts";

const NO_AGENT = {
  code: Code.NotFound,
  message: "No such agent.",
  reason: "RESOURCE_NOT_FOUND",
  facts: { resource_type: "agent" },
};
const NO_TENANT = {
  code: Code.NotFound,
  message: "No such tenant.",
  reason: "RESOURCE_NOT_FOUND",
  facts: { resource_type: "tenant" },
};
const HAIKU = "claude-haiku-5-5";
const route = (more: object = {}) => ({ name: "a", llmModel: HAIKU, ...more });

describe("AgentConfigService", { skip: skipWithoutPostgres() }, () => {
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
  const defaultsOf = async (caller: Principal) =>
    (await mesh.list(caller)).filter(({ isDefault }) => isDefault).map(({ agentId }) => agentId);

  test("a new agent gets the document's defaults, a version and an id of the server's", async () => {
    const caller = await mesh.tenant();
    const agent = await mesh.add(caller, { name: "Helper" });
    assert.match(agent.agentId, /^agt_[0-9a-z]{26}$/);
    const { llmProvider, llmModel, maxTokens, temperature, maxIterations, requireDoneTool, tools, isDefault, version } =
      agent;
    assert.deepEqual(
      { llmProvider, llmModel, maxTokens, temperature, maxIterations, requireDoneTool, tools, isDefault, version },
      {
        llmProvider: "anthropic",
        llmModel: "",
        maxTokens: 4096,
        temperature: undefined,
        maxIterations: 20,
        requireDoneTool: false,
        tools: [],
        isDefault: false,
        version: 1,
      },
    );
    assert.equal(agent.tenantId, caller.tenantId);
    assert.deepEqual(await mesh.get(caller, agent.agentId), agent);
  });

  test("every field that may be set is kept as it was given", async () => {
    const caller = await mesh.tenant({ tier: 4 });
    const asked = {
      name: "Käthe 助手",
      description: "line one\nline two",
      llmProvider: "demo",
      llmModel: "demo",
      maxTokens: 200_000,
      temperature: 0,
      maxIterations: 100,
      requireDoneTool: true,
      systemPrompt: "p".repeat(100_000),
      promptTemplateId: "tpl_1",
      tools: ["todo", "calculator"],
      kbNamespaces: ["docs"],
      compactionConfig: {
        preset: "coding_assistant",
        enabled: false,
        thresholdRatio: 0.5,
        summaryPrompt: "Keep\nall.",
        summaryModel: "claude-haiku-5-5",
        keepTurns: 7,
      },
      adapter: "support",
      plugins: ["audit"],
      routes: [
        {
          name: "code",
          condition: "context.needs_code == true",
          priority: 5,
          llmProvider: "demo",
          llmModel: "demo",
          fallbacks: [{ llmProvider: "anthropic", llmModel: "claude-haiku-5-5" }],
        },
        { name: "rest", condition: "", priority: 0, llmProvider: "", llmModel: "claude-haiku-4-5", fallbacks: [] },
      ],
      fallbacks: [{ llmProvider: "demo", llmModel: "demo-2" }],
    };
    const agent = await mesh.add(caller, asked);
    const read = await mesh.get(caller, agent.agentId);
    const expected = create(AgentSchema, asked);
    for (const field of Object.keys(asked) as (keyof typeof asked)[])
      assert.deepEqual(read[field], expected[field], field);
  });

  test("bad input is refused with the fields that are wrong", async () => {
    const caller = await mesh.tenant();
    const table: [object, string[]][] = [
      [{ name: "" }, ["agent.name"]],
      [{ name: "   " }, ["agent.name"]],
      [{ name: "a\u0000b" }, ["agent.name"]],
      [{ name: "x".repeat(256) }, ["agent.name"]],
      [{ agentId: newId("agt") }, ["agent.agent_id"]],
      [{ description: "\u0000" }, ["agent.description"]],
      [{ systemPrompt: "x\u0000" }, ["agent.system_prompt"]],
      [{ systemPrompt: "x".repeat(100_001) }, ["agent.system_prompt"]],
      [{ llmProvider: "skynet" }, ["agent.llm_provider"]],
      [{ llmModel: "claude-opus-5-5" }, ["agent.llm_model"]],
      [{ llmModel: "gpt-4" }, ["agent.llm_model"]],
      [{ maxTokens: 0 }, ["agent.max_tokens"]],
      [{ maxTokens: 200_001 }, ["agent.max_tokens"]],
      [{ temperature: 2.01 }, ["agent.temperature"]],
      [{ temperature: -0.1 }, ["agent.temperature"]],
      [{ temperature: Number.NaN }, ["agent.temperature"]],
      [{ maxIterations: 0 }, ["agent.max_iterations"]],
      [{ maxIterations: 101 }, ["agent.max_iterations"]],
      [{ tools: ["calculator", "rm_rf"] }, ["agent.tools[1]"]],
      [{ tools: ["no such!"] }, ["agent.tools[0]"]],
      [{ tools: ["todo", "todo"] }, ["agent.tools"]],
      [{ kbNamespaces: ["a\nb"] }, ["agent.kb_namespaces[0]"]],
      [{ compactionConfig: { preset: "none" } }, ["agent.compaction_config.preset"]],
      [{ compactionConfig: { preset: "toString" } }, ["agent.compaction_config.preset"]],
      [{ compactionConfig: { thresholdRatio: 0.96 } }, ["agent.compaction_config.threshold_ratio"]],
      [{ compactionConfig: { thresholdRatio: Number.NaN } }, ["agent.compaction_config.threshold_ratio"]],
      [{ compactionConfig: { keepTurns: 0 } }, ["agent.compaction_config.keep_turns"]],
      [{ compactionConfig: { summaryPrompt: " \n" } }, ["agent.compaction_config.summary_prompt"]],
      [{ compactionConfig: { summaryPrompt: "\u0000" } }, ["agent.compaction_config.summary_prompt"]],
      [{ compactionConfig: { summaryModel: "claude-opus-5-5" } }, ["agent.compaction_config.summary_model"]],
      [{ adapter: "a\tb", plugins: ["\u0007"] }, ["agent.adapter", "agent.plugins[0]"]],
      [{ adapter: "constructor" }, ["agent.adapter"]],
      [{ plugins: ["ok", "Not Ok", "ok"] }, ["agent.plugins[1]", "agent.plugins[2]"]],
      [{ llmProvider: "openai" }, ["agent.llm_model"]],
      [{ llmProvider: "openai", llmModel: "gpt-5" }, ["agent.llm_model"]],
      [{ fallbacks: [{ llmModel: "claude-opus-5-5" }] }, ["agent.fallbacks[0].llm_model"]],
      [{ fallbacks: [{ llmProvider: "skynet", llmModel: "claude-haiku-5" }] }, ["agent.fallbacks[0].llm_provider"]],
      [{ fallbacks: [{ llmProvider: "openai", llmModel: "gpt-5" }] }, ["agent.fallbacks[0].llm_model"]],
      [{ fallbacks: [{ llmModel: "" }] }, ["agent.fallbacks[0].llm_model"]],
      [{ fallbacks: [{ llmModel: HAIKU }, { llmModel: HAIKU }] }, ["agent.fallbacks[1]"]],
      [{ llmModel: HAIKU, fallbacks: [{ llmProvider: "anthropic", llmModel: HAIKU }] }, ["agent.fallbacks[0]"]],
      [{ fallbacks: Array.from({ length: 6 }, (_, i) => ({ llmModel: `${HAIKU}${i}` })) }, ["agent.fallbacks"]],
      [{ routes: [route({ name: "" })] }, ["agent.routes[0].name"]],
      [{ routes: [route({ name: " " })] }, ["agent.routes[0].name"]],
      [{ routes: [route({ name: "a\nb" })] }, ["agent.routes[0].name"]],
      [{ routes: [route(), route()] }, ["agent.routes[1].name"]],
      [{ routes: [route({ llmModel: "" })] }, ["agent.routes[0].llm_model"]],
      [{ routes: [route({ llmModel: "claude-opus-5-5" })] }, ["agent.routes[0].llm_model"]],
      [{ routes: [route({ llmProvider: "skynet" })] }, ["agent.routes[0].llm_provider"]],
      [{ routes: [route({ priority: 1001 })] }, ["agent.routes[0].priority"]],
      [{ routes: [route(), route({ name: "b", condition: "tenant.tier = 'pro'" })] }, ["agent.routes[1].condition"]],
      [{ routes: [route({ condition: "\u0000" })] }, ["agent.routes[0].condition"]],
      [{ routes: [route({ condition: "user.name == 'x'" })] }, ["agent.routes[0].condition"]],
      [{ routes: [route({ condition: "x".repeat(2001) })] }, ["agent.routes[0].condition"]],
      [{ routes: [route({ fallbacks: [{ llmModel: HAIKU }] })] }, ["agent.routes[0].fallbacks[0]"]],
      [
        { routes: [route({ fallbacks: [{ llmProvider: "demo", llmModel: "demo" }, { llmModel: "gpt-5" }] })] },
        ["agent.routes[0].fallbacks[1].llm_model"],
      ],
      [
        {
          routes: Array.from({ length: 12 }, (_, i) =>
            route({ name: `r${i}`, condition: `agent.id == '${"x".repeat(1_900)}'` }),
          ),
        },
        ["agent.routes"],
      ],
      [{ name: "", llmProvider: "x", tools: ["y"] }, ["agent.name", "agent.llm_provider", "agent.tools[0]"]],
    ];
    for (const [agent, fields] of table) {
      assert.deepEqual(await violations(mesh.add(caller, agent)), fields, JSON.stringify(agent).slice(0, 80));
    }
    assert.deepEqual(await violations(mesh.agents.createAgent({ tenantId: "me" }, callAs(caller))), ["agent"]);
    assert.deepEqual(await violations(mesh.agents.createAgent({}, callAs(caller))), ["tenant_id"]);
    assert.deepEqual(await violations(mesh.update(caller, { name: "x" })), ["agent.agent_id"]);
    assert.deepEqual(await violations(mesh.agents.updateAgent({ tenantId: "me" }, callAs(caller))), ["agent"]);
    assert.equal((await mesh.list(caller)).length, 1);
  });

  test("which models an agent may name follows the tier and the tenant's own patterns", async () => {
    const tiers = [1, 2, 3, 4] as const;
    const models = ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-mythos-5-2"];
    for (const tier of tiers) {
      const caller = await mesh.tenant({ tier });
      for (const [i, llmModel] of models.entries()) {
        const added = mesh.add(caller, { name: llmModel, llmModel });
        if (i < tier) assert.equal((await added).llmModel, llmModel);
        else assert.deepEqual(await violations(added), ["agent.llm_model"], `tier ${tier}`);
      }
    }
    const own = await mesh.tenant({ tier: 1, limits: { allowedModels: ["claude-opus-*"] } });
    await mesh.add(own, { llmModel: "claude-opus-5" });
    assert.deepEqual(await violations(mesh.add(own, { name: "b", llmModel: "claude-haiku-5-5" })), ["agent.llm_model"]);
    await mesh.add(own, { name: "c", llmProvider: "demo", llmModel: "anything" });
    const [demo] = (await mesh.list(own)).filter(({ name }) => name === "c");
    assert.deepEqual(await violations(mesh.update(own, { agentId: demo?.agentId ?? "", llmProvider: "anthropic" })), [
      "agent.llm_model",
    ]);
  });

  test("a name is unique in its tenant, and only there", async () => {
    const [one, two] = [await mesh.tenant(), await mesh.tenant()];
    const first = await mesh.add(one, { name: "Helper" });
    await mesh.add(two, { name: "Helper" });
    const taken = await refusal(mesh.add(one, { name: "Helper" }));
    assert.deepEqual(
      [taken.code, taken.reason, taken.facts],
      [Code.AlreadyExists, "RESOURCE_EXISTS", { resource_type: "agent" }],
    );
    const other = await mesh.add(one, { name: "Other" });
    assert.equal(
      (await refusal(mesh.update(one, { agentId: other.agentId, name: "Helper" }))).reason,
      "RESOURCE_EXISTS",
    );
    await mesh.remove(one, first.agentId);
    await mesh.update(one, { agentId: other.agentId, name: "Helper" });
    const racing = await Promise.allSettled(Array.from({ length: 6 }, () => mesh.add(one, { name: "Racing" })));
    assert.equal(racing.filter(({ status }) => status === "fulfilled").length, 1);
  });

  test("another tenant's agent answers exactly as a missing one, and another tenant in the path as a missing tenant", async () => {
    const [caller, foreign] = [await mesh.tenant(), await mesh.tenant()];
    const theirs = await mesh.add(foreign);
    for (const agentId of [theirs.agentId, newId("agt"), "x"]) {
      assert.deepEqual(await refusal(mesh.get(caller, agentId)), NO_AGENT);
      assert.deepEqual(await refusal(mesh.update(caller, { agentId, name: "mine" })), NO_AGENT);
      assert.deepEqual(await refusal(mesh.remove(caller, agentId)), NO_AGENT);
      assert.deepEqual(await refusal(mesh.resolve(caller, agentId)), NO_AGENT);
    }
    for (const tenantId of [foreign.tenantId, newId("ten"), FIRST_TENANT_ID, "x"]) {
      const agent = { name: "x", agentId: theirs.agentId };
      assert.deepEqual(await refusal(mesh.get(caller, theirs.agentId, tenantId)), NO_TENANT);
      assert.deepEqual(await refusal(mesh.agents.listAgents({ tenantId }, callAs(caller))), NO_TENANT);
      assert.deepEqual(
        await refusal(mesh.agents.createAgent({ tenantId, agent: { name: "x" } }, callAs(caller))),
        NO_TENANT,
      );
      assert.deepEqual(await refusal(mesh.agents.updateAgent({ tenantId, agent }, callAs(caller))), NO_TENANT);
      assert.deepEqual(
        await refusal(mesh.agents.deleteAgent({ tenantId, agentId: theirs.agentId }, callAs(caller))),
        NO_TENANT,
      );
    }
    assert.deepEqual(await mesh.get(foreign, theirs.agentId), theirs);
    assert.ok(mesh.logged.some((line) => line["alert"] === true && line["resource_id"] === foreign.tenantId));
  });

  test("a platform administrator reaches any tenant's agents, and each look and change is audited there", async () => {
    const caller = await mesh.tenant();
    const { tenantId } = caller;
    const asked = { tenantId, agent: { name: "From above" } };
    const { agent } = await mesh.agents.createAgent(asked, callAs(platformAdmin));
    const agentId = agent?.agentId ?? "";
    assert.equal((await mesh.get(caller, agentId)).name, "From above");
    await mesh.get(platformAdmin, agentId, tenantId);
    await mesh.agents.listAgents({ tenantId }, callAs(platformAdmin));
    const rows = await database.db.tenant(tenantId, (tx) =>
      tx.query<{ type: string; by: string }>(
        "SELECT type, subject_tenant_id AS by FROM config.audit ORDER BY time, id",
      ),
    );
    assert.deepEqual(
      rows.map(({ type, by }) => [type, by]),
      ["tenant.created", "agent.created", "agent.read", "agent.listed"].map((type) => [type, FIRST_TENANT_ID]),
    );
    const nobody = { tenantId: newId("ten"), agent: { name: "x" } };
    assert.deepEqual(await refusal(mesh.agents.createAgent(nobody, callAs(platformAdmin))), NO_TENANT);
  });

  test("scopes decide: reading needs agents:read, writing agents:write", async () => {
    const { tenantId } = await mesh.tenant();
    const reader = principalOf(tenantId, ["agents:read"]);
    await mesh.list(reader);
    assert.deepEqual((await refusal(mesh.add(reader))).facts, { scopes: "agents:write" });
    assert.deepEqual((await refusal(mesh.list(principalOf(tenantId, ["agents:run"])))).facts, {
      scopes: "agents:read",
    });
    await mesh.list(principalOf(tenantId, ["agents:write"]));
  });

  describe("UpdateAgent", () => {
    test("without a mask changes what is populated; the version rises and each version is kept as it was", async () => {
      const caller = await mesh.tenant();
      const first = await mesh.add(caller, { name: "A", description: "one", tools: ["todo"] });
      const second = await mesh.update(caller, { agentId: first.agentId, description: "two", temperature: 0 });
      assert.deepEqual(
        [second.version, second.name, second.description, second.temperature, second.tools],
        [2, "A", "two", 0, ["todo"]],
      );
      assert.notEqual(second.etag, first.etag);
      const kept = await database.db.tenant(caller.tenantId, (tx) =>
        tx.query<{ version: number; description: string }>(
          "SELECT version, settings->>'description' AS description FROM config.agent_versions WHERE agent_id = $1 ORDER BY version",
          [first.agentId],
        ),
      );
      assert.deepEqual(kept, [
        { version: 1, description: "one" },
        { version: 2, description: "two" },
      ]);
    });

    test("with a mask changes what it names, clearing what is not populated", async () => {
      const caller = await mesh.tenant();
      const { agentId } = await mesh.add(caller, {
        description: "one",
        tools: ["todo"],
        temperature: 1.5,
        compactionConfig: { preset: "data_analysis" },
      });
      const paths = ["description", "tools", "temperature", "compaction_config", "agent_id", "etag"];
      const cleared = await mesh.update(caller, { agentId, name: "ignored" }, paths);
      assert.deepEqual(
        [cleared.name, cleared.description, cleared.tools, cleared.temperature, cleared.compactionConfig],
        ["Helper", "", [], undefined, undefined],
      );
    });

    test("with * replaces everything", async () => {
      const caller = await mesh.tenant();
      const { agentId } = await mesh.add(caller, { description: "one", maxTokens: 5, adapter: "support" });
      const replaced = await mesh.update(caller, { agentId, name: "New", systemPrompt: "hi" }, ["*"]);
      assert.deepEqual(
        [replaced.name, replaced.description, replaced.maxTokens, replaced.adapter, replaced.systemPrompt],
        ["New", "", 4096, "", "hi"],
      );
      assert.deepEqual(await violations(mesh.update(caller, { agentId }, ["*"])), ["agent.name"]);
    });

    test("with a mask that names what is unknown or the server's is refused, and changes nothing", async () => {
      const caller = await mesh.tenant();
      const agent = await mesh.add(caller);
      for (const path of [
        "nope",
        "version",
        "create_time",
        "tenant_id",
        "name.x",
        "tools.0",
        "compaction_config.a",
        "compaction_config.preset.x",
        "routes.name",
        "routes[0]",
        "",
        "Name",
        "displayName",
      ]) {
        const refused = await refusal(mesh.update(caller, { agentId: agent.agentId, name: "x" }, ["name", path]));
        assert.deepEqual([refused.code, refused.reason], [Code.InvalidArgument, "UPDATE_MASK_INVALID"], path);
      }
      assert.deepEqual(await mesh.get(caller, agent.agentId), agent);
    });

    test("with a path into compaction_config changes that field of it only", async () => {
      const caller = await mesh.tenant();
      const { agentId } = await mesh.add(caller, { compactionConfig: { preset: "data_analysis", keepTurns: 5 } });
      const asked = { agentId, compactionConfig: { thresholdRatio: 0.3, keepTurns: 9 } };
      const { compactionConfig } = await mesh.update(caller, asked, [
        "compaction_config.threshold_ratio",
        "compaction_config.preset",
      ]);
      const { preset, thresholdRatio, keepTurns } = compactionConfig ?? {};
      assert.deepEqual([preset, thresholdRatio, keepTurns], ["", 0.3, 5]);
      assert.deepEqual(
        await violations(
          mesh.update(caller, { agentId, compactionConfig: { preset: "x" } }, ["compaction_config.preset"]),
        ),
        ["agent.compaction_config.preset"],
      );
    });

    test("that changes the provider looks at every model that goes by it", async () => {
      const caller = await mesh.tenant({ tier: TenantTier.STARTER });
      const { agentId } = await mesh.add(caller, {
        compactionConfig: { summaryModel: "claude-haiku-5-5" },
        routes: [route()],
        fallbacks: [{ llmModel: "claude-haiku-4-5" }],
      });
      assert.deepEqual(await violations(mesh.update(caller, { agentId, llmProvider: "openai" }, ["llm_provider"])), [
        "agent.llm_model",
      ]);
      const openai = { agentId, llmProvider: "openai", llmModel: "gpt-5-mini" };
      const { llmProvider, llmModel } = await mesh.update(caller, openai, ["llm_provider", "llm_model"]);
      assert.deepEqual([llmProvider, llmModel], ["openai", "gpt-5-mini"]);
    });

    test("that names nothing answers with the agent as it is", async () => {
      const caller = await mesh.tenant();
      const agent = await mesh.add(caller);
      assert.deepEqual(await mesh.update(caller, { agentId: agent.agentId }), agent);
    });

    test("with an etag changes that version only", async () => {
      const caller = await mesh.tenant();
      const agent = await mesh.add(caller);
      const { agentId, etag } = agent;
      const second = await mesh.update(caller, { agentId, etag, description: "two" });
      const stale = await refusal(mesh.update(caller, { agentId, etag, description: "three" }));
      assert.deepEqual([stale.code, stale.reason], [Code.Aborted, "ETAG_MISMATCH"]);
      assert.equal((await refusal(mesh.remove(caller, agentId, { etag }))).reason, "ETAG_MISMATCH");
      await mesh.remove(caller, agentId, { etag: second.etag });
      assert.deepEqual(await refusal(mesh.get(caller, agentId)), NO_AGENT);
    });

    test("of many at once with one etag succeeds for one; without an etag for all, each with a version of its own", async () => {
      const caller = await mesh.tenant();
      const { agentId, etag } = await mesh.add(caller);
      const once = await Promise.allSettled(
        Array.from({ length: 5 }, (_, i) => mesh.update(caller, { agentId, etag, description: `${i}` })),
      );
      assert.equal(once.filter(({ status }) => status === "fulfilled").length, 1);
      const all = await Promise.all(
        Array.from({ length: 5 }, (_, i) => mesh.update(caller, { agentId, maxTokens: i + 1 })),
      );
      assert.deepEqual(all.map(({ version }) => version).sort(), [3, 4, 5, 6, 7]);
    });

    test("can rename an agent whose model and tools the tenant has lost meanwhile", async () => {
      const caller = await mesh.tenant({ tier: 3, enabledTools: ["todo", "web"] });
      const { agentId } = await mesh.add(caller, { llmModel: "claude-opus-5-5", tools: ["web"] });
      await mesh.change(platformAdmin, { tenantId: caller.tenantId, tier: 1, enabledTools: ["todo"] });
      assert.equal((await mesh.update(caller, { agentId, name: "Renamed" })).name, "Renamed");
      assert.deepEqual(await violations(mesh.update(caller, { agentId, tools: ["web"] })), ["agent.tools[0]"]);
    });
  });

  describe("the default agent", () => {
    test("is one per tenant from the start, and moves to the agent that asks for it", async () => {
      const caller = await mesh.tenant();
      const [first] = await mesh.list(caller);
      assert.deepEqual([first?.isDefault, first?.tools], [true, ["current_time", "calculator", "todo"]]);
      const created = await mesh.add(caller, { isDefault: true });
      assert.deepEqual(await defaultsOf(caller), [created.agentId]);
      const before = await mesh.get(caller, first?.agentId ?? "");
      assert.deepEqual([before.isDefault, before.version], [false, 2]);
      await mesh.update(caller, { agentId: before.agentId, isDefault: true });
      assert.deepEqual(await defaultsOf(caller), [before.agentId]);
    });

    test("can be neither deleted nor unset", async () => {
      const caller = await mesh.tenant();
      const [first] = await mesh.list(caller);
      const agentId = first?.agentId ?? "";
      for (const refused of [
        await refusal(mesh.remove(caller, agentId)),
        await refusal(mesh.update(caller, { agentId }, ["is_default"])),
        await refusal(mesh.update(caller, { agentId, name: "x" }, ["*"])),
      ]) {
        assert.deepEqual([refused.code, refused.reason], [Code.FailedPrecondition, "RESOURCE_IN_USE"]);
      }
      await mesh.add(caller, { isDefault: true });
      await mesh.remove(caller, agentId);
      assert.equal((await defaultsOf(caller)).length, 1);
    });

    test("stays one when many agents are created as the default at once", async () => {
      const caller = await mesh.tenant();
      const made = await Promise.all(
        Array.from({ length: 8 }, (_, i) => mesh.add(caller, { name: `Default ${i}`, isDefault: true })),
      );
      const defaults = await defaultsOf(caller);
      assert.equal(defaults.length, 1);
      assert.ok(made.some(({ agentId }) => agentId === defaults[0]));
      await Promise.allSettled([
        ...made.map(({ agentId }) => mesh.update(caller, { agentId, isDefault: true })),
        ...made.map(({ agentId }) => mesh.remove(caller, agentId)),
      ]);
      assert.equal((await defaultsOf(caller)).length, 1);
    });
  });

  test("agents are listed newest first in pages, with skip, and tokens work for their own list only", async () => {
    const [caller, other] = [await mesh.tenant(), await mesh.tenant()];
    const made: string[] = (await mesh.list(caller)).map(({ agentId }) => agentId);
    for (let i = 0; i < 6; i++) made.unshift((await mesh.add(caller, { name: `Agent ${i}` })).agentId);
    const page = async (request: object, who = caller) => {
      const { agents, nextPageToken } = await mesh.agents.listAgents({ tenantId: "me", ...request }, callAs(who));
      return { ids: agents.map(({ agentId }) => agentId), nextPageToken };
    };
    const seen: string[] = [];
    let pageToken = "";
    do {
      const { ids, nextPageToken } = await page({ pageSize: 3, pageToken });
      seen.push(...ids);
      pageToken = nextPageToken;
    } while (pageToken !== "");
    assert.deepEqual(seen, made);
    assert.deepEqual((await page({ pageSize: 2, skip: 4 })).ids, made.slice(4, 6));
    assert.deepEqual(await page({ skip: 7 }), { ids: [], nextPageToken: "" });
    assert.deepEqual((await page({ pageSize: 7 })).nextPageToken, "");
    const { nextPageToken } = await page({ pageSize: 1 });
    for (const [who, token] of [
      [other, nextPageToken],
      [caller, `${nextPageToken}x`],
    ] as const) {
      assert.equal((await refusal(page({ pageToken: token }, who))).reason, "PAGE_TOKEN_INVALID");
    }
    const crossed = mesh.agents.listAgents(
      { tenantId: caller.tenantId, pageToken: nextPageToken },
      callAs(platformAdmin),
    );
    assert.equal((await refusal(crossed)).reason, "PAGE_TOKEN_INVALID");
    assert.deepEqual(await violations(page({ skip: 10_001 })), ["skip"]);
    assert.deepEqual(await violations(page({ pageSize: -1 })), ["page_size"]);
  });

  test("a page of large agents ends early instead of growing beyond what clients accept", async () => {
    const caller = await mesh.tenant();
    const systemPrompt = "永".repeat(100_000);
    for (let i = 0; i < 14; i++) await mesh.add(caller, { name: `Large ${i}`, systemPrompt });
    const first = await mesh.agents.listAgents({ tenantId: "me" }, callAs(caller));
    assert.ok(first.agents.length < 14 && first.agents.length > 5 && first.nextPageToken !== "");
    const rest = await mesh.agents.listAgents({ tenantId: "me", pageToken: first.nextPageToken }, callAs(caller));
    assert.equal(new Set([...first.agents, ...rest.agents].map(({ agentId }) => agentId)).size, 15);
    assert.equal(rest.nextPageToken, "");
  });

  test("a repeated request changes nothing and gets the first one's answer, of creating, updating and deleting", async () => {
    const caller = await mesh.tenant();
    const made = await Promise.all(Array.from({ length: 4 }, () => mesh.add(caller, {}, "r1")));
    const [first] = made;
    assert.ok(first !== undefined);
    for (const again of made) assert.deepEqual(again, first);
    assert.equal((await refusal(mesh.add(caller, { name: "Other" }, "r1"))).reason, "IDEMPOTENCY_KEY_REUSED");
    const { agentId, etag } = first;
    const second = await mesh.update(caller, { agentId, etag, description: "two" }, [], "r1");
    assert.deepEqual(await mesh.update(caller, { agentId, etag, description: "two" }, [], "r1"), second);
    assert.equal((await mesh.get(caller, agentId)).version, 2);
    await mesh.remove(caller, agentId, { requestId: "r1" });
    await mesh.remove(caller, agentId, { requestId: "r1" });
    assert.deepEqual(await refusal(mesh.remove(caller, agentId)), NO_AGENT);
  });

  test("every change is told on the bus and audited; a refused one is neither", async () => {
    const heard: [string, number][] = [];
    const caller = await mesh.tenant();
    await using _ = await mesh.bus.listen(`agentmesh.config.v1.${caller.tenantId}.agent_changed`, ({ data }) => {
      const { agentId, version } = fromBinary(AgentChangedSchema, data);
      heard.push([agentId, version]);
    });
    const [old] = await mesh.list(caller);
    await until(() => heard.length === 1, "the creation of the first agent");
    const { agentId } = await mesh.add(caller, { isDefault: true });
    await mesh.update(caller, { agentId, description: "x" });
    await refusal(mesh.remove(caller, agentId));
    await refusal(mesh.add(caller, { name: "Helper" }));
    await mesh.remove(caller, old?.agentId ?? "");
    await until(() => heard.length >= 5, "all events");
    assert.deepEqual(heard.slice(1), [
      [old?.agentId, 2],
      [agentId, 1],
      [agentId, 2],
      [old?.agentId, 0],
    ]);
    const rows = await database.db.tenant(caller.tenantId, (tx) =>
      tx.query<{ type: string; resource: string; subject: string }>(
        "SELECT type, resource, subject FROM config.audit WHERE type LIKE 'agent.%' ORDER BY time, id",
      ),
    );
    const { subject } = caller;
    assert.deepEqual(rows, [
      { type: "agent.updated", resource: old?.agentId, subject },
      { type: "agent.created", resource: agentId, subject },
      { type: "agent.updated", resource: agentId, subject },
      { type: "agent.deleted", resource: old?.agentId, subject },
    ]);
  });

  test("a tenant that was deleted has no agents any more, for nobody", async () => {
    const caller = await mesh.tenant();
    const { agentId } = await mesh.add(caller);
    await mesh.tenants.deleteTenant({ tenantId: caller.tenantId }, callAs(platformAdmin));
    for (const who of [caller, principalOf(caller.tenantId, TENANT_SCOPES)]) {
      assert.deepEqual(await refusal(mesh.list(who)), NO_TENANT);
      assert.deepEqual(await refusal(mesh.get(who, agentId)), NO_TENANT);
      assert.deepEqual(await refusal(mesh.add(who, { name: "x" })), NO_TENANT);
    }
    assert.deepEqual(await refusal(mesh.get(platformAdmin, agentId, caller.tenantId)), NO_TENANT);
  });
});
