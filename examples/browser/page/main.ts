// A streamed chat by the Connect protocol from another origin, left after the tool's answer, and the rest of the run.
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

// The part of an address behind # stays in the browser.
const settings = new URLSearchParams(location.hash.slice(1));
const headers = { authorization: `Bearer ${settings.get("key")}` };
const transport = createConnectTransport({ baseUrl: settings.get("url") ?? "http://127.0.0.1:8080" });
const [form, log] = [document.querySelector("form"), document.querySelector("pre")];
const print = (text: string) => log?.append(text);

form?.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const message = String(new FormData(form).get("message"));
  log?.replaceChildren();
  try {
    const { runId, seq } = await chat(createClient(ChatService, transport), message);
    print(`-- left ${runId} after event ${seq}; resuming\n`);
    await resume(createClient(RunService, transport), runId, seq);
  } catch (error) {
    print(`\n[${error}]\n`);
  }
});

async function chat(client: Client<typeof ChatService>, message: string): Promise<{ runId: string; seq: bigint }> {
  const leave = new AbortController(); // leaving the loop alone does not end the call
  let runId = "";
  let seq = 0n;
  const onHeader = (header: Headers) => {
    runId = header.get("location")?.split("/")[4] ?? "";
  };
  for await (const { event } of client.chatStream({ message }, { headers, onHeader, signal: leave.signal })) {
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

async function resume(client: Client<typeof RunService>, runId: string, afterSeq: bigint): Promise<void> {
  const shown = new Set<string>();
  const show = (itemId: string, text: string) => {
    shown.add(itemId);
    print(text);
  };
  for await (const { frame } of client.streamRunEvents({ runId, afterSeq }, { headers })) {
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
