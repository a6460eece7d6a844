/** One way to ask for a turn. The load generator reads raw frames, so that it costs little and alike for every face. */
export interface Caller extends AsyncDisposable {
  readonly name: string;
  /** Asks for a turn and reads it to its end; throws when it does not end as it should. */
  turn(message: string, options?: TurnOptions): Promise<TurnSeen>;
}

export interface TurnOptions {
  /** Given all that arrives, as it arrives. */
  onChunk?: ((chunk: Buffer) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** The run ends when this caller leaves. */
  cancelOnDisconnect?: boolean;
}

export interface TurnSeen {
  /** From the request to the first piece of text, in milliseconds. */
  readonly firstMs: number;
  /** Messages that came, where the face counts them. */
  readonly messages?: number;
}

/** A turn that did not end as it should. */
export class TurnFailed extends Error {
  override readonly name = "TurnFailed";
}
