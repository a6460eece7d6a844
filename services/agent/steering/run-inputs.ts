import type { Database } from "#platform/postgres/database.ts";
import { contentToProto } from "../domain/run-input.ts";
import type { ContentPart, UserMessage } from "../llm/chat-model.ts";
import type { EventBody } from "../runs/event-envelope.ts";
import { type EndContext, finishRun, type RunEnd } from "../runs/run-end.ts";
import type { DurableEntry, RunLog } from "../runs/run-log.ts";
import type { MaskRule } from "../runs/stream-mask.ts";
import { pendingInputs, type RunInputRow } from "../store/input-store.ts";
import type { NewMessage } from "../store/message-store.ts";

/** What is sent to a run while this process works on it. */
export class RunInputs {
  readonly #database: Database;
  readonly #log: RunLog;
  /** Given to the engine; they may still be in the table, until their commit is through. */
  readonly #given = new Set<string>();

  constructor(database: Database, log: RunLog) {
    this.#database = database;
    this.#log = log;
  }

  /** True when something was taken in. */
  get any(): boolean {
    return this.#given.size > 0;
  }

  /** What has come and was not given yet; undefined, without a wait, when nothing has. Never rejects. */
  due(signal: AbortSignal): Promise<RunInputRow[]> | undefined {
    return this.#log.inputsDue ? this.#read(signal) : undefined;
  }

  async #read(signal: AbortSignal): Promise<RunInputRow[]> {
    const { tenantId, runId } = this.#log.fence;
    this.#log.inputsDue = false;
    try {
      const rows = await this.#database.tenant(tenantId, (tx) => pendingInputs(tx, runId), { signal, readOnly: true });
      const fresh = rows.filter(({ message_id }) => !this.#given.has(message_id));
      for (const { message_id } of fresh) this.#given.add(message_id);
      return fresh;
    } catch {
      // The log finds out whether the database stays away; the run cannot end before this was asked again.
      this.#log.inputsDue = true;
      return [];
    }
  }
}

/** What is hidden of a message where it is shown. */
export function shownInput({ content }: UserMessage, hides: MaskRule | undefined): ContentPart[] {
  if (hides === undefined) return content;
  return content.map((part) => (part.type === "text" ? { ...part, text: hides.mask(part.text) } : part));
}

type AcceptedInput = DurableEntry & { body: EventBody; messages: NewMessage[]; takes: string };

/** A message that was sent to a run as it is taken in: shown, and stored in the session. */
export function acceptedInput({ id = "", ...message }: UserMessage, shown = message.content): AcceptedInput {
  return {
    body: {
      itemId: id,
      payload: { case: "inputAccepted", value: { messageId: id, parts: shown.map(contentToProto) } },
    },
    messages: [{ messageId: id, json: JSON.stringify(message) }],
    takes: id,
  };
}

/**
 * Writes an end on which nothing can follow, of a run that has failed or was cancelled. What was sent to it and not taken in
 * goes into its session with the end, for the next turn. Throws when it could not be written.
 */
export async function finishWithInputs(
  database: Database,
  log: RunLog,
  end: RunEnd,
  context: EndContext,
  hides: MaskRule | undefined,
): Promise<void> {
  const { tenantId, runId } = log.fence;
  while (!(await finishRun(log, end, context))) {
    const rows = await database.tenant(tenantId, (tx) => pendingInputs(tx, runId), { readOnly: true });
    if (rows.length === 0) throw new Error("a message is counted that is not there");
    for (const { message_id: id, message } of rows) {
      log.append(acceptedInput({ ...message, id }, shownInput(message, hides)));
    }
  }
}
