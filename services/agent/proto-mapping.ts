import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { MessageRole, type MessageSchema, type RunSchema } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { DeadLetterSchema } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import type { SessionSchema } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { awaitedToProto } from "./approvals/suspend-run.ts";
import { contentToProto } from "./domain/run-input.ts";
import { sessionEtag } from "./sessions/sessions.ts";
import type { DeadLetterRow } from "./store/dead-letter-store.ts";
import type { MessageRow } from "./store/message-store.ts";
import type { RunRow } from "./store/run-store.ts";
import type { Escalation, SessionRow } from "./store/session-store.ts";

export function runToProto(run: RunRow): MessageInitShape<typeof RunSchema> {
  return {
    runId: run.run_id,
    sessionId: run.session_id,
    agentId: run.agent_id,
    agentVersion: run.agent_version,
    state: run.state,
    outcome: run.outcome,
    response: run.response,
    lastSeq: run.last_seq,
    endUserId: run.end_user_id,
    createTime: timestampFromDate(run.create_time),
    updateTime: timestampFromDate(run.update_time),
    attempt: run.attempt,
    awaiting: (run.awaiting ?? []).map(awaitedToProto),
    background: run.background,
    retryOf: run.retry_of ?? "",
    ...(run.deadline === null ? {} : { deadline: timestampFromDate(run.deadline) }),
    ...(run.end_time === null ? {} : { endTime: timestampFromDate(run.end_time) }),
    ...(run.error === null ? {} : { error: fromBinary(StatusSchema, run.error) }),
    ...(run.usage === null ? {} : { usage: fromBinary(UsageSummarySchema, run.usage) }),
  };
}

export function deadLetterToProto(letter: DeadLetterRow): MessageInitShape<typeof DeadLetterSchema> {
  const { redrive_time: redriveTime } = letter;
  return {
    runId: letter.run_id,
    sessionId: letter.session_id,
    agentId: letter.agent_id,
    endUserId: letter.end_user_id,
    subject: letter.subject,
    reason: letter.reason,
    message: letter.message,
    attempts: letter.attempts,
    queueTime: timestampFromDate(letter.queue_time),
    deadTime: timestampFromDate(letter.dead_time),
    redrivenByRunId: letter.redriven_by ?? "",
    ...(redriveTime !== null && { redriveTime: timestampFromDate(redriveTime) }),
  };
}

export function sessionToProto(session: SessionRow): MessageInitShape<typeof SessionSchema> {
  return {
    sessionId: session.session_id,
    externalId: session.external_id ?? "",
    agentId: session.agent_id,
    endUserId: session.end_user_id,
    title: session.title,
    labels: session.labels,
    messageCount: session.message_count,
    activeRunId: session.active_run_id ?? "",
    etag: sessionEtag(session),
    forkedFromSessionId: session.forked_from_session_id ?? "",
    forkedFromMessageId: session.forked_from_message_id ?? "",
    createTime: timestampFromDate(session.create_time),
    updateTime: timestampFromDate(session.update_time),
    ...(session.escalation === null ? {} : { escalation: escalationToProto(session.escalation) }),
  };
}

function escalationToProto({ reason, priority, run_id: runId, create_time }: Escalation) {
  return { reason, priority, runId, createTime: timestampFromDate(new Date(create_time)) };
}

/** Where a page of messages begins: a stored message, and which of its parts. */
export type MessageCursor = { readonly position: number; readonly part: number };

/** Stored messages as callers see them, each with its place: the results of one turn are one message, and shown as one each. */
export function shownMessages(rows: readonly MessageRow[]) {
  return rows.flatMap((row) =>
    messageToProto(row).map((message, part) => ({ message, at: { position: row.position, part } })),
  );
}

/** A stored message as callers see it: text, images and tool calls; reasoning stays here. One per tool result. */
function messageToProto(row: MessageRow): MessageInitShape<typeof MessageSchema>[] {
  const common = { messageId: row.message_id, runId: row.run_id, createTime: timestampFromDate(row.create_time) };
  const { message } = row;
  switch (message.role) {
    case "user":
      return [{ ...common, role: MessageRole.USER, parts: message.content.map(contentToProto) }];
    case "assistant":
      return [
        {
          ...common,
          role: MessageRole.ASSISTANT,
          parts: message.content.filter((part) => part.type === "text").map(contentToProto),
          toolCalls: message.content
            .filter((part) => part.type === "tool_call")
            .map(({ callId, name, argumentsJson }) => ({ callId, tool: name, argumentsJson })),
        },
      ];
    case "tool":
      return message.content.map(({ callId, isError, content }) => ({
        ...common,
        role: MessageRole.TOOL,
        callId,
        isError,
        parts: content.map(contentToProto),
      }));
  }
}
