import fc from "fast-check";
import type { ModelMessage, ToolMessage, ToolResultPart, UserMessage } from "../../llm/chat-model.ts";

let ids = 0;

/** A message of the user. */
export function said(text: string, id = `msg_u${++ids}`): UserMessage {
  return { role: "user", id, content: [{ type: "text", text }] };
}

/** A message of the platform. */
export function hidden(text: string, id = `msg_h${++ids}`): UserMessage {
  return { ...said(text, id), hidden: true };
}

/** An answer in text. */
export function answered(text: string, id = `msg_a${++ids}`): ModelMessage {
  return { role: "assistant", id, content: [{ type: "text", text }] };
}

/** A turn in which tools are called: the calls, and their results. */
export function toolTurn(
  ...calls: { tool: string; callId: string; output?: string; isError?: boolean; named?: boolean }[]
): [ModelMessage, ToolMessage] {
  const results = calls.map(
    ({ tool, callId, output = "out", isError = false, named = true }): ToolResultPart => ({
      type: "tool_result",
      callId,
      ...(named && { tool }),
      content: [{ type: "text", text: output }],
      isError,
    }),
  );
  const parts = calls.map(
    ({ tool: name, callId }) => ({ type: "tool_call", callId, name, argumentsJson: "{}" }) as const,
  );
  return [
    { role: "assistant", id: `msg_a${++ids}`, content: parts },
    { role: "tool", id: `msg_t${++ids}`, content: results },
  ];
}

/** Text of about so many tokens. */
export function tokens(count: number): string {
  return "word".repeat(count);
}

/** Any history that a run may have, with a message of the user at its beginning; the last one may not be answered yet. */
export const anyHistory: fc.Arbitrary<ModelMessage[]> = fc
  .array(
    fc.oneof(
      fc.record({ kind: fc.constant("user" as const), size: fc.nat(400) }),
      fc.record({ kind: fc.constant("hidden" as const), size: fc.nat(40) }),
      fc.record({ kind: fc.constant("answer" as const), size: fc.nat(400) }),
      fc.record({
        kind: fc.constant("tools" as const),
        size: fc.nat(400),
        calls: fc.array(fc.record({ tool: fc.constantFrom("a", "b"), isError: fc.boolean(), size: fc.nat(800) }), {
          minLength: 1,
          maxLength: 3,
        }),
      }),
    ),
    { maxLength: 40 },
  )
  .map((rounds) => {
    let n = 0;
    return [
      said(tokens(5), "msg_0"),
      ...rounds.flatMap((round): ModelMessage[] => {
        const id = `msg_${++n}`;
        if (round.kind === "user") return [said(tokens(round.size + 1), id)];
        if (round.kind === "hidden") return [hidden(tokens(round.size + 1), id)];
        if (round.kind === "answer") return [answered(tokens(round.size + 1), id)];
        const [calls, results] = toolTurn(
          ...round.calls.map(({ tool, isError, size }, i) => ({
            tool,
            isError,
            callId: `call_${n}_${i}`,
            output: tokens(size),
          })),
        );
        return [
          { ...calls, id },
          { ...results, id: `${id}_r` },
        ];
      }),
    ];
  });
