import type { LayerOptions, Layers } from "./layers.ts";
import { readLayers } from "./layers.ts";
import type { ConfigKey } from "./reading.ts";
import { Reading } from "./reading.ts";
import { ConfigSource } from "./source.ts";

/** Turns a source into a configuration. Called again on every reload, and once more to list the keys. */
export type ReadConfig<T> = (source: ConfigSource) => T;

export interface LoadOptions extends LayerOptions {
  /**
   * Reads what this process does not use but its files may hold (the services of other processes): their keys are
   * known then, and neither looked up nor required.
   */
  readonly declare?: ReadConfig<unknown>;
}

/**
 * Reads and validates the whole configuration. Throws one ConfigError with everything that is wrong, before anything
 * is opened.
 */
export function loadConfig<T>(read: ReadConfig<T>, options: LoadOptions = {}): T {
  return readFrom(readLayers(options), read, options.declare);
}

/** {@link loadConfig} over layers that were read before. */
export function readFrom<T>(layers: Layers, read: ReadConfig<T>, declare?: ReadConfig<unknown>): T {
  const reading = new Reading(layers);
  const source = new ConfigSource(reading);
  let config: T;
  try {
    config = read(source);
  } catch (error) {
    // It may have stumbled over the empty value of a key that is wrong; then that is what the operator has to know.
    declareKeys(reading, declare);
    reading.finish(error);
    throw error;
  }
  declareKeys(reading, declare);
  reading.finish();
  return config;
}

/** Every key that `read` asks for, by name. */
export function describeConfig(read: ReadConfig<unknown>): ConfigKey[] {
  const reading = new Reading({ files: [], env: new Map(), problems: [], directories: [] });
  declareKeys(reading, read);
  return [...reading.keys.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** The keys as a Markdown table: the configuration's reference. */
export function configTable(keys: readonly ConfigKey[]): string {
  const rows = keys.map(({ key, type, default: standard, required, secret, env, doc }) => [
    `\`${key}\``,
    secret ? `${type} (secret)` : type,
    standard === undefined ? (required ? "required" : "") : `\`${standard}\``,
    env.map((name) => `\`${name}\``).join(" "),
    doc,
  ]);
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`;
  return (
    line(["Key", "Type", "Default", "Environment", "Meaning"]) + line(Array(5).fill("---")) + rows.map(line).join("")
  );
}

function declareKeys(reading: Reading, read: ReadConfig<unknown> | undefined): void {
  reading.declaring = true;
  try {
    read?.(new ConfigSource(reading));
  } finally {
    reading.declaring = false;
  }
}
