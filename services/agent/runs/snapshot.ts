import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RunSnapshotSchema } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { runToProto, sessionToProto, shownMessages } from "../proto-mapping.ts";
import { newestMessages } from "../store/message-store.ts";
import type { RunRow } from "../store/run-store.ts";
import { sessionById } from "../store/session-store.ts";

/** What of a session a snapshot shows at most: its newest messages. */
export const SNAPSHOT_LIMITS = { messages: 50, bytes: 1024 * 1024 } as const;

export type Snapshot = MessageInitShape<typeof RunSnapshotSchema>;

/** Whether events behind this cursor are pruned, so that a snapshot has to take their place. */
export function isPruned(run: Pick<RunRow, "pruned_seq">, afterSeq: bigint): boolean {
  return afterSeq < run.pruned_seq;
}

/** The state of a run in place of its pruned events: what follows is chained to `asOfSeq`. */
export async function snapshotOf(tx: Tx, run: RunRow): Promise<Snapshot> {
  const session = await sessionById(tx, run.session_id);
  const rows = await newestMessages(tx, run.session_id, SNAPSHOT_LIMITS);
  return {
    run: runToProto(run),
    messages: shownMessages(rows).map(({ message }) => message),
    asOfSeq: run.pruned_seq,
    ...(session !== undefined && { session: sessionToProto(session) }),
  };
}
