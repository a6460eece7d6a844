import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create, type DescMessage, getOption, hasOption } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { TenantSchema } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import { AGENT_MASK } from "./agent-rules.ts";
import { TENANT_MASK } from "./tenant-rules.ts";
import { applyMask, type MaskRules } from "./update-mask.ts";

const mask = (...paths: string[]) => create(FieldMaskSchema, { paths });

describe("update masks", () => {
  test("every field of a resource is either updatable, ignored or the server's, as the contract declares it", () => {
    const resources: [DescMessage, MaskRules][] = [
      [AgentSchema, AGENT_MASK],
      [TenantSchema, TENANT_MASK],
    ];
    for (const [schema, { updatable, ignored }] of resources) {
      const outputOnly = schema.fields.filter(
        (field) =>
          hasOption(field, field_behavior) && getOption(field, field_behavior).includes(FieldBehavior.OUTPUT_ONLY),
      );
      const declared = [...outputOnly.map(({ name }) => name), ...ignored, ...updatable];
      assert.deepEqual(declared.sort(), schema.fields.map(({ name }) => name).sort());
    }
  });

  test("the resource that was read stays as it was, nested messages too", () => {
    const current = create(TenantSchema, { name: "a", limits: { maxTokensPerMonth: 1n } });
    const asked = create(TenantSchema, { name: "b", limits: { maxTokensPerMonth: 2n } });
    applyMask(TenantSchema, current, asked, mask("*"), TENANT_MASK);
    applyMask(TenantSchema, current, asked, mask("limits.max_tokens_per_month", "name"), TENANT_MASK);
    assert.deepEqual(current, create(TenantSchema, { name: "a", limits: { maxTokensPerMonth: 1n } }));
  });

  test("a limit can be set where there were none", () => {
    const asked = create(TenantSchema, { limits: { maxTokensPerMonth: 2n } });
    const { next, fields } = applyMask(
      TenantSchema,
      create(TenantSchema),
      asked,
      mask("limits.max_tokens_per_month"),
      TENANT_MASK,
    );
    assert.equal(next.limits?.maxTokensPerMonth, 2n);
    assert.deepEqual([...fields], ["limits"]);
  });

  test("without a mask zero values are no change, unless the field knows presence", () => {
    const current = create(AgentSchema, { name: "a", requireDoneTool: true, temperature: 1, tools: ["x"] });
    const asked = create(AgentSchema, {
      requireDoneTool: false,
      temperature: 0,
      tools: [],
      version: 9,
      agentId: "agt_x",
    });
    const { next, fields } = applyMask(AgentSchema, current, asked, undefined, AGENT_MASK);
    assert.deepEqual(
      [next.name, next.requireDoneTool, next.temperature, next.tools, next.version],
      ["a", true, 0, ["x"], 0],
    );
    assert.deepEqual([...fields], ["temperature"]);
  });
});
