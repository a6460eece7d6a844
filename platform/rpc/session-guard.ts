import { constants, type ServerHttp2Session } from "node:http2";
import { Allowance } from "./allowance.ts";

/** See PORT_LIMITS. */
export interface SessionLimits {
  readonly maxSessionAgeMs: number;
  readonly sessionGraceMs: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  readonly streamResetBurst: number;
  readonly streamResetRate: number;
  readonly pingBurst: number;
  readonly pingRate: number;
  readonly settingsBurst: number;
  readonly settingsRate: number;
}

/** Events of a session that come by the thousand. */
const COUNTED = ["ping", "remoteSettings"] as const;

/** Codes of streams that ended as they should, or whose callers had enough of them; Node bounds those itself. */
const HARMLESS: ReadonlySet<number> = new Set([
  constants.NGHTTP2_NO_ERROR,
  constants.NGHTTP2_CANCEL,
  constants.NGHTTP2_REFUSED_STREAM,
]);

/**
 * What bounds an HTTP/2 session besides Node's own limits (streams, memory, header bytes, resets, invalid frames): its
 * age, frames that cost the peer nothing and us an answer (pings and settings; CVE-2019-9512, CVE-2019-9515), streams
 * that the peer makes us reset (CVE-2025-8671), and peers that are gone. An offender gets GOAWAY ENHANCE_YOUR_CALM, and
 * `onOffence` is told.
 */
export function guardSession(session: ServerHttp2Session, limits: SessionLimits, onOffence: () => void): void {
  const pings = new Allowance(limits.pingBurst, limits.pingRate);
  const settings = new Allowance(limits.settingsBurst, limits.settingsRate);
  const resets = new Allowance(limits.streamResetBurst, limits.streamResetRate);
  const count = (allowance: Allowance) => {
    if (allowance.take() || session.destroyed) return;
    session.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
    // What was read with the frame that was too much is still gone through; where nobody listens, Node calls nobody.
    for (const event of COUNTED) session.removeAllListeners(event);
    onOffence();
  };
  session.on("ping", () => count(pings));
  session.on("remoteSettings", () => count(settings));
  session.on("stream", (stream) => {
    stream.once("close", () => {
      if (!HARMLESS.has(stream.rstCode)) count(resets);
    });
  });

  // Many clients that came together (after a restart) should not go together.
  const age = limits.maxSessionAgeMs * (0.9 + Math.random() / 5);
  let grace: NodeJS.Timeout | undefined;
  const old = setTimeout(() => {
    session.close();
    grace = setTimeout(() => session.destroy(), limits.sessionGraceMs);
    grace.unref();
  }, age).unref();

  let unanswered: NodeJS.Timeout | undefined;
  const pinger = setInterval(() => {
    if (session.destroyed || unanswered !== undefined) return;
    unanswered = setTimeout(() => session.destroy(), limits.pingTimeoutMs).unref();
    session.ping(() => {
      clearTimeout(unanswered);
      unanswered = undefined;
    });
  }, limits.pingIntervalMs).unref();

  session.once("close", () => {
    clearTimeout(old);
    clearTimeout(grace);
    clearTimeout(unanswered);
    clearInterval(pinger);
  });
}
