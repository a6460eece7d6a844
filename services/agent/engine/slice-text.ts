/** A part of a text. */
export interface TextSlice {
  text: string;
  /** UTF-8 byte behind it. */
  end: number;
}

/**
 * At most `maxBytes` UTF-8 bytes of a text, from the first whole character at or behind byte `offset` on, ending with a
 * whole character.
 */
export function sliceText(text: string, offset: number, maxBytes: number): TextSlice {
  // No character takes less than a byte: what lies behind need not be encoded.
  if (offset === 0 && text.length <= maxBytes) {
    const end = Buffer.byteLength(text);
    if (end <= maxBytes) return { text, end };
  }
  const bytes = Buffer.from(offset === 0 ? text.slice(0, maxBytes + 1) : text);
  let begin = Math.min(offset, bytes.length);
  while (begin < bytes.length && isContinuation(bytes[begin])) begin++;
  let end = Math.min(begin + maxBytes, bytes.length);
  while (end > begin && end < bytes.length && isContinuation(bytes[end])) end--;
  return { text: bytes.toString("utf8", begin, end), end };
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80;
}
