import { answerOf } from "./answer-of.ts";
import type { LoopInput } from "./loop-input.ts";

/** The answer as it shall be given; as it is where nobody has a say in it, where that fails, and after a cancel. */
export async function finalAnswer({ finalAnswer: change, signal }: LoopInput, text: string): Promise<string> {
  if (change === undefined) return text;
  return (await answerOf(() => change(text), signal)) ?? text;
}
