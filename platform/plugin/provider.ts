import type { ToolContext } from "./define-tool.ts";

/**
 * Makes something that tools work with, such as a client of another system, for one call. A tool names its providers
 * under `inject`; the model neither sees nor sets what they make. One provider is asked once per call, however many of
 * the tool's names stand for it, and what it made is disposed after the call, whatever became of that.
 */
export interface Provider<T> {
  /** For the log. */
  readonly name: string;
  /** What it throws ends the call as if the tool had thrown it. The signal is that of the call. */
  provide(context: ToolContext, signal: AbortSignal): Promise<T> | T;
  /** Lets go of what {@link Provider.provide} made. A failure is logged and changes nothing for the call. */
  dispose?(value: T): Promise<void> | void;
}

/** Providers that stand in for others, as tests need them. */
export type ProviderOverrides = ReadonlyMap<Provider<unknown>, Provider<unknown>>;

/** The providers of a tool, under the names by which it knows what they make. */
export type Inject<Injected> = { readonly [Name in keyof Injected]: Provider<Injected[Name]> };
