import type { ApprovalPolicy } from "#gen/agentmesh/config/v1/approval_policy_pb.ts";
import type { Violations } from "./text-rules.ts";

/** What is asked about, for how long and of whom, where neither agent nor tenant say it. */
const DEFAULT_MIN_RISK = 3;
const DEFAULT_EXPIRE_AFTER = { $typeName: "google.protobuf.Duration", seconds: 86_400n, nanos: 0 } as const;

/** The names by which models can call tools (Tool.name). */
const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/;

/** Checks what the contract's own rules do not. */
export function checkApprovalPolicy(policy: ApprovalPolicy | undefined, wrong: Violations): void {
  for (const [i, tool] of (policy?.tools ?? []).entries()) {
    if (!TOOL_NAME.test(tool))
      wrong.add(`approval_policy.tools[${i}]`, "is not a tool's name: letters, digits, _ and -");
  }
}

/** An agent's policy over its tenant's over the defaults; tools that either names always need an approval. */
export function resolveApprovalPolicy(
  agent: ApprovalPolicy | undefined,
  tenant: ApprovalPolicy | undefined,
): ApprovalPolicy {
  return {
    $typeName: "agentmesh.config.v1.ApprovalPolicy",
    minRisk: agent?.minRisk || tenant?.minRisk || DEFAULT_MIN_RISK,
    expireAfter: agent?.expireAfter ?? tenant?.expireAfter ?? DEFAULT_EXPIRE_AFTER,
    requiresOtherPrincipal: agent?.requiresOtherPrincipal ?? tenant?.requiresOtherPrincipal ?? false,
    tools: [...new Set([...(tenant?.tools ?? []), ...(agent?.tools ?? [])])],
  };
}
