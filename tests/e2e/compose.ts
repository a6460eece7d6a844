import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";

/** What docker-compose.yml says of one process of the mesh. */
export interface ComposeService {
  name: string;
  replicas: number;
  environment: Record<string, string>;
}

interface ComposeFile {
  services: Record<string, { environment?: Record<string, string>; deploy?: { replicas?: number } }>;
}

/** The mesh's processes as docker-compose.yml describes them: those that have a MESH_TARGET. */
export function composeServices(): ComposeService[] {
  const text = readFileSync(join(import.meta.dirname, "../../docker-compose.yml"), "utf8");
  const { services } = parse(text, { merge: true }) as ComposeFile;
  return Object.entries(services)
    .filter(([, { environment }]) => environment?.["MESH_TARGET"] !== undefined)
    .map(([name, { environment = {}, deploy }]) => ({ name, replicas: deploy?.replicas ?? 1, environment }));
}

/** Fills in `${NAME}`, `${NAME:-default}` and `${NAME:?why}` as Compose does. */
export function interpolate(value: string, variables: Readonly<Record<string, string>>): string {
  return value.replace(/\$\{(\w+)(?::([-?])([^}]*))?\}/g, (_, name: string, operator: string, rest: string) => {
    const given = variables[name];
    if (given !== undefined && given !== "") return given;
    if (operator === "?") throw new Error(`docker-compose.yml needs ${name}: ${rest}`);
    return rest ?? "";
  });
}
