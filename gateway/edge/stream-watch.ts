import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { GatewayLimits } from "../limits.ts";

/** An open stream, and who reads it. */
export interface WatchedStream {
  readonly principal: Principal;
  /** Admits the caller once more: the same credential, the same method. */
  recheck(): Promise<unknown>;
  /** Ends the stream with this error. */
  end(error: AppError): void;
  /** Calls back once when it has ended, for whatever reason. */
  onClose(callback: () => void): void;
}

/**
 * A call is admitted once, and a stream may then be open for a long time. So its credential is verified again every
 * `streamRecheckMs`, and at once when a revocation is heard of; and after `streamAgeMs` it ends in any case, so that
 * long-lived clients find new servers and no stream outlives what else bounds it.
 */
export interface StreamWatch {
  /** Streams that are watched now. */
  readonly size: number;
  watch(stream: WatchedStream): void;
  /** Verifies the streams of these principals now. */
  recheck(which: (principal: Principal) => boolean): void;
}

/** Streams that began together, after a restart, should not end together. */
const AGE_JITTER = 0.1;
/** One timer looks at all streams, so often within the shorter of the two times, and at least every second. */
const LOOKS = 8;
const MAX_LOOK_MS = 1_000;
const RETRY_AFTER_MS = 1_000;

/** Codes that are said against the caller. Anything else is no answer: the stream goes on, and is asked about again. */
const REFUSALS: ReadonlySet<Code> = new Set([Code.Unauthenticated, Code.PermissionDenied]);

/** When a stream is asked about next, and when it is too old: `performance.now()`. */
interface Times {
  checkAt: number;
  oldAt: number;
}

export function createStreamWatch(limits: Pick<GatewayLimits, "streamRecheckMs" | "streamAgeMs">): StreamWatch {
  const { streamRecheckMs, streamAgeMs } = limits;
  const lookMs = Math.max(1, Math.min(MAX_LOOK_MS, Math.min(streamRecheckMs, streamAgeMs) / LOOKS));
  const open = new Map<WatchedStream, Times>();
  let timer: NodeJS.Timeout | undefined;

  const check = async (stream: WatchedStream) => {
    try {
      await stream.recheck();
    } catch (error) {
      if (error instanceof AppError && REFUSALS.has(error.code) && open.has(stream)) stream.end(error);
    }
  };
  const look = () => {
    const now = performance.now();
    for (const [stream, times] of open) {
      if (now >= times.oldAt) {
        times.oldAt = Number.POSITIVE_INFINITY;
        stream.end(tooOld());
      } else if (now >= times.checkAt) {
        times.checkAt = now + streamRecheckMs;
        void check(stream);
      }
    }
  };

  return {
    get size() {
      return open.size;
    },
    watch(stream) {
      const now = performance.now();
      const age = streamAgeMs * (1 - AGE_JITTER * Math.random());
      open.set(stream, { checkAt: now + streamRecheckMs, oldAt: now + age });
      timer ??= setInterval(look, lookMs).unref();
      stream.onClose(() => {
        open.delete(stream);
        if (open.size > 0) return;
        clearInterval(timer);
        timer = undefined;
      });
    },
    recheck(which) {
      for (const stream of open.keys()) if (which(stream.principal)) void check(stream);
    },
  };
}

/** UNAVAILABLE STREAM_DRAINING, whose meaning for clients is the same: connect again and go on after the last seq. */
function tooOld(): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "STREAM_DRAINING",
    message: "The stream has been open for as long as one may be. Connect again, after the last seq.",
    retryAfterMs: RETRY_AFTER_MS,
  });
}
