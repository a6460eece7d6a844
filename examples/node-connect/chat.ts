// A streamed chat by the Connect protocol, left after the tool's answer, and the rest of the run from there.
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

const baseUrl = process.env["AGENTMESH_URL"] ?? "http://127.0.0.1:8080";
const headers = { authorization: `Bearer ${process.env["AGENTMESH_KEY"]}` };
const message = process.argv[2] ?? "What is 12 * 34?";
const transport = createConnectTransport({ baseUrl, httpVersion: "1.1" });
const print = (text: string) => void process.stdout.write(text);

const { runId, seq } = await chat();
print(`-- left ${runId} after event ${seq}; resuming\n`);
await resume(runId, seq);

async function chat(): Promise<{ runId: string; seq: bigint }> {
  const leave = new AbortController(); // leaving the loop alone does not end the call
  let runId = "";
  let seq = 0n;
  const onHeader = (header: Headers) => {
    runId = header.get("location")?.split("/")[4] ?? "";
  };
  const stream = createClient(ChatService, transport).chatStream(
    { message },
    { headers, onHeader, signal: leave.signal },
  );
  for await (const { event } of stream) {
    seq = event?.seq ?? seq;
    const payload = event?.payload;
    if (payload?.case === "text") print(payload.value.content);
    if (payload?.case === "toolCall") print(`\n[${payload.value.tool} ${payload.value.argsJson}]\n`);
    if (payload?.case === "toolResult") print(`[result ${payload.value.result}]\n`);
    if (payload?.case === "toolResult") break;
  }
  leave.abort();
  return { runId, seq };
}

async function resume(runId: string, afterSeq: bigint): Promise<void> {
  const shown = new Set<string>();
  const show = (itemId: string, text: string) => {
    shown.add(itemId);
    print(text);
  };
  const stream = createClient(RunService, transport).streamRunEvents({ runId, afterSeq }, { headers });
  for await (const { frame } of stream) {
    // What was open when we came back, so far; its next pieces follow.
    if (frame.case === "openItems") {
      for (const item of frame.value.items) if (item.kind === "message") show(item.itemId, item.content);
    }
    if (frame.case !== "event") continue;
    const { itemId, payload, type, seq } = frame.value;
    if (payload.case === "textDelta") show(itemId, payload.value.text);
    // Pieces that passed while we were away are not sent again: the whole message is.
    if (payload.case === "messageCompleted" && !shown.has(itemId)) {
      for (const { part } of payload.value.parts) if (part.case === "text") show(itemId, part.value.text);
    }
    if (type.startsWith("run_")) print(`\n[${type}, event ${seq}]\n`);
  }
}
