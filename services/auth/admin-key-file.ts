import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Secret } from "#platform/telemetry/secret.ts";

/** Where a generated administrator's key is kept, below the data directory. */
const ADMIN_KEY_FILE = "admin-key";

/** What the file holds, or undefined when there is none. */
export async function readAdminKey(dataDir: string): Promise<Secret<string> | undefined> {
  try {
    return new Secret((await readFile(join(dataDir, ADMIN_KEY_FILE), "utf8")).trim());
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Replaces the file, mode 0600. A crash leaves the old file or the new one, never a part. */
export async function writeAdminKey(dataDir: string, key: Secret<string>): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, ADMIN_KEY_FILE);
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(`${key.reveal()}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/** Removes the file of a key that no longer works. */
export async function removeAdminKey(dataDir: string): Promise<void> {
  await rm(join(dataDir, ADMIN_KEY_FILE), { force: true });
}
