import { within } from "#platform/abortable.ts";
import type { CodeTool, ToolContext } from "#platform/plugin/define-tool.ts";
import type { Provider, ProviderOverrides } from "#platform/plugin/provider.ts";

export interface InjectionHooks {
  readonly overrides: ProviderOverrides;
  /** How long one provider may take to let go. */
  readonly disposeWithinMs: number;
  /** A provider could not let go of what it made. */
  disposeFailed(provider: string, error: unknown): void;
}

interface Made {
  readonly provider: Provider<unknown>;
  readonly value: Promise<unknown>;
  settled: boolean;
}

/** What a tool's providers make for one call. */
export class Injected {
  readonly #tool: CodeTool;
  readonly #hooks: InjectionHooks;
  readonly #made: Made[] = [];

  constructor(tool: CodeTool, hooks: InjectionHooks) {
    this.#tool = tool;
    this.#hooks = hooks;
  }

  /** Asks the tool's providers, one after another, each once; none when the signal has fired. */
  async values(context: ToolContext, signal: AbortSignal): Promise<Readonly<Record<string, unknown>>> {
    const values: [string, unknown][] = [];
    for (const [name, declared] of Object.entries(this.#tool.inject)) {
      signal.throwIfAborted();
      values.push([name, await this.#value(declared, context, signal)]);
    }
    return Object.fromEntries(values);
  }

  /** Lets go of all that was made, the newest first. What is still being made is let go of when it comes, unwaited for. */
  async dispose(): Promise<void> {
    const { disposeWithinMs, disposeFailed } = this.#hooks;
    for (const { provider, value, settled } of this.#made.splice(0).reverse()) {
      const late = () => new Error(`it did not let go within ${disposeWithinMs} ms`);
      const failed = (error: unknown) => disposeFailed(provider.name, error);
      if (settled) await within(disposed(provider, value), disposeWithinMs, late).catch(failed);
      else disposed(provider, value).catch(failed);
    }
  }

  #value(declared: Provider<unknown>, context: ToolContext, signal: AbortSignal): Promise<unknown> {
    const provider = this.#hooks.overrides.get(declared) ?? declared;
    const known = this.#made.find((made) => made.provider === provider);
    if (known !== undefined) return known.value;
    const made: Made = { provider, settled: false, value: make(provider, context, signal) };
    const settle = () => {
      made.settled = true;
    };
    made.value.then(settle, settle);
    this.#made.push(made);
    return made.value;
  }
}

/** A provider that throws before its first await must not differ from one that does later. */
async function make(provider: Provider<unknown>, context: ToolContext, signal: AbortSignal): Promise<unknown> {
  return provider.provide(context, signal);
}

async function disposed(provider: Provider<unknown>, value: Promise<unknown>): Promise<void> {
  let made: unknown;
  try {
    made = await value;
  } catch {
    // There is nothing to let go of; the call was told why.
    return;
  }
  await provider.dispose?.(made);
}
