/** What a tool throws to tell the model what went wrong. The message is shown as it is, so it names no internals. */
export class ToolError extends Error {
  override readonly name = "ToolError";
}
