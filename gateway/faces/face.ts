import type { JsonValue } from "@bufbuild/protobuf";
import type { Exchange } from "../exchange.ts";

/** What a face answers with. */
export type FaceAnswer =
  | { readonly status: number; readonly json: JsonValue }
  | { readonly status: number; readonly text: string; readonly contentType: string }
  /** A file, with headers of its own beside those of every answer. */
  | { readonly status: number; readonly body: Uint8Array; readonly headers: Readonly<Record<string, string>> };

/** A page of its own at one path, for GET and HEAD, without a credential. Throws an AppError to refuse. */
export type Face = (exchange: Exchange) => Promise<FaceAnswer>;
