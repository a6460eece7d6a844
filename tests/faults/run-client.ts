import type { Agent } from "node:http";
import { toBinary } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import type { LogEvent, SeenEvent } from "./history.ts";

/** A caller of runs by Connect over HTTP/1.1, one connection for each call at a time. */
export function runClient(baseUrl: string, key: string, agent: Agent): Client<typeof RunService> {
  return createClient(RunService, transportTo(baseUrl, key, agent));
}

/** Somebody who decides what people are asked. */
export function approvalClient(baseUrl: string, key: string, agent: Agent): Client<typeof ApprovalService> {
  return createClient(ApprovalService, transportTo(baseUrl, key, agent));
}

function transportTo(baseUrl: string, key: string, agent: Agent) {
  return createConnectTransport({
    baseUrl,
    httpVersion: "1.1",
    nodeOptions: { agent },
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${key}`);
        return next(request);
      },
    ],
  });
}

/** An event as it was shown; of previews, which nobody stores, without the bytes. */
export function seen(event: AgentEvent): SeenEvent {
  if (event.retention === Retention.DURABLE) return { ...logEvent(event), durable: true };
  const { seq, prevSeq, type, itemId } = event;
  return { seq, prevSeq, type, itemId, isError: false, bytes: "", durable: false };
}

export function logEvent(event: AgentEvent): LogEvent {
  const { seq, prevSeq, type, itemId, payload } = event;
  const isError = payload.case === "toolCallCompleted" && payload.value.isError;
  return {
    seq,
    prevSeq,
    type,
    itemId,
    isError,
    bytes: Buffer.from(toBinary(AgentEventSchema, event)).toString("base64"),
  };
}
