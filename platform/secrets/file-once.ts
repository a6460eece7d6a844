import { randomBytes } from "node:crypto";
import { link, open, readFile, unlink } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * The text of a file, which is made with mode 0600 and the text of `make` when it is missing. Processes that do so at the
 * same time all get the same text. It is on disk, its name too, when this resolves. The directory must exist.
 */
export async function fileOnce(path: string, make: () => string): Promise<string> {
  const known = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  if (known !== undefined) return known;
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  const file = await open(draft, "wx", 0o600);
  try {
    await file.writeFile(make());
    await file.sync();
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  } finally {
    await file.close();
    await unlink(draft);
  }
  await syncDirectory(dirname(path));
  return readFile(path, "utf8");
}

/** Brings the names in a directory to disk: what was made, linked or renamed in it survives a power loss. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
