/** Whether a model's name satisfies one of the patterns, in which `*` stands for any characters, none included. */
export function modelAllowed(patterns: readonly string[], model: string): boolean {
  return patterns.some((pattern) => matches(pattern, model));
}

/** Greedy from piece to piece, so its time is bounded by the lengths whatever the pattern. */
function matches(pattern: string, model: string): boolean {
  const pieces = pattern.split("*");
  const first = pieces.shift() ?? "";
  const last = pieces.pop();
  if (last === undefined) return model === first;
  if (!model.startsWith(first) || !model.endsWith(last) || model.length < first.length + last.length) return false;
  const end = model.length - last.length;
  let at = first.length;
  for (const piece of pieces) {
    const found = model.indexOf(piece, at);
    if (found < 0 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}
