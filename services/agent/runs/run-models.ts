import type { Client } from "@connectrpc/connect";
import type { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { ConditionFacts } from "#platform/cel/condition.ts";
import { type Call, onward } from "#platform/rpc/call.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { compactionPreset, compactionPresets } from "../engine/context/presets.ts";
import type { CompactionSettings, ModelRung } from "../engine/loop-input.ts";
import type { ModelCredential } from "../llm/chat-model.ts";
import { demoProvider } from "../llm/demo.ts";
import { buildLadder, type LadderConfig } from "../llm/ladder.ts";
import type { Models } from "../llm/models.ts";
import { type ChosenModels, chooseModels } from "../llm/routing.ts";
import type { NeighbourAnswers } from "./neighbour-answers.ts";
import type { FirstStep } from "./run-begin.ts";

const REVEAL_MS = 10_000;

export interface RunModelsDeps {
  models: Models;
  config: LadderConfig;
  credentials: Client<typeof ModelCredentialService>;
  answers: NeighbourAnswers;
}

/** The models of runs: which ones, in what order, and with whose credentials. */
export class RunModels {
  readonly #deps: RunModelsDeps;

  constructor(deps: RunModelsDeps) {
    this.#deps = deps;
  }

  /** The models for a message, as the agent's routes have it. Throws a ModelError when the tenant may use none of them. */
  choose(resolved: ResolveAgentResponse, facts: ConditionFacts): ChosenModels {
    const { agent } = resolved;
    if (agent === undefined) throw new Error("a run without a resolved agent");
    return chooseModels(agent, facts, allowedModels(resolved));
  }

  /** What the first step will ask; undefined where there is no such provider, which the run then tells of. */
  firstStep(chosen: ChosenModels, { ownCredentials }: ResolveAgentResponse): FirstStep | undefined {
    const [first] = chosen.rungs;
    if (first === undefined) return undefined;
    try {
      const { provider } = this.#deps.models.get(first.provider, ownCredentials.includes(first.provider));
      return { provider, model: first.model };
    } catch {
      return undefined;
    }
  }

  /** The rungs of a run, and how its history is compacted. */
  async ladder(
    call: Call,
    resolved: ResolveAgentResponse,
    chosen: ChosenModels,
  ): Promise<{ rungs: ModelRung[]; compaction: CompactionSettings | undefined }> {
    const { models, config } = this.#deps;
    const { simplified } = config;
    const settings = resolved.agent?.compactionConfig;
    const providers = new Set(chosen.rungs.map(({ provider }) => provider));
    if (simplified !== undefined) providers.add(simplified.provider);
    const own = await this.#credentials(call, resolved, providers);
    const allowed = allowedModels(resolved);
    const ladderOf = (of: ChosenModels, ladder: LadderConfig) =>
      buildLadder({
        chosen: of,
        models,
        config: ladder,
        credentialOf: (name) => own.get(name),
        allowedModels: allowed,
      });
    const rungs = ladderOf(chosen, config);
    if (settings?.enabled === false) return { rungs, compaction: undefined };
    const preset = compactionPreset(settings?.preset ?? "") ?? compactionPresets.default;
    const model = settings?.summaryModel ?? "";
    const provider = resolved.agent?.llmProvider || "anthropic";
    const isDemo = rungs[0]?.model.provider === demoProvider;
    const summaryChoice: ChosenModels = { rungs: [{ kind: "primary", provider, model }] };
    const [summaryModel] = model === "" || isDemo ? [] : ladderOf(summaryChoice, { ...config, simplified: undefined });
    return {
      rungs,
      compaction: {
        thresholdRatio: settings?.thresholdRatio ?? preset.thresholdRatio,
        summaryPrompt: settings?.summaryPrompt || preset.summaryPrompt,
        keepTurns: settings?.keepTurns ?? preset.keepTurns,
        ...(summaryModel !== undefined && { summaryModel }),
      },
    };
  }

  /** The tenant's own credentials for these providers. One that is gone since the agent was resolved is the platform's again. */
  async #credentials(
    call: Call,
    { ownCredentials }: ResolveAgentResponse,
    providers: ReadonlySet<string>,
  ): Promise<Map<string, ModelCredential>> {
    const { credentials, answers } = this.#deps;
    const wanted = ownCredentials.filter((provider) => providers.has(provider));
    const found = new Map<string, ModelCredential>();
    await Promise.all(
      wanted.map(async (llmProvider) => {
        try {
          const { apiKey, baseUrl, version } = await answers.get(call.principal, ["credential", llmProvider], () =>
            credentials.revealModelCredential({ llmProvider }, onward(call, REVEAL_MS)),
          );
          const id = `own:${call.principal.tenantId}:${version}`;
          found.set(llmProvider, { apiKey, id, ...(baseUrl !== "" && { baseUrl }) });
        } catch (error) {
          if (reasonOf(error) !== "RESOURCE_NOT_FOUND") throw error;
        }
      }),
    );
    return found;
  }
}

/** The demo model costs nothing and is open to everybody, by whatever name. */
function allowedModels({ agent, limits }: ResolveAgentResponse): string[] {
  const choices = agent === undefined ? [] : [agent, ...agent.fallbacks, ...agent.routes];
  const demo = choices.flatMap(({ llmProvider, llmModel }) => (llmProvider === demoProvider ? [llmModel] : []));
  return [...(limits?.allowedModels ?? []), ...demo];
}
