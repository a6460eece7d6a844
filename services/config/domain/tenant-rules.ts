import type { Tenant, TenantStatus, TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { TOOL_NAME } from "./agent-rules.ts";
import { checkApprovalPolicy } from "./approval-policy-rules.ts";
import { isLanguageTag, Violations } from "./text-rules.ts";
import type { MaskRules } from "./update-mask.ts";

export const ACTIVE: typeof TenantStatus.ACTIVE = 1;
export const SUSPENDED: typeof TenantStatus.SUSPENDED = 2;
export const DELETED: typeof TenantStatus.DELETED = 3;
export const FREE: typeof TenantTier.FREE = 1;
export const ENTERPRISE: typeof TenantTier.ENTERPRISE = 4;

export const TENANT_MASK: MaskRules = {
  updatable: new Set([
    "name",
    "tier",
    "status",
    "enabled_tools",
    "tool_configs",
    "system_prompt",
    "prompt_template_id",
    "kb_namespaces",
    "limits",
    "oauth_config",
    "canned_answer",
    "metadata",
    "input_guard",
    "cached_answers",
    "approval_policy",
    "retention",
  ]),
  ignored: new Set(["tenant_id", "etag"]),
};

/** What the platform sets and the tenant cannot. */
export const PLATFORM_FIELDS = ["tier", "status", "limits"] as const;

/** Throws FIELD_INVALID naming every field that is wrong. Lengths and ranges are the contract's and have been checked. */
export function checkTenant(tenant: Tenant, changed: ReadonlySet<string> = TENANT_MASK.updatable): void {
  const wrong = new Violations("tenant");
  const checks: Record<string, () => void> = {
    name: () =>
      tenant.name.trim() === "" ? wrong.add("name", "a tenant needs a name") : wrong.line("name", tenant.name),
    tier: () => tenant.tier === 0 && wrong.add("tier", "must be stated"),
    status() {
      if (tenant.status === 0) wrong.add("status", "must be stated");
      if (tenant.status === DELETED) wrong.add("status", "a tenant is deleted by DeleteTenant");
    },
    enabled_tools() {
      for (const [i, tool] of tenant.enabledTools.entries()) {
        if (!TOOL_NAME.test(tool)) wrong.add(`enabled_tools[${i}]`, "is not a tool's name: letters, digits, _ and -");
      }
    },
    tool_configs: () => wrong.object("tool_configs", tenant.toolConfigs),
    system_prompt: () => wrong.text("system_prompt", tenant.systemPrompt),
    prompt_template_id: () => wrong.line("prompt_template_id", tenant.promptTemplateId),
    kb_namespaces: () => wrong.lines("kb_namespaces", tenant.kbNamespaces),
    limits: () => wrong.lines("limits.allowed_models", tenant.limits?.allowedModels ?? []),
    oauth_config: () => wrong.object("oauth_config", tenant.oauthConfig),
    canned_answer() {
      for (const [language, answer] of Object.entries(tenant.cannedAnswer)) {
        if (isLanguageTag(language)) wrong.text("canned_answer", answer);
        else wrong.add("canned_answer", "its keys must be language tags such as en or zh-CN");
      }
    },
    approval_policy: () => checkApprovalPolicy(tenant.approvalPolicy, wrong),
    metadata: () => wrong.object("metadata", tenant.metadata),
  };
  for (const [field, check] of Object.entries(checks)) if (changed.has(field)) check();
  if (wrong.found.length > 0) throw invalidFields(...wrong.found);
}
