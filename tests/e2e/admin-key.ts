import { spawnSync } from "node:child_process";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** A key of the right form, made as an operator makes one: `npm run -s admin-key`. */
export function newAdminKey(): string {
  const { stdout, status, stderr } = spawnSync(process.execPath, [join(ROOT, "mesh/admin-key.ts")], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`no admin key: ${stderr}`);
  return stdout.trim();
}
