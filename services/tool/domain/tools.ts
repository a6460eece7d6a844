import type { Call } from "#platform/rpc/call.ts";
import { withSignal } from "#platform/rpc/call.ts";
import { raise } from "#platform/rpc/errors.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import { toolNotFound } from "../errors.ts";
import type { ToolEvents } from "../events.ts";
import type { ToolCallStore } from "../store/tool-call-store.ts";
import type { CodeTool } from "./define-tool.ts";
import { type ExecutedCall, executeTool } from "./execution.ts";
import { LatestProgress, type Progress } from "./progress.ts";
import type { ToolRegistry } from "./registry.ts";

/** A call as the agent asks for it. */
export interface ToolCallRequest {
  readonly tool: string;
  readonly argumentsJson: string;
  readonly callId: string;
  readonly runId: string;
  readonly sessionId: string;
  readonly agentId: string;
  readonly endUserId: string;
  readonly requestId: string;
}

export interface ToolsDeps {
  readonly registry: ToolRegistry;
  readonly store: ToolCallStore;
  readonly pageTokens: PageTokens;
  readonly events: ToolEvents;
  readonly abandonAfterMs: number;
}

/** The tools of the mesh, and what happens when one is called. */
export class Tools {
  readonly #deps: ToolsDeps;
  readonly #running = new Set<Promise<unknown>>();

  constructor(deps: ToolsDeps) {
    this.#deps = deps;
  }

  get(nameOrId: string): CodeTool {
    return this.#deps.registry.find(nameOrId) ?? raise(toolNotFound());
  }

  describe(names: readonly string[]): CodeTool[] {
    return this.#deps.registry.pick(names);
  }

  list(call: Call, asked: { readonly pageSize: number; readonly pageToken: string }) {
    const { registry, pageTokens } = this.#deps;
    const list = { call, list: "tools", filter: {} };
    const after = openPage<string>(pageTokens, asked.pageToken, list);
    const { tools, more } = registry.page(after, pageSize(asked.pageSize));
    return { tools, nextPageToken: more ? sealPage(pageTokens, tools.at(-1)?.name ?? "", list) : "" };
  }

  /**
   * Executes one call: signs of progress, then what came of it. The execution does not depend on being read: when the
   * reader leaves, the tool's signal fires, and the call is recorded all the same. Throws NOT_FOUND for an unknown tool,
   * and when the execution could not be recorded.
   */
  async *execute(call: Call, request: ToolCallRequest): AsyncGenerator<Progress, ExecutedCall> {
    const tool = this.get(request.tool);
    const reader = new AbortController();
    const leave = () => reader.abort(call.signal.reason);
    call.signal.addEventListener("abort", leave, { once: true });
    if (call.signal.aborted) leave();
    const progress = new LatestProgress();
    const execution = this.#run(withSignal(call, reader.signal, call.deadline), tool, request, progress);
    // Its failure is thrown by the await below, or by nobody when the reader has left.
    const running = execution.catch(() => {}).finally(() => this.#running.delete(running));
    this.#running.add(running);
    try {
      for (let next = await progress.take(); next !== undefined; next = await progress.take()) yield next;
      const executed = await execution;
      call.signal.throwIfAborted();
      return executed;
    } finally {
      call.signal.removeEventListener("abort", leave);
      reader.abort();
      await running;
    }
  }

  /** Waits for calls that are still being recorded, or for the signal. */
  async drain(signal: AbortSignal): Promise<void> {
    const { promise: over, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve(), { once: true });
    if (signal.aborted) resolve();
    await Promise.race([Promise.all(this.#running), over]);
  }

  async #run(call: Call, tool: CodeTool, request: ToolCallRequest, progress: LatestProgress): Promise<ExecutedCall> {
    const { store, events, abandonAfterMs } = this.#deps;
    const { callId, runId, sessionId, agentId, endUserId } = request;
    const requestKey = request.requestId || (runId && `${runId}/${callId}`);
    const about = { call, callId, runId, sessionId, agentId, endUserId, requestKey };
    const context = { ...about, progress: (message: string, share?: number) => progress.set(message, share) };
    try {
      return await events.observe(call, request, async (observed) => {
        const hooks = { abandonAfterMs, abandoned: () => observed.abandoned() };
        const executed = await executeTool(tool, request.argumentsJson, context, hooks);
        observed.ended(executed);
        await store.record(call, request, executed);
        return executed;
      });
    } finally {
      progress.end();
    }
  }
}
