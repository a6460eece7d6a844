import type { Cursor, PageTokens } from "../secrets/page-token.ts";
import type { Call } from "./call.ts";

/** Rows of a page when the caller asks for none (AIP-158), and the most that it gets. */
export const DEFAULT_PAGE_SIZE = 50;
export const MAX_PAGE_SIZE = 200;

/** The page size to use: 0 means the default, more than the most means the most (AIP-158). */
export function pageSize(requested: number): number {
  return requested === 0 ? DEFAULT_PAGE_SIZE : Math.min(requested, MAX_PAGE_SIZE);
}

/** Which list a page token belongs to; a token opens for the same list, filter, tenant and user only. */
export interface ListScope {
  call: Call;
  /** Name of the list, such as "sessions". */
  list: string;
  filter: { readonly [name: string]: Cursor | undefined };
}

/** Where the page begins, or undefined for the first. Throws INVALID_ARGUMENT PAGE_TOKEN_INVALID. */
export function openPage<C extends Cursor>(tokens: PageTokens, pageToken: string, scope: ListScope): C | undefined {
  if (pageToken === "") return undefined;
  return tokens.open(pageToken, boundTo(scope)) as C;
}

/** The token for the page that begins after `cursor`. */
export function sealPage(tokens: PageTokens, cursor: Cursor, scope: ListScope): string {
  return tokens.seal({ ...boundTo(scope), cursor });
}

function boundTo({ call, list, filter }: ListScope): { tenant: string; filter: Cursor } {
  return { tenant: call.principal.tenantId, filter: { list, user: call.principal.userId, ...filter } as Cursor };
}
