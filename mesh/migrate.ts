import { fileURLToPath } from "node:url";
import { loadConfig } from "#platform/config/load.ts";
import { migrate, migrationStatus } from "#platform/postgres/migrate.ts";
import { readMeshConfig } from "./config.ts";
import { MODULES } from "./modules.ts";

/** `npm run migrate` brings the database up; `npm run migrate status` shows what is applied and what is pending. */
async function main(command: string): Promise<number> {
  if (command !== "up" && command !== "status") {
    console.error("usage: npm run migrate [up|status]");
    return 2;
  }
  const { postgres } = loadConfig((source) => readMeshConfig(source, MODULES));
  const owner = postgres.ownerUrl ?? postgres.url;
  if (owner === undefined) {
    console.error("set DATABASE_OWNER_URL or DATABASE_URL; a private server is migrated by npm start itself");
    return 2;
  }
  const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
    schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
  );
  const connection = { url: owner.reveal() };
  if (command === "up") {
    const app = postgres.url === undefined ? undefined : { url: postgres.url.reveal() };
    const applied = await migrate({
      owner: connection,
      app,
      services,
      onApplied: ({ schema, name, ms }) => console.log(`applied ${schema}/${name} in ${ms} ms`),
    });
    console.log(applied.length === 0 ? "nothing to do" : `${applied.length} applied`);
    return 0;
  }
  const status = await migrationStatus({ owner: connection, services });
  for (const { state, schema, name } of status) console.log(`${state.padEnd(8)} ${schema}/${name}`);
  return status.every(({ state }) => state === "applied") ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv[2] ?? "up");
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
