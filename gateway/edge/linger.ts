import type { NodeRequest, NodeResponse } from "../exchange.ts";

/**
 * When an answer is complete and its request is not (a refusal before the body was read), the sender is still sending. A
 * connection closed at once would reset it, and the answer would be lost with it; so the rest is read and dropped, for
 * a while and up to a size. HTTP/2 has a word for it: RST_STREAM with NO_ERROR (RFC 9113 §8.1).
 */
export function lingerAfter(
  request: NodeRequest,
  response: NodeResponse,
  limits: { readonly lingerMs: number; readonly lingerBytes: number },
): void {
  response.once("finish", () => {
    if (request.complete || request.destroyed) return;
    if ("stream" in request) return request.stream.close();
    const { socket } = request;
    const timer = setTimeout(() => socket.destroy(), limits.lingerMs);
    let dropped = 0;
    request.on("data", (chunk: Buffer) => {
      dropped += chunk.length;
      if (dropped > limits.lingerBytes) socket.destroy();
    });
    request.once("close", () => clearTimeout(timer));
    request.resume();
  });
}
