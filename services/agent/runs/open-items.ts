import { create } from "@bufbuild/protobuf";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { type OpenItem, type OpenItems, OpenItemsSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

interface Growing {
  kind: "message" | "reasoning" | "tool_call";
  tool: string;
  chunks: string[];
}

/**
 * What of a run's items has been shown and is not complete: the state that a reader who joins in the middle needs.
 * Fed with every event in order. A delta costs one array push; the text is joined only when somebody joins.
 */
export class OpenItemsModel {
  readonly #items = new Map<string, Growing>();
  #seq: bigint;

  /** @param seq of the newest event that nothing is open after */
  constructor(seq = 0n) {
    this.#seq = seq;
  }

  /** A model that continues from what an owner told. */
  static from(snapshot: OpenItems): OpenItemsModel {
    const model = new OpenItemsModel(snapshot.asOfSeq);
    for (const { itemId, kind, tool, content } of snapshot.items) {
      model.#items.set(itemId, { kind: kind as Growing["kind"], tool, chunks: content === "" ? [] : [content] });
    }
    return model;
  }

  /** seq of the newest event that the model contains. */
  get seq(): bigint {
    return this.#seq;
  }

  apply(event: AgentEvent): void {
    this.#seq = event.seq;
    const { payload, itemId } = event;
    switch (payload.case) {
      case "messageStarted":
        this.#items.set(itemId, { kind: "message", tool: "", chunks: [] });
        break;
      case "toolCallStarted":
        this.#items.set(itemId, { kind: "tool_call", tool: payload.value.tool, chunks: [] });
        break;
      case "textDelta":
        this.#grow(itemId, "message", payload.value.text);
        break;
      case "reasoningDelta":
        this.#grow(itemId, "reasoning", payload.value.text);
        break;
      case "toolCallArgumentsDelta":
        this.#grow(itemId, "tool_call", payload.value.jsonFragment);
        break;
      case "messageCompleted":
      case "reasoningCompleted":
      case "toolCallRequested":
        this.#items.delete(itemId);
        break;
      case "itemDiscarded":
        if (itemId === "") this.#items.clear();
        else this.#items.delete(itemId);
        break;
      case "runCompleted":
      case "runFailed":
      case "runCancelled":
        this.#items.clear();
        break;
      default:
        break;
    }
  }

  snapshot(): OpenItems {
    const items: Pick<OpenItem, "itemId" | "kind" | "content" | "tool">[] = [];
    for (const [itemId, { kind, tool, chunks }] of this.#items) {
      const content = chunks.join("");
      // One chunk from now on, so that many joiners do not join the same pieces again.
      chunks.splice(0, chunks.length, content);
      items.push({ itemId, kind, content, tool });
    }
    return create(OpenItemsSchema, { asOfSeq: this.#seq, items });
  }

  #grow(itemId: string, kind: Growing["kind"], text: string): void {
    const item = this.#items.get(itemId);
    if (item === undefined) this.#items.set(itemId, { kind, tool: "", chunks: [text] });
    else item.chunks.push(text);
  }
}
