/** Hides something in texts. */
export interface MaskRule {
  /** The text with what is to be hidden hidden. */
  mask(text: string): string;
  /**
   * Where a text can be cut so that nothing that {@link MaskRule.mask} hides goes across the cut: an index behind which
   * the rest begins, the last one in `piece`; -1: nowhere. `before` is the character in front of the piece, or empty.
   */
  lastCut(piece: string, before: string): number;
}

/** A piece of text and where it begins, in UTF-8 bytes of what was shown. */
export interface ShownPiece {
  offset: number;
  text: string;
}

/**
 * Masks a text while it is streamed: what might still become a part of something to be hidden is held back until it is
 * known. What is shown, put together, is the mask of the whole. Costs the same per character however long the text is.
 */
export class StreamMask {
  readonly #rule: MaskRule;
  #held: string[] = [];
  #last = "";
  #offset = 0;

  constructor(rule: MaskRule) {
    this.#rule = rule;
  }

  feed(piece: string): ShownPiece[] {
    const cut = this.#rule.lastCut(piece, this.#last);
    this.#last = piece.at(-1) ?? this.#last;
    if (cut < 0) {
      this.#held.push(piece);
      return [];
    }
    const text = this.#held.join("") + piece.slice(0, cut);
    this.#held = cut < piece.length ? [piece.slice(cut)] : [];
    return this.#show(text);
  }

  /** What was held back. */
  end(): ShownPiece[] {
    const text = this.#held.join("");
    this.#held = [];
    return this.#show(text);
  }

  #show(text: string): ShownPiece[] {
    const shown = this.#rule.mask(text);
    if (shown === "") return [];
    const offset = this.#offset;
    this.#offset += Buffer.byteLength(shown);
    return [{ offset, text: shown }];
  }
}
