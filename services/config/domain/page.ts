import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Cursor, PageTokens } from "#platform/secrets/page-token.ts";
import type { Page, PageRequest } from "../store/page-query.ts";

const DEFAULT_SIZE = 50;
const LARGEST_SIZE = 200;

/** What a list request says about its page. */
export interface AskedPage {
  readonly pageSize: number;
  readonly pageToken: string;
  readonly skip?: number;
}

/** One list of one caller: its method and filters, which its tokens are bound to. */
export interface ListOf {
  readonly tenant: string;
  readonly filter: Cursor;
}

/** The page that a request asks for. Throws PAGE_TOKEN_INVALID. */
export function pageAsked(tokens: PageTokens, list: ListOf, { pageSize, pageToken, skip = 0 }: AskedPage): PageRequest {
  const size = Math.min(pageSize || DEFAULT_SIZE, LARGEST_SIZE);
  if (pageToken === "") return { after: undefined, skip, size };
  const [ms, id] = tokens.open(pageToken, list) as [number, string];
  return { after: { createdAt: new Date(ms), id }, skip, size };
}

/** The token for what follows a page; empty after the last one. */
export function nextPageToken<T extends { createTime?: Timestamp | undefined }>(
  tokens: PageTokens,
  list: ListOf,
  { items, more }: Page<T>,
  idOf: (item: T) => string,
): string {
  const last = items.at(-1);
  if (!more || last?.createTime === undefined) return "";
  return tokens.seal({ ...list, cursor: [timestampDate(last.createTime).getTime(), idOf(last)] });
}
