import type { ConfigSource } from "#platform/config/source.ts";
import { PORT_LIMITS, type PortLimits } from "#platform/rpc/port.ts";

/** Reads the limits of the gateway's port, the section `gateway.port`. */
export function readPortLimits(port: ConfigSource): PortLimits {
  return { ...readConnections(port), ...readTimes(port), ...readBudgets(port) };
}

function readConnections(port: ConfigSource) {
  const count = (key: string, limit: keyof PortLimits, doc: string, max = 1_000_000) =>
    port.int(key, { default: PORT_LIMITS[limit], min: 1, max, doc });
  return {
    maxConnections: count("connections", "maxConnections", "Connections that may be open at once."),
    maxConnectionsPerAddress: count(
      "connections_per_address",
      "maxConnectionsPerAddress",
      "Connections of one address; a proxy is one address for all of its clients.",
    ),
    maxConcurrentStreams: count("streams", "maxConcurrentStreams", "Open streams of one HTTP/2 connection.", 10_000),
    maxSessionMemoryMb: count(
      "session_memory_mb",
      "maxSessionMemoryMb",
      "Memory that one HTTP/2 connection may take, in MB.",
      1_000,
    ),
    maxHeaderBytes: port.int("header_bytes", {
      default: PORT_LIMITS.maxHeaderBytes,
      min: 4096,
      max: 1024 * 1024,
      doc: "Headers of one request in bytes, beyond which nothing of it is read; above gateway.header_bytes.",
    }),
    maxHeaderPairs: port.int("header_pairs", {
      default: PORT_LIMITS.maxHeaderPairs,
      min: 16,
      max: 2000,
      doc: "Headers of one request, beyond which nothing of it is read; above gateway.headers.",
    }),
  };
}

function readTimes(port: ConfigSource) {
  const time = (key: string, limit: keyof PortLimits, max: string, doc: string, min = "100ms") =>
    port.duration(key, { default: PORT_LIMITS[limit], min, max, doc });
  return {
    sniffTimeoutMs: time(
      "first_byte_timeout",
      "sniffTimeoutMs",
      "5m",
      "Silence after which a new connection is closed.",
    ),
    headersTimeoutMs: time("headers_timeout", "headersTimeoutMs", "5m", "Time for all headers of an HTTP/1.1 request."),
    requestTimeoutMs: time("request_timeout", "requestTimeoutMs", "1h", "Time for a whole HTTP/1.1 request."),
    keepAliveTimeoutMs: time("keep_alive", "keepAliveTimeoutMs", "1h", "How long an idle HTTP/1.1 connection is kept."),
    sessionIdleMs: time(
      "session_idle",
      "sessionIdleMs",
      "24h",
      "How long an HTTP/2 connection without a stream is kept.",
    ),
    maxSessionAgeMs: time(
      "session_age",
      "maxSessionAgeMs",
      "168h",
      "Age after which an HTTP/2 connection takes no new streams (GOAWAY), give or take a tenth.",
    ),
    sessionGraceMs: time(
      "session_grace",
      "sessionGraceMs",
      "168h",
      "How long its streams may go on after that; longer than gateway.stream_age, or streams are cut without a word.",
    ),
    pingIntervalMs: time("ping_interval", "pingIntervalMs", "1h", "Time between the server's own HTTP/2 pings.", "1s"),
    pingTimeoutMs: time("ping_timeout", "pingTimeoutMs", "10m", "Time for the answer to such a ping."),
  };
}

/** What a peer may send at once, and then per second, before its connection is closed. */
function readBudgets(port: ConfigSource) {
  const budget = (key: string, limit: keyof PortLimits, of: string) =>
    port.int(key, {
      default: PORT_LIMITS[limit],
      min: 1,
      max: 1_000_000,
      doc: `${of}; beyond it the connection is closed.`,
    });
  return {
    streamResetBurst: budget("reset_burst", "streamResetBurst", "Streams that a peer may have reset at once"),
    streamResetRate: budget("reset_rate", "streamResetRate", "The same per second in the long run"),
    pingBurst: budget("ping_burst", "pingBurst", "Pings that a peer may send at once"),
    pingRate: budget("ping_rate", "pingRate", "The same per second in the long run"),
    settingsBurst: budget("settings_burst", "settingsBurst", "SETTINGS frames that a peer may send at once"),
    settingsRate: budget("settings_rate", "settingsRate", "The same per second in the long run"),
    offenceBurst: port.int("offence_burst", {
      default: PORT_LIMITS.offenceBurst,
      min: 1,
      max: 1_000_000,
      doc: "Connections of one address that may be cut for abuse; then its next ones are refused for a while.",
    }),
    offencesForgivenPerMinute: port.int("offences_forgiven_per_minute", {
      default: PORT_LIMITS.offencesForgivenPerMinute,
      min: 1,
      max: 1_000_000,
      doc: "How many of these are forgiven per minute.",
    }),
  };
}
