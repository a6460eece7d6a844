import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ModelUsage,
  ModelUsageSchema,
  type UsageSummary,
  UsageSummarySchema,
} from "#gen/agentmesh/common/v1/usage_pb.ts";

/** Tokens of a run, added up by provider and model. */
export class UsageTotal {
  readonly #byModel = new Map<string, ModelUsage>();

  add(usage: MessageInitShape<typeof ModelUsageSchema>): void {
    const one = create(ModelUsageSchema, usage);
    const key = `${one.provider} ${one.model}`;
    const sum = this.#byModel.get(key);
    if (sum === undefined) {
      this.#byModel.set(key, one);
      return;
    }
    sum.inputTokens += one.inputTokens;
    sum.cacheReadTokens += one.cacheReadTokens;
    sum.cacheWriteTokens += one.cacheWriteTokens;
    sum.outputTokens += one.outputTokens;
  }

  summary(): UsageSummary {
    const total = create(UsageSummarySchema);
    for (const one of this.#byModel.values()) {
      total.inputTokens += one.inputTokens;
      total.cacheReadTokens += one.cacheReadTokens;
      total.cacheWriteTokens += one.cacheWriteTokens;
      total.outputTokens += one.outputTokens;
      total.byModel.push(create(ModelUsageSchema, one));
    }
    total.totalTokens = total.inputTokens + total.cacheReadTokens + total.cacheWriteTokens + total.outputTokens;
    return total;
  }
}
