/** Ids are the caller's text; one with U+0000, which PostgreSQL cannot hold, must not make what it names vanish. */
export function storable(id: string): string {
  return id.replaceAll("\0", "\ufffd");
}
