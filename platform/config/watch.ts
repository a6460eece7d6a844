import type { FSWatcher } from "node:fs";
import { watch } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { Log } from "../telemetry/log.ts";
import type { Layers } from "./layers.ts";
import { readLayers } from "./layers.ts";
import type { LoadOptions, ReadConfig } from "./load.ts";
import { readFrom } from "./load.ts";

export interface WatchOptions extends LoadOptions {
  /** Told about reloads and, with all problems, about refused ones. */
  readonly log: Log;
  /** Quiet time after a change before files are read, in ms: editors write in steps. Default 100. */
  readonly settleMs?: number;
  /**
   * Whether SIGHUP reloads. Default: only without a terminal, because there the signal says that the terminal is gone,
   * and a process that took it for a reload would outlive its window.
   */
  readonly hangup?: boolean;
}

/** A configuration that follows its files. */
export interface WatchedConfig<T> extends Disposable {
  /** The values in force. */
  readonly current: T;
  /** Tells `listener` after every change; returns how to stop that. What it throws is logged. */
  subscribe(listener: (now: T, before: T) => void): () => void;
  /** Reads again at once; false when the new configuration is invalid, and then the old one stays in force. */
  reload(): boolean;
  /** Stops following. Disposing does the same. */
  close(): void;
}

/**
 * Loads the configuration (throwing as `loadConfig` does) and reads it again when a file of it changes or the process
 * gets SIGHUP (see `hangup`). Folders are watched rather than files, because editors and Kubernetes replace files instead of writing
 * to them; a change that leaves the values alone tells nobody.
 */
export function watchConfig<T>(read: ReadConfig<T>, options: WatchOptions): WatchedConfig<T> {
  const { log, settleMs = 100, hangup = !(process.stdin.isTTY || process.stdout.isTTY) } = options;
  let layers = readLayers(options);
  let current = readFrom(layers, read, options.declare);
  const listeners = new Set<(now: T, before: T) => void>();

  const tell = (before: T) => {
    for (const listener of listeners) {
      try {
        listener(current, before);
      } catch (error) {
        log.error({ event: "config.subscriber.failed", err: error }, "a subscriber refused the new configuration");
      }
    }
  };
  const reload = (): boolean => {
    const next = readLayers(options);
    if (sameValues(next, layers)) return true;
    const before = current;
    try {
      current = readFrom(next, read, options.declare);
    } catch (error) {
      log.error({ event: "config.reload.refused", err: error }, "the new configuration is refused, the old one stays");
      return false;
    }
    layers = next;
    log.info({ event: "config.reloaded" }, "the configuration changed");
    tell(before);
    return true;
  };

  let timer: NodeJS.Timeout | undefined;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(reload, settleMs).unref();
  };
  const watchers = layers.directories
    .map((directory) => follow(directory, soon, log))
    .filter((each) => each !== undefined);
  if (hangup) process.on("SIGHUP", reload);

  const close = () => {
    clearTimeout(timer);
    process.off("SIGHUP", reload);
    for (const watcher of watchers) watcher.close();
    listeners.clear();
  };
  return {
    get current() {
      return current;
    },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    reload,
    close,
    [Symbol.dispose]: close,
  };
}

function follow(directory: string, changed: () => void, log: Log): FSWatcher | undefined {
  const lost = (error: unknown) =>
    log.warn({ event: "config.watch.failed", file: directory, err: error }, "changes here need a SIGHUP");
  try {
    return watch(directory, { persistent: false }, changed).on("error", lost);
  } catch (error) {
    lost(error);
    return undefined;
  }
}

// Origins count for nothing: a value that moved to another line has not changed.
function sameValues(a: Layers, b: Layers): boolean {
  const values = ({ files, problems }: Layers) => [
    files.map((file) => [...file].map(([key, { value }]) => [key, value])),
    problems,
  ];
  return isDeepStrictEqual(values(a), values(b));
}
