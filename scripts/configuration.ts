// npm run configuration: writes docs/configuration.md from the keys that the code reads.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { configurationReference } from "#mesh/configuration-reference.ts";
import { MODULES } from "#mesh/modules.ts";

writeFileSync(join(import.meta.dirname, "../docs/configuration.md"), configurationReference(MODULES));
