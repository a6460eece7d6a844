import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { InputGuard, TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { refusal, violations } from "#platform/testing/service-under-test.ts";
import { configDatabase, type OpenConfig, openConfig, platformAdmin } from "./testing/config-service.ts";

const HAIKU = "claude-haiku-5-5";
const SONNET = "claude-sonnet-5-5";

describe("the models of a resolved agent", { skip: skipWithoutPostgres() }, () => {
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
  const resolved = async (caller: Principal, agentId: string) => (await mesh.resolve(caller, agentId)).agent;
  const compaction = async (agent: object) => {
    const caller = await mesh.tenant();
    const { agentId } = await mesh.add(caller, agent);
    const { $typeName: _, ...config } = (await resolved(caller, agentId))?.compactionConfig ?? { $typeName: "" };
    return config;
  };

  test("compaction comes from the agent, over its preset, over its adapter's, over the default", async () => {
    const standard = { preset: "default", enabled: true, thresholdRatio: 0.8, keepTurns: 3 };
    const texts = { summaryPrompt: "", summaryModel: "" };
    assert.deepEqual(await compaction({}), { ...standard, ...texts });
    const service = { ...standard, ...texts, preset: "customer_service", thresholdRatio: 0.85 };
    const data = { ...standard, ...texts, preset: "data_analysis", thresholdRatio: 0.75 };
    assert.deepEqual(await compaction({ adapter: "support" }), service);
    assert.deepEqual(await compaction({ adapter: "ecommerce" }), service);
    assert.deepEqual(await compaction({ adapter: "finance" }), data);
    assert.deepEqual(await compaction({ adapter: "support", compactionConfig: { preset: "data_analysis" } }), data);
    const own = { preset: "coding_assistant", enabled: false, thresholdRatio: 0.1, keepTurns: 50, summaryPrompt: "x" };
    assert.deepEqual(await compaction({ compactionConfig: { ...own, summaryModel: HAIKU } }), {
      ...own,
      summaryModel: HAIKU,
    });
    assert.deepEqual(await compaction({ adapter: "support", compactionConfig: { keepTurns: 1 } }), {
      ...service,
      keepTurns: 1,
    });
  });

  test("routes and fallbacks name their providers, and go when the tenant loses their models", async () => {
    const caller = await mesh.tenant({ tier: TenantTier.STARTER });
    const { agentId } = await mesh.add(caller, {
      llmModel: HAIKU,
      compactionConfig: { summaryModel: SONNET },
      fallbacks: [{ llmModel: SONNET }, { llmProvider: "openai", llmModel: "gpt-5-mini" }],
      routes: [
        { name: "hard", condition: "context.task_complexity == 'high'", priority: 9, llmModel: SONNET },
        {
          name: "easy",
          llmModel: "claude-haiku-4-5",
          fallbacks: [{ llmModel: SONNET }, { llmProvider: "demo", llmModel: "demo" }],
        },
      ],
    });
    const shape = async () => {
      const agent = await resolved(caller, agentId);
      const names = (of: readonly { llmProvider: string; llmModel: string }[] = []) =>
        of.map(({ llmProvider, llmModel }) => `${llmProvider}/${llmModel}`);
      return {
        fallbacks: names(agent?.fallbacks),
        routes: agent?.routes.map((route) => [
          route.name,
          route.priority,
          ...names([route]),
          ...names(route.fallbacks),
        ]),
        summary: agent?.compactionConfig?.summaryModel,
      };
    };
    assert.deepEqual(await shape(), {
      fallbacks: [`anthropic/${SONNET}`, "openai/gpt-5-mini"],
      routes: [
        ["hard", 9, `anthropic/${SONNET}`],
        ["easy", 0, "anthropic/claude-haiku-4-5", `anthropic/${SONNET}`, "demo/demo"],
      ],
      summary: SONNET,
    });
    await mesh.change(platformAdmin, { tenantId: caller.tenantId, tier: TenantTier.FREE });
    assert.deepEqual(await shape(), {
      fallbacks: [],
      routes: [["easy", 0, "anthropic/claude-haiku-4-5", "demo/demo"]],
      summary: "",
    });
  });

  test("models of OpenAI-compatible servers are the tenant's to use by tier or by its own list", async () => {
    const models = ["gpt-5-nano", "gpt-5-mini-2025-08-07", "gpt-5", "llama-4"];
    const usable: string[][] = [];
    for (const tier of [TenantTier.FREE, TenantTier.STARTER, TenantTier.PRO, TenantTier.ENTERPRISE]) {
      const caller = await mesh.tenant({ tier });
      const accepted = await Promise.all(
        models.map((llmModel) =>
          mesh.add(caller, { name: llmModel, llmProvider: "openai", llmModel }).then(
            () => true,
            () => false,
          ),
        ),
      );
      usable.push(models.filter((_, i) => accepted[i]));
    }
    assert.deepEqual(usable, [[], models.slice(0, 2), models.slice(0, 3), models]);
    const own = await mesh.tenant({ limits: { allowedModels: ["llama-*"] } });
    const { agentId } = await mesh.add(own, { llmProvider: "openai", llmModel: "llama-4" });
    assert.equal((await resolved(own, agentId))?.llmModel, "llama-4");
  });

  test("input guard, canned and cached answers are the tenant's; the guard flags unless it is told otherwise", async () => {
    const caller = await mesh.tenant();
    const guard = async () => (await mesh.resolve(caller)).inputGuard;
    assert.equal(await guard(), InputGuard.FLAG);
    for (const inputGuard of [InputGuard.OFF, InputGuard.BLOCK]) {
      assert.equal((await mesh.change(caller, { inputGuard })).inputGuard, inputGuard);
      assert.equal(await guard(), inputGuard);
    }
    assert.equal((await mesh.change(caller, {}, ["input_guard"])).inputGuard, InputGuard.UNSPECIFIED);
    assert.equal(await guard(), InputGuard.FLAG);
    assert.deepEqual(await violations(mesh.change(caller, { inputGuard: 9 as never })), ["tenant.input_guard"]);
    await mesh.change(caller, { cachedAnswers: true, cannedAnswer: { en: "Sorry.", "zh-CN": "抱歉。" } });
    const { cachedAnswers, cannedAnswer } = await mesh.resolve(caller);
    assert.deepEqual([cachedAnswers, cannedAnswer], [true, { en: "Sorry.", "zh-CN": "抱歉。" }]);
    await mesh.change(caller, {}, ["cached_answers", "canned_answer"]);
    const now = await mesh.resolve(caller);
    assert.deepEqual([now.cachedAnswers, now.cannedAnswer], [false, {}]);
  });

  test("how long things are kept is the tenant's; sessions for good and events of runs for 30 days unless it says", async () => {
    const caller = await mesh.tenant();
    const kept = async () => {
      const { retention } = await mesh.resolve(caller);
      return [retention?.sessionDays, retention?.runEventDays];
    };
    assert.deepEqual(await kept(), [0, 30]);
    await mesh.change(caller, { retention: { sessionDays: 90, runEventDays: 7 } });
    assert.deepEqual(await kept(), [90, 7]);
    await mesh.change(caller, { retention: { sessionDays: 365 } });
    assert.deepEqual(await kept(), [365, 30]);
    await mesh.change(caller, {}, ["retention"]);
    assert.deepEqual(await kept(), [0, 30]);
    for (const [retention, field] of [
      [{ sessionDays: -1 }, "session_days"],
      [{ sessionDays: 3651 }, "session_days"],
      [{ runEventDays: 0 }, "run_event_days"],
      [{ runEventDays: 3651 }, "run_event_days"],
    ] as const) {
      assert.deepEqual(await violations(mesh.change(caller, { retention })), [`tenant.retention.${field}`]);
    }
  });

  test("rows from before settings had types are read, run and changed; what does not fit is left out", async () => {
    const caller = await mesh.tenant();
    const fits = { name: "kept", llm_model: HAIKU };
    const table: [object, [string | undefined, string[], string[]]][] = [
      [
        { compaction_config: { threshold: 0.8, keep: [1, "two", null] }, routes: [{ when: "x", model: "y" }, {}] },
        ["", [], []],
      ],
      [{ compaction_config: { preset: 5 }, routes: "none" }, [undefined, [], []]],
      [{ compaction_config: { threshold_ratio: 7 }, routes: [1, null, [], fits] }, [undefined, ["kept"], ["kept"]]],
      [{ compaction_config: "x", routes: [{ ...fits, priority: "high" }, fits] }, [undefined, ["kept"], ["kept"]]],
      [
        { compaction_config: { preset: "gone" }, adapter: "gone", routes: [{ ...fits, condition: "a = b" }] },
        ["gone", ["kept"], []],
      ],
    ];
    for (const [settings, [preset, routes, running]] of table) {
      const { agentId } = await mesh.add(caller, { name: newId("req") });
      await database.db.tenant(caller.tenantId, (tx) =>
        tx.execute("UPDATE config.agents SET settings = settings || $2::jsonb WHERE agent_id = $1", [
          agentId,
          JSON.stringify(settings),
        ]),
      );
      const shown = JSON.stringify(settings);
      const agent = await mesh.get(caller, agentId);
      assert.equal(agent.compactionConfig?.preset, preset, shown);
      assert.deepEqual(
        agent.routes.map(({ name }) => name),
        routes,
        shown,
      );
      const ran = await resolved(caller, agentId);
      assert.deepEqual([ran?.compactionConfig?.preset, ran?.compactionConfig?.thresholdRatio], ["default", 0.8], shown);
      assert.deepEqual(
        ran?.routes.map(({ name }) => name),
        running,
        shown,
      );
      const { description } = await mesh.update(caller, { agentId, description: "changed" });
      assert.equal(description, "changed", shown);
    }
    assert.equal((await mesh.list(caller)).length, table.length + 1);
  });

  test("an agent of a provider without a model of its own is inactive when its model is lost", async () => {
    const caller = await mesh.tenant({ tier: TenantTier.PRO });
    const { agentId } = await mesh.add(caller, { llmProvider: "openai", llmModel: "gpt-5" });
    await mesh.change(platformAdmin, { tenantId: caller.tenantId, tier: TenantTier.FREE });
    assert.equal((await refusal(mesh.resolve(caller, agentId))).reason, "AGENT_INACTIVE");
  });
});
