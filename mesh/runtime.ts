/** Says what to do when the process runs under an older Node: type stripping and the APIs that we use begin with 24. */
export function requireNode24(version: string = process.versions.node): void {
  const major = Number(version.split(".", 1)[0]);
  if (major >= 24) return;
  console.error(
    `agentmesh needs Node 24 or newer; this is ${version}. Start it with npm (npm start), which brings its own.`,
  );
  process.exit(2);
}
