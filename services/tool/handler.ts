import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { ContentPartSchema } from "#gen/agentmesh/common/v1/content_pb.ts";
import { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type {
  ExecuteToolResponseSchema,
  ToolExecutionService,
} from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { type ToolSchema, type ToolService, UnknownPolicy } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import type { CodeTool, OnUnknown, Risk, ToolContent } from "#platform/plugin/define-tool.ts";
import { callOf } from "#platform/rpc/call.ts";
import type { ExecutedCall } from "./domain/execution.ts";
import type { Tools } from "./domain/tools.ts";

export function toolHandler(tools: Tools): ServiceImpl<typeof ToolService> {
  return {
    listTools(request, context) {
      const page = tools.list(callOf(context), request);
      return { tools: page.tools.map(toolMessage(tools)), nextPageToken: page.nextPageToken };
    },
    getTool: (request) => ({ tool: toolMessage(tools)(tools.get(request.toolId)) }),
  };
}

export function toolExecutionHandler(tools: Tools): ServiceImpl<typeof ToolExecutionService> {
  return {
    describeTools: (request) => ({ tools: tools.describe(request.names).map(toolMessage(tools)) }),
    async *executeTool(request, context) {
      const execution = tools.execute(callOf(context), request);
      try {
        let step = await execution.next();
        for (; !step.done; step = await execution.next()) yield { frame: { case: "progress", value: step.value } };
        yield resultFrame(step.value);
      } finally {
        // Reached by a reader that leaves too; the call is then cancelled and recorded before this one ends.
        await execution.return(undefined as never);
      }
    },
    async readToolOutput({ sessionId, callId, offset, maxBytes }, context) {
      const asked = { sessionId, callId, offset: Number(offset), maxBytes };
      const { text, totalBytes, nextOffset } = await tools.readOutput(callOf(context), asked);
      return { text, totalBytes: BigInt(totalBytes), nextOffset: BigInt(nextOffset) };
    },
    listOpenTodos: async ({ sessionId }, context) => ({ todos: await tools.openTodos(callOf(context), sessionId) }),
  };
}

type ResultFrame = MessageInitShape<typeof ExecuteToolResponseSchema>;

function resultFrame({ outcome, result, durationMs, callsLeft }: ExecutedCall): ResultFrame {
  const { content, structuredJson, isError, truncated, escalation } = result;
  const value = {
    content: content.map(contentPart),
    structuredJson,
    isError,
    truncated,
    durationMs: BigInt(Math.round(durationMs)),
    unknown: outcome === "unknown",
    ...(callsLeft === undefined ? {} : { callsLeft }),
    ...(escalation === undefined ? {} : { escalation }),
  };
  return { frame: { case: "result", value } };
}

function contentPart(part: ToolContent): MessageInitShape<typeof ContentPartSchema> {
  if (part.type === "text") return { part: { case: "text", value: { text: part.text } } };
  const data = new Uint8Array(part.data);
  return { part: { case: "image", value: { mediaType: part.mediaType, data } } };
}

const RISKS: Record<Risk, RiskClass> = {
  read_only: RiskClass.READ_ONLY,
  write: RiskClass.WRITE,
  destructive: RiskClass.DESTRUCTIVE,
};

const ON_UNKNOWN: Record<OnUnknown, UnknownPolicy> = { report: UnknownPolicy.REPORT, ask: UnknownPolicy.ASK };

function toolMessage(tools: Tools) {
  return (tool: CodeTool): MessageInitShape<typeof ToolSchema> => {
    const { name, description, inputJson, risk, concurrencySafe, idempotent, timeoutMs, maxOutputBytes } = tool;
    const { ephemeral, permissions, callsPerMinute, category, version, onUnknown } = tool;
    return {
      toolId: name,
      name,
      description,
      inputSchemaJson: inputJson,
      risk: RISKS[risk],
      concurrencySafe,
      idempotent,
      builtIn: tools.isBuiltIn(tool),
      timeoutMs,
      maxOutputBytes,
      ephemeral,
      permissions: [...permissions],
      callsPerMinute,
      category,
      version,
      onUnknown: ON_UNKNOWN[onUnknown],
    };
  };
}
