import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { ApprovalThreshold } from "#gen/agentmesh/config/v1/approval_policy_pb.ts";

const DESTRUCTIVE: typeof ApprovalThreshold.DESTRUCTIVE = 3;
const UNSTATED: typeof RiskClass.UNSPECIFIED = 0;
const DAY_MS = 24 * 3_600_000;

/** About which calls of an agent people are asked. */
export interface ApprovalRules {
  /** From which risk on; above every risk: never. */
  minRisk: number;
  /** Names of tools that always need an approval. */
  tools: ReadonlySet<string>;
  /** How long people have. */
  expireAfterMs: number;
  /** The run's user cannot decide either. */
  requiresOtherPrincipal: boolean;
}

/** The rules of an agent as config has resolved it; of a run from before there were any, the defaults. */
export function approvalRules({ approvalPolicy: policy }: Pick<Agent, "approvalPolicy">): ApprovalRules {
  const { seconds, nanos } = policy?.expireAfter ?? { seconds: 0n, nanos: 0 };
  return {
    minRisk: policy?.minRisk || DESTRUCTIVE,
    tools: new Set(policy?.tools),
    expireAfterMs: Number(seconds) * 1000 + nanos / 1_000_000 || DAY_MS,
    requiresOtherPrincipal: policy?.requiresOtherPrincipal ?? false,
  };
}

/**
 * Why people are asked about a call of a tool; undefined: they are not. A risk that is not stated counts as the highest, but
 * not of a tool that the caller executes: he can ask himself.
 */
export function reasonToAsk(
  rules: ApprovalRules,
  { name, risk = UNSTATED, client = false }: { name: string; risk?: RiskClass; client?: boolean },
): "policy" | "risk" | undefined {
  if (rules.tools.has(name)) return "policy";
  if (client && risk === UNSTATED) return undefined;
  return (risk === UNSTATED ? DESTRUCTIVE : risk) >= rules.minRisk ? "risk" : undefined;
}
