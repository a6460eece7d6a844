// A streamed chat over gRPC with the protos loaded at run time, left after the tool's answer, and the rest of the run.
import { once } from "node:events";
import { join } from "node:path";
import { type ClientReadableStream, credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

// biome-ignore lint/suspicious/noExplicitAny: what is loaded at run time has no types
type Loaded = any;

const address = (process.env["AGENTMESH_URL"] ?? "http://127.0.0.1:8080").replace(/^http:\/\//, "");
const message = process.argv[2] ?? "What is 12 * 34?";
const print = (text: string) => void process.stdout.write(text);

const metadata = new Metadata();
metadata.set("authorization", `Bearer ${process.env["AGENTMESH_KEY"]}`);
const files = ["chat_service", "run_service"].map((name) => `agentmesh/agent/v1/${name}.proto`);
const definition = loadSync(files, { includeDirs: [join(import.meta.dirname, "../../proto")], longs: String });
const { ChatService, RunService } = (loadPackageDefinition(definition) as Loaded).agentmesh.agent.v1;

const { runId, seq } = await chat();
print(`-- left ${runId} after event ${seq}; resuming\n`);
await resume(runId, seq);

async function chat(): Promise<{ runId: string; seq: string }> {
  const client = new ChatService(address, credentials.createInsecure());
  const stream: ClientReadableStream<Loaded> = client.chatStream({ message }, metadata);
  const header = once(stream, "metadata");
  let seq = "0";
  for await (const { event } of stream) {
    seq = event.seq;
    if (event.text) print(event.text.content);
    if (event.toolCall) print(`\n[${event.toolCall.tool} ${event.toolCall.argsJson}]\n`);
    if (event.toolResult) print(`[result ${event.toolResult.result}]\n`);
    if (event.toolResult) break;
  }
  const [received] = (await header) as [Metadata];
  client.close();
  return { runId: String(received.get("location")[0]).split("/")[4] ?? "", seq };
}

async function resume(runId: string, afterSeq: string): Promise<void> {
  const client = new RunService(address, credentials.createInsecure());
  const stream: ClientReadableStream<Loaded> = client.streamRunEvents({ runId, afterSeq }, metadata);
  const shown = new Set<string>();
  const show = (itemId: string, text: string) => {
    shown.add(itemId);
    print(text);
  };
  for await (const { openItems, event } of stream) {
    // What was open when we came back, so far; its next pieces follow.
    for (const item of openItems?.items ?? []) if (item.kind === "message") show(item.itemId, item.content);
    if (!event) continue;
    if (event.textDelta) show(event.itemId, event.textDelta.text);
    // Pieces that passed while we were away are not sent again: the whole message is.
    if (event.messageCompleted && !shown.has(event.itemId)) {
      for (const { text } of event.messageCompleted.parts) if (text) show(event.itemId, text.text);
    }
    if (event.type.startsWith("run_")) print(`\n[${event.type}, event ${event.seq}]\n`);
  }
  client.close();
}
