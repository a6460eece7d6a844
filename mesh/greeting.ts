import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ChatService, type ChatStreamResponse } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { consume } from "#platform/rpc/consume.ts";
import type { MeshConfig } from "./config.ts";
import type { MeshProcess } from "./process.ts";

const QUESTION = "What is 6 * 7?";
const PATIENCE_MS = 60_000;

/** The file in the data directory that keeps a generated admin key. */
export const ADMIN_KEY_FILE = "admin-key";
/** Its presence says that the key was shown. */
const SHOWN_FILE = "admin-key.shown";

/**
 * What a newcomer sees: the address, the admin key once, a line to paste, and on the first start a streamed answer that
 * used a tool. Only where the whole mesh runs in one process with its own data directory.
 */
export async function welcome(config: MeshConfig, mesh: MeshProcess, signal: AbortSignal): Promise<void> {
  if (!config.modules.includes("gateway")) return;
  console.log(`\nagentmesh listens on ${mesh.address}`);
  const key = config.embedded ? await readAdminKey(config.dataDir) : undefined;
  if (key === undefined) return console.log(`health: ${mesh.address}/health\n`);
  await showKey(config.dataDir, key);
  console.log(`\nTry it:\n\n${curlLine(mesh.address)}\n`);
  try {
    if (await greetingWanted(config, mesh, key)) await greet(mesh.address, key, signal);
  } catch (error) {
    if (!signal.aborted) console.log(`(no greeting: ${error instanceof Error ? error.message : String(error)})\n`);
  }
}

async function readAdminKey(dataDir: string): Promise<string | undefined> {
  const configured = process.env["AGENTMESH_ADMIN_KEY"];
  if (configured) return configured;
  try {
    return (await readFile(join(dataDir, ADMIN_KEY_FILE), "utf8")).trim();
  } catch {
    return undefined;
  }
}

/** The key is printed once; later starts say where it is kept. */
async function showKey(dataDir: string, key: string): Promise<void> {
  const file = join(dataDir, ADMIN_KEY_FILE);
  if (process.env["AGENTMESH_ADMIN_KEY"]) return console.log("admin key: the one in AGENTMESH_ADMIN_KEY");
  const { access, writeFile } = await import("node:fs/promises");
  const shown = join(dataDir, SHOWN_FILE);
  const first = await access(shown).then(
    () => false,
    () => true,
  );
  if (!first) return console.log(`admin key: in ${file}`);
  console.log(`admin key (shown once, kept in ${file}):\n\n  ${key}`);
  await writeFile(shown, "", { mode: 0o600 });
}

function curlLine(address: string): string {
  return [
    `  curl -N ${address}/api/v1/chat/stream \\`,
    `    -H "Authorization: Bearer $(cat \${AGENTMESH_DATA_DIR:-.agentmesh}/${ADMIN_KEY_FILE})" \\`,
    `    -H 'Content-Type: application/json' \\`,
    `    -d '{"message": "What is 12 * 34?"}'`,
  ].join("\n");
}

/** With a real model every greeting costs money, so it comes by itself only while there is no session yet. */
async function greetingWanted(config: MeshConfig, mesh: MeshProcess, key: string): Promise<boolean> {
  if (config.greet === "never") return false;
  if (config.greet === "always") return true;
  const sessions = createClient(SessionService, transportTo(mesh.address));
  const { sessions: some } = await sessions.listSessions({ pageSize: 1 }, { headers: bearer(key) });
  return some.length === 0;
}

async function greet(address: string, key: string, signal: AbortSignal): Promise<void> {
  const chat = createClient(ChatService, transportTo(address));
  const headers = bearer(key);
  const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
  console.log(`> ${QUESTION}\n`);
  for await (const { event } of consume(
    (stop) => chat.chatStream({ message: QUESTION }, { headers, signal: stop }),
    patience,
  )) {
    show(event?.payload);
  }
  console.log("\n");
}

function show(payload: NonNullable<ChatStreamResponse["event"]>["payload"] | undefined): void {
  switch (payload?.case) {
    case "text":
      process.stdout.write(payload.value.content);
      break;
    case "toolCall":
      process.stdout.write(`\n  [tool ${payload.value.tool} ${payload.value.argsJson}]\n`);
      break;
    case "toolResult":
      process.stdout.write(`  [result ${payload.value.result}]\n\n`);
      break;
    case "error":
      process.stdout.write(`\n  [${payload.value.reason}: ${payload.value.message}]\n`);
      break;
    default:
      break;
  }
}

function transportTo(address: string) {
  return createConnectTransport({ baseUrl: address, httpVersion: "1.1" });
}

function bearer(key: string): Record<string, string> {
  return { authorization: `Bearer ${key}` };
}
