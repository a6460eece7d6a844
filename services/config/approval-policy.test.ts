import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ApprovalThreshold } from "#gen/agentmesh/config/v1/approval_policy_pb.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { violations } from "#platform/testing/service-under-test.ts";
import { configDatabase, type OpenConfig, openConfig } from "./testing/config-service.ts";

const DAY_S = 86_400n;

describe("which calls of an agent need an approval", { skip: skipWithoutPostgres() }, () => {
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

  const resolved = async (caller: Principal, agentId: string) => {
    const { agent } = await mesh.resolve(caller, agentId);
    const { minRisk, expireAfter, requiresOtherPrincipal, tools } = agent?.approvalPolicy ?? assert.fail("no policy");
    return { minRisk, seconds: expireAfter?.seconds, requiresOtherPrincipal, tools };
  };

  test("is the agent's word over the tenant's over the default, field by field; named tools are joined", async () => {
    const caller = await mesh.tenant();
    const { agentId } = await mesh.add(caller);
    const standard = {
      minRisk: ApprovalThreshold.DESTRUCTIVE,
      seconds: DAY_S,
      requiresOtherPrincipal: false,
      tools: [],
    };
    assert.deepEqual(await resolved(caller, agentId), standard);
    await mesh.change(caller, {
      approvalPolicy: { minRisk: ApprovalThreshold.WRITE, requiresOtherPrincipal: true, tools: ["todo"] },
    });
    const tenants = { ...standard, minRisk: ApprovalThreshold.WRITE, requiresOtherPrincipal: true, tools: ["todo"] };
    assert.deepEqual(await resolved(caller, agentId), tenants);
    await mesh.update(caller, {
      agentId,
      approvalPolicy: {
        minRisk: ApprovalThreshold.NEVER,
        expireAfter: durationFromMs(60_000),
        requiresOtherPrincipal: false,
        tools: ["calculator", "todo"],
      },
    });
    assert.deepEqual(await resolved(caller, agentId), {
      minRisk: ApprovalThreshold.NEVER,
      seconds: 60n,
      requiresOtherPrincipal: false,
      tools: ["todo", "calculator"],
    });
  });

  test("is kept as it was written, and taken back by its name", async () => {
    const caller = await mesh.tenant();
    const approvalPolicy = { minRisk: ApprovalThreshold.READ_ONLY, expireAfter: durationFromMs(90_000), tools: ["x"] };
    const { agentId } = await mesh.add(caller, { approvalPolicy });
    const kept = await mesh.get(caller, agentId);
    assert.deepEqual(
      [kept.approvalPolicy?.minRisk, kept.approvalPolicy?.expireAfter?.seconds, kept.approvalPolicy?.tools],
      [ApprovalThreshold.READ_ONLY, 90n, ["x"]],
    );
    const cleared = await mesh.update(caller, { agentId }, ["approval_policy"]);
    assert.equal(cleared.approvalPolicy, undefined);
  });

  test("is refused by the field that is wrong", async () => {
    const caller = await mesh.tenant();
    const day = 24 * 3_600_000;
    const cases: [object, string][] = [
      [{ expireAfter: durationFromMs(59_999) }, "expire_after"],
      [{ expireAfter: durationFromMs(30 * day + 1) }, "expire_after"],
      [{ minRisk: 5 }, "min_risk"],
      [{ tools: ["no such!"] }, "tools[0]"],
      [{ tools: ["a", "a"] }, "tools"],
      [{ tools: Array.from({ length: 129 }, (_, i) => `t${i}`) }, "tools"],
    ];
    for (const [approvalPolicy, field] of cases) {
      const what = JSON.stringify(approvalPolicy, (_, value) => (typeof value === "bigint" ? String(value) : value));
      assert.deepEqual(
        await violations(mesh.add(caller, { approvalPolicy })),
        [`agent.approval_policy.${field}`],
        what,
      );
      assert.deepEqual(
        await violations(mesh.change(caller, { approvalPolicy })),
        [`tenant.approval_policy.${field}`],
        what,
      );
    }
    for (const ms of [60_000, 30 * day]) {
      await mesh.add(caller, { name: `a${ms}`, approvalPolicy: { expireAfter: durationFromMs(ms) } });
    }
  });
});
