import { create, toBinary } from "@bufbuild/protobuf";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { RunAdvancedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { within } from "#platform/abortable.ts";
import type { Subscription } from "#platform/bus/bus.ts";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import { createTenantFetch } from "#platform/egress/tenant-fetch.ts";
import type { Platform, Running } from "#platform/module/module.ts";
import { type LoadedPlugins, loadPlugins } from "#platform/plugin/load-plugins.ts";
import { type Call, onward } from "#platform/rpc/call.ts";
import { inject } from "#platform/telemetry/trace-context.ts";
import { RunPool } from "./admission/run-pool.ts";
import { Approvals } from "./approvals/approvals.ts";
import { ClientResults } from "./approvals/client-results.ts";
import { ApprovalExpiry } from "./approvals/expiry.ts";
import type { Advanced } from "./approvals/suspended-run.ts";
import type { AgentConfig } from "./config.ts";
import { createAgentEvents } from "./events.ts";
import { approvalHandler } from "./handlers/approval.ts";
import { chatHandler } from "./handlers/chat.ts";
import { runHandler } from "./handlers/run.ts";
import { sessionHandler } from "./handlers/session.ts";
import { tailHandler } from "./handlers/tail.ts";
import { modelComponent } from "./llm/model-component.ts";
import { createModels } from "./llm/models.ts";
import { observeBreakers } from "./llm/observe-breakers.ts";
import { createPricing } from "./llm/pricing.ts";
import { DeadLetters } from "./queue/dead-letters.ts";
import { RunQueue } from "./queue/run-queue.ts";
import { openCleanUp } from "./retention/clean-up.ts";
import { isTerminal } from "./runs/event-envelope.ts";
import { HotContext } from "./runs/hot-context.ts";
import { LastResort } from "./runs/last-resort.ts";
import { LateBookings } from "./runs/late-bookings.ts";
import { abandon, LiveRuns } from "./runs/live-runs.ts";
import { NeighbourAnswers } from "./runs/neighbour-answers.ts";
import { Reaper } from "./runs/reaper.ts";
import { RemoteTails } from "./runs/remote-tails.ts";
import { createExecutor } from "./runs/run-executor.ts";
import { CancelRequest } from "./runs/run-failure.ts";
import { RunModels } from "./runs/run-models.ts";
import { KnownPlans } from "./runs/run-plan.ts";
import { runSubject } from "./runs/run-subject.ts";
import { openToolsOf } from "./runs/run-tools.ts";
import { Runs } from "./runs/runs.ts";
import { Sessions } from "./sessions/sessions.ts";

const RESOLVE_MS = 10_000;
/** How long a permit outlives a process that has died, and how often a tenant at its limit elsewhere is asked for again. */
const PERMIT_MS = 15_000;
const PERMIT_RETRY_MS = 200;
const CANCEL_MS = 10_000;
/** Over the lease and the reaper's rhythm, for a run whose owner is gone to be ended. */
const REAP_MARGIN_MS = 3_000;
/** For runs that a stop without a drain cancels to write that they were. */
const LAST_WORDS_MS = 2_000;

/** A tenant's own model server may take its time and say much; everything else of its door is as strict as for others. */
const TENANT_MODELS = {
  headersTimeoutMs: 300_000,
  bodyIdleTimeoutMs: 120_000,
  totalTimeoutMs: 3_600_000,
  maxBodyBytes: 128 * 1024 * 1024,
  connectionsPerOrigin: 64,
};

/** The agent service, and what of it can be looked at from inside. */
export interface AgentService extends Running {
  readonly liveRuns: LiveRuns;
  readonly remoteTails: RemoteTails;
  readonly pool: RunPool;
}

/** Builds the service. Nothing runs yet. */
export function assembleAgent(config: AgentConfig, platform: Platform): AgentService {
  const { database, bus, links, log, instanceId, ownAddress, pageTokens } = platform;
  const { leaseMs, heartbeatMs, reaperMs } = config;
  const events = createAgentEvents(log, platform.metrics);
  const egress = createOperatorFetch({ headers: traceHeaders });
  const tenantEgress = createTenantFetch({ ...TENANT_MODELS, trustedOrigins: config.models.trustedOrigins });
  const resolution = links.to(ResolutionService);
  const liveRuns = new LiveRuns({ database, owner: instanceId, leaseMs, heartbeatMs, log });
  const lateBookings = new LateBookings({ database, log, retryMs: heartbeatMs });
  const remoteTails = new RemoteTails({ clientAt: (address) => links.at(RunTailService, address), bus });
  const draining = new AbortController();
  const wake = (tenantId: string, runId: string, seq: bigint, terminal = false) => {
    const advanced = create(RunAdvancedSchema, { runId, seq, terminal });
    bus.notify(runSubject(tenantId, runId), toBinary(RunAdvancedSchema, advanced));
  };
  const announce = (tenantId: string, event: AgentEvent) => wake(tenantId, event.runId, event.seq, isTerminal(event));
  const answers = new NeighbourAnswers({ ttlMs: config.answersTtlMs });
  let following: Subscription | undefined;
  let plugins: LoadedPlugins | undefined;
  const everyModel = createModels(
    config.models,
    { fetch: egress.fetch, tenantFetch: tenantEgress.fetch },
    { breaker: { onChange: observeBreakers(platform.metrics, log) }, limits: config.models.limits },
  );
  const models = new RunModels({
    models: everyModel,
    config: config.models,
    credentials: links.to(ModelCredentialService),
    answers,
  });
  const pricing = createPricing({ overrides: config.models.prices, onUnknown: events.priceUnknown });
  const hooks = { plugins: () => plugins, timeoutMs: config.pluginTimeoutMs, log };
  const pool = new RunPool({ ...config.pool, permits: platform.permits, leaseMs: PERMIT_MS, retryMs: PERMIT_RETRY_MS });
  const begins = {
    pool,
    database,
    owner: instanceId,
    ownerAddress: ownAddress,
    leaseMs,
    models,
    hooks,
    knownPlans: new KnownPlans(),
    resolveAgent: (call: Call, agentId: string, endUserId: string) =>
      answers.get(call.principal, ["agent", agentId, endUserId], () =>
        resolution.resolveAgent({ agentId, endUserId }, onward(call, RESOLVE_MS)),
      ),
  };
  const hotContext = new HotContext({ cache: platform.cache, ttlMs: config.hotContextMs });
  const runs = new Runs({
    hotContext,
    ...begins,
    ...config.queue,
    bus,
    log,
    liveRuns,
    remoteTails,
    heartbeatMs: config.streamHeartbeatMs,
    cancelWaitMs: leaseMs + reaperMs + REAP_MARGIN_MS,
    drain: draining.signal,
    announce,
    wake,
    async cancelAt(call, address, runId, cause) {
      await links.at(RunTailService, address).cancelOwnedRun({ runId, cause }, onward(call, CANCEL_MS));
    },
    async nudgeAt(call, address, runId) {
      await links.at(RunTailService, address).nudgeOwnedRun({ runId }, onward(call));
    },
    executor: createExecutor({
      models,
      openTools: openToolsOf(links.to(ToolExecutionService), answers),
      hooks,
      lastResort: new LastResort(platform.cache, config.cachedAnswerTtlMs),
      pricing,
      events,
      database,
      lateBookings,
      hotContext,
      runTimeoutMs: config.runTimeoutMs,
    }),
  });
  const sessions = new Sessions({
    database,
    forgetContext: (tenantId, sessionId) => hotContext.forget(tenantId, sessionId),
    async cancelRun(call, runId, cause) {
      await runs.cancel(call, runId, cause);
    },
  });
  const reaper = new Reaper({
    database,
    owner: instanceId,
    address: ownAddress,
    leaseMs,
    everyMs: reaperMs,
    log,
    maxAttempts: config.maxAttempts,
    takeUp: (call, started) => runs.takeUp(call, started),
    onTakenUp: events.runTakenUp,
    onReaped: events.runReaped,
    announce,
  });
  const cleanUp = openCleanUp(config, {
    database,
    log,
    metrics: platform.metrics,
    forgetContext: (...which) => hotContext.forget(...which),
  });
  const queue = new RunQueue({
    ...begins,
    ...config.queue,
    everyMs: config.queue.sweepMs,
    bus,
    log,
    announce,
    events,
    launch: (call, started) => runs.launch(call, started),
  });
  const onAdvanced = ({ tenantId, newest, goesOn }: Advanced) => {
    announce(tenantId, newest);
    if (goesOn) reaper.nudge();
  };
  const approvals = new Approvals({ database, onAdvanced });
  const expiry = new ApprovalExpiry({ database, everyMs: reaperMs, log, onAdvanced });
  const deadLetters = new DeadLetters({ ...begins, ...config.queue });
  const allFinished = () => Promise.all(liveRuns.all().map((run) => run.finished));
  const cancelAll = () => {
    for (const run of liveRuns.all()) run.controller.abort(new CancelRequest("shutdown"));
    return allFinished();
  };
  return {
    liveRuns,
    remoteTails,
    pool,
    components: [modelComponent(everyModel, config.models)],
    routes(router) {
      router.service(ChatService, chatHandler(runs));
      const results = new ClientResults({ database, onAdvanced });
      router.service(RunService, runHandler({ runs, deadLetters, results }, pageTokens));
      router.service(ApprovalService, approvalHandler(approvals, pageTokens));
      router.service(SessionService, sessionHandler(sessions, pageTokens));
      router.service(RunTailService, tailHandler(runs));
    },
    async start(signal) {
      const onUnloadFailed = (plugin: string, error: unknown) =>
        log.warn({ event: "plugin.unload_failed", resource: plugin, err: error }, "a plugin could not let go");
      plugins = await loadPlugins(config.pluginModules, { signal, onUnloadFailed });
      following = await answers.follow(database, bus);
      liveRuns.start();
      reaper.start();
      cleanUp.start();
      await queue.start();
      expiry.start();
    },
    /**
     * Nothing new begins; watchers of others' runs go to other replicas; runs in flight may end by themselves. What is left
     * after the grace is handed over to another replica, or to the next start, where runs may be taken up; else it is
     * cancelled, and says so to those who watch.
     */
    async drain(grace) {
      draining.abort();
      await queue.stop();
      await Promise.all([reaper.stop(), cleanUp.stop(), expiry.stop()]);
      const over = new Promise((resolve) => grace.addEventListener("abort", resolve, { once: true }));
      if (!grace.aborted) await Promise.race([allFinished(), over]);
      if (config.maxAttempts > 1) await liveRuns.handOver();
      await cancelAll();
    },
    async stop() {
      draining.abort();
      await queue.stop();
      await within(cancelAll(), LAST_WORDS_MS, () => new Error("late")).catch(() => {});
      for (const run of liveRuns.all()) abandon(run);
      await within(allFinished(), LAST_WORDS_MS, () => new Error("late")).catch(() => {});
      remoteTails.close();
      await following?.unsubscribe();
      await Promise.all([reaper.stop(), cleanUp.stop(), expiry.stop()]);
      await pool[Symbol.asyncDispose]();
      await liveRuns.stop();
      await lateBookings.stop();
      await egress.close();
      await tenantEgress.close();
      await plugins?.unload();
    },
  };
}

/** The trace of the run goes on to the model's provider, or to the proxy in front of it. */
function traceHeaders(): Record<string, string> {
  const headers: Record<string, string> = {};
  inject(headers);
  return headers;
}
