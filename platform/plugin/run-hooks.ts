import { abortable, within } from "../abortable.ts";
import type { Plugin, PluginContext } from "./define-plugin.ts";

export interface RunHooksOptions {
  readonly context: PluginContext;
  readonly signal: AbortSignal;
  /** How long one hook may take; default 5 s. */
  readonly timeoutMs?: number;
  /** Longest text that a hook may return, in UTF-16 units; default 200 000. */
  readonly maxLength?: number;
  /** Told of a hook that threw, took too long or returned something else than a text; it leaves the text as it was. */
  onFailure(plugin: string, error: unknown): void;
}

/**
 * Hands a text through the plugins' hooks: `beforeInput` in their order, `afterResponse` in reverse, so that the plugin
 * that saw the input first sees the answer last. Rejects only with the signal's reason.
 */
export async function runHooks(
  plugins: readonly Plugin[],
  hook: "beforeInput" | "afterResponse",
  text: string,
  options: RunHooksOptions,
): Promise<string> {
  const { context, signal, timeoutMs = 5_000, maxLength = 200_000, onFailure } = options;
  const order = hook === "beforeInput" ? plugins : plugins.toReversed();
  let current = text;
  for (const plugin of order) {
    const run = plugin[hook];
    if (run === undefined) continue;
    signal.throwIfAborted();
    const stop = new AbortController();
    try {
      const late = () => new Error(`${hook} did not end within ${timeoutMs} ms`);
      const asked = (async (before: string) => run(before, context, stop.signal))(current);
      const changed: unknown = await within(abortable(asked, signal), timeoutMs, late);
      if (changed === undefined) continue;
      if (typeof changed !== "string") throw new TypeError(`${hook} returned ${typeof changed}, not a text`);
      if (changed.length > maxLength) throw new TypeError(`${hook} returned more than ${maxLength} characters`);
      current = changed.toWellFormed();
    } catch (error) {
      stop.abort(error);
      if (signal.aborted) throw signal.reason;
      onFailure(plugin.name, error);
    }
  }
  return current;
}
