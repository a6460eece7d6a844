import { chmod, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { canKeepReadSearch } from "#platform/process/tied-child.ts";
import { EmbeddedPostgresError } from "./binaries.ts";

/** Whom the server runs as, in the form of TiedOptions; empty for our own user. */
export interface ServerUser {
  uid?: number;
  gid?: number;
  keepReadSearch?: boolean;
}

const nobody = 65534;

/**
 * PostgreSQL refuses to run as root, so root's server runs as the owner of its data, at first as nobody. Such a user may
 * not enter root's home; then the server keeps the capability to (and no more than that: it cannot write there).
 *
 * @param data the data directory, which need not exist
 * @param ours a directory above it that is ours to open for passing through, where the capability is not to be had
 * @param paths further directories that the server must reach
 */
export async function serverUser(data: string, ours: string, paths: readonly string[]): Promise<ServerUser> {
  const owner = await stat(data).catch(() => undefined);
  const self = process.getuid?.();
  if (self === undefined) return {};
  if (self !== 0) {
    if (owner !== undefined && owner.uid !== self) {
      throw new EmbeddedPostgresError(
        `The database in ${data} belongs to user id ${owner.uid}, and this process runs as ${self}. ` +
          `Start as that user (or root), or set AGENTMESH_DATA_DIR to another directory.`,
      );
    }
    return {};
  }
  const uid = owner === undefined || owner.uid === 0 ? nobody : owner.uid;
  const gid = owner === undefined || owner.uid === 0 ? nobody : owner.gid;
  const user = { uid, gid };
  if ((await barrier(user, [dirname(data), ...paths])) === undefined) return user;
  if (canKeepReadSearch()) return { ...user, keepReadSearch: true };
  const { mode } = await stat(ours);
  if ((mode & 0o001) === 0) await chmod(ours, (mode & 0o777) | 0o011);
  const closed = await barrier(user, [dirname(data), ...paths]);
  if (closed === undefined) return user;
  throw new EmbeddedPostgresError(
    `PostgreSQL refuses to run as root, and the user id ${uid} that it runs as instead may not enter ${closed}. ` +
      `Start as a user who is not root, or move the project and AGENTMESH_DATA_DIR to where others may pass through.`,
  );
}

/** The first directory on the way to one of the paths, itself included, that this user may not enter. */
async function barrier(user: { uid: number; gid: number }, paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    for (const dir of [...ancestors(path)].reverse()) {
      const { uid, gid, mode } = await stat(dir);
      const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
      if ((mode & bit) === 0) return dir;
    }
  }
  return undefined;
}

function* ancestors(path: string): Generator<string> {
  for (let dir = path; ; dir = dirname(dir)) {
    yield dir;
    if (dir === dirname(dir)) return;
  }
}
