import type { Subscription } from "./bus.ts";

/** A subscription that stops once, however often it is asked to. */
export function subscription(stop: () => Promise<void>): Subscription {
  let stopping: Promise<void> | undefined;
  const unsubscribe = () => {
    stopping ??= stop();
    return stopping;
  };
  return { unsubscribe, [Symbol.asyncDispose]: unsubscribe };
}
