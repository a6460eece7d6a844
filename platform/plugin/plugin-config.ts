import type { ConfigSource } from "../config/source.ts";

export interface PluginConfig {
  /** Modules to load, in order. */
  readonly modules: readonly string[];
}

/** Reads the section `plugins`, which every service that uses plugins reads alike. */
export function readPluginConfig(source: ConfigSource): PluginConfig {
  return {
    modules: source.section("plugins").list("modules", {
      default: [],
      doc: "Plugins: paths or package names of modules that export one as `plugin`. They run with the mesh's own rights.",
    }),
  };
}
