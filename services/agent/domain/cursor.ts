/** Where a page of a list by `create_time desc, id desc` ends: the last row's sort key, with microseconds. */
export type Cursor = { readonly time: string; readonly id: string };
