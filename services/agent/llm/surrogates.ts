/** What is kept between the pieces of a text. */
export interface HalfPair {
  /** First half of a surrogate pair whose second half is still to come. */
  half: string;
}

/** A piece may end between the halves of a surrogate pair; protobuf and UTF-8 offsets need them together. */
export function joinSurrogates(kept: HalfPair, piece: string): string {
  if (piece === "") return "";
  let text = kept.half === "" ? piece : kept.half + piece;
  kept.half = "";
  const last = text.charCodeAt(text.length - 1);
  if (last >= 0xd800 && last <= 0xdbff) {
    kept.half = text.slice(-1);
    text = text.slice(0, -1);
  }
  return text.isWellFormed() ? text : text.toWellFormed();
}

/** What stands for a half that stayed alone: empty where there is none. */
export function leftHalf(kept: HalfPair): string {
  if (kept.half === "") return "";
  kept.half = "";
  return "\ufffd";
}
