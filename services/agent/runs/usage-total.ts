import { create } from "@bufbuild/protobuf";
import {
  type ModelUsage,
  ModelUsageSchema,
  type UsageSummary,
  UsageSummarySchema,
} from "#gen/agentmesh/common/v1/usage_pb.ts";

/** Tokens of one call of a model, and what it cost; without a cost its price is not known. */
export interface PricedTokens {
  provider: string;
  model: string;
  inputTokens: bigint;
  cacheReadTokens: bigint;
  cacheWriteTokens: bigint;
  outputTokens: bigint;
  costNanoUsd: bigint | undefined;
}

/** Tokens and cost of calls, added up by provider and model. */
export class UsageTotal {
  readonly #byModel = new Map<string, PricedTokens>();

  add(call: PricedTokens): void {
    const key = `${call.provider} ${call.model}`;
    const sum = this.#byModel.get(key);
    if (sum === undefined) {
      const { provider, model, inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens, costNanoUsd } = call;
      const tokens = { inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens, costNanoUsd };
      this.#byModel.set(key, { provider, model, ...tokens });
      return;
    }
    sum.inputTokens += call.inputTokens;
    sum.cacheReadTokens += call.cacheReadTokens;
    sum.cacheWriteTokens += call.cacheWriteTokens;
    sum.outputTokens += call.outputTokens;
    sum.costNanoUsd = sumOf(sum.costNanoUsd, call.costNanoUsd);
  }

  /** The sum over models, and the sums by model; a cost that is not known whole is left out. */
  summary(): UsageSummary {
    const total = create(UsageSummarySchema);
    let cost: bigint | undefined = 0n;
    for (const one of this.#byModel.values()) {
      total.inputTokens += one.inputTokens;
      total.cacheReadTokens += one.cacheReadTokens;
      total.cacheWriteTokens += one.cacheWriteTokens;
      total.outputTokens += one.outputTokens;
      cost = sumOf(cost, one.costNanoUsd);
      total.byModel.push(usageToProto(one));
    }
    total.totalTokens = total.inputTokens + total.cacheReadTokens + total.cacheWriteTokens + total.outputTokens;
    if (cost !== undefined) total.costNanoUsd = cost;
    return total;
  }
}

/** The wire form of a call's tokens and cost. */
export function usageToProto({ costNanoUsd, ...tokens }: PricedTokens): ModelUsage {
  const { provider, model, inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens } = tokens;
  const usage = { provider, model, inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens };
  return create(ModelUsageSchema, costNanoUsd === undefined ? usage : { ...usage, costNanoUsd });
}

/** Costs added; what is not known in part is not known. */
export function sumOf(a: bigint | undefined, b: bigint | undefined): bigint | undefined {
  return a === undefined || b === undefined ? undefined : a + b;
}
