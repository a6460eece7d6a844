import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type ResolveAgentResponse,
  ResolveAgentResponseSchema,
} from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import type { StoredClientTool } from "../domain/client-tools.ts";
import { ModelError, type ModelErrorKind } from "../llm/model-error.ts";
import type { ChosenModels } from "../llm/routing.ts";
import type { EarlierWork, RunPlanRow } from "../store/resume-store.ts";

/** What a run is begun with, for whoever takes it up. */
export interface RunPlan {
  resolved: ResolveAgentResponse;
  chosen: ChosenModels | ModelError;
  /** In which an answer is best, as a BCP 47 tag. */
  language: string;
  /** Tools that the caller executes. */
  clientTools: readonly StoredClientTool[];
  /** What was done before the run, by the runs that it continues. */
  earlier?: EarlierWork | undefined;
}

/** A plan as it is stored: what many runs share, and what is the run's own. */
export interface StoredPlan {
  /** SHA-256 of `shared` in lower-case hexadecimal. */
  planId: string;
  shared: Uint8Array;
  /** JSON text. */
  own: string;
}

/** The user's profile is left out: the conversation holds what of it matters. */
export function toStoredPlan({ resolved, chosen, language, clientTools, earlier }: RunPlan): StoredPlan {
  const { userProfile: _user, $typeName: _name, $unknown: _unknown, ...rest } = resolved;
  const shared = toBinary(ResolveAgentResponseSchema, create(ResolveAgentResponseSchema, rest));
  const planId = createHash("sha256").update(shared).digest("hex");
  const models = chosen instanceof ModelError ? { failed: chosen.kind, code: chosen.code ?? "" } : chosen;
  const tools = clientTools.length > 0 && { client_tools: clientTools };
  return { planId, shared, own: jsonText({ chosen: models, language, ...tools, earlier }) };
}

/** Undefined for a run of an earlier release, or one whose plan is gone. */
export function fromStoredPlan({ plan, begun_with: own }: RunPlanRow): RunPlan | undefined {
  if (plan === null || own === null) return undefined;
  const chosen = own.chosen as ChosenModels | { failed: ModelErrorKind; code: string };
  return {
    resolved: fromBinary(ResolveAgentResponseSchema, plan),
    chosen: "failed" in chosen ? new ModelError(chosen.failed, { retryable: false, code: chosen.code }) : chosen,
    language: own.language,
    clientTools: own.client_tools ?? [],
    earlier: own.earlier,
  };
}

/** How long a process takes a plan for stored; then it is sent again, which keeps it from being removed. */
export const PLAN_KNOWN_MS = 3_600_000;

/** Plans that this process has stored lately, so that each is sent once; bounded, and what is forgotten is sent again. */
export class KnownPlans {
  readonly #known = new Map<string, number>();

  has(tenantId: string, planId: string): boolean {
    const storedAt = this.#known.get(`${tenantId} ${planId}`);
    return storedAt !== undefined && performance.now() - storedAt < PLAN_KNOWN_MS;
  }

  /** To be called when the transaction that stored it has committed. */
  add(tenantId: string, planId: string): void {
    if (this.has(tenantId, planId)) return;
    if (this.#known.size >= 10_000) this.#known.clear();
    this.#known.set(`${tenantId} ${planId}`, performance.now());
  }
}
