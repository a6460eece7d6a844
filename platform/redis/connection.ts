import { Redis } from "ioredis";

/**
 * A connection for commands that callers wait for: each has `commandTimeoutMs`, none is queued while the server is away,
 * and the connection is made again for as long as nobody disconnects it. Throws a TypeError, which quotes nothing, for a
 * URL that is none.
 */
export function connectRedis(url: string, commandTimeoutMs: number): Redis {
  const parsed = URL.parse(url);
  if (parsed === null || (parsed.protocol !== "redis:" && parsed.protocol !== "rediss:")) {
    throw new TypeError("not a redis:// or rediss:// URL");
  }
  return new Redis(url, {
    commandTimeout: commandTimeoutMs,
    connectTimeout: 2_000,
    // How long a socket may take to close; the client waits for it even when the socket is closed already.
    disconnectTimeout: 200,
    // A connection on which no answer comes for so long is dead, even if nobody has closed it.
    socketTimeout: Math.max(1_000, 2 * commandTimeoutMs),
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (attempt) => Math.min(2_000, 50 * 2 ** Math.min(attempt, 6)) * (0.5 + Math.random() / 2),
    reconnectOnError: (error) => error.message.startsWith("READONLY"),
  });
}

/** Why a command failed. Only the kind of error is looked at: the error itself holds the command. */
export function codeOf(error: unknown): "timeout" | "refused" | "away" {
  if (!(error instanceof Error)) return "away";
  if (error.message === "Command timed out") return "timeout";
  return error.name === "ReplyError" ? "refused" : "away";
}
