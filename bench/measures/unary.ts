import { create, toBinary } from "@bufbuild/protobuf";
import { request } from "undici";
import { GetSessionRequestSchema, SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { TurnFailed } from "../callers/caller.ts";
import { createAgent } from "../callers/http-stream.ts";
import type { Service } from "../processes.ts";
import { quantile } from "../statistics.ts";

export interface Unary {
  /** Milliseconds of GetSession over REST, and of the same call over Connect; one at a time. */
  readonly restP50: number;
  readonly restP99: number;
  readonly connectP50: number;
  readonly connectP99: number;
}

/** What the transcoder adds: the same call by REST and by Connect, in turns, on kept connections. */
export async function unary(service: Service, calls: number): Promise<Unary> {
  await using agent = createAgent();
  const send = async (path: string, method: "GET" | "POST", type: string, body: Uint8Array | string | null) => {
    const headers = { authorization: `Bearer ${service.key}`, "content-type": type };
    const answer = await request(`${service.url}${path}`, { dispatcher: agent, method, headers, body });
    const bytes = await answer.body.bytes();
    if (answer.statusCode !== 200) throw new TurnFailed(`${path}: ${Buffer.from(bytes).toString()}`);
    return bytes;
  };
  const made = await send("/api/v1/sessions", "POST", "application/json", "{}");
  const sessionId = String(JSON.parse(Buffer.from(made).toString()).session_id);
  const message = toBinary(GetSessionRequestSchema, create(GetSessionRequestSchema, { sessionId }));
  const kinds = {
    rest: () => send(`/api/v1/sessions/${sessionId}`, "GET", "application/json", null),
    connect: () => send(`/${SessionService.typeName}/GetSession`, "POST", "application/proto", message),
  };
  const times = { rest: [] as number[], connect: [] as number[] };
  for (let i = 0; i < calls; i++) {
    for (const kind of ["rest", "connect"] as const) {
      const began = performance.now();
      await kinds[kind]();
      times[kind].push(performance.now() - began);
    }
  }
  return {
    restP50: quantile(times.rest, 0.5),
    restP99: quantile(times.rest, 0.99),
    connectP50: quantile(times.connect, 0.5),
    connectP99: quantile(times.connect, 0.99),
  };
}
