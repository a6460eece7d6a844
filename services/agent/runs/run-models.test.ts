import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { RunOutcome } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { fails, says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import type { Neighbours } from "../testing/neighbours.ts";
import { completion, notices, payloads, playRun } from "../testing/play-run.ts";
import { cannedAnswer } from "./last-resort.ts";

const HAIKU = "claude-haiku-5-5";
const SONNET = "claude-sonnet-5-5";

describe("the models of a run", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let usual: Neighbours;
  before(async () => {
    mesh = await openAgentMesh({ models: { simplified: { model: "claude-opus-5-5" } } });
    usual = { ...mesh.neighbours };
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
  });
  afterEach(() => {
    Object.assign(mesh.neighbours, usual);
    mesh.neighbours.credentials.clear();
    mesh.model.reset();
  });

  const asked = () => mesh.model.requests.map(({ body }) => body.model);
  const allDown = () => mesh.model.when({}, fails(401), fails(401), fails(401), fails(401));

  test("are those of the route whose condition holds, and the first step is foreseen", async () => {
    const route = { name: "hard", condition: "context.task_complexity == 'high'", priority: 1, llmModel: SONNET };
    mesh.neighbours.agent = { ...usual.agent, routes: [route] };
    mesh.model.script(says("Hard."), says("Easy."));
    const hard = await playRun(mesh, me, { context: { task_complexity: "high" } });
    const easy = await playRun(mesh, me);
    assert.deepEqual(asked(), [SONNET, HAIKU]);
    assert.equal(payloads(hard.stored, "runStarted")[0]?.model, SONNET);
    for (const { stored } of [hard, easy]) assert.deepEqual(payloads(stored, "itemDiscarded"), []);
  });

  test("are told message, session and tenant", async () => {
    const of = (condition: string) => ({ name: condition, condition, priority: 0, llmModel: SONNET });
    const told: [string, string][] = [
      ["message.language == 'zh'", "你好吗"],
      ["message.length == 3 && tenant.tier == 'pro'", "hey"],
      ["session.message_count == 0 && agent.id == 'agt_default'", "first"],
    ];
    mesh.neighbours.resolved = { tier: 3 };
    for (const [condition, message] of told) {
      mesh.neighbours.agent = { ...usual.agent, routes: [of(condition)] };
      mesh.model.script(says("Yes."));
      await playRun(mesh, me, { message });
      assert.equal(asked().at(-1), SONNET, condition);
    }
  });

  test("go down the ladder: the fallback, then the simplified one without tools, each with a notice", async () => {
    mesh.neighbours.agent = { ...usual.agent, fallbacks: [{ llmModel: SONNET }] };
    mesh.model.script(fails(401), says("From the fallback."));
    const fallback = await playRun(mesh, me);
    assert.deepEqual(notices(fallback.stored), ["MODEL_FALLBACK"]);
    assert.equal(completion(fallback).outcome, RunOutcome.ANSWERED);
    mesh.model.script(fails(401), fails(401), says("Briefly."));
    const simplified = await playRun(mesh, me);
    assert.deepEqual(notices(simplified.stored), ["MODEL_FALLBACK", "SIMPLIFIED_MODE"]);
    assert.equal(completion(simplified).response, "Briefly.");
    assert.equal(mesh.model.requests.at(-1)?.body.tools, undefined);
  });

  test("outside of the tenant's list are none: the run fails before anybody is asked", async () => {
    mesh.neighbours.resolved = { limits: { allowedModels: ["gpt-*"] } };
    const { stored } = await playRun(mesh, me);
    assert.equal(stored.at(-1)?.type, "run_failed");
    assert.deepEqual(asked(), []);
  });

  test("behaviour 48: are asked with the tenant's own key, which is in no event and no log", async () => {
    mesh.neighbours.credentials.set("anthropic", { apiKey: "sk-tenants-own-key", baseUrl: "", version: 7n });
    mesh.model.script(says("With yours."));
    const { stored, runId } = await playRun(mesh, me);
    assert.equal(mesh.model.requests[0]?.apiKey, "sk-tenants-own-key");
    const [entry] = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ own_credential: boolean }>("SELECT own_credential FROM agent.model_calls WHERE run_id = $1", [runId]),
    );
    assert.equal(entry?.own_credential, true);
    const said = JSON.stringify([stored, mesh.one.logged], (_, value) =>
      typeof value === "bigint" ? String(value) : value,
    );
    assert.doesNotMatch(said, /sk-tenants|test-key/);
  });

  test("that are all away leave an earlier answer to the same question of the same agent", async () => {
    mesh.neighbours.agent = { ...usual.agent, tools: [] };
    mesh.neighbours.resolved = { cachedAnswers: true };
    mesh.model.script(says("We open at nine."));
    await playRun(mesh, me, { message: "When do you open?" });
    allDown();
    const again = await playRun(mesh, me, { message: "When do you open?" });
    assert.deepEqual(notices(again.stored), ["SIMPLIFIED_MODE", "CACHED_ANSWER"]);
    const { outcome, response } = completion(again);
    assert.deepEqual([outcome, response], [RunOutcome.DEGRADED, "We open at nine."]);
    const others: [Principal, Parameters<typeof playRun>[2]][] = [
      [me, { message: "When do you close?" }],
      [me, { message: "When do you open?", sessionId: again.sessionId }],
      [me, { message: "When do you open?", context: { place: "Rome" } }],
      [principalOf(newId("ten"), TENANT_SCOPES), { message: "When do you open?" }],
    ];
    for (const [who, request] of others) {
      mesh.model.reset();
      allDown();
      const { stored } = await playRun(mesh, who, request);
      assert.equal(stored.at(-1)?.type, "run_failed", JSON.stringify(request));
    }
  });

  test("go all the way down in order, a notice and a count for each step; the prepared answer is the last", async () => {
    mesh.neighbours.agent = { ...usual.agent, tools: [], fallbacks: [{ llmModel: SONNET }] };
    mesh.neighbours.resolved = { cachedAnswers: true, cannedAnswer: { default: "Please try again later." } };
    const counts = async () => {
      const text = await mesh.one.metrics.text();
      const steps = ["model_fallback", "simplified_mode", "cached_answer", "canned_answer"];
      return steps.map((step) => Number(text.match(`agent_degradations_total\\{step="${step}"\\} (\\d+)`)?.[1] ?? 0));
    };
    mesh.model.script(says("We open at nine."));
    await playRun(mesh, me, { message: "When do you open?" });
    const before = await counts();
    allDown();
    const known = await playRun(mesh, me, { message: "When do you open?" });
    assert.deepEqual(notices(known.stored), ["MODEL_FALLBACK", "SIMPLIFIED_MODE", "CACHED_ANSWER"]);
    assert.equal(completion(known).response, "We open at nine.");
    mesh.model.reset();
    allDown();
    const unknown = await playRun(mesh, me, { message: "When do you close?" });
    assert.deepEqual(notices(unknown.stored), ["MODEL_FALLBACK", "SIMPLIFIED_MODE", "CANNED_ANSWER"]);
    assert.equal(completion(unknown).response, "Please try again later.");
    assert.deepEqual(
      (await counts()).map((count, i) => count - (before[i] ?? 0)),
      [2, 2, 1, 1],
    );
  });

  test("that are all away leave the prepared answer in the user's language", async () => {
    const cannedAnswer = { default: "Please try again later.", zh: "抱歉,服务暂时繁忙,请稍后重试。" };
    mesh.neighbours.resolved = { cannedAnswer };
    allDown();
    const run = await playRun(mesh, me, { message: "你好" });
    assert.deepEqual(notices(run.stored), ["SIMPLIFIED_MODE", "CANNED_ANSWER"]);
    const { outcome, response } = completion(run);
    assert.deepEqual([outcome, response], [RunOutcome.DEGRADED, cannedAnswer.zh]);
  });
});

describe("a prepared answer", () => {
  test("is that of the tag, then of its language, then the default, then any", () => {
    const answers = { "zh-TW": "tw", zh: "zh", default: "else" };
    const given = ["zh-TW", "zh-CN", "ZH", "fr", ""].map((language) => cannedAnswer(answers, language));
    assert.deepEqual(given, ["tw", "zh", "zh", "else", "else"]);
    assert.equal(cannedAnswer({ "pt-BR": "br" }, "pt"), "br");
    assert.equal(cannedAnswer({ de: "de" }, "fr"), "de");
    assert.equal(cannedAnswer({}, "fr"), undefined);
    assert.equal(cannedAnswer({ default: " " }, "fr"), undefined);
  });
});
