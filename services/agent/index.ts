import { create, toBinary } from "@bufbuild/protobuf";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { RunAdvancedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import type { Module, Platform, Running } from "#platform/module/module.ts";
import { onward } from "#platform/rpc/call.ts";
import { type AgentConfig, readAgentConfig } from "./config.ts";
import { createAgentEvents } from "./events.ts";
import { chatHandler } from "./handlers/chat.ts";
import { runHandler } from "./handlers/run.ts";
import { sessionHandler } from "./handlers/session.ts";
import { tailHandler } from "./handlers/tail.ts";
import { createModels } from "./llm/models.ts";
import { isTerminal } from "./runs/event-envelope.ts";
import { LiveRuns } from "./runs/live-runs.ts";
import { Reaper } from "./runs/reaper.ts";
import { RemoteTails } from "./runs/remote-tails.ts";
import { CancelRequest, createExecutor } from "./runs/run-executor.ts";
import { runSubject } from "./runs/run-subject.ts";
import { createRunTools } from "./runs/run-tools.ts";
import { abandon, Runs } from "./runs/runs.ts";
import { Sessions } from "./sessions/sessions.ts";

/** Conversations: sessions, chat turns, runs and their events. */
export const agent: Module<AgentConfig> = {
  name: "agent",
  services: [ChatService, RunService, SessionService, RunTailService],
  schema: { name: "agent", migrations: new URL("./store/migrations/", import.meta.url) },
  config: readAgentConfig,
  create: createAgent,
};

function createAgent(config: AgentConfig, platform: Platform): Running {
  const { database, bus, links, log, instanceId, ownAddress, pageTokens } = platform;
  const events = createAgentEvents(log, platform.metrics);
  const egress = createOperatorFetch();
  const { leaseMs } = config;
  const resolution = links.to(ResolutionService);
  const liveRuns = new LiveRuns({
    database,
    owner: instanceId,
    leaseMs,
    heartbeatMs: config.heartbeatMs,
    log,
    onLost: abandon,
  });
  const remoteTails = new RemoteTails((address) => links.at(RunTailService, address));
  const draining = new AbortController();
  const announce = (tenantId: string, event: AgentEvent) => {
    const advanced = create(RunAdvancedSchema, { runId: event.runId, seq: event.seq, terminal: isTerminal(event) });
    bus.notify(runSubject(tenantId, event.runId), toBinary(RunAdvancedSchema, advanced));
  };
  const runs = new Runs({
    database,
    bus,
    owner: instanceId,
    ownerAddress: ownAddress,
    leaseMs,
    liveRuns,
    remoteTails,
    heartbeatMs: config.streamHeartbeatMs,
    drain: draining.signal,
    announce,
    resolveAgent: (call, agentId) => resolution.resolveAgent({ agentId }, onward(call, 10_000)),
    async cancelAt(call, address, runId, cause) {
      await links.at(RunTailService, address).cancelOwnedRun({ runId, cause }, onward(call, 10_000));
    },
    executor: createExecutor({
      models: createModels(config.anthropic, egress.fetch),
      tools: createRunTools(links.to(ToolExecutionService)),
      events,
      runTimeoutMs: config.runTimeoutMs,
    }),
  });
  const sessions = new Sessions({
    database,
    async cancelRun(call, runId, cause) {
      await runs.cancel(call, runId, cause);
    },
  });
  const reaper = new Reaper({
    database,
    owner: instanceId,
    address: ownAddress,
    leaseMs,
    everyMs: config.reaperMs,
    log,
    onReaped: events.runReaped,
    announce,
  });
  return {
    routes(router) {
      router.service(ChatService, chatHandler(runs));
      router.service(RunService, runHandler(runs, pageTokens));
      router.service(SessionService, sessionHandler(sessions, pageTokens));
      router.service(RunTailService, tailHandler(runs));
    },
    async start() {
      liveRuns.start();
      reaper.start();
    },
    /** Runs in flight may end by themselves; what is left at the end of the grace is cancelled, and says so. */
    async drain(grace) {
      const finished = Promise.all(liveRuns.all().map((run) => run.finished));
      await Promise.race([
        finished,
        new Promise((resolve) => grace.addEventListener("abort", resolve, { once: true })),
      ]);
      for (const run of liveRuns.all()) run.controller.abort(new CancelRequest("shutdown"));
      draining.abort();
      await Promise.all(liveRuns.all().map((run) => run.finished));
    },
    async stop() {
      draining.abort();
      for (const run of liveRuns.all()) abandon(run);
      remoteTails.close();
      await reaper.stop();
      await liveRuns.stop();
      await egress.close();
    },
  };
}
