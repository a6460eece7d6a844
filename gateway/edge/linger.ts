import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { NodeRequest, NodeResponse } from "../exchange.ts";

/**
 * When an answer is complete and its request is not (a refusal before the body was read), the sender is still sending. A
 * connection closed at once would reset it, and the answer would be lost with it; so the rest is read and dropped, for
 * a while and up to a size. HTTP/2 has a word for what comes then: RST_STREAM with NO_ERROR (RFC 9113 §8.1).
 */
export function lingerAfter(
  request: NodeRequest,
  response: NodeResponse,
  limits: { readonly lingerMs: number; readonly lingerBytes: number },
): void {
  const isHttp2 = "stream" in request;
  // Taken now: a request that is destroyed after its answer has none any more.
  const { socket } = request;
  // An HTTP/2 response of Node's "finishes" when its stream closes, which this one would not do by itself.
  const [written, read] = isHttp2 ? [request.stream, request.stream] : [response, request];
  written.once("finish", () => {
    const complete = isHttp2 ? request.stream.endAfterHeaders || read.readableEnded : request.complete;
    if (complete || (isHttp2 && read.destroyed)) return;
    const giveUp = () => {
      if (isHttp2) request.stream.close();
      else if (!request.complete) socket.destroy();
    };
    const timer = setTimeout(giveUp, limits.lingerMs);
    if (isHttp2) read.once("close", () => clearTimeout(timer));
    else whenComplete(request, socket, () => clearTimeout(timer));
    let dropped = 0;
    // Who read so far may have stopped for good, and would pause the stream again.
    if (isHttp2) read.removeAllListeners("data");
    read.on("data", (chunk: Buffer) => {
      dropped += chunk.length;
      if (dropped > limits.lingerBytes) giveUp();
    });
    read.resume();
  });
}

/**
 * An HTTP/1.1 request whose reader gave it up closes before it is complete, and from then on nobody takes its bytes from
 * the connection: that is left to the timer. Node says nothing when the last of them has come after all.
 */
function whenComplete(request: IncomingMessage, socket: Socket, done: () => void): void {
  request.once("close", () => {
    if (request.complete || socket.destroyed) done();
    else socket.once("close", done);
  });
}
