import { configTable, describeConfig } from "#platform/config/load.ts";
import type { ModuleTable } from "#platform/module/graph.ts";
import { readMeshConfig } from "./config.ts";

const HEAD = `# Configuration

Every key, from what the code reads (\`npm run configuration\` writes this page; a test compares it).

A value comes from the highest layer that has it: environment variables, the YAML file that \`AGENTMESH_CONFIG\` names,
\`config/<AGENTMESH_ENV>.yaml\` (\`development\` when unset), \`config/default.yaml\`, the default below. Every key can be
set as \`AGENTMESH_<SECTION>__<KEY>\`; some have a customary name besides. Times are written like \`500ms\`, \`10s\`, \`5m\`.
Everything is validated before anything is opened; all that is wrong is reported together, and an unknown key is an error.

`;

/** The page docs/configuration.md. */
export function configurationReference(table: ModuleTable): string {
  return HEAD + configTable(describeConfig((source) => readMeshConfig(source, table)));
}
