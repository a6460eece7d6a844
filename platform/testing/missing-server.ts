import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The servers that tests start for themselves, with the Debian package that brings each. */
const debianPackages = {
  "redis-server": "redis-server",
  "nats-server": "nats-server",
  postgres: "postgresql",
} as const;

export type TestServer = keyof typeof debianPackages;

/** A test needs a server whose program is not installed here. {@link aptLine} is what installs it on Debian. */
export class MissingServer extends Error {
  override readonly name = "MissingServer";
  readonly server: TestServer;
  readonly aptLine: string;

  constructor(server: TestServer) {
    const aptLine = `apt-get install --no-install-recommends ${debianPackages[server]}`;
    super(`${server} is not installed; on Debian: ${aptLine}`);
    this.server = server;
    this.aptLine = aptLine;
  }
}

/** Debian puts nats-server into /usr/sbin, which is not in the PATH of users. */
const systemFolders = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/** The program file of a server: the first one in PATH or a system folder. Throws {@link MissingServer}. */
export function serverProgram(server: TestServer, path = process.env["PATH"] ?? ""): string {
  const folders = [...path.split(delimiter).filter((folder) => folder !== ""), ...systemFolders];
  const found = folders.map((folder) => join(folder, server)).find(isProgram);
  if (found === undefined) throw new MissingServer(server);
  return found;
}

/**
 * For the `skip` option of a describe or test that needs a server: the reason to skip, or false. `urlVariable` names the
 * environment variable by which the test runner hands in one that it started.
 */
export function skipWithout(server: TestServer, urlVariable?: string): string | false {
  if (urlVariable !== undefined && process.env[urlVariable]) return false;
  try {
    serverProgram(server);
    return false;
  } catch (error) {
    if (error instanceof MissingServer) return error.message;
    throw error;
  }
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
