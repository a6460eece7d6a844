import { randomBytes } from "node:crypto";
import { fileOnce } from "#platform/secrets/file-once.ts";

/** The passwords of the embedded server's two login roles. */
export interface Credentials {
  superuser: string;
  app: string;
}

/** Reads them from a file of mode 0600, which the first start makes. */
export async function loadCredentials(path: string): Promise<Credentials> {
  const make = (): Credentials => ({
    superuser: randomBytes(24).toString("hex"),
    app: randomBytes(24).toString("hex"),
  });
  return JSON.parse(await fileOnce(path, () => `${JSON.stringify(make())}\n`)) as Credentials;
}
