import { monitorEventLoopDelay } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";

/** How busy a process is. */
export interface Load {
  /** 99th percentile of what timers were late since the last sample, in milliseconds. */
  readonly eventLoopDelayMs: number;
  /** Share of the heap that may be used, 0 to 1. */
  readonly heap: number;
  /** Work in hand, as a share of what this process takes on, 0 to 1. */
  readonly queue: number;
}

/** From here on a process is busy (limits × 0.7), or overloaded (× 0.5). */
export const LOAD_THRESHOLDS = {
  busy: { eventLoopDelayMs: 200, heap: 0.7, queue: 0.7 },
  overloaded: { eventLoopDelayMs: 500, heap: 0.9, queue: 0.9 },
} as const satisfies Record<string, Load>;

/** What limits are multiplied with, by grade. */
export const LOAD_FACTORS = [1, 0.7, 0.5] as const;
export type LoadFactor = (typeof LOAD_FACTORS)[number];

type Grade = 0 | 1 | 2;

/** A grade is left again when the load is below this part of its threshold … */
const LEAVE_AT = 0.8;
/** … in so many samples in a row. */
const CALM_SAMPLES = 5;
/** So many samples in a row make a grade: one long garbage collection is no load. */
const BUSY_SAMPLES = 2;

/**
 * By how much limits are lowered under load: 1, 0.7 or 0.5. It has hysteresis, so that limits do not flutter: a grade is
 * entered after two samples and left, one step at a time, after five calm ones.
 */
export class LoadFactorMeter {
  #grade: Grade = 0;
  #busy = 0;
  #calm = 0;

  get factor(): LoadFactor {
    return LOAD_FACTORS[this.#grade];
  }

  add(load: Load): void {
    const entered = gradeOf(load, 1);
    const left = gradeOf(load, LEAVE_AT);
    this.#busy = entered > this.#grade ? this.#busy + 1 : 0;
    this.#calm = left < this.#grade ? this.#calm + 1 : 0;
    if (this.#busy >= BUSY_SAMPLES) {
      this.#grade = entered;
      this.#busy = 0;
    } else if (this.#calm >= CALM_SAMPLES) {
      this.#grade = (this.#grade - 1) as Grade;
      this.#calm = 0;
    }
  }
}

/** The worst of the three counts. */
function gradeOf(load: Load, scale: number): Grade {
  const reaches = (threshold: Load) =>
    load.eventLoopDelayMs >= threshold.eventLoopDelayMs * scale ||
    load.heap >= threshold.heap * scale ||
    load.queue >= threshold.queue * scale;
  if (reaches(LOAD_THRESHOLDS.overloaded)) return 2;
  return reaches(LOAD_THRESHOLDS.busy) ? 1 : 0;
}

export interface LoadWatchOptions {
  /** Work in hand, as a share of what this process takes on. */
  queue(): number;
  /** Instead of looking at this process. */
  sample?: (() => Load) | undefined;
  /** Time between samples, in milliseconds; default 1 000. */
  intervalMs?: number | undefined;
  onChange?: ((factor: LoadFactor, load: Load) => void) | undefined;
}

export interface LoadWatch extends Disposable {
  readonly factor: LoadFactor;
}

/** Measures this process from now on until it is disposed of. It keeps no process alive. */
export function watchLoad(options: LoadWatchOptions): LoadWatch {
  const delay = options.sample === undefined ? monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS }) : undefined;
  delay?.enable();
  const meter = new LoadFactorMeter();
  const sample = options.sample ?? (() => loadOf(delay?.percentile(99) ?? 0, options.queue()));
  const timer = setInterval(() => {
    const before = meter.factor;
    const load = sample();
    delay?.reset();
    meter.add(load);
    if (meter.factor !== before) options.onChange?.(meter.factor, load);
  }, options.intervalMs ?? 1000).unref();
  return {
    get factor() {
      return meter.factor;
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      delay?.disable();
    },
  };
}

const DELAY_RESOLUTION_MS = 20;

/** The histogram holds whole waits, of which the resolution is none of the delay. */
function loadOf(delayNanos: number, queue: number): Load {
  const { used_heap_size, heap_size_limit } = getHeapStatistics();
  const eventLoopDelayMs = Number.isFinite(delayNanos) ? Math.max(0, delayNanos / 1e6 - DELAY_RESOLUTION_MS) : 0;
  return { eventLoopDelayMs, heap: used_heap_size / heap_size_limit, queue };
}
