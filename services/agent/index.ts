import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import type { Module } from "#platform/module/module.ts";
import { assembleAgent } from "./assemble.ts";
import { type AgentConfig, readAgentConfig } from "./config.ts";

/** Conversations: sessions, chat turns, runs and their events. */
export const agent: Module<AgentConfig> = {
  name: "agent",
  services: [ChatService, RunService, ApprovalService, SessionService, RunTailService],
  schema: { name: "agent", migrations: new URL("./store/migrations/", import.meta.url) },
  config: readAgentConfig,
  create: assembleAgent,
};
