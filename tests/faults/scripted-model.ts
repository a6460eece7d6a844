import type { ModelServer, RecordedRequest, Scripted } from "#platform/testing/model-server/server.ts";
import { type Block, fails, type Turn, toolUse } from "#platform/testing/model-server/turn.ts";
import { ASKS_FIRST, type ModelCall } from "./history.ts";

/** What the model does in a run, told by the user's message. */
export interface Play {
  /** Tells the runs apart in the books: no two runs of a mesh have the same. */
  readonly tag: string;
  /** Turns with a tool call before the answer. */
  readonly turns: number;
  /** Pieces of each turn, and the wait before each of them. */
  readonly deltas: number;
  readonly paceMs: number;
  /** How long each tool takes. */
  readonly toolMs: number;
  /** Bytes of each turn's text; default few. */
  readonly bytes?: number;
  /** The model begins its answer and says nothing more. */
  readonly hangs?: boolean;
  /** The model refuses the first request of this play: the run fails, and the one that goes on with it does not. */
  readonly refused?: boolean;
  /** The first tool is one that people have to allow. */
  readonly asks?: boolean;
  /** Whoever asked says something more while the run is at work. */
  readonly says?: boolean;
}

/** The message that asks for a play. */
export function messageOf(play: Play): string {
  return `play ${JSON.stringify(play)}`;
}

/** The books of a model server: what each run's calls have used. */
export interface ModelBooks {
  callsOf(tag: string): readonly ModelCall[];
  /** Calls in all. */
  readonly count: number;
}

/** message_start, the block's start, and the first piece of text. */
const HANGS_AFTER = 3;

/** Scripted ahead, since each scripted answer is used once. */
const AHEAD = 500;

/** Makes a server play what the messages ask for, and keeps its books. Every call has token counts of its own. */
export function scriptModel(server: ModelServer): ModelBooks {
  const calls = new Map<string, ModelCall[]>();
  const refused = new Set<string>();
  let serial = 0;
  const answer = (request: RecordedRequest): Turn => {
    if (server.pending() < AHEAD / 2) server.script(...Array<Scripted>(AHEAD).fill(answer));
    // Sessions grow; what the books need of a request is kept here.
    server.requests.length = 0;
    const { play, turn } = read(request);
    if (play.refused === true && !refused.has(play.tag)) {
      refused.add(play.tag);
      return fails(400);
    }
    serial += 1;
    const usage = { input_tokens: 100 + serial, output_tokens: 1 + (serial % 50) };
    const entry = { input: usage.input_tokens, output: usage.output_tokens };
    calls.set(play.tag, [...(calls.get(play.tag) ?? []), entry]);
    return {
      content: content(play, turn),
      usage: { ...usage, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 },
      deltas: play.deltas,
      paceMs: play.paceMs,
      ...(play.hangs === true && { fault: { hang: { afterEvents: HANGS_AFTER } } }),
    };
  };
  server.script(...Array<Scripted>(AHEAD).fill(answer));
  return {
    callsOf: (tag) => calls.get(tag) ?? [],
    get count() {
      return serial;
    },
  };
}

function content(play: Play, turn: number): Block[] {
  if (turn >= play.turns) return [{ type: "text", text: prose(play, `This was ${play.tag}.`) }];
  const asks = play.asks === true && turn === 0;
  const tool = asks ? ASKS_FIRST : turn % 2 === 0 ? "act_once" : "act_again";
  return [{ type: "text", text: prose(play, "Let me act.") }, toolUse(tool, { wait_ms: play.toolMs })];
}

/** A text that the model can give in as many pieces as it is to. */
function prose({ bytes = 0, deltas }: Play, text: string): string {
  return text.padEnd(Math.max(bytes, deltas * 8), " and so on");
}

/** The newest play that was asked for, and how many turns with tools are behind it. */
function read(request: RecordedRequest): { play: Play; turn: number } {
  let turn = 0;
  for (const { role, content } of request.body.messages.toReversed()) {
    if (role !== "user") continue;
    const blocks = typeof content === "string" ? [{ type: "text", text: content }] : content;
    const asked = blocks.findLast(({ type, text }) => type === "text" && String(text).includes("play {"));
    const [, json] = /play (\{[^}]*\})(?![\s\S]*play \{)/.exec(String(asked?.["text"] ?? "")) ?? [];
    if (json !== undefined) return { play: JSON.parse(json) as Play, turn };
    if (blocks.some(({ type }) => type === "tool_result")) turn += 1;
  }
  throw new Error("nobody asked for a play");
}
