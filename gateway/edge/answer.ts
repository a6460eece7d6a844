import { type Exchange, isClosed } from "../exchange.ts";

/** What admission does with the answer of a call, whatever its face. */
export interface Answer {
  /** Of the response head; without effect once that was sent. */
  setHeader(name: string, value: string): void;
  /** Calls back once when nothing can be written any more: sent to the end, or broken off. At once when it is so already. */
  onClose(callback: () => void): void;
  /** Ends the call of a stream with this error, also in its middle. Other calls have a deadline and go on. */
  end(error: Error): void;
}

/** @param ending aborted to end the call; only streams have one */
export function answerOf(exchange: Pick<Exchange, "request" | "response">, ending?: AbortController): Answer {
  const { response } = exchange;
  return {
    setHeader(name, value) {
      if (!response.headersSent && !isClosed(exchange)) response.setHeader(name, value);
    },
    onClose(callback) {
      if (isClosed(exchange)) callback();
      else response.once("close", callback);
    },
    end: (error) => ending?.abort(error),
  };
}
