import { readFileSync } from "node:fs";
import { join } from "node:path";

const README = join(import.meta.dirname, "../../examples/README.md");

/** The commands of the table in examples/README.md, by the example's folder. */
export function documentedCommands(): Map<string, string> {
  const rows = readFileSync(README, "utf8").matchAll(/^\|.*\| `([^`]*examples\/([\w-]+)\/[^`]*)` \|$/gm);
  return new Map([...rows].map(([, command = "", folder = ""]) => [folder, command]));
}

/** How examples/README.md says that an example is run. */
export function documentedCommand(folder: string): string {
  const command = documentedCommands().get(folder);
  if (command === undefined) throw new Error(`examples/README.md has no command for ${folder}`);
  return command;
}
