import { trace } from "@opentelemetry/api";
import pino from "pino";
import { GatheredLines } from "./gathered-lines.ts";
import type { LogFields } from "./log-fields.ts";
import { LOGGABLE } from "./log-fields.ts";
import { maskJson, maskText } from "./mask.ts";
import { prettyLine } from "./pretty.ts";

/** Severities from least to most; `silent` writes nothing. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

/** Where lines go, one or more whole ones per call. Has to be synchronous, and `process.stdout` fits. */
export interface LogDestination {
  write(lines: string): unknown;
}

/** Writes one line: a message, or fields (or an error, short for `{ err }`) and a message. Never throws. */
export interface WriteLog {
  (message: string): void;
  (fields: LogFields | Error, message?: string): void;
}

/**
 * A structured log, one JSON object per line. Only the fields of {@link LOGGABLE} are written (the names of others are
 * listed in `omitted`), everything written is masked, and the active trace adds `trace_id` and `span_id`.
 */
export interface Log {
  readonly trace: WriteLog;
  readonly debug: WriteLog;
  readonly info: WriteLog;
  readonly warn: WriteLog;
  readonly error: WriteLog;
  readonly fatal: WriteLog;
  /** A log that adds these fields to every line, as `{ tenant_id, session_id, run_id, request_id }`. */
  child(fields: LogFields): Log;
  /** The level in force; lines below it cost one comparison. */
  level(): LogLevel;
  /** Changes the level of this log, its parent and all children: configuration may change while running. */
  setLevel(level: LogLevel): void;
}

export interface LogOptions {
  readonly level: LogLevel;
  /** Written in every line as `service`. */
  readonly service: string;
  /**
   * Default: standard output. Lines of the same moment are one write; one from `warn` up is written at once, with those
   * before it, and at the exit of the process nothing waits.
   */
  readonly destination?: LogDestination;
  /** Lines for people instead of JSON. Default false. */
  readonly pretty?: boolean;
}

const loggable: ReadonlySet<string> = new Set(LOGGABLE);

/** Opens a log. */
export function createLog(options: LogOptions): Log {
  const gathered = options.destination === undefined ? standardOutput() : undefined;
  const output = gathered ?? (options.destination as LogDestination);
  const destination = options.pretty ? { write: (line: string) => output.write(prettyLine(line)) } : output;
  const writer = pino(
    {
      level: "trace",
      base: { service: maskText(options.service) },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (value) => value },
    },
    destination as pino.DestinationStream,
  );
  return logOver({ writer, level: options.level, flush: () => gathered?.flush() }, {});
}

function standardOutput(): GatheredLines {
  const lines = new GatheredLines(pino.destination({ dest: 1, sync: true }), { forMs: 20, upTo: 16 * 1024 });
  process.once("exit", () => lines.flush());
  return lines;
}

/** Shared by a log and its children, so that a change of level reaches all of them. */
interface Root {
  readonly writer: pino.Logger;
  level: LogLevel;
  flush(): void;
}

const AT_ONCE = LOG_LEVELS.indexOf("warn");

function logOver(root: Root, bound: Readonly<Record<string, unknown>>): Log {
  const at = (level: Exclude<LogLevel, "silent">): WriteLog => {
    const rank = LOG_LEVELS.indexOf(level);
    return (first: string | LogFields | Error, message?: string) => {
      if (rank < LOG_LEVELS.indexOf(root.level)) return;
      write(root.writer, level, bound, first, message);
      if (rank >= AT_ONCE) root.flush();
    };
  };
  return {
    trace: at("trace"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    fatal: at("fatal"),
    child: (fields) => logOver(root, { ...bound, ...loggableFields(fields) }),
    level: () => root.level,
    setLevel: (level) => {
      root.level = level;
    },
  };
}

function write(
  writer: pino.Logger,
  level: Exclude<LogLevel, "silent">,
  bound: Readonly<Record<string, unknown>>,
  first: string | LogFields | Error,
  message: string | undefined,
): void {
  try {
    const text = typeof first === "string" ? first : (message ?? (first instanceof Error ? first.message : ""));
    const fields = typeof first === "string" ? {} : loggableFields(first instanceof Error ? { err: first } : first);
    writer[level]({ ...bound, ...fields, ...activeTrace() }, maskText(String(text)));
  } catch {
    // A log that fails the request it reports on is worse than a lost line.
    try {
      writer.error("a log line could not be written");
    } catch {}
  }
}

function loggableFields(fields: LogFields): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  const omitted: string[] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (loggable.has(name)) kept[name] = maskJson(value);
    else omitted.push(maskText(name, 64));
  }
  if (omitted.length > 0) kept["omitted"] = omitted.slice(0, 20);
  return kept;
}

function activeTrace(): { trace_id: string; span_id: string } | undefined {
  const span = trace.getActiveSpan()?.spanContext();
  return span && trace.isSpanContextValid(span) ? { trace_id: span.traceId, span_id: span.spanId } : undefined;
}
