import type { CodeTool } from "./define-tool.ts";

/** The tools that exist, by name. */
export class ToolRegistry {
  readonly #byName: ReadonlyMap<string, CodeTool>;
  readonly #sorted: readonly CodeTool[];

  /** Throws TypeError when two tools have one name. */
  constructor(tools: readonly CodeTool[]) {
    this.#byName = new Map(tools.map((tool) => [tool.name, tool]));
    if (this.#byName.size < tools.length) {
      const twice = tools.find((tool, i) => tools.findIndex(({ name }) => name === tool.name) < i);
      throw new TypeError(`tool ${JSON.stringify(twice?.name)} is defined twice`);
    }
    this.#sorted = [...tools].sort((a, b) => (a.name < b.name ? -1 : 1));
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
