import assert from "node:assert/strict";
import type { Scripted } from "#platform/testing/model-server/server.ts";
import type { MeshUnderTest } from "../mesh-under-test.ts";
import { RestClient } from "../rest-client.ts";

const MODEL = "claude-haiku-5-5";

/** Tokens of the model's window in a transcript: a conversation of a few pages fills it. */
export const WINDOW = 6_000;

/** Settings of a mesh in which transcripts are played. */
export const SETTINGS = {
  AGENTMESH_MODELS__CONTEXT_WINDOWS: JSON.stringify({ [MODEL]: WINDOW }),
};

/** A run of a transcript, as its events tell it. */
export interface ToldTurn {
  answer: string;
  /** Types of the durable events, in order. */
  types: string[];
  // biome-ignore lint/suspicious/noExplicitAny: events are looked into field by field
  events: any[];
}

/** A conversation with an agent of its own. */
export class Conversation {
  readonly #mesh: MeshUnderTest;
  readonly #rest: RestClient;
  readonly #agentId: string;
  sessionId = "";

  private constructor(mesh: MeshUnderTest, rest: RestClient, agentId: string) {
    this.#mesh = mesh;
    this.#rest = rest;
    this.#agentId = agentId;
  }

  static async begin(mesh: MeshUnderTest, agent: object): Promise<Conversation> {
    const rest = new RestClient(mesh.baseUrl, mesh.adminKey);
    const enabled_tools = ["current_time", "calculator", "todo", "escalate_to_human", "search_products", "track_order"];
    await rest.call("PATCH", "/api/v1/tenants/me", { enabled_tools });
    const { status, body } = await rest.call("POST", "/api/v1/tenants/me/agents", {
      llm_model: MODEL,
      max_tokens: 300,
      ...agent,
    });
    assert.equal(status, 200, JSON.stringify(body));
    return new Conversation(mesh, rest, body.agent_id);
  }

  /** Says something, with what the model answers to it. */
  async say(message: string, ...script: Scripted[]): Promise<ToldTurn> {
    this.#mesh.model.script(...script);
    const asked = { message, agent_id: this.#agentId, session_id: this.sessionId };
    const { status, body } = await this.#rest.call("POST", "/api/v1/chat", asked);
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(this.#mesh.model.pending(), 0, "every turn that was scripted was asked for");
    this.sessionId = body.session_id;
    const { body: page } = await this.#rest.call("GET", `/api/v1/runs/${body.run_id}/events?page_size=200`);
    return { answer: body.response, types: page.events.map(({ type }: { type: string }) => type), events: page.events };
  }

  /** What the model was sent last, `back` requests ago, as one text. */
  sent(back = 0): string {
    const request = this.#mesh.model.requests.at(-1 - back);
    return JSON.stringify(request?.body.messages);
  }

  /** Everything that was said, as a reader sees it. */
  async read(): Promise<string> {
    const { body } = await this.#rest.call("GET", `/api/v1/sessions/${this.sessionId}/messages?page_size=200`);
    return JSON.stringify(body.messages);
  }
}
