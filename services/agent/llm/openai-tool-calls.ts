import { randomUUID } from "node:crypto";
import type { ModelEvent } from "./chat-model.ts";
import { type HalfPair, joinSurrogates, leftHalf } from "./surrogates.ts";

const maxCalls = 256;
/** Characters of the arguments of one answer. */
const maxArguments = 16 * 1024 * 1024;

interface Call extends HalfPair {
  id: string;
  /** Whether the id is the server's. */
  named: boolean;
  name: string;
  started: boolean;
  json: string;
}

/**
 * Puts the fragments of tool calls together. A fragment belongs to the call with its index; where servers leave the index
 * out or give every call the same one, a new id begins a new call, and so does a name where the call has its arguments.
 */
export class CallCollector {
  readonly #calls: Call[] = [];
  readonly #byIndex = new Map<number, Call>();
  #length = 0;

  get size(): number {
    return this.#calls.length;
  }

  /** Takes a fragment and adds its events; false when there is too much of it. */
  add(fragment: Record<string, unknown>, out: ModelEvent[]): boolean {
    const about = (fragment["function"] ?? {}) as Record<string, unknown>;
    const id = typeof fragment["id"] === "string" ? fragment["id"] : "";
    const name = typeof about["name"] === "string" ? about["name"] : "";
    const index = typeof fragment["index"] === "number" ? fragment["index"] : undefined;
    const call = this.#find(index, id, name);
    if (call === undefined) return false;
    if (!call.named && id !== "" && !call.started) {
      call.id = id;
      call.named = true;
    }
    if (call.name === "") call.name = name;
    const value = about["arguments"];
    const piece =
      typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value);
    this.#length += piece.length;
    if (this.#length > maxArguments) return false;
    // Arguments before the name wait for it: a call is told of by name.
    const json = joinSurrogates(call, piece);
    if (call.started) this.#delta(call, json, out);
    else {
      call.json += json;
      if (call.name !== "") this.#start(call, out);
    }
    return true;
  }

  /** Ends every call. */
  finish(out: ModelEvent[]): void {
    for (const call of this.#calls) {
      if (!call.started) this.#start(call, out);
      this.#delta(call, leftHalf(call), out);
      out.push({ type: "tool_call", id: call.id, name: call.name, argumentsJson: call.json === "" ? "{}" : call.json });
    }
  }

  #find(index: number | undefined, id: string, name: string): Call | undefined {
    const known = index === undefined ? this.#withoutIndex(id) : this.#byIndex.get(index);
    const another = known !== undefined && isAnother(known, id, name);
    if (known !== undefined && !another) return known;
    if (this.#calls.length >= maxCalls) return undefined;
    // Without an id of its own it gets one, unlike any other of the conversation.
    const taken = id === "" || this.#calls.some((call) => call.id === id);
    const call = { id: taken ? madeUpId() : id, named: id !== "", name: "", started: false, json: "", half: "" };
    this.#calls.push(call);
    if (index !== undefined) this.#byIndex.set(index, call);
    return call;
  }

  #withoutIndex(id: string): Call | undefined {
    return id === "" ? this.#calls.at(-1) : this.#calls.find((call) => call.id === id);
  }

  #start(call: Call, out: ModelEvent[]): void {
    call.started = true;
    out.push({ type: "tool_call_started", id: call.id, name: call.name });
    const { json } = call;
    call.json = "";
    this.#delta(call, json, out);
  }

  #delta(call: Call, json: string, out: ModelEvent[]): void {
    if (json === "") return;
    call.json += json;
    const last = out.at(-1);
    if (last?.type === "tool_arguments_delta" && last.id === call.id) last.json += json;
    else out.push({ type: "tool_arguments_delta", id: call.id, json });
  }
}

/** OpenAI takes ids of at most 40 characters. */
function madeUpId(): string {
  return `call_${randomUUID().replaceAll("-", "")}`;
}

/** Whether a fragment that would go to a call begins the next one: servers repeat names, so a name alone says nothing. */
function isAnother(known: Call, id: string, name: string): boolean {
  if (name === "") return false;
  if (id !== "") return known.named && known.id !== id;
  return (known.name !== "" && known.name !== name) || (!known.named && isJson(known.json));
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
