import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { BoundedLabel } from "./bounded-label.ts";

/** A value per label. */
export type Labels<L extends string> = { readonly [Name in L]: string };

/** A number that only grows. */
export interface CounterMetric<L extends string> {
  /** Adds `by` (default 1); anything but a finite number ≥ 0 is ignored. */
  inc(labels: Labels<L>, by?: number): void;
}

/** Counts of values per bucket; durations are in seconds. */
export interface HistogramMetric<L extends string> {
  /** Ignored unless finite. */
  observe(labels: Labels<L>, value: number): void;
}

/** A number that goes up and down. */
export interface GaugeMetric<L extends string> {
  set(labels: Labels<L>, value: number): void;
  inc(labels: Labels<L>, by?: number): void;
  dec(labels: Labels<L>, by?: number): void;
}

/** How many values each label may have before the rest become `"other"`. */
export interface LabelLimits {
  readonly tenants: number;
  readonly tools: number;
  readonly models: number;
}

export interface MetricsOptions {
  readonly limits?: Partial<LabelLimits>;
  /** Also report the process: CPU, memory, event loop, garbage collection. Default true; costs a GC observer. */
  readonly process?: boolean;
  /** Time between two rankings of label values, in ms; looked at when scraped. Default one minute. */
  readonly rerankMs?: number;
}

const DEFAULT_LIMITS: LabelLimits = { tenants: 100, tools: 200, models: 50 };

// For labels that code fills (method, code, status). No label is without a bound.
const ANY_LABEL_LIMIT = 500;

interface Series {
  readonly labelNames: readonly string[];
  forget(label: string, value: string): Promise<void>;
  collect?(): void;
}

/**
 * The metrics of one process, in a registry of their own. Asking twice for the same metric gives the same one, so that
 * services which share a process can each declare what they write. Every label is bounded ({@link BoundedLabel}); when
 * a value loses its place its series vanishes and its further uses count as `"other"`, which `rate()` takes as a
 * counter reset.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #bounds = new Map<string, BoundedLabel>();
  readonly #series = new Map<string, Series & { metric: object; kind: string }>();
  readonly #limits: LabelLimits;
  readonly #rerankMs: number;
  #rankedAt = performance.now();

  constructor(options: MetricsOptions = {}) {
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#rerankMs = options.rerankMs ?? 60_000;
    if (options.process ?? true) collectDefaultMetrics({ register: this.#registry });
  }

  /** The media type of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics in the Prometheus text format. */
  async text(): Promise<string> {
    if (performance.now() - this.#rankedAt >= this.#rerankMs) await this.#rerank();
    for (const series of this.#series.values()) series.collect?.();
    return await this.#registry.metrics();
  }

  counter<L extends string>(name: string, help: string, labelNames: readonly L[]): CounterMetric<L> {
    return this.#once("counter", name, labelNames, () => {
      const counter = new Counter<string>({ name, help, labelNames, registers: [this.#registry] });
      return {
        metric: {
          inc: (labels: Labels<L>, by = 1) => {
            if (Number.isFinite(by) && by >= 0) counter.inc(this.#bound(labelNames, labels), by);
          },
        },
        forget: forgetting(counter),
      };
    });
  }

  histogram<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    buckets: readonly number[],
  ): HistogramMetric<L> {
    return this.#once("histogram", name, labelNames, () => {
      const registers = [this.#registry];
      const histogram = new Histogram<string>({ name, help, labelNames, buckets: [...buckets], registers });
      return {
        metric: {
          observe: (labels: Labels<L>, value: number) => {
            if (Number.isFinite(value)) histogram.observe(this.#bound(labelNames, labels), value);
          },
        },
        forget: forgetting(histogram),
      };
    });
  }

  /**
   * A gauge keeps the true value of every combination of labels and adds those without a place of their own together
   * when scraped: with increments alone, a tenant that changed places would leave one series too high and the other
   * below zero.
   */
  gauge<L extends string>(name: string, help: string, labelNames: readonly L[]): GaugeMetric<L> {
    return this.#once("gauge", name, labelNames, () => {
      const gauge = new Gauge<string>({ name, help, labelNames, registers: [this.#registry] });
      const values = new Map<string, { labels: Labels<L>; value: number }>();
      const set = (labels: Labels<L>, change: (before: number) => number) => {
        const key = JSON.stringify(labelNames.map((label) => labels[label]));
        const value = change(values.get(key)?.value ?? 0);
        if (!Number.isFinite(value)) return;
        this.#bound(labelNames, labels);
        values.set(key, { labels, value });
      };
      return {
        metric: {
          set: (labels: Labels<L>, value: number) => set(labels, () => value),
          inc: (labels: Labels<L>, by = 1) => set(labels, (before) => before + by),
          dec: (labels: Labels<L>, by = 1) => set(labels, (before) => before - by),
        },
        forget: async () => {},
        collect: () => {
          gauge.reset();
          for (const [key, { labels, value }] of values) {
            const shown = this.#bound(labelNames, labels, "peek");
            gauge.inc(shown, value);
            const named = labelNames.every((label) => shown[label] === labels[label]);
            if (value === 0 && !named) values.delete(key);
          }
        },
      };
    });
  }

  #once<M extends object>(
    kind: string,
    name: string,
    labelNames: readonly string[],
    make: () => { metric: M; forget: Series["forget"]; collect?: () => void },
  ): M {
    const known = this.#series.get(name);
    if (known === undefined) {
      const series = { ...make(), labelNames, kind };
      this.#series.set(name, series);
      return series.metric;
    }
    if (known.kind !== kind || known.labelNames.join() !== labelNames.join()) {
      throw new Error(`metric ${name} is already a ${known.kind} with the labels ${known.labelNames.join(", ")}`);
    }
    return known.metric as M;
  }

  #bound<L extends string>(
    names: readonly L[],
    labels: Labels<L>,
    how: "use" | "peek" = "use",
  ): Record<string, string> {
    const bounded: Record<string, string> = {};
    for (const name of names) bounded[name] = this.#boundOf(name)[how](labels[name]);
    return bounded;
  }

  #boundOf(label: string): BoundedLabel {
    let bound = this.#bounds.get(label);
    if (bound === undefined) {
      bound = new BoundedLabel(this.#limitOf(label));
      this.#bounds.set(label, bound);
    }
    return bound;
  }

  #limitOf(label: string): number {
    if (label === "tenant_id") return this.#limits.tenants;
    if (label === "tool_name" || label === "api") return this.#limits.tools;
    return label === "model" ? this.#limits.models : ANY_LABEL_LIMIT;
  }

  async #rerank(): Promise<void> {
    this.#rankedAt = performance.now();
    for (const [label, bound] of this.#bounds) {
      for (const value of bound.rerank()) {
        for (const series of this.#series.values()) {
          if (series.labelNames.includes(label)) await series.forget(label, value);
        }
      }
    }
  }
}

function forgetting(metric: Counter<string> | Histogram<string>): Series["forget"] {
  return async (label, value) => {
    const { values } = await metric.get();
    for (const { labels } of values) {
      const { le: _bucket, ...own } = labels as Record<string, string>;
      if (own[label] === value) metric.remove(own);
    }
  };
}

/** Opens the metrics of this process. */
export function createMetrics(options: MetricsOptions = {}): Metrics {
  return new Metrics(options);
}
