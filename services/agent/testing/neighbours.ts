import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { ResolutionService, type ResolveAgentResponseSchema } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import {
  type ExecuteToolRequest,
  ToolExecutionService,
  type ToolResultSchema,
} from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import type { ToolSchema } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { AppError, dependencyDown, notFound, raise } from "#platform/rpc/errors.ts";
import { createHopVerifier } from "#platform/rpc/hop-token.ts";
import { createLocalTransport } from "#platform/rpc/local-transport.ts";
import type { deriveServiceKeys } from "#platform/rpc/service-keys.ts";
import { createServicePipeline } from "#platform/rpc/service-pipeline.ts";
import { RecordedCalls } from "#platform/rpc/test-mesh.contract.ts";

/** What the config and tool services answer here. They are services of others, played. */
export interface Neighbours {
  /** The agent of whoever asks, but for its id. */
  agent: Omit<MessageInitShape<typeof AgentSchema>, "$typeName">;
  /** Ids of agents that exist beside the default one. */
  agentIds: Set<string>;
  /** Of those, the ones of which config fails to tell. */
  brokenAgentIds: Set<string>;
  maxMessageCharacters: bigint;
  /** What else config says of every agent: tier, limits but the one above, guard, answers for hard times, profile. */
  resolved: Omit<MessageInitShape<typeof ResolveAgentResponseSchema>, "$typeName" | "agent">;
  /** Credentials of the tenant's own, by provider. */
  credentials: Map<string, { apiKey: string; baseUrl: string; version: bigint }>;
  /** What tools are said to be, beside their names. */
  tools: Map<string, Omit<MessageInitShape<typeof ToolSchema>, "$typeName">>;
  /** The end of a call, beside its text. */
  toolResult: Omit<MessageInitShape<typeof ToolResultSchema>, "$typeName">;
  /** Whole outputs by call. */
  outputs: Map<string, string>;
  openTodos: string[];
  /** What a call of a tool does. Default: answers with its arguments. */
  executeTool(request: ExecuteToolRequest, signal: AbortSignal): Promise<string>;
  /** True: the tool service cannot be reached. */
  toolsDown: boolean;
  /** True: config cannot be reached; and how often that was said. */
  configDown: boolean;
  refusedWhileDown: number;
  /** Calls that were executed, by their idempotency key. */
  readonly executed: string[];
}

/** Neighbours with one agent that has one tool. */
export function playNeighbours(): Neighbours {
  return {
    agent: { llmModel: "claude-haiku-5-5", tools: ["echo"], maxTokens: 1000, version: 3 },
    agentIds: new Set(),
    brokenAgentIds: new Set(),
    maxMessageCharacters: 100_000n,
    resolved: {},
    credentials: new Map(),
    tools: new Map(),
    toolResult: {},
    outputs: new Map(),
    openTodos: [],
    executeTool: async ({ argumentsJson }) => argumentsJson,
    toolsDown: false,
    configDown: false,
    refusedWhileDown: 0,
    executed: [],
  };
}

/** In-memory carriers to the played services, by module. */
export function localNeighbours(played: Neighbours, keys: ReturnType<typeof deriveServiceKeys>) {
  const routes: Record<string, (router: ConnectRouter) => void> = {
    config: (router) =>
      router
        .service(ResolutionService, {
          resolveAgent({ agentId }) {
            if (agentId !== "" && agentId !== "agt_default" && !played.agentIds.has(agentId)) throw notFound("agent");
            if (played.configDown) {
              played.refusedWhileDown += 1;
              throw dependencyDown("config");
            }
            if (played.brokenAgentIds.has(agentId)) throw new Error("config has lost a password: hunter2");
            const agent = { ...played.agent, agentId: agentId || "agt_default" };
            const { maxMessageCharacters, resolved, credentials } = played;
            const limits = { allowedModels: ["*"], ...resolved.limits, maxMessageCharacters };
            return { ownCredentials: [...credentials.keys()], ...resolved, agent, limits };
          },
        })
        .service(ModelCredentialService, {
          revealModelCredential: ({ llmProvider }) =>
            played.credentials.get(llmProvider) ?? raise(notFound("model_credential")),
        }),
    tool: (router) =>
      router.service(ToolExecutionService, {
        describeTools({ names }) {
          if (played.toolsDown) throw toolsAway();
          const schema = (name: string) => (name === "bad schema" ? "{" : "{}");
          const described = (name: string) => ({
            name,
            description: name,
            inputSchemaJson: schema(name),
            timeoutMs: 5_000,
            risk: RiskClass.READ_ONLY,
            ...played.tools.get(name),
          });
          return { tools: names.map(described) };
        },
        async *executeTool(request, context) {
          if (played.toolsDown) throw toolsAway();
          played.executed.push(request.requestId);
          yield { frame: { case: "progress", value: { message: "working", fraction: 0.5 } } };
          const text = await played.executeTool(request, callOf(context).signal);
          const content = [{ part: { case: "text" as const, value: { text } } }];
          const value = { content, structuredJson: "", isError: false, durationMs: 1n, ...played.toolResult };
          yield { frame: { case: "result", value } };
        },
        readToolOutput({ callId, offset }) {
          const whole = played.outputs.get(callId) ?? raise(notFound("tool_output"));
          return { text: whole.slice(Number(offset)), totalBytes: BigInt(whole.length), nextOffset: 0n };
        },
        listOpenTodos: () => ({ todos: played.openTodos }),
      }),
  };
  const transports = new Map(
    Object.entries(routes).map(([module, mount]) => {
      const verifier = createHopVerifier([module], keys);
      return [
        module,
        createLocalTransport(mount, createServicePipeline({ verifier, observation: new RecordedCalls() })),
      ];
    }),
  );
  return (module: string) => transports.get(module);
}

function toolsAway(): AppError {
  return new AppError({ code: Code.Unavailable, reason: "DEPENDENCY_DOWN", message: "tool cannot be reached." });
}
