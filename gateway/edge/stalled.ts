import { cut, drained, type Exchange } from "../exchange.ts";

/**
 * Breaks off an exchange whose reader takes nothing of what was written for `ms` (a window that stays 0, a socket that
 * is not read): it would hold memory and a place for as long as it likes. Silence of ours is no stall.
 */
export function cutStalled(exchange: Exchange, ms: number): void {
  const { request, response } = exchange;
  const written = "stream" in request ? request.stream : response;
  const waits = () => written.writableNeedDrain || written.writableLength > 0 || written.writableEnded;
  // Node's timers know how much of a write has left this process; of HTTP/2 only for the connection as a whole.
  response.setTimeout(ms, () => {
    if (waits() && !written.destroyed) cut(exchange);
  });
  if (!("stream" in request)) return;
  let watching = false;
  const watch = setInterval(async () => {
    if (watching || !written.writableNeedDrain) return;
    watching = true;
    const taken = await drained(response, ms);
    watching = false;
    if (!taken && !written.destroyed) cut(exchange);
  }, ms / 4).unref();
  response.once("close", () => clearInterval(watch));
}
