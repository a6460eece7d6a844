// What the mesh has stored, read past the mesh.
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import pg from "pg";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { Booked, LogEvent, RunHistory, Tokens } from "./history.ts";
import { logEvent } from "./run-client.ts";

/** What is stored of a run. */
export type StoredRun = Omit<RunHistory, "runId" | "watches" | "executions" | "modelCalls" | "refused" | "said">;

/** The connection of the checks; survives a restart of the server. */
export class Stored implements AsyncDisposable {
  readonly #pool: pg.Pool;

  constructor(superuserUrl: string) {
    this.#pool = new pg.Pool({ connectionString: superuserUrl, max: 2 });
    this.#pool.on("error", () => {}); // the tests end the server on purpose
  }

  async runs(): Promise<Map<string, StoredRun>> {
    const { rows } = await this.#pool.query<{ run_id: string; attempt: number; event: Buffer | null; at: number }>(
      `SELECT r.run_id, r.attempt, e.event, extract(epoch FROM e.create_time)::float8 * 1000 AS at
       FROM agent.runs r LEFT JOIN agent.run_events e USING (tenant_id, run_id) ORDER BY r.run_id, e.seq`,
    );
    const usage = await this.#usage();
    const ledger = await this.#ledger();
    const byRun = Map.groupBy(rows, ({ run_id }) => run_id);
    return new Map(
      [...byRun].map(([runId, events]) => {
        const written = events.flatMap(({ event, at }) => (event === null ? [] : [{ event, at }]));
        const decoded = written.map(({ event }) => fromBinary(AgentEventSchema, event));
        const log: LogEvent[] = decoded.map(logEvent);
        const owners = events[0]?.attempt ?? 1;
        const money = { usage: usage.get(runId), ledger: ledger.get(runId) ?? [] };
        return [runId, { log, writtenAt: written.map(({ at }) => at), owners, ...money, ...accounts(decoded) }];
      }),
    );
  }

  /** What runs have used, as the runs themselves say. */
  async #usage(): Promise<Map<string, Tokens>> {
    const { rows } = await this.#pool.query<{ run_id: string; usage: Buffer }>(
      "SELECT run_id, usage FROM agent.runs WHERE usage IS NOT NULL",
    );
    return new Map(rows.map(({ run_id, usage }) => [run_id, tokens(fromBinary(UsageSummarySchema, usage))]));
  }

  async #ledger(): Promise<Map<string, Booked[]>> {
    const { rows } = await this.#pool.query<{ run_id: string; input: number; output: number; aborted: boolean }>(
      "SELECT run_id, input_tokens::float8 AS input, output_tokens::float8 AS output, aborted FROM agent.model_calls",
    );
    return Map.groupBy(rows, ({ run_id }) => run_id);
  }

  /** Runs that have lost an owner. */
  async interrupted(): Promise<number> {
    const { rows } = await this.#pool.query<{ n: string }>("SELECT count(*) AS n FROM agent.runs WHERE attempt > 1");
    return Number(rows[0]?.n);
  }

  /** Runs that are being worked on, by the port of the process that owns them. */
  async inFlight(): Promise<Map<string, string[]>> {
    const { rows } = await this.#pool.query<{ run_id: string; owner_address: string }>(
      "SELECT run_id, owner_address FROM agent.runs WHERE state = 2 AND owner_address <> ''",
    );
    const byPort = Map.groupBy(rows, ({ owner_address }) => new URL(owner_address).port);
    return new Map([...byPort].map(([port, runs]) => [port, runs.map(({ run_id }) => run_id)]));
  }

  /** What sessions say that contradicts their messages and runs. */
  async sessionFaults(): Promise<string[]> {
    const { rows } = await this.#pool.query<{ fault: string }>(
      `SELECT session_id || ': ' || message_count || ' messages, and ' || count(m.*) || ' are there up to '
         || coalesce(max(m.position), 0) AS fault
       FROM agent.sessions s LEFT JOIN agent.messages m USING (tenant_id, session_id)
       GROUP BY tenant_id, session_id, message_count
       HAVING message_count <> count(m.*) OR message_count <> coalesce(max(m.position), 0)
       UNION ALL
       SELECT session_id || ': held by ' || active_run_id || ', which is over' FROM agent.sessions s
       WHERE active_run_id IS NOT NULL AND NOT EXISTS (SELECT FROM agent.runs r WHERE r.tenant_id = s.tenant_id
         AND r.run_id = s.active_run_id AND r.state IN (1, 2, 3))`,
    );
    return rows.map(({ fault }) => fault);
  }

  async count(table: "agent.runs" | "agent.outbox"): Promise<number> {
    const { rows } = await this.#pool.query<{ n: string }>(`SELECT count(*) AS n FROM ${table}`);
    return Number(rows[0]?.n);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }
}

function accounts(
  events: readonly AgentEvent[],
): Pick<StoredRun, "steps" | "total" | "failure" | "failureText" | "allowed" | "heard"> {
  const steps: Tokens[] = [];
  let total: Tokens | undefined;
  const allowed: string[] = [];
  const heard: string[] = [];
  let failure = "";
  let failureText = "";
  for (const { payload, itemId } of events) {
    if (payload.case === "inputAccepted") heard.push(payload.value.messageId);
    if (payload.case === "approvalResolved" && payload.value.state === ApprovalState.APPROVED) allowed.push(itemId);
    const usage = "usage" in (payload.value ?? {}) ? (payload.value as { usage?: Usage }).usage : undefined;
    if (payload.case === "stepCompleted" && usage !== undefined) steps.push(tokens(usage));
    if (payload.case === "runCompleted" || payload.case === "runFailed" || payload.case === "runCancelled") {
      total = tokens(usage ?? { inputTokens: 0n, outputTokens: 0n });
    }
    if (payload.case !== "runFailed") continue;
    const infos = payload.value.error?.details.map((detail) => anyUnpack(detail, ErrorInfoSchema));
    failureText = payload.value.error?.message ?? "";
    failure = infos?.find((info) => info !== undefined)?.reason ?? "without a reason";
  }
  return { steps, total, failure, failureText, allowed, heard };
}

type Usage = { inputTokens: bigint; outputTokens: bigint };

function tokens({ inputTokens, outputTokens }: Usage): Tokens {
  return { input: Number(inputTokens), output: Number(outputTokens) };
}
