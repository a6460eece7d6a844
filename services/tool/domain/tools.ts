import type { CodeTool, ToolContext } from "#platform/plugin/define-tool.ts";
import type { ProviderOverrides } from "#platform/plugin/provider.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Limiter } from "#platform/redis/limiter.ts";
import type { Call } from "#platform/rpc/call.ts";
import { withSignal } from "#platform/rpc/call.ts";
import { raise } from "#platform/rpc/errors.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import { toolNotFound, userNotFound } from "../errors.ts";
import type { ToolEvents } from "../events.ts";
import type { OutputKey, OutputStore } from "../store/output-store.ts";
import type { TodoStore } from "../store/todo-store.ts";
import type { ToolCallStore } from "../store/tool-call-store.ts";
import { takeCall } from "./call-limit.ts";
import { type ExecutedCall, type ExecutionHooks, executeTool } from "./execution.ts";
import { isJournalled, type Journal, outcomeUnknown } from "./journal.ts";
import { type OutputPart, readOutput } from "./outputs.ts";
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
  readonly journal: Journal;
  readonly outputs: OutputStore;
  readonly todos: TodoStore;
  readonly pageTokens: PageTokens;
  readonly events: ToolEvents;
  readonly limiter: Limiter;
  readonly overrides: ProviderOverrides;
  readonly abandonAfterMs: number;
}

/** How long a provider may take to let go of what it made for a call. */
const DISPOSE_WITHIN_MS = 5_000;

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

  isBuiltIn(tool: CodeTool): boolean {
    return this.#deps.registry.isBuiltIn(tool);
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
   * reader leaves, the tool's signal fires (unless others wait for the same call), and the call is recorded all the same. Throws NOT_FOUND for an unknown tool
   * and for a user whom the credential is not bound to, and when the execution could not be recorded.
   */
  async *execute(call: Call, request: ToolCallRequest): AsyncGenerator<Progress, ExecutedCall> {
    const tool = this.get(request.tool);
    const asked = { ...request, endUserId: userOf(call, request.endUserId) };
    const reader = new AbortController();
    const leave = () => reader.abort(call.signal.reason);
    call.signal.addEventListener("abort", leave, { once: true });
    if (call.signal.aborted) leave();
    const progress = new LatestProgress();
    const execution = this.#run(withSignal(call, reader.signal, call.deadline), tool, asked, progress);
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

  /** A part of the whole output of an earlier call. */
  readOutput(
    call: Call,
    asked: OutputKey & { readonly offset: number; readonly maxBytes: number },
  ): Promise<OutputPart> {
    return readOutput(this.#deps.outputs, call, asked);
  }

  /** Texts of what is still to be done in a session. */
  openTodos(call: Call, sessionId: string): Promise<string[]> {
    return this.#deps.todos.open(call, sessionId);
  }

  /** Waits for calls that are still being recorded, or for the signal. */
  async drain(signal: AbortSignal): Promise<void> {
    const { promise: over, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve(), { once: true });
    if (signal.aborted) resolve();
    await Promise.race([Promise.all(this.#running), over]);
  }

  async #run(call: Call, tool: CodeTool, request: ToolCallRequest, progress: LatestProgress): Promise<ExecutedCall> {
    const { store, journal, events, abandonAfterMs, limiter, overrides } = this.#deps;
    const { callId, runId, sessionId, agentId, endUserId } = request;
    const requestKey = request.requestId || (runId && `${runId}/${callId}`);
    const about = { call, callId, runId, sessionId, agentId, endUserId, requestKey };
    const context: ToolContext = {
      ...about,
      progress: (message, share) => progress.set(tool.mask?.(String(message)) ?? message, share),
    };
    const journalled = isJournalled(tool, requestKey);
    const attempt = journalled ? journal.attempt(call, tool, { ...request, requestKey }) : undefined;
    try {
      return await events.observe(call, request, async (observed) => {
        const hooks: ExecutionHooks = {
          abandonAfterMs,
          overrides,
          disposeWithinMs: DISPOSE_WITHIN_MS,
          begin: async () => (await attempt?.begin()) ?? { signal: call.signal },
          admit: (wanted) => takeCall(limiter, call, wanted),
          abandoned: () => observed.abandoned(),
          disposeFailed: (provider, error) => observed.disposeFailed(provider, error),
        };
        const executed = await executeTool(tool, request.argumentsJson, context, hooks);
        observed.ended(executed);
        const first = await store.record(call, request, executed, attempt?.endWith(executed));
        failpoint("tools.after-record");
        // Others have been told meanwhile that nobody knows, which is to stay so.
        return first ? executed : { ...executed, ...outcomeUnknown(tool) };
      });
    } finally {
      attempt?.leave();
      progress.end();
    }
  }
}

/** The user on whose behalf the call is: the credential's, else the one that a machine credential names. */
function userOf({ principal: { userId } }: Call, named: string): string {
  if (userId === undefined) return named;
  return named === "" || named === userId ? userId : raise(userNotFound());
}
