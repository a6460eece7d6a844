import { createHash } from "node:crypto";
import { chown, lstat, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EmbeddedPostgresError } from "./binaries.ts";
import type { ServerUser } from "./server-user.ts";

/** Room in sockaddr_un: 104 bytes on macOS, 108 on Linux, with the closing zero. */
const maxPathBytes = 103;
const socketName = ".s.PGSQL.5432.lock";

/**
 * A directory of mode 0700 for the server's socket: beside the data when its path is short enough, else one in the
 * temporary directory that is always the same for the same data, so that a killed mesh leaves no new one each time.
 */
export async function socketDirectory(home: string, { uid, gid }: ServerUser): Promise<string> {
  const hash = createHash("sha256").update(home).digest("hex").slice(0, 16);
  const choices = [join(home, "socket"), join(tmpdir(), `agentmesh-${hash}`), join("/tmp", `agentmesh-${hash}`)];
  const dir = choices.find((path) => Buffer.byteLength(join(path, socketName)) <= maxPathBytes) ?? choices[2] ?? "";
  const made = await mkdir(dir, { mode: 0o700 }).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
      return false;
    },
  );
  if (made && uid !== undefined && gid !== undefined) await chown(dir, uid, gid);
  const found = await lstat(dir);
  const expected = uid ?? process.getuid?.();
  // In a directory that everybody may write to, somebody else could have made it.
  if (!found.isDirectory() || found.uid !== expected || (found.mode & 0o077) !== 0) {
    throw new EmbeddedPostgresError(
      `${dir} is not a private directory of user id ${expected}. Remove it and start again.`,
    );
  }
  return dir;
}
