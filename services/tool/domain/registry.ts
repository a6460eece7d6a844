import type { CodeTool } from "#platform/plugin/define-tool.ts";

/** The tools that exist, by name. */
export class ToolRegistry {
  readonly #byName = new Map<string, CodeTool>();
  readonly #builtIn: ReadonlySet<CodeTool>;
  #sorted: readonly CodeTool[] = [];

  /** With the tools that ship with the platform. Throws TypeError when two tools have one name. */
  constructor(builtIn: readonly CodeTool[]) {
    this.add(builtIn);
    this.#builtIn = new Set(builtIn);
  }

  /** Adds all of these tools, or throws TypeError when one has a name that is taken, and adds none. */
  add(tools: readonly CodeTool[]): void {
    const names = new Set(this.#byName.keys());
    for (const { name } of tools) {
      if (names.has(name)) throw new TypeError(`tool ${JSON.stringify(name)} is defined twice`);
      names.add(name);
    }
    for (const tool of tools) this.#byName.set(tool.name, tool);
    this.#sorted = [...this.#byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Whether it ships with the platform. */
  isBuiltIn(tool: CodeTool): boolean {
    return this.#builtIn.has(tool);
  }

  /** By name, which is the id of a tool that ships with the platform. */
  find(name: string): CodeTool | undefined {
    return this.#byName.get(name);
  }

  /** Those that exist, each once, in the order asked for. */
  pick(names: readonly string[]): CodeTool[] {
    return [...new Set(names)].flatMap((name) => this.#byName.get(name) ?? []);
  }

  /** At most `size` tools by name, after the one of that name; `more` says whether others follow. */
  page(after: string | undefined, size: number): { tools: readonly CodeTool[]; more: boolean } {
    const rest = after === undefined ? this.#sorted : this.#sorted.filter(({ name }) => name > after);
    return { tools: rest.slice(0, size), more: rest.length > size };
  }
}
