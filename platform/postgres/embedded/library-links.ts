import { access, mkdir, readFile, symlink } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import type { Binaries } from "./binaries.ts";

interface Link {
  /** Existing file, relative to the package. */
  source: string;
  /** Name that the programs look for. */
  target: string;
}

/**
 * npm packages hold no symbolic links, so the package makes those of its libraries in an install script. Where that did
 * not run (`--ignore-scripts`) they are made here: in the package, or when that cannot be written, in `fallbackDir`.
 * Returns the environment that the programs need.
 */
export async function ensureLibraryLinks({ native }: Binaries, fallbackDir: string): Promise<NodeJS.ProcessEnv> {
  const root = dirname(native);
  const listed = await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]");
  const missing: Link[] = [];
  for (const link of JSON.parse(listed) as Link[]) if (!(await exists(join(root, link.target)))) missing.push(link);
  if (missing.length === 0) return {};
  try {
    for (const { source, target } of missing) {
      await makeLink(relative(dirname(target), source), join(root, target));
    }
    return {};
  } catch (error) {
    if (!notWritable.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
  }
  await mkdir(fallbackDir, { recursive: true, mode: 0o755 });
  for (const { source, target } of missing) await makeLink(join(root, source), join(fallbackDir, basename(target)));
  const variable = process.platform === "darwin" ? "DYLD_LIBRARY_PATH" : "LD_LIBRARY_PATH";
  // The libraries look for each other beside the name they were found by, so the package's folder is named too.
  return { [variable]: `${fallbackDir}:${join(native, "lib")}` };
}

const notWritable = new Set(["EACCES", "EPERM", "EROFS"]);

async function makeLink(to: string, path: string): Promise<void> {
  await symlink(to, path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
