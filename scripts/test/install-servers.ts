import { spawnSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";

const policyFile = "/usr/sbin/policy-rc.d";

/** Whether this process may install Debian packages. */
export function mayInstall(): boolean {
  return process.platform === "linux" && process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
}

/** Installs Debian packages without starting their services; false when apt-get failed (it has said why). */
export function installPackages(packages: readonly string[]): boolean {
  // The one place that both init.d and systemd packages ask before they start a service: exit 101 forbids it.
  // https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
  const ownPolicy = !existsSync(policyFile);
  if (ownPolicy) writeFileSync(policyFile, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    const install = ["install", "--yes", "--quiet", "--no-install-recommends", ...packages];
    return aptGet(["update", "--quiet"]) && aptGet(install);
  } finally {
    if (ownPolicy) rmSync(policyFile, { force: true });
  }
}

function aptGet(args: readonly string[]): boolean {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  return spawnSync("apt-get", args, { stdio: "inherit", env, timeout: 300_000 }).status === 0;
}
