// A process with the tool service that executes one call: node charging-process.ts <database> <file> <principal> <request>
import { openDatabase } from "#platform/postgres/database.ts";
import { chargingTool } from "./charging-tools.ts";
import { openTools } from "./tool-service.ts";

const [, , url = "", file = "", principal = "", request = ""] = process.argv;
await using database = openDatabase({
  connection: { url },
  applicationName: "charging",
});
await using open = await openTools({ database, tools: [chargingTool(file)] });
const { text } = await open.execute(JSON.parse(principal), JSON.parse(request));
process.stdout.write(`${text}\n`);
