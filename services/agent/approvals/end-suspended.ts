import { fromBinary } from "@bufbuild/protobuf";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import type { Call } from "#platform/rpc/call.ts";
import { adapterOf } from "../adapters/adapters.ts";
import type { EngineEvent } from "../engine/events.ts";
import type { ResumedStep } from "../engine/loop-input.ts";
import type { ToolOutcome } from "../engine/tool-spec.ts";
import type { ModelMessage, ToolResultPart } from "../llm/chat-model.ts";
import { type Completing, durableBody } from "../runs/engine-payloads.ts";
import type { EventBody } from "../runs/event-envelope.ts";
import { MaskedOutput } from "../runs/masked-output.ts";
import { endEntry, type RunEnd } from "../runs/run-end.ts";
import { fromStoredPlan } from "../runs/run-plan.ts";
import { storedWork, WORK_EVENTS } from "../runs/stored-work.ts";
import type { MaskRule } from "../runs/stream-mask.ts";
import { UsageTotal, usageToProto } from "../runs/usage-total.ts";
import { acceptedInput, shownInput } from "../steering/run-inputs.ts";
import { cancelApprovals } from "../store/approval-store.ts";
import { cancelClientCalls } from "../store/client-call-store.ts";
import { pendingInputs } from "../store/input-store.ts";
import { ledgerOf } from "../store/ledger-store.ts";
import type { NewMessage } from "../store/message-store.ts";
import { draftOf, eventsOfTypes, planOf } from "../store/resume-store.ts";
import type { RunRow } from "../store/run-store.ts";
import { writeRun } from "../store/run-writes.ts";
import { takeSuspended } from "../store/suspension-store.ts";
import { type Advanced, chained, idsOf, toRow } from "./suspended-run.ts";

/**
 * Ends a run that waits, as whoever `call` is, in one transaction: its open calls are answered as cancelled, the step is completed with that,
 * so that the session's history is valid, and the run and its approvals have ended. Undefined when it does not wait any more.
 */
export async function endSuspended(
  database: Database,
  { tenantId, runId }: { tenantId: string; runId: string },
  how: RunEnd,
  call: Call,
): Promise<Advanced | undefined> {
  return database.tenant(
    tenantId,
    async (tx) => {
      // In this transaction who ends it is its owner, and writes as one.
      const owner = newId("ins");
      const run = await takeSuspended(tx, runId, owner);
      if (run === undefined) return undefined;
      await cancelApprovals(tx, runId);
      await cancelClientCalls(tx, runId);
      const { bodies, messages, hides } = await closeStep(tx, run);
      // What was sent to it while it waited is for the next turn.
      const inputs = (await pendingInputs(tx, runId)).map(({ message_id: id, message }) =>
        acceptedInput({ ...message, id }, shownInput(message, hides)),
      );
      const usage = new UsageTotal();
      for (const booked of await ledgerOf(tx, runId)) usage.add(booked);
      const end = endEntry(idsOf(run), how, { usage: usage.summary(), call, run });
      const events = chained(idsOf(run), run.last_seq, [...bodies, ...inputs.map(({ body }) => body), end.body]);
      const newest = events.at(-1);
      if (newest === undefined) throw new Error("a run has ended without an event");
      await writeRun(
        tx,
        { tenantId, runId, owner, epoch: run.epoch },
        {
          events: events.map(toRow),
          lastSeq: newest.seq,
          dropsDraft: true,
          openStep: 0,
          messages: [...messages, ...inputs.flatMap((input) => input.messages)],
          takes: inputs.map(({ takes }) => takes),
          end: end.end,
        },
        "last",
      );
      return { tenantId, newest, goesOn: false };
    },
    { signal: call.signal, deadline: call.deadline },
  );
}

/** What the open step adds to log and session when none of its open calls is made any more. */
async function closeStep(
  tx: Tx,
  run: RunRow,
): Promise<{
  bodies: EventBody[];
  messages: NewMessage[];
  hides: MaskRule | undefined;
}> {
  const draft = await draftOf(tx, run.run_id);
  const events = await eventsOfTypes(tx, run.run_id, WORK_EVENTS);
  const { openStep } = storedWork(
    events.map((bytes) => fromBinary(AgentEventSchema, bytes)),
    draft,
  );
  const plan = await planOf(tx, run.run_id);
  const adapter = plan && fromStoredPlan(plan)?.resolved.agent?.adapter;
  const hides = adapterOf(adapter ?? "")?.hides;
  if (openStep === undefined) return { bodies: [], messages: [], hides };
  const masked = hides && new MaskedOutput(hides);
  const bodies: EventBody[] = [];
  let messages: NewMessage[] = [];
  for (const event of cancelledStep(openStep)) {
    for (const shown of masked?.of(event) ?? [event]) {
      if (shown.type !== "step_completed") bodies.push(durableBody(shown as Completing));
      else {
        const { step, finishReason, usage } = shown;
        const tokens = { ...usage, costNanoUsd: undefined };
        const used = usageToProto({
          ...tokens,
          inputTokens: BigInt(usage.inputTokens),
          cacheReadTokens: BigInt(usage.cacheReadTokens),
          cacheWriteTokens: BigInt(usage.cacheWriteTokens),
          outputTokens: BigInt(usage.outputTokens),
        });
        bodies.push({ payload: { case: "stepCompleted", value: { step, finishReason, usage: used } } });
        messages = shown.messages.map(({ id = newId("msg"), ...message }) => ({
          messageId: id,
          json: jsonText(message),
        }));
      }
    }
  }
  return { bodies, messages, hides };
}

/** What the engine would have told, had it been there when the run was cancelled. */
function cancelledStep({ step, usage, messages, outcomes }: ResumedStep): EngineEvent[] {
  const asked = messages.at(-1);
  const calls = asked?.role === "assistant" ? asked.content.filter((part) => part.type === "tool_call") : [];
  const told: EngineEvent[] = [];
  const results = calls.map(({ callId, name }): ToolResultPart => {
    let outcome = outcomes.get(callId);
    if (outcome === undefined) {
      outcome = cancelledOutcome();
      const { content } = outcome;
      told.push({
        type: "tool_call_completed",
        itemId: callId,
        tool: name,
        content,
        structuredJson: "",
        isError: true,
        durationMs: 0,
      });
    }
    const { content, isError = false } = outcome;
    return { type: "tool_result", callId, tool: name, content, isError };
  });
  const added: ModelMessage[] = [...messages, { role: "tool", id: newId("msg"), content: results }];
  return [...told, { type: "step_completed", step, finishReason: "tool_use", usage, messages: added }];
}

function cancelledOutcome(): ToolOutcome {
  return { content: [{ type: "text", text: "The call was cancelled." }], isError: true };
}
